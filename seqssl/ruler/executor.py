"""Cells one after the other, or in processes side by side."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from seqssl.config.schema import RunConfig
from seqssl.planning.hardware import num_cores
from seqssl.ruler.cells import Bench, Cell, Result, run_cell
from seqssl.ruler.processes import side_by_side


def run_cells(
    bench: Bench, cells: Sequence[Cell], jobs: int, config: RunConfig
) -> Iterator[tuple[Cell, Result]]:
    """The result of each cell as it is done; `jobs` at once, 0: one on a GPU, else one for each core.

    Each cell has one thread, so that its numbers do not depend on how many run at once.
    """
    on_gpu = torch.cuda.is_available() and config.train.device != "cpu"
    count = jobs or (1 if on_gpu else num_cores())
    return side_by_side(run_cell, cells, lambda cell: (bench, cell), count)


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
