"""How many rows a micro-batch should have on this device: larger and larger ones are run, and measured."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from seqssl.assembly import Stream
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.data.lengths import lengths_of
from seqssl.errors import UserError
from seqssl.model.types import Batch
from seqssl.planning import hardware
from seqssl.planning.cost import Cost, Shape, cost_of
from seqssl.planning.sharding import WORKSPACES
from seqssl.runs.precision import resolve_precision
from seqssl.runs.train import resolve_device
from seqssl.studies.steps import Step, Work, noise, own_steps, resident_mib, sketch
from seqssl.training.precision import name_of

LIMIT_S = 120.0  # that a search may take; no step is begun that would take longer
TIMED_S, FEWEST, MOST = 1.0, 2, 5  # updates of each size that are timed: for so long, and so many
SHARE = 0.5  # of the main memory, that an update on a CPU may take
RISE = 1.03  # times as fast is faster; less is noise
PATIENCE = 2  # sizes in a row that are no faster, after which a CPU has shown what it can


@dataclass(frozen=True)
class Trial:
    """A micro-batch of rows of full length."""

    rows: int
    input: float  # seconds, or input steps for a modality without a rate
    planned: int  # bytes, as `seqssl plan` says
    seconds: float | None = None  # of an update; None: the memory does not hold it
    peak: float | None = None  # bytes; None: not known

    @property
    def speed(self) -> float:
        """Input per second; 0 for one that memory does not hold."""
        return 0.0 if self.seconds is None else self.input / self.seconds


@dataclass(frozen=True)
class Search:
    """What was tried, and what follows."""

    title: str
    gpu: str  # its name; "" for a CPU
    unit: str
    trials: list[Trial]
    ended: str  # why no larger one was tried
    key: str  # of the setting for `batch`
    batch: float  # suggested: the input of a micro-batch
    accumulate: int  # suggested, for each device
    devices: int
    update: float  # the input of an update, as the recipe has it


def find_batch(recipe: str, settings: Sequence[str], devices: int = 1, progress: Progress = silent) -> Search:
    """Run updates of 1, 2, 3, 4, 6, 8, 12, ... rows of full length here, in one process, and suggest a size.

    On a GPU until its memory does not hold one; on a CPU until more rows are no faster, or would take more
    than half of the main memory. Nowhere longer than `LIMIT_S`. `devices`: on how many the run is to be.
    UserError for a recipe of several streams, and where not even the first size can be tried.
    """
    work = Work(recipe, tuple(settings))
    config = work.config()
    device = resolve_device(config.train)
    config = work.config(name_of(resolve_precision(config.train, device)))
    stream = work.stream(config)
    full = Shape.of(stream, sketch(config, stream))
    trials, ended, end = list[Trial](), "", time.monotonic() + LIMIT_S
    runner = _Runner(config, stream, full, device)
    for rows in sizes(config.data.views):
        cost = _cost(config, stream, full, rows)
        planned = cost.memory_bytes + (WORKSPACES if device.type == "cuda" else 0)
        trial = Trial(rows, rows * full.row_input, planned)
        ended = _obstacle(trial, cost, trials, device, end - time.monotonic())
        if ended:
            break
        progress(0, 0, f"updates of {_rows(rows)}")
        trials.append(runner.run(trial))
        ended = _finding(trials, device)
        if ended:
            break
    if not any(trial.speed for trial in trials):
        raise UserError(f"find_batch: {ended}: take a smaller size, or shorter rows (data.max_*).")
    update = config.train.accumulate * lengths_of(config.data, stream.spec)["batch_length"]
    batch, accumulate = suggest(
        update / (stream.spec.rate_hz or 1), full.row_input, best_of(trials).rows, devices
    )
    return Search(
        title=f"{config.recipe}, size {config.size}",
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        unit=full.unit,
        trials=trials,
        ended=ended,
        key="data.batch_seconds" if stream.spec.rate_hz else "data.batch_frames",
        batch=batch if stream.spec.rate_hz else math.ceil(batch),
        accumulate=accumulate,
        devices=devices,
        update=update / (stream.spec.rate_hz or 1),
    )


def sizes(views: int = 1) -> Iterator[int]:
    """Numbers of rows to try: powers of two, and what lies between; rows are `views` of each clip."""
    yield views
    size = 2
    while True:
        yield views * size
        yield views * size * 3 // 2
        size *= 2


def best_of(trials: Sequence[Trial]) -> Trial:
    """The smallest of those that are about as fast as the fastest."""
    fastest = max(trial.speed for trial in trials)
    return next(trial for trial in trials if trial.speed * RISE >= fastest)


def suggest(update: float, row: float, rows: int, devices: int = 1) -> tuple[float, int]:
    """The input of a micro-batch of at most `rows` rows, and how many of them each device takes in an update.

    `update` and `row` are inputs. An update stays as large as it is; micro-batches hold whole rows where
    that takes no more than twice as many of them. Where devices would not get a row each, they get one, and
    the update grows.
    """
    most = max(1, math.floor(update / row / devices + 1e-9))  # micro-batches of each device
    least = min(most, math.ceil(update / (rows * row * devices) - 1e-9))

    def is_whole(number: int) -> bool:
        share = update / row / devices / number
        return abs(share - round(share)) < 1e-6

    wanted = next((number for number in range(least, min(most, 2 * least) + 1) if is_whole(number)), least)
    return max(update / devices / wanted, row), wanted


def _cost(config: RunConfig, stream: Stream, full: Shape, rows: int) -> Cost:
    """What a micro-batch of so many rows of full length costs."""
    steps = full.row_steps
    data = replace(
        config.data, batch_seconds=None, batch_frames=rows * steps, max_seconds=None, max_frames=steps
    )
    own = replace(config, data=data)
    return cost_of(own, [replace(stream, config=own)])


def _obstacle(trial: Trial, cost: Cost, trials: Sequence[Trial], device: torch.device, left_s: float) -> str:
    """Why a size is not tried; "" where it is."""
    if device.type == "cpu" and trial.planned > SHARE * hardware.main_memory():
        gib = f"{trial.planned / 2**30:.1f} GiB"
        return f"{_rows(trial.rows)} would take {gib}, more than half of the main memory"
    if trials:
        expected = (trials[-1].seconds or 0.0) * trial.rows / trials[-1].rows
    else:
        share = hardware.LOCAL_UTILIZATION[device.type]["float32"]
        expected = cost.micro_flops / (share * hardware.matmul_speed(device=device.type))
    if expected * (1 + FEWEST) > left_s:
        return f"updates of {_rows(trial.rows)} would take more than the {LIMIT_S:.0f} s that a search has"
    return ""


def _finding(trials: Sequence[Trial], device: torch.device) -> str:
    """What ends the search after the last trial; "" where it goes on."""
    if trials[-1].seconds is None:
        return f"the memory does not hold {_rows(trials[-1].rows)}"
    before = [trial.speed for trial in trials[:-PATIENCE]]
    latest = [trial.speed for trial in trials[-PATIENCE:]]
    if device.type == "cpu" and before and max(latest) < RISE * max(before):
        return "more rows are no faster"
    return ""


def _rows(number: int) -> str:
    """A number of rows, in words."""
    return "1 row" if number == 1 else f"{number} rows"


class _Runner:
    """One model that is updated with batches of any size."""

    def __init__(self, config: RunConfig, stream: Stream, full: Shape, device: torch.device) -> None:
        self.config, self.stream, self.full, self.device = config, stream, full, device
        self._sketch = sketch(config, stream)
        gc.collect()
        self._before = resident_mib("VmRSS")
        self._steps: Callable[[Batch], Step] | None = None

    def run(self, trial: Trial) -> Trial:
        """The trial with what was measured.

        The weights are drawn at the first one; what targets are fitted to is a micro-batch of the recipe.
        """
        known = self._forget_peak()
        try:
            if self._steps is None:
                own = self._noise(self.full.rows)
                self._steps = own_steps(self.config, self.stream, own, self.device)
            seconds = self._timed(self._steps(self._noise(trial.rows)))
        except torch.OutOfMemoryError:
            return trial
        return replace(trial, seconds=seconds, peak=self._peak() if known else None)

    def _noise(self, rows: int) -> Batch:
        """Rows of full length."""
        shape = replace(self.full, rows=rows)
        return noise(self.stream, self._sketch, shape, torch.full((rows,), self.full.row_steps))

    def _timed(self, step: Step) -> float:
        """The median seconds of a step; the first one does not count."""
        times, began = list[float](), 0.0
        for number in range(1 + MOST):
            if number > FEWEST and time.perf_counter() - began > TIMED_S:
                break
            start = time.perf_counter()
            step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append(time.perf_counter() - start)
            began = began or time.perf_counter()
        return statistics.median(times[1:])

    def _forget_peak(self) -> bool:
        """Let the peak begin anew; whether it can be known."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return True
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux
        except OSError:
            return False
        return True

    def _peak(self) -> float:
        """Bytes: on a CPU those above the process before it had a model."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return (resident_mib("VmHWM") - self._before) * 2**20
