"""Cells one after the other, or in processes side by side."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from seqssl.config.schema import RunConfig, TrainConfig
from seqssl.planning.hardware import num_cores
from seqssl.ruler.cells import Bench, Cell, Result, run_cell
from seqssl.ruler.processes import side_by_side


def run_cells(
    bench: Bench, cells: Sequence[Cell], jobs: int, config: RunConfig
) -> Iterator[tuple[Cell, Result]]:
    """The result of each cell as it is done; `jobs` at once, 0: as `cells_at_once` says.

    Each cell has one thread, so that its numbers do not depend on how many run at once.
    """
    return side_by_side(run_cell, cells, lambda cell: (bench, cell), jobs or cells_at_once(config.train))


def cells_at_once(train: TrainConfig) -> int:
    """How many cells run side by side where nobody says: one on a GPU, else one for each core."""
    return 1 if torch.cuda.is_available() and train.device != "cpu" else num_cores()


def hardware(*, gpu: bool = True) -> str:
    """The machine in words: its GPU, if it has one and that is what is used, else its CPU."""
    if gpu and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = "CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {os.cpu_count()} cores"
