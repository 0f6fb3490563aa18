"""How long an update of a run takes on this machine, by making some."""

import copy
import shutil
from pathlib import Path

from seqssl.config.schema import RunConfig
from seqssl.runs.processes import processes_of
from seqssl.runs.train import train
from seqssl.training.log import number_of, read_records

FIRST, LAST = 4, 16  # updates between which a step is timed


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
