"""What fits into a time on this machine: how long an update takes, which size and which judge."""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

from seqssl.config.compose import sizes_of
from seqssl.config.files import find_recipe
from seqssl.config.schema import RunConfig
from seqssl.planning.cost import cost_of
from seqssl.planning.plan import resolve
from seqssl.runs.processes import processes_of
from seqssl.runs.train import train
from seqssl.training.log import number_of, read_records

FIRST, LAST = 4, 16  # updates between which a step is timed
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
LEARNING = 2 + 2 * 0.35  # rows that learn: two as a whole, of two only the head
OVERHEAD_S, SLOWER = 8.0, 1.3  # of a cell: what is no update; and its updates, as two cells share the machine


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


def affordable_size(recipe: str, overrides: Sequence[str], seconds: float, folder: Path) -> tuple[str, str]:
    """The largest size, up to that of size=auto, that makes `ENOUGH` updates in time, and why it was taken.

    ("", "") where there is nothing to choose: a size was named, or there is no smaller one. Only the smallest
    is timed; larger ones are judged by their arithmetic, which a GPU does faster in larger pieces. `folder`
    is used and removed.
    """
    found = resolve(recipe, *overrides)
    sizes = sizes_of(find_recipe(recipe))
    named = any(text.startswith("size=") for text in overrides)
    if named or found.stages or found.config.size not in sizes[:-1]:
        return "", ""
    fitting = sizes[sizes.index(found.config.size) :]
    configs = {size: resolve(recipe, *overrides, f"size={size}").config for size in fitting}
    work = {size: cost_of(one).micro_flops * one.train.accumulate for size, one in configs.items()}
    least = fitting[-1]
    pace, _ = seconds_per_update(configs[least], folder)
    updates = {size: seconds * work[least] / (pace * work[size]) for size in fitting}
    size = next((size for size in fitting if updates[size] >= ENOUGH), least)
    return size, (
        f"size={size}: about {updates[size]:,.0f} updates fit into the time"
        + (f", of {found.config.size} {updates[found.config.size]:,.0f}" if size != found.config.size else "")
    )


def judge_for(seconds: float, pace: float, at_once: int) -> tuple[int, int]:
    """Which judge fits into so many seconds, and the updates of each of its tuned rows.

    `pace`: seconds of an update of a cell alone; `at_once`: how many cells run side by side.
    """
    for number, (fractions, seeds, rates) in enumerate(JUDGES):
        choosing = len(rates) * seeds if len(rates) > 1 else 0
        each = seconds * at_once / ((len(fractions) * seeds + choosing) * LEARNING)
        updates = int((each - OVERHEAD_S) / (pace * SLOWER))
        if updates >= FEWEST:
            return number, min(updates, MOST)
    return len(JUDGES) - 1, FEWEST
