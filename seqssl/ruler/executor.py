"""Cells one after the other, or in processes side by side."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from seqssl.config.schema import RunConfig
from seqssl.planning.hardware import num_cores
from seqssl.ruler import cells as one
from seqssl.ruler.cells import Bench, Cell, Result
from seqssl.ruler.processes import side_by_side

Submit = Callable[[Bench, Sequence[Cell]], Iterator[tuple[Cell, Result]]]


@contextmanager
def executor(jobs: int, config: RunConfig) -> Iterator[Submit]:
    """A context with a function that runs cells: here on a GPU, else in a process for each core.

    Each cell has one thread, so that its numbers do not depend on how many run at once.
    """
    on_gpu = torch.cuda.is_available() and config.train.device != "cpu"
    count = jobs or (1 if on_gpu else num_cores())
    yield lambda bench, cells: side_by_side(one.run_cell, cells, lambda cell: (bench, cell), count)


def hardware() -> str:
    """The machine in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = "CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {os.cpu_count()} cores"
