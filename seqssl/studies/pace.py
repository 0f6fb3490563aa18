"""What fits into a time on this machine: how long an update takes, which size and which judge."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from seqssl.assembly import Stages
from seqssl.config.compose import sizes_of
from seqssl.config.files import find_recipe
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.errors import UserError
from seqssl.planning import hardware
from seqssl.planning.cost import cost_of
from seqssl.planning.hardware import Speed
from seqssl.planning.plan import by_stage, resolve, stage_of
from seqssl.runs.processes import processes_of
from seqssl.runs.train import train
from seqssl.training.log import number_of, read_records

FIRST, LAST = 4, 16  # updates between which a step is timed
LONGEST_S = 600.0  # that `measured_speed` may take by its own reckoning
ENOUGH = 2000  # updates: a larger model that makes fewer in its time has learned less than a smaller one
FEWEST, MOST = 40, 300  # updates of a tuned row
# The judge, from the best to what a short time allows: fractions of the labels, seeds, learning rates.
JUDGES: tuple[tuple[tuple[float, ...], int, tuple[float, ...]], ...] = (
    ((0.01, 0.1, 1.0), 3, (5e-4, 3e-3)),
    ((0.1, 1.0), 3, (5e-4, 3e-3)),
    ((0.1, 1.0), 3, (1e-3,)),
    ((1.0,), 3, (1e-3,)),
    ((1.0,), 2, (1e-3,)),
)
LEARNED = 4  # rows of the table that learn, and are tested: two as a whole, of two only the head
LEARNING = 2 + 2 * 0.35  # what an update of all of them takes, in updates of a whole encoder
OVERHEAD_S, SLOWER = 8.0, 1.3  # of a cell: to begin and end; and its updates, as two cells share the machine
DESCRIBED_S, FITTED_S = 0.02, 0.005  # of a row without an encoder: once; and in each cell that learns from it
# Of the time of a judge, what may go with the number of labelled rows: where all take more, some are drawn.
ROWS_SHARE = 0.5
FEWEST_ROWS = 500  # that are drawn


def seconds_per_update(config: RunConfig, folder: Path) -> tuple[float, int]:
    """The mean seconds of an update, and how many processes shared it; `folder` is used and removed."""
    shutil.rmtree(folder, ignore_errors=True)  # an attempt that was interrupted
    config = copy.deepcopy(config)
    config.out, config.train.num_updates = str(folder), LAST
    config.train.log_every, config.train.eval_every, config.train.save_every = FIRST, LAST, LAST
    config.train.eval_batches, config.health = 1, "off"
    train(config, say=None)
    records = [each for each in read_records(folder / "metrics.jsonl") if each.get("kind") == "train"]
    times = {int(number_of(each["step"]) or 0): number_of(each["time_s"]) or 0.0 for each in records}
    processes = processes_of(folder)
    shutil.rmtree(folder)
    return (times[LAST] - times[FIRST]) / (LAST - FIRST), processes


def measured_speed(parts: Mapping[str, RunConfig], waiting: Stages, progress: Progress = silent) -> Speed:
    """What this machine reaches in the first updates of a real run, with all that belongs to one.

    Of several stages the first is run, since it waits for no other. UserError where that would take long.
    """
    config = next(iter(parts.values()))
    work = cost_of(config, waiting=waiting).micro_flops * config.train.accumulate
    expected = LAST * work / max(speed.flops for speed in hardware.local_speeds())
    if expected > LONGEST_S:
        raise UserError(
            f"measure = true: {LAST} updates would take about {expected / 60:,.0f} min here; take a smaller"
            " size, or train.accumulate=1."
        )
    progress(0, 0, f"{LAST} updates of a run")
    with TemporaryDirectory() as folder:
        seconds, _ = seconds_per_update(config, Path(folder) / "run")
    peak = None
    if hardware.has_gpu():
        peak = hardware.peak_flops(torch.cuda.get_device_name())
    return Speed("here, measured", work / seconds, None if peak is None else work / seconds / peak)


def affordable_size(recipe: str, overrides: Sequence[str], seconds: float, folder: Path) -> tuple[str, str]:
    """The largest size, up to that of size=auto, that makes `ENOUGH` updates in time, and why it was taken.

    The stages of a recipe share the time, and the one that makes the fewest counts. ("", "") where there is
    nothing to choose: a size was named, or there is no smaller one. Only the smallest is timed; larger ones
    are judged by their arithmetic, which a GPU does faster in larger pieces. `folder` is used and removed.
    """
    auto = resolve(recipe, *overrides).config.size
    sizes = sizes_of(find_recipe(recipe))
    named = any(text.startswith("size=") for text in overrides)
    if named or auto not in sizes[:-1]:
        return "", ""
    fitting = sizes[sizes.index(auto) :]
    parts = {size: by_stage(recipe, *overrides, f"size={size}") for size in fitting}
    work = {size: _work(parts[size], stage_of(recipe, *overrides, f"size={size}")) for size in fitting}
    least = fitting[-1]
    first = next(iter(parts[least]))  # it waits for no other
    speed = work[least][first] / seconds_per_update(parts[least][first], folder)[0]
    updates = {size: seconds / len(parts[size]) * speed / max(work[size].values()) for size in fitting}
    size = next((size for size in fitting if updates[size] >= ENOUGH), least)
    return size, (
        f"size={size}: about {updates[size]:,.0f} updates fit into the time"
        + (f", of {auto} {updates[auto]:,.0f}" if size != auto else "")
    )


def _work(parts: Mapping[str, RunConfig], waiting: Stages) -> dict[str, float]:
    """What an update of each stage of a recipe computes."""
    return {
        stage: cost_of(config, waiting=waiting).micro_flops * config.train.accumulate
        for stage, config in parts.items()
    }


@dataclass(frozen=True)
class Judge:
    """What judges an encoder, and how long that is reckoned to take."""

    number: int  # which of `JUDGES`
    updates: int  # of each tuned row of its table
    share: float  # of the labelled rows, that take part
    seconds: float


def judge_for(seconds: float, pace: float, at_once: int, *, rows: int, batches: float) -> Judge:
    """The best judge that fits into so many seconds; the least of all where none does.

    `pace`: seconds of an update of a cell alone; `at_once`: how many cells run side by side. `rows` are
    labelled, and make so many `batches`.
    """
    found = [_judge(number, seconds, pace, at_once, rows, batches) for number in range(len(JUDGES))]
    return next((judge for judge in found if judge.seconds <= seconds), found[-1])


def _judge(number: int, seconds: float, pace: float, at_once: int, rows: int, batches: float) -> Judge:
    """A judge with as many of the labelled rows, and then as many updates, as fit; at least the fewest."""
    fractions, seeds, rates = JUDGES[number]
    cells = len(fractions) * seeds + (len(rates) * seeds if len(rates) > 1 else 0)  # of each row of the table
    step = cells * pace * SLOWER / at_once  # an update in each
    tests = LEARNED * batches / max(2, seeds) * step / 3  # forward alone is a third of an update
    every = tests + rows * (DESCRIBED_S + FITTED_S * seeds * sum(fractions))  # what all rows take
    share = min(1.0, max(ROWS_SHARE * seconds / every, FEWEST_ROWS / rows))
    fixed = cells * LEARNING * OVERHEAD_S / at_once + share * every
    updates = min(max(int((seconds - fixed) / (LEARNING * step)), FEWEST), MOST)
    return Judge(number, updates, share, fixed + updates * LEARNING * step)
