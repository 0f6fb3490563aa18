"""Several kinds of data in one deterministic sequence of batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from seqssl.data.batching import BatchLoader, numbers_of
from seqssl.model.types import Batch

BLOCK = 4096  # groups that get their streams in one go


class MixedLoader:
    """Batches of named loaders, mixed by weight; `group` batches in a row, one update's, are of one stream.

    So all ranks work on one stream at a time and can share its statistics. Everything is a function of (seed,
    batch number), as with one loader. An example: streams a (weight 2) and b (weight 1), groups of two
    batches, two ranks, and an offset of 0 (it is drawn from the seed):

        unit interval       0 [---------- a ----------) 0.67 [---- b ----) 1
        group m             0      1      2      3      4      5      6
        m x 0.618 modulo 1  0.00   0.62   0.24   0.85   0.47   0.09   0.71
        its stream          a      a      a      b      a      a      b
        batch numbers n     0  1   2  3   4  5   6  7   8  9   10 11  12 13
        rank n modulo 2     0  1   0  1   0  1   0  1   0  1   0  1   0  1
        batch of stream     a0 a1  a2 a3  a4 a5  b0 b1  a6 a7  a8 a9  b2 b3

    Multiples of the golden ratio fill the interval evenly, so every stretch of groups is mixed by weight. A
    batch's number within its stream is `group` times the number of earlier groups of that stream, plus its
    place in the group. Loaders whose ranks share batches have the same `share`, and there ranks above stands
    for groups of them.
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
        share = max((loader.share for loader in self.loaders.values()), default=1)

        def numbers() -> Iterator[int]:
            return numbers_of(cursor, rank, world_size, share)

        # Each loader is told which of its batches will be asked for, so that its workers can read ahead.
        parts = {
            name: loader.at(self._within(index, numbers()), rank % share)
            for index, (name, loader) in enumerate(self.loaders.items())
        }
        for number in numbers():
            name = self.names[self.place(number)[0]]
            yield replace(next(parts[name]), stream=name)

    def place(self, number: int) -> tuple[int, int]:
        """The stream of a batch number, as an index, and the number within that stream."""
        turn, micro = divmod(number, self.group)
        stream = int(self._streams(turn // BLOCK)[turn % BLOCK])
        return stream, self._before(stream, turn) * self.group + micro

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        """The epoch of the stream that is furthest behind, and the place in it."""
        turn, micro = divmod(cursor, self.group)
        before = [self._before(index, turn) * self.group for index in range(len(self.names))]
        before[self.place(cursor)[0]] += micro
        places = zip(self.loaders.values(), before, strict=True)
        return min(loader.epoch_of(number) for loader, number in places)

    @property
    def counted(self) -> dict[str, list[int]]:
        """How many batches the epochs of all loaders have, as far as known: see `Order`."""
        return {
            digest: sizes for each in self.loaders.values() for digest, sizes in each.order.counted.items()
        }

    def recall(self, counted: Mapping[str, Sequence[int]]) -> None:
        """Take over what equal loaders have `counted`."""
        for each in self.loaders.values():
            each.order.recall(counted)

    def _draw_streams(self, block: int) -> np.ndarray:
        """The stream of each of the `BLOCK` groups of a block, as an index."""
        golden = 0.6180339887498949
        # From the group's number, not by adding up: so a resumed run finds the same streams.
        points = (self._offset + golden * np.arange(block * BLOCK, (block + 1) * BLOCK)) % 1.0
        # The last edge may be a little below 1 by rounding.
        return np.minimum(np.searchsorted(self._edges, points, side="right"), len(self.names) - 1)

    def _before(self, stream: int, turn: int) -> int:
        """How many groups of a stream come before group number `turn`."""
        block, index = divmod(turn, BLOCK)
        while len(self._counts) <= block:
            last = len(self._counts) - 1
            found = np.bincount(self._streams(last), minlength=len(self.names))
            self._counts.append(self._counts[last] + found)
        return int(self._counts[block][stream] + np.count_nonzero(self._streams(block)[:index] == stream))

    def _within(self, stream: int, numbers: Iterable[int]) -> Iterator[int]:
        """Of a rank's batches, those of a stream: their numbers within it."""
        for number in numbers:
            found, within = self.place(number)
            if found == stream:
                yield within
