"""The order of a split's batches: which rows meet in batch number m, for any m."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from seqssl.data.epochs import Batches, Item, epoch_batches, repeats

KEPT = 2  # epochs: ranks, and workers that read ahead, may be in two at a time


@runtime_checkable
class CountsEpochs(Protocol):
    """What endless batches may offer: the lengths of epochs, which a checkpoint keeps for a resume."""

    @property
    def counted(self) -> dict[str, list[int]]:
        """How many batches the epochs have, as far as known, of each kind of data."""
        ...

    def recall(self, counted: Mapping[str, Sequence[int]]) -> None:
        """Take over what was known when the checkpoint was written."""
        ...


@dataclass(eq=False)
class Order:
    """Batches of one epoch after another, by their numbers; a function of these fields alone.

    The fields are the arguments of `epoch_batches`. How many batches an epoch has is known once it has been
    planned, which takes seconds for millions of rows. `counted` is what is known, and `recall` takes it over,
    so that a run which goes on in its tenth epoch need not plan nine others.
    """

    lengths: Int[np.ndarray, "n"]
    groups: Int[np.ndarray, "n"]
    weights: Float[np.ndarray, "n"] | None
    batch_length: int
    max_length: int | None
    join_length: int | None
    seed: int
    shuffle: bool
    at_least: int
    _starts: list[int] = field(default_factory=lambda: [0])  # first batch of each epoch, as far as known

    def __post_init__(self) -> None:
        self.epoch = lru_cache(KEPT)(self._epoch)
        self._repeats = lru_cache(KEPT)(lambda epoch: repeats(self.epoch(epoch)))

    def _epoch(self, epoch: int) -> Batches:
        """The batches of an epoch."""
        return epoch_batches(
            self.lengths,
            self.groups,
            batch_length=self.batch_length,
            max_length=self.max_length,
            join_length=self.join_length,
            seed=self.seed,
            epoch=epoch,
            shuffle=self.shuffle,
            weights=self.weights,
            at_least=self.at_least,
        )

    def before(self, epoch: int, place: int) -> list[Item]:
        """How often each row of a batch came before in the epoch: more than never by its weight alone."""
        if self.weights is not None and self.shuffle:
            return self._repeats(epoch)[place]
        return [(0,) * len(item) for item in self.epoch(epoch)[place]]

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        """The epoch of batch number `cursor`, and its place in it."""
        while self._starts[-1] <= cursor:
            self._starts.append(self._starts[-1] + len(self.epoch(len(self._starts) - 1)))
        epoch = int(np.searchsorted(self._starts, cursor, side="right")) - 1
        return epoch, cursor - self._starts[epoch]

    @property
    def counted(self) -> dict[str, list[int]]:
        """How many batches the epochs from 0 on have, as far as known, under a digest of the order."""
        return {self._digest: np.diff(self._starts).tolist()}

    def recall(self, counted: Mapping[str, Sequence[int]]) -> None:
        """Take over what an equal order has `counted`; that of others is left alone."""
        found = counted.get(self._digest, ())
        if len(found) >= len(self._starts):
            self._starts = np.cumsum([0, *found]).tolist()

    @cached_property
    def _digest(self) -> str:
        settings = [
            self.batch_length,
            self.max_length,
            self.join_length,
            self.seed,
            self.shuffle,
            self.at_least,
        ]
        found = hashlib.sha256(json.dumps(settings).encode())
        for column in (self.lengths, self.groups, self.weights):
            found.update(b"" if column is None else np.ascontiguousarray(column).data)
        return found.hexdigest()[:16]
