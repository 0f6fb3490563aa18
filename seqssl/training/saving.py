"""Checkpoints are written while the training goes on: ranks wait for a copy of the state, not for a disk."""

from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import TracebackType

import torch
from torch import nn
from torch.optim import Optimizer

from seqssl.training import checkpoint
from seqssl.training.parallel import Parallel
from seqssl.training.watch import tell

AT_ONCE = 2  # copies of a state in memory: the best weights of an evaluation, and the checkpoint after it


class Saver:
    """Writes checkpoints to a folder, one after the other, in a thread of the first rank.

    What fails is raised by the next call, on all ranks; what was given after it is not written, because a
    checkpoint records which weights `best` holds. Leaving the context lets the thread finish what it was
    given, and raises nothing: a failure that no call has raised is printed.
    """

    def __init__(self, folder: Path, keep: int, parallel: Parallel, device: torch.device) -> None:
        self.folder, self.keep, self.parallel, self.device = folder, keep, parallel, device
        self._thread = ThreadPoolExecutor(1, "seqssl-saver")  # starts with the first work it gets
        self._given: list[Future[None]] = []

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        try:
            self._wait(0)
        except Exception as failed:
            tell(str(failed) or repr(failed))

    def save(self, name: str, model: nn.Module, optimizer: Optimizer | None, state: checkpoint.State) -> None:
        """Copy the state, to be written under a name; with an optimizer, the oldest ones then go.

        Every rank must call it.
        """
        self.parallel.first(lambda: self._wait(AT_ONCE - 1), self.device)
        weights, moments = self.parallel.gather_state(model, optimizer)
        if self.parallel.is_first:
            before = self._given[-1] if self._given else None
            # The state may grow meanwhile.
            work = partial(self._write, before, name, weights, moments, deepcopy(state))
            self._given.append(self._thread.submit(work))

    def _write(
        self,
        before: Future[None] | None,
        name: str,
        weights: dict[str, torch.Tensor],
        optimizer: checkpoint.OptimizerState | None,
        state: checkpoint.State,
    ) -> None:
        if before is not None:
            before.result()  # raises what went wrong there
        checkpoint.save(self.folder / name, weights, optimizer, state)
        if optimizer is not None:
            checkpoint.prune(self.folder, self.keep)

    @property
    def has_failed(self) -> bool:
        """Whether something could not be written, as far as this rank knows by now."""
        return any(work.done() and work.exception() is not None for work in self._given)

    def finish(self) -> None:
        """Wait until all is written. Every rank must call it."""
        self.parallel.first(lambda: self._wait(0), self.device)

    def _wait(self, left: int) -> None:
        """Wait until no more than so many are still to be written; raises what went wrong."""
        while len(self._given) > left:
            work = self._given.pop(0)
            if work.exception() is not None:
                self._given.clear()  # what came after it fails with the same error
            work.result()
