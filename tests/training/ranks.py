"""Run by torchrun on two ranks: shared statistics, then a whole run; see test_ranks.py."""

import atexit
import json
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from light import lighten

from seqssl import cli
from seqssl.model.norms import MaskedBatchNorm
from seqssl.training.ranks import start


def share(folder: Path) -> None:
    """Batch norm of four rows, two on each rank, with a loss that differs between the ranks."""
    ranks = start(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    rows, lengths = torch.randn(4, 6, 3, generator=generator), torch.tensor([6, 2, 5, 1])
    norm = MaskedBatchNorm(3).train()
    ranks.wrap(torch.nn.ModuleList([norm]))
    mine = slice(2 * ranks.rank, 2 * ranks.rank + 2)
    x = rows[mine].clone().requires_grad_()
    y = norm(x, torch.arange(6) < lengths[mine, None])
    y.square().sum().mul(y.detach().sum()).backward()
    gathered, grads = ([torch.zeros_like(y), torch.zeros_like(y)] for _ in range(2))
    dist.all_gather(gathered, y.detach())
    dist.all_gather(grads, x.grad)
    if ranks.is_first:
        result = {"y": torch.cat(gathered).tolist(), "mean": norm.running_mean.tolist()}
        (folder / "shared.json").write_text(json.dumps(result | {"grad": torch.cat(grads).tolist()}))


def write_threads(folder: Path) -> None:
    """The names of the threads there are now, of Python's own and of libraries."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    (folder / f"threads-{os.environ['RANK']}.json").write_text(json.dumps(sorted(names)))


if __name__ == "__main__":
    atexit.register(write_threads, Path(sys.argv[1]))  # the first one registered is the last one called
    torch.set_num_threads(1)
    lighten(pytest.MonkeyPatch())
    share(Path(sys.argv[1]))
    sys.exit(cli.main(["train", *sys.argv[2:]]))
