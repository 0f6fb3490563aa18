"""Deterministic batches of rows of like length: batch number m depends on the seed and on m alone."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seqssl.data.adapters import Augments, ModalityAdapter, Row, Sample
from seqssl.data.epochs import padding_share
from seqssl.data.joining import all_or_none, crop, join, where_given
from seqssl.data.order import Order
from seqssl.data.shards import Corpus
from seqssl.data.wording import reason_of
from seqssl.data.workers import start_worker, worker_context
from seqssl.errors import UserError
from seqssl.model.types import Batch

T = TypeVar("T")
Drawn = list[tuple[int, int]]  # the rows of an item, each with how often it came before in the epoch

JOINT = " + "  # between the keys of rows that were joined
LEAST_FOR_A_WORKER = 4  # batches of one pass over a split


class BatchLoader:
    """Batches of one split, forever and resumable for training, or one epoch for evaluation.

    Lengths are in input steps. `shuffle` means training: rows move between batches from epoch to epoch, crops
    are random and the adapter may augment; else crops are from the middle. Samples draw from (seed, epoch,
    row), so the batches do not depend on `workers`; a row that comes again in an epoch, by its weight, draws
    anew. `groups` lists all groups of the run, numbered in this order; None = those of the corpus. With
    several `views`, a row comes so many times in its batch, one after the other, each with draws of its own;
    the first one stays as it is where nothing is shuffled. `augment` names what the adapter changes; None
    means all of it with several views, else nothing. `share` ranks in a row divide the rows of each training
    batch among them. `at_once`: how many batches are taken in a row, so that workers read so far ahead;
    `pinned`: they come in memory that a GPU fetches from by itself.
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
        groups: Sequence[str] | None = None,
        views: int = 1,
        augment: Sequence[str] | None = None,
        share: int = 1,
        at_once: int = 1,
        pinned: bool = False,
    ) -> None:
        self.share, self._at_once, self._pinned = share, at_once, pinned
        self.rows = corpus.rows(split)
        if len(self.rows) == 0:
            splits = ", ".join(corpus.manifest.splits)
            raise UserError(f"{corpus.folder} has no rows in split '{split}'; it has: {splits}.")
        self.lengths = corpus.lengths[self.rows]
        names = sorted(set(corpus.groups.tolist())) if groups is None else groups
        numbers = {name: number for number, name in enumerate(filter(None, names))}
        changes = names_of_changes(adapter, augment, views)
        self._builder = _BatchBuilder(corpus, adapter, max_length, seed, shuffle, numbers, views, changes)
        self._workers = workers
        joins = join_length is not None
        self.order = Order(
            self.lengths,
            numbered(corpus.groups[self.rows]) if joins else np.zeros(len(self.rows), np.int32),
            None if corpus.weights is None else corpus.weights[self.rows],
            batch_length=max(1, batch_length // views),
            max_length=max_length,
            join_length=join_length,
            seed=seed,
            shuffle=shuffle,
            at_least=share,
        )
        # An item of an epoch's batch holds positions in `rows`.
        self.epoch, self.epoch_of = self.order.epoch, self.order.epoch_of

    @property
    def num_steps(self) -> int:
        """Input steps of an epoch, without padding."""
        return int(np.minimum(self.lengths, self._builder.max_length or self.lengths.max()).sum())

    def padding_share(self, epoch: int = 0) -> float:
        """Share of padding in an epoch's batches."""
        return padding_share(self.epoch(epoch), self.lengths, self._builder.max_length)

    def batches(self, epoch: int = 0, limit: int | None = None) -> Iterator[Batch]:
        """One epoch, or `limit` of its batches, evenly spread over it."""
        total = len(self.epoch(epoch))
        places: Sequence[int] = range(total)
        if limit is not None and limit < total:
            places = [(2 * index + 1) * total // (2 * limit) for index in range(limit)]
        # Each worker is to have some of them, or it would cost more to start it than it saves.
        workers = min(self._workers, len(places) // LEAST_FOR_A_WORKER)
        yield from self._load(((epoch, self._drawn(epoch, place)) for place in places), workers)

    def endless(self, cursor: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Endless batches for one rank, from batch number `cursor` of the one sequence that all ranks share.

        Rank r takes the numbers m with m % world_size == r, across the borders of epochs. Where ranks share
        batches, this holds of their groups, and each takes its part of its group's batches.
        """
        yield from self.at(numbers_of(cursor, rank, world_size, self.share), rank % self.share)

    def at(self, numbers: Iterable[int], part: int = 0) -> Iterator[Batch]:
        """The batches of these ascending numbers; of each, one part of those that `share` ranks take."""
        yield from self._load(self.planned(numbers, part), self._workers)

    def planned(self, numbers: Iterable[int], part: int = 0) -> Iterator[tuple[int, list[Drawn]]]:
        """The epoch of each batch number, and the items of the part."""
        for number in numbers:
            epoch, index = self.epoch_of(number)
            # Neighbors are of like length, so each part gets as much.
            yield epoch, self._drawn(epoch, index)[part :: self.share]

    def _drawn(self, epoch: int, index: int) -> list[Drawn]:
        """The items of a batch of an epoch, by the numbers of their rows in the corpus."""
        places = [place for item in self.epoch(epoch)[index] for place in item]
        numbers = iter(self.rows[places].tolist())
        return [[(next(numbers), times) for times in item] for item in self.order.before(epoch, index)]

    def _load(self, work: Iterator[tuple[int, list[Drawn]]], workers: int) -> Iterator[Batch]:
        """Build batches, in worker processes if there are any; they come in the order of `work`."""
        if workers == 0:
            yield from map(self._builder.build, work)
            return
        loader: DataLoader[Batch | UserError] = DataLoader(
            self._builder,
            batch_size=None,
            sampler=work,
            num_workers=workers,
            prefetch_factor=max(2, math.ceil(self._at_once / workers) + 1),  # of each worker
            pin_memory=self._pinned,
            collate_fn=_as_it_is,
            worker_init_fn=start_worker,
            multiprocessing_context=worker_context(type(self._builder.adapter).__module__),
            generator=torch.Generator(),  # or it would draw from torch's global generator
        )
        try:
            for batch in loader:
                if isinstance(batch, UserError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
            raise UserError(
                "A process that loads data died: out of memory (or of what a container has to share), "
                "or your script lacks `if __name__ == '__main__':`. data.workers=0 loads without processes."
            ) from error


def numbered(names: np.ndarray) -> Int[np.ndarray, "n"]:
    """Names as numbers, in the order of the names."""
    found = names.tolist()  # hashing millions of texts takes a second, sorting them a minute
    numbers = {name: number for number, name in enumerate(sorted(set(found)))}
    return np.fromiter(map(numbers.__getitem__, found), np.int32, len(found))


def numbers_of(cursor: int, rank: int, world_size: int, share: int) -> Iterator[int]:
    """The numbers of the batches, from `cursor` on, that a rank takes, or takes a part of."""
    groups = world_size // share
    return count(cursor + (rank // share - cursor) % groups, groups)


class _BatchBuilder(Dataset[Batch | UserError]):
    """Makes batches from row numbers, here or in a worker."""

    def __init__(
        self,
        corpus: Corpus,
        adapter: ModalityAdapter,
        max_length: int | None,
        seed: int,
        training: bool,
        groups: Mapping[str, int],
        views: int,
        changes: Sequence[str],
    ) -> None:
        self.corpus = corpus
        self.adapter = adapter
        self.max_length = max_length
        self.seed = seed
        self.training = training
        self.groups = groups
        self.views = views
        self.changes = changes

    def __getitem__(self, work: tuple[int, list[Drawn]]) -> Batch | UserError:
        """The batch, or the error to raise in the main process, which shows no worker's stack trace."""
        try:
            return self.build(work)
        except UserError as error:
            return error

    def build(self, work: tuple[int, list[Drawn]]) -> Batch:
        """The batch of an epoch's items."""
        epoch, items = work
        samples, keys = [], []
        for item in items:
            rows = [self.corpus.row(number) for number, _ in item]
            for view in range(self.views):
                parts = [
                    self._sample(row, self._draws(epoch, number, view, before))
                    for row, (number, before) in zip(rows, item, strict=True)
                ]
                samples.append(join(parts, self.adapter.spec.code_stride))
                keys.append(JOINT.join(row["key"] for row in rows))
        batch = collate(samples, keys, self.groups)
        if self.views == 1:
            return batch
        return replace(batch, clips=torch.arange(len(items)).repeat_interleave(self.views))

    def _draws(self, epoch: int, number: int, view: int, before: int) -> np.random.Generator | None:
        """What is random about a view of a row that came `before` so often; None for nothing.

        In evaluation that is the first view.
        """
        if self.training:
            more = [view, before] if before else [view] if view else []
            return np.random.default_rng([self.seed, epoch, number, *more])
        return np.random.default_rng([self.seed, number, view]) if view else None

    def _sample(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """A row as a sample of at most `max_length` steps; with `rng`, a changed, random part of the row."""
        sample = self._loaded(row, rng)
        longest = min(len(sample.values), self.max_length or len(sample.values))
        if rng is not None and self.changes:
            assert isinstance(self.adapter, Augments)
            ways = self.adapter.augmentations
            for name in self.changes:
                sample = ways[name](sample, rng)
        label = row["label"] if sample.label == "" else sample.label
        sample = replace(sample, label=label, group=row["group"])  # an adapter need not repeat them
        excess = len(sample.values) - longest
        if excess <= 0:
            return sample
        start = int(rng.integers(excess + 1)) if rng else excess // 2
        stride = self.adapter.spec.code_stride if sample.codes is not None else 1
        start -= start % (stride or 1)  # codes are cut between two frames
        return crop(sample, start, len(sample.values) - excess, stride)

    def _loaded(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """What the adapter makes of a row; UserError where it cannot, or where that is of another type."""
        try:
            sample = self.adapter.load(row, rng)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"the row {row['key']} cannot be loaded: {reason_of(error)}") from error
        values, wanted = sample.values, self.adapter.spec.dtype
        if str(values.dtype) != wanted:
            raise UserError(
                f"the row {row['key']} holds {values.dtype} where {wanted} is wanted: prepare the data again."
            )
        return sample


def names_of_changes(adapter: ModalityAdapter, augment: Sequence[str] | None, views: int) -> tuple[str, ...]:
    """Which of an adapter's augmentations are used, in its order; UserError for a name that it lacks."""
    known = [*adapter.augmentations] if isinstance(adapter, Augments) else []
    chosen = (known if views > 1 else []) if augment is None else augment
    for name in chosen:
        if name not in known:
            raise UserError(
                f"data.augment: {type(adapter).__name__} has no {name!r}; "
                + (f"it has {', '.join(known)}." if known else "it has none.")
            )
    return tuple(name for name in known if name in chosen)


def collate(samples: Sequence[Sample], keys: list[str], groups: Mapping[str, int] | None = None) -> Batch:
    """Samples as one batch, padded with zeros (`observed` with False, codes with -1).

    `groups` maps the name of each group to its number; None where there are none.
    """
    labels = tuple(sample.label for sample in samples)
    segments = all_or_none([sample.segments for sample in samples])
    return Batch(
        inputs=_padded([sample.values for sample in samples]),
        lengths=torch.tensor([len(sample.values) for sample in samples]),
        observed=where_given(_padded, [sample.observed for sample in samples]),
        times=where_given(_padded, [sample.times for sample in samples]),
        codes=where_given(partial(_padded, value=-1), [sample.codes for sample in samples]),
        labels=labels if any(label not in ("", None) for label in labels) else None,
        segments=None if segments is None else tuple(map(tuple, segments)),
        groups=torch.tensor([groups.get(sample.group, -1) for sample in samples]) if groups else None,
        keys=keys,
    )


def _padded(arrays: Sequence[Shaped[np.ndarray, "t ..."]], value: int = 0) -> Tensor:
    """Arrays as the rows of one tensor; `value` fills up the shorter ones."""
    shape = (len(arrays), max(map(len, arrays)), *arrays[0].shape[1:])
    out = np.full(shape, value, dtype=arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)


def _as_it_is(batch: T) -> T:
    """The batch itself: what a worker sends needs no collating."""
    return batch
