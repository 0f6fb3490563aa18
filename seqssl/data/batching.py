"""Deterministic batches of like length: what is in batch number m is a function of the seed alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seqssl.data.adapters import ModalityAdapter, Sample
from seqssl.data.epochs import Item, padding_share, plan_epoch
from seqssl.data.shards import Corpus
from seqssl.data.workers import start_worker, worker_context
from seqssl.errors import UserError
from seqssl.model.types import Batch

T = TypeVar("T")


class BatchLoader:
    """Batches of one split, forever and resumable for training, or one epoch for evaluation.

    Lengths are in input steps. `shuffle` means training: rows move between batches from epoch to
    epoch, crops are random and the adapter may augment; else crops are from the middle. Samples
    draw from (seed, epoch, row), so the batches do not depend on `workers`.
    """

    def __init__(
        self,
        corpus: Corpus,
        adapter: ModalityAdapter,
        *,
        split: str,
        batch_length: int,
        max_length: int | None = None,
        join_length: int | None = None,
        seed: int = 0,
        workers: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.rows = corpus.rows(split)
        if len(self.rows) == 0:
            splits = ", ".join(corpus.manifest.splits)
            raise UserError(f"{corpus.folder} has no rows in split '{split}'; it has: {splits}.")
        self.lengths = corpus.lengths[self.rows]
        self._weights = None if corpus.weights is None else corpus.weights[self.rows]
        self._groups = np.unique(corpus.groups[self.rows], return_inverse=True)[1]
        self._builder = _BatchBuilder(corpus, adapter, max_length, seed, shuffle)
        self._batch_length, self._join_length, self._workers = batch_length, join_length, workers
        self._starts = [0]  # number of the first batch of each epoch, as far as known
        self.plan = lru_cache(maxsize=2)(self._plan)

    def _plan(self, epoch: int) -> list[list[Item]]:
        """The batches of an epoch; an item holds positions in `rows`."""
        return plan_epoch(
            self.lengths,
            self._groups,
            batch_length=self._batch_length,
            max_length=self._builder.max_length,
            join_length=self._join_length,
            seed=self._builder.seed,
            epoch=epoch,
            shuffle=self._builder.training,
            weights=self._weights,
        )

    def padding_share(self, epoch: int = 0) -> float:
        """Share of padding in an epoch's batches."""
        return padding_share(self.plan(epoch), self.lengths, self._builder.max_length)

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        """The epoch of batch number `cursor`, and its place in it."""
        while self._starts[-1] <= cursor:
            self._starts.append(self._starts[-1] + len(self.plan(len(self._starts) - 1)))
        epoch = int(np.searchsorted(self._starts, cursor, side="right")) - 1
        return epoch, cursor - self._starts[epoch]

    def batches(self, epoch: int = 0, limit: int | None = None) -> Iterator[Batch]:
        """One epoch, or `limit` of its batches, evenly spread over it."""
        plan = self.plan(epoch)
        if limit is not None and limit < len(plan):
            plan = [plan[(2 * index + 1) * len(plan) // (2 * limit)] for index in range(limit)]
        yield from self._load((epoch, self._items(batch)) for batch in plan)

    def stream(self, cursor: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Endless batches for one rank, from batch number `cursor` of the one sequence that all ranks share.

        Rank r takes the numbers m with m % world_size == r, across the borders of epochs.
        """
        yield from self.at(count(cursor + (rank - cursor) % world_size, world_size))

    def at(self, numbers: Iterable[int]) -> Iterator[Batch]:
        """The batches of these ascending numbers."""
        yield from self._load(self._planned(numbers))

    def _planned(self, numbers: Iterable[int]) -> Iterator[tuple[int, list[Item]]]:
        for number in numbers:
            epoch, index = self.epoch_of(number)
            yield epoch, self._items(self.plan(epoch)[index])

    def _items(self, batch: Sequence[Item]) -> list[Item]:
        return [tuple(self.rows[list(item)].tolist()) for item in batch]

    def _load(self, work: Iterator[tuple[int, list[Item]]]) -> Iterator[Batch]:
        if self._workers == 0:
            yield from map(self._builder.build, work)
            return
        loader: DataLoader[Batch | UserError] = DataLoader(
            self._builder,
            batch_size=None,
            sampler=work,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            worker_init_fn=start_worker,
            multiprocessing_context=worker_context(type(self._builder.adapter).__module__),
            generator=torch.Generator(),  # or it would draw from torch's global generator
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


class _BatchBuilder(Dataset[Any]):
    """Makes batches from row numbers, here or in a worker."""

    def __init__(
        self, corpus: Corpus, adapter: ModalityAdapter, max_length: int | None, seed: int, training: bool
    ) -> None:
        self.corpus = corpus
        self.adapter = adapter
        self.max_length = max_length
        self.seed = seed
        self.training = training

    def __getitem__(self, work: tuple[int, list[Item]]) -> Batch | UserError:
        """The batch, or the error to raise in the main process, which shows no worker's stack trace."""
        try:
            return self.build(work)
        except UserError as error:
            return error

    def build(self, work: tuple[int, list[Item]]) -> Batch:
        epoch, items = work
        samples, keys = [], []
        for item in items:
            rows = [self.corpus.row(number) for number in item]
            samples.append(_joined([self._sample(row, epoch, n) for row, n in zip(rows, item, strict=True)]))
            keys.append(" + ".join(row["key"] for row in rows))
        return collate(samples, keys)

    def _sample(self, row: dict[str, Any], epoch: int, number: int) -> Sample:
        rng = np.random.default_rng([self.seed, epoch, number]) if self.training else None
        sample = self.adapter.load(row, rng)
        excess = len(sample.values) - (self.max_length or len(sample.values))
        if excess <= 0:
            return sample
        start = int(rng.integers(excess + 1)) if rng else excess // 2
        part = slice(start, start + len(sample.values) - excess)
        return replace(
            sample,
            values=sample.values[part],
            observed=None if sample.observed is None else sample.observed[part],
            times=None if sample.times is None else sample.times[part],
        )


def _joined(samples: Sequence[Sample]) -> Sample:
    """Samples one after the other."""
    if len(samples) == 1:
        return samples[0]
    return Sample(
        values=np.concatenate([sample.values for sample in samples]),
        observed=_all_or_none(np.concatenate, [sample.observed for sample in samples]),
        times=_all_or_none(_joined_times, [sample.times for sample in samples]),
    )


def _joined_times(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Each part goes on one of its own steps after the end of the one before."""
    joined = [parts[0]]
    for part in parts[1:]:
        step = part[1] - part[0] if len(part) > 1 else 1.0
        joined.append(part - part[0] + joined[-1][-1] + step)
    return np.concatenate(joined)


def collate(samples: Sequence[Sample], keys: list[str]) -> Batch:
    """Samples as one batch, padded with zeros (and `observed` with False)."""
    return Batch(
        inputs=_padded([sample.values for sample in samples]),
        lengths=torch.tensor([len(sample.values) for sample in samples]),
        observed=_all_or_none(_padded, [sample.observed for sample in samples]),
        times=_all_or_none(_padded, [sample.times for sample in samples]),
        keys=keys,
    )


def _all_or_none(combine: Callable[[Sequence[Any]], T], arrays: Sequence[np.ndarray | None]) -> T | None:
    """What an adapter gives with one sample it gives with all."""
    return None if arrays[0] is None else combine(arrays)


def _padded(arrays: Sequence[np.ndarray]) -> Tensor:
    shape = (len(arrays), max(map(len, arrays)), *arrays[0].shape[1:])
    out = np.zeros(shape, dtype=arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)


def _as_it_is(batch: Any) -> Any:
    return batch
