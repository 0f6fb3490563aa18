"""Several kinds of data in one deterministic sequence of batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count

import numpy as np

from seqssl.data.batching import BatchLoader
from seqssl.model.types import Batch

BLOCK = 4096  # groups whose streams are found at once


class MixedLoader:
    """Batches of named loaders, mixed by weight; `group` batches in a row, one update's, are of one kind.

    So all ranks work on one kind at a time and can share its statistics. Group number m is of the stream
    whose share of the unit interval holds the m-th multiple of the golden ratio, so any stretch is mixed
    evenly; which batches of its stream they are, is how often that stream came before. Everything is a
    function of (seed, batch number), as with one loader.
    """

    def __init__(
        self, loaders: Mapping[str, BatchLoader], weights: Sequence[float], *, seed: int = 0, group: int = 1
    ) -> None:
        self.loaders = dict(loaders)
        self.names = list(loaders)
        self.group = group
        self._edges = np.cumsum(weights) / np.sum(weights)
        self._offset = np.random.default_rng(seed).random()
        self._streams = lru_cache(maxsize=4)(self._draw_streams)
        self._counts = [np.zeros(len(self.names), np.int64)]  # of each stream before each block

    def endless(self, cursor: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Endless batches for one rank, from batch number `cursor`: see `BatchLoader.endless`."""
        first = cursor + (rank - cursor) % world_size
        parts = {
            name: loader.at(self._numbers_of(index, first, world_size))
            for index, (name, loader) in enumerate(self.loaders.items())
        }
        for number in count(first, world_size):
            name = self.names[self.place(number)[0]]
            yield replace(next(parts[name]), stream=name)

    def place(self, number: int) -> tuple[int, int]:
        """The stream of a batch number, and the number within it."""
        turn, micro = divmod(number, self.group)
        stream = int(self._streams(turn // BLOCK)[turn % BLOCK])
        return stream, self._before(stream, turn) * self.group + micro

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        """The epoch of the stream that has gone around least, and the place in it."""
        turn, micro = divmod(cursor, self.group)
        before = [self._before(index, turn) * self.group for index in range(len(self.names))]
        before[self.place(cursor)[0]] += micro
        places = zip(self.loaders.values(), before, strict=True)
        return min(loader.epoch_of(number) for loader, number in places)

    def _draw_streams(self, block: int) -> np.ndarray:
        """The stream of each group of a block."""
        golden = 0.6180339887498949  # multiples of it, modulo 1, fill the interval evenly
        points = (self._offset + golden * np.arange(block * BLOCK, (block + 1) * BLOCK)) % 1.0
        return np.minimum(np.searchsorted(self._edges, points, side="right"), len(self.names) - 1)

    def _before(self, stream: int, turn: int) -> int:
        """How many groups of a stream come before group number `turn`."""
        block, index = divmod(turn, BLOCK)
        while len(self._counts) <= block:
            last = len(self._counts) - 1
            found = np.bincount(self._streams(last), minlength=len(self.names))
            self._counts.append(self._counts[last] + found)
        return int(self._counts[block][stream] + np.count_nonzero(self._streams(block)[:index] == stream))

    def _numbers_of(self, stream: int, first: int, step: int) -> Iterator[int]:
        """The numbers within its stream of those of a rank's batches that are of this stream."""
        for number in count(first, step):
            found, within = self.place(number)
            if found == stream:
                yield within
