"""What fits into a time on this machine: how long an update takes, and which size."""

import copy
import shutil
from collections.abc import Mapping, Sequence
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
from seqssl.runs.train import train
from seqssl.training.log import number_of, read_records

FIRST, LAST = 4, 16  # updates between which a step is timed
LONGEST_S = 600.0  # that `measured_speed` may take by its own reckoning
CHECKPOINTS = 12
EVALUATED = 0.25  # held-out batches at most, as a share of those that were trained on since the last time
ENOUGH = 2000  # updates: a larger model that makes fewer in its time has learned less than a smaller one


def seconds_per_update(config: RunConfig, folder: Path, *, keep: bool = False) -> float:
    """The mean seconds of an update of a short run in `folder`, which is removed unless it is to be kept."""
    shutil.rmtree(folder, ignore_errors=True)  # an attempt that was interrupted
    config = copy.deepcopy(config)
    config.out, config.train.num_updates = str(folder), LAST
    config.train.log_every, config.train.eval_every, config.train.save_every = FIRST, LAST, LAST
    config.train.eval_batches, config.health = 1, "off"
    train(config, say=None)
    seconds = mean_seconds(folder)
    if not keep:
        shutil.rmtree(folder)
    return seconds


def mean_seconds(run: Path) -> float:
    """The mean seconds of an update between `FIRST` and `LAST` of a run that logged both."""
    records = [each for each in read_records(run / "metrics.jsonl") if each.get("kind") == "train"]
    times = {int(number_of(each["step"]) or 0): number_of(each["time_s"]) or 0.0 for each in records}
    return (times[LAST] - times[FIRST]) / (LAST - FIRST)


def lengths(config: RunConfig, updates: int) -> Mapping[str, Mapping[str, int]]:
    """Settings of so many updates: a warm-up that leaves most, and checkpoints against interruptions."""
    every = max(1, updates // CHECKPOINTS)
    # Of much data little is seen in an evening: passes over all that is held out would take most of it.
    most = max(8, round(every * config.train.accumulate * EVALUATED))
    return {
        "train": {
            "num_updates": updates,
            "eval_batches": min(config.train.eval_batches or most, most),
            "eval_every": every,
            "save_every": every,
            "log_every": max(1, every // 10),
        },
        "optim": {"warmup_updates": min(config.optim.warmup_updates, updates // 10)},
    }


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
        seconds = seconds_per_update(config, Path(folder) / "run")
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
    speed = work[least][first] / seconds_per_update(parts[least][first], folder)
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
