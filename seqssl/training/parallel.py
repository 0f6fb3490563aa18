"""How a model is spread over ranks; only this file, `sharded` and `ranks` know torch.distributed.

The loop, checkpoints and evaluation know a strategy, and no more.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from seqssl.errors import FirstRankFailed, RankLost
from seqssl.training.checkpoint import OptimizerState, load_optimizer, state_of, weights_of
from seqssl.training.watch import Watch

if dist.is_available():  # imported later, defaults of its functions would hold the process group
    import torch.distributed.nn

T = TypeVar("T")


class Parallel(ABC):
    """This process among its peers, and the way they share a model."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    share: int = 1  # among how many ranks one batch of the recipe is divided
    watch: Watch | None = None  # that names ranks which do not come

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    @property
    def evaluates(self) -> bool:
        """Whether this rank takes part in evaluation: all do where no rank has the whole model."""
        return self.is_first

    @abstractmethod
    def wrap(self, module: nn.Module, precision: torch.dtype = torch.float32) -> nn.Module:
        """A module that computes the same, with batch statistics and gradients shared over ranks.

        `precision`: in which matrix products are computed, under autocast.
        """

    @abstractmethod
    def micro_step(self, runner: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
        """The context of one micro-step of a wrapped module, forward and backward.

        Ranks exchange gradients at the last one.
        """

    @abstractmethod
    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks, without gradient. Every rank must call it."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for all ranks."""

    def reach(self, words: str = "") -> None:
        """Say that this rank has come so far, to whoever waits for others. Every rank must call it.

        `words`: what people are told of the place, from now on.
        """
        if self.watch is not None:
            self.watch.reach(words)

    def working(self) -> AbstractContextManager[None]:
        """A context of work for which others wait, however long it takes."""
        return nullcontext() if self.watch is None else self.watch.busy()

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
                with self.working():
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
        """The whole weights and the whole state of the optimizer, to be saved. Every rank must call it.

        They are copies in main memory, which later updates leave alone; other ranks than the first get none.
        """
        if not self.is_first:
            return {}, None
        weights = _copies(weights_of(model))
        if optimizer is None:
            return weights, None
        state = state_of(optimizer)
        return weights, OptimizerState(tensors=_copies(state["tensors"]), groups=state["groups"])

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

    def exchange(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients that no backward pass has shared yet. Every rank must call it."""
        return

    def everyones(self, texts: Sequence[str]) -> list[str]:
        """The texts of all ranks. Every rank must call it."""
        return [*texts]

    def from_first(self, value: T) -> T:
        """What the first rank has in the place of this value. Every rank must call it."""
        return value

    def undivided(self) -> AbstractContextManager[None]:
        """A context in which only the first rank works, and may use what the others leave idle."""
        return self.working()

    def make_readable(self, model: nn.Module) -> None:
        """Let weights be read outside a step, from now on. Every rank must call it."""
        return

    def norm(self, parameters: Iterable[Tensor]) -> Tensor:
        """The norm of the whole gradient. Every rank must call it."""
        return get_total_norm([p.grad for p in parameters if p.grad is not None])


class Alone(Parallel):
    """One process."""

    def wrap(self, module: nn.Module, precision: torch.dtype = torch.float32) -> nn.Module:
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
    """Every rank holds the whole model, and gradients are averaged (torch's DistributedDataParallel)."""

    def __init__(self, rank: int, size: int, local_rank: int = 0, watch: Watch | None = None) -> None:
        self.rank, self.size, self.local_rank, self.watch = rank, size, local_rank, watch

    def wrap(self, module: nn.Module, precision: torch.dtype = torch.float32) -> nn.Module:
        """The module in DistributedDataParallel; from now on `all_reduce` of its parts sums over ranks."""
        share_statistics(module)
        # A step may leave parameters without a gradient: of another stream, above the highest tap, of a
        # codebook that no objective reads. To look for them is one walk through the graph of each step.
        replicate = partial(nn.parallel.DistributedDataParallel, module, find_unused_parameters=True)
        if "forward_sync_buffers" in inspect.signature(replicate).parameters:  # its name since torch 2.13
            return replicate(forward_sync_buffers=False)
        return replicate(broadcast_buffers=False)

    @contextmanager
    def micro_step(self, runner: nn.Module, *, is_last: bool) -> Iterator[None]:
        """Keeps gradients on this rank until the last micro-step: one exchange for an update."""
        held: AbstractContextManager[None] = nullcontext()
        if not is_last and isinstance(runner, nn.parallel.DistributedDataParallel):
            held = runner.no_sync()
        with exchanging(), held:
            yield

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks."""
        self.reach()
        return add_up(value.clone())

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.reach()
        with exchanging():
            dist.barrier()

    def everyones(self, texts: Sequence[str]) -> list[str]:
        """The texts of all ranks."""
        self.reach()
        found: list[list[str]] = [[] for _ in range(self.size)]
        with exchanging():
            dist.all_gather_object(found, [*texts])
        return [text for own in found for text in own]

    def from_first(self, value: T) -> T:
        """What the first rank has in the place of this value."""
        self.reach()
        held = [value]
        with exchanging():
            dist.broadcast_object_list(held, 0)
        return held[0]


class SideBySide(Replicated):
    """Processes on the CPU of one machine, each with the whole model and a share of the rows of each batch.

    DistributedDataParallel hides the exchange of gradients behind the backward pass, which pays where the
    processor is not what computes. It also cuts them into other buckets after the first update: a run that
    goes on would add up in another order. Here they are one tensor, always.
    """

    def __init__(self, rank: int, size: int, threads: int = 1) -> None:
        super().__init__(rank, size)
        self.share, self.threads = size, threads  # of all processes together
        self._total: Tensor | None = None  # the gradient as one tensor, from update to update

    def wrap(self, module: nn.Module, precision: torch.dtype = torch.float32) -> nn.Module:
        """The module itself, with the first rank's weights; `all_reduce` of its parts now sums over ranks."""
        share_statistics(module)
        agree(module)
        return module

    def barrier(self) -> None:
        """Wait for all ranks."""
        add_up(torch.zeros(1))

    def exchange(self, parameters: Iterable[nn.Parameter]) -> None:
        """The mean gradient over ranks; a rank in which a parameter took no part counts as zero."""
        trained = [p for p in parameters if p.requires_grad]
        used = torch.tensor([float(p.grad is not None) for p in trained])
        own = [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trained]
        size = sum(map(len, own)) + len(used)
        if self._total is None or len(self._total) != size:
            self._total = torch.empty(size)
        total = add_up(torch.cat([*own, used], out=self._total)).div_(self.size)
        *means, used = total.split([*map(len, own), len(used)])
        for p, mean, share in zip(trained, means, used.tolist(), strict=True):
            p.grad = mean.view_as(p) if share else None

    @contextmanager
    def undivided(self) -> Iterator[None]:
        """A context in which the first process has the threads of all."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in main memory."""
    return {name: x.detach().to("cpu", copy=True) for name, x in tensors.items()}


def agree(module: nn.Module) -> None:
    """Give every rank the first one's weights: a part may have drawn its own in its own way."""
    with exchanging():
        for x in weights_of(module).values():
            if x.numel():
                dist.broadcast(x.detach(), 0)


def add_up(x: Tensor) -> Tensor:
    """Sum over ranks, in place. Every rank must call it; RankLost where one is gone."""
    with exchanging():
        dist.all_reduce(x)
    return x


@contextmanager
def exchanging() -> Iterator[None]:
    """A context that turns gloo's error about a lost connection into RankLost."""
    try:
        yield
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise RankLost(
            f"another process of this run is gone ({str(error).strip()}). torchrun --max-restarts, or the "
            "same command once more, goes on from the last checkpoint."
        ) from error


def share_statistics(module: nn.Module) -> None:
    """From now on `all_reduce` of the parts of a module sums over ranks."""
    for part in module.modules():
        if hasattr(part, "all_reduce"):
            setattr(part, "all_reduce", sum_over_ranks)  # noqa: B010


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum over ranks, with gradient. Every rank must call it, forward and backward."""
    total: Tensor = _SumOverRanks.apply(x)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(torch.autograd.Function):
    """Sum forward; the gradient of a sum that every rank uses is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        """The sum over ranks."""
        return add_up(x.clone())

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        """The sum of all ranks' gradients."""
        return add_up(grads[0].clone())
