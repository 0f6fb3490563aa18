"""Everything that knows there may be several ranks; the only importer of torch.distributed."""

import atexit
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqssl.errors import FirstRankFailed

if dist.is_available():  # imported later, its functions' defaults would keep the process group for ever
    import torch.distributed.nn

PATIENCE = timedelta(hours=12)  # of ranks that wait for another: the first prepares the data
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among its peers, as torchrun tells it through the environment."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks, without gradient."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on any rank."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=device)) > 0)

    def first(self, work: Callable[[], T], device: torch.device) -> T | None:
        """What the first rank gets from `work`, there, while the others wait; None on those.

        What `work` raises ends all ranks; the others raise `FirstRankFailed`.
        """
        result, error = None, None
        if self.is_first:
            try:
                result = work()
            except BaseException as raised:
                error = raised
        failed = self.any(error is not None, device)
        if error is not None:
            raise error
        if failed:
            raise FirstRankFailed("the first rank failed")
        return result

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()


def start(device: torch.device) -> Ranks:
    """Join the process group if torchrun started several processes."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(local_rank)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return Ranks(dist.get_rank(), size, local_rank)


def stop(ranks: Ranks) -> None:
    """Leave the process group; its threads end with the last that refers to it, at exit at the latest."""
    if ranks.size > 1 and dist.is_initialized():
        groups = [dist.group.WORLD]
        dist.destroy_process_group()
        atexit.register(_end_threads, groups)


def _end_threads(groups: list[Any]) -> None:
    """Join the threads of left groups while Python still runs.

    One that drops a tensor after that aborts the process (github.com/pytorch/pytorch/issues/190489). The
    parallel model is in cycles and refers to its group; what is dropped last is the group in Python's own
    hands, which gives up the interpreter lock while it waits for the threads.
    """
    gc.collect()
    groups.clear()


class _SumOverRanks(torch.autograd.Function):
    """Sum forward; the gradient of a sum that every rank uses is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad


def synchronize(model: nn.Module, ranks: Ranks, *, some_unused: bool = False) -> nn.Module:
    """Share batch statistics (batch norm, mean code use) and gradients over ranks.

    `some_unused`: a step may use a part of the parameters only.
    """
    if ranks.size == 1:
        return model
    for module in model.modules():
        if hasattr(module, "all_reduce"):
            setattr(module, "all_reduce", _SumOverRanks.apply)  # noqa: B010
    return nn.parallel.DistributedDataParallel(
        model, broadcast_buffers=False, find_unused_parameters=some_unused
    )
