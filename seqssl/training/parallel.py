"""Everything that knows there may be several ranks; the only importer of torch.distributed.

A strategy says how a model is spread over ranks. The loop, checkpoints and evaluation know no more.
"""

import atexit
import gc
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from seqssl.errors import FirstRankFailed
from seqssl.training.checkpoint import OptimizerState, load_optimizer, state_of, weights_of

if dist.is_available():  # imported later, defaults of its functions would hold the process group
    import torch.distributed.nn

PATIENCE = timedelta(hours=12)  # of ranks that wait for one another: the first prepares the data
T = TypeVar("T")


class Parallel(ABC):
    """This process among its peers, and the way they share a model."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    @property
    def evaluates(self) -> bool:
        """Whether this rank takes part in evaluation: all do where no rank has the whole model."""
        return self.is_first

    @abstractmethod
    def wrap(self, module: nn.Module) -> nn.Module:
        """A module that computes the same, with batch statistics and gradients shared over ranks."""

    @abstractmethod
    def micro_step(self, runner: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
        """The context of one micro-step of a wrapped module; ranks exchange gradients at the last one."""

    @abstractmethod
    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks, without gradient. Every rank must call it."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for all ranks."""

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on any rank. Every rank must call it."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=device)) > 0)

    def first(self, work: Callable[[], T], device: torch.device) -> T | None:
        """The result of `work`, which only the first rank does while the others wait; None on the others.

        An error in `work` ends all ranks: the first raises it, the others raise `FirstRankFailed`. Every rank
        must call this.
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

    def gather_state(
        self, model: nn.Module, optimizer: Optimizer | None = None
    ) -> tuple[dict[str, Tensor], OptimizerState | None]:
        """The whole weights and the whole state of the optimizer, to be saved. Every rank must call it."""
        return weights_of(model), None if optimizer is None else state_of(optimizer)

    def load_state(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        optimizer: Optimizer,
        state: OptimizerState | None,
    ) -> None:
        """Load fitting state from `gather_state`; None leaves the optimizer. Every rank must call it."""
        model.load_state_dict(weights, strict=False)  # second names of shared weights are not in it
        if state is not None:
            load_optimizer(optimizer, state)

    def norm(self, parameters: Iterable[Tensor]) -> Tensor:
        """The norm of the whole gradient. Every rank must call it."""
        return get_total_norm([p.grad for p in parameters if p.grad is not None])


class Alone(Parallel):
    """One process."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module itself."""
        return module

    def micro_step(self, runner: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
        """A context that does nothing."""
        return nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def barrier(self) -> None:
        """There is nobody to wait for."""


class Replicated(Parallel):
    """Every rank holds the whole model, and gradients are averaged (torch's DistributedDataParallel).

    `some_unused`: a step may leave some parameters without a gradient.
    """

    def __init__(self, rank: int, size: int, local_rank: int = 0, *, some_unused: bool = False) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.some_unused = some_unused

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module in DistributedDataParallel; from now on `all_reduce` of its parts sums over ranks."""
        for part in module.modules():
            if hasattr(part, "all_reduce"):
                setattr(part, "all_reduce", sum_over_ranks)  # noqa: B010
        replicate = partial(
            nn.parallel.DistributedDataParallel, module, find_unused_parameters=self.some_unused
        )
        if "forward_sync_buffers" in inspect.signature(replicate).parameters:  # its name since torch 2.13
            return replicate(forward_sync_buffers=False)
        return replicate(broadcast_buffers=False)

    def micro_step(self, runner: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
        """Keeps gradients on this rank until the last micro-step: one exchange for an update."""
        if is_last or not isinstance(runner, nn.parallel.DistributedDataParallel):
            return nullcontext()
        held: AbstractContextManager[None] = runner.no_sync()
        return held

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks."""
        value = value.clone()
        dist.all_reduce(value)
        return value

    def barrier(self) -> None:
        """Wait for all ranks."""
        dist.barrier()


def start(device: torch.device, *, some_unused: bool = False) -> Parallel:
    """Join the process group if torchrun started several processes."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Alone()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(local_rank)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return Replicated(dist.get_rank(), size, local_rank, some_unused=some_unused)


def stop(parallel: Parallel) -> None:
    """Leave the process group; its threads end with the last reference to it, at exit at the latest."""
    if parallel.size > 1 and dist.is_initialized():
        groups = [dist.group.WORLD]
        dist.destroy_process_group()
        atexit.register(_end_threads, groups)


def _end_threads(groups: list[dist.ProcessGroup | None]) -> None:
    """Join the threads of left groups while Python still runs.

    A thread that drops a tensor later aborts the process (github.com/pytorch/pytorch/issues/190489). The
    parallel model is in reference cycles and refers to its group, hence the collection. The last reference is
    the one in Python's own hands: it gives up the interpreter lock while it waits for the threads.
    """
    gc.collect()
    groups.clear()


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum over ranks, with gradient. Every rank must call it, forward and backward."""
    total: Tensor = _SumOverRanks.apply(x)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(torch.autograd.Function):
    """Sum forward; the gradient of a sum that every rank uses is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        """The sum over ranks."""
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        """The sum of all ranks' gradients."""
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad
