"""Windows of prepared rows as rows of their own."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from seqssl.data.adapters import ModalityAdapter, Row, Sample
from seqssl.data.joining import crop
from seqssl.data.shards import Corpus
from seqssl.model.protocols import FeatureEncoder


class WindowedCorpus:
    """A corpus whose rows are windows of another's, all of one length; for `Windowed` adapters to load.

    It has of `Corpus` what batches are made from. Window n is `length` steps of row `owners[n]`, from step
    `starts[n]` on; windows of one row overlap.
    """

    def __init__(self, corpus: Corpus, owners: Sequence[int], starts: Sequence[int], length: int) -> None:
        self.corpus, self.manifest, self.folder = corpus, corpus.manifest, corpus.folder
        self.owners, self.starts, self.length = np.array(owners, int), np.array(starts, int), length
        self.keys = np.array(
            [f"{corpus.keys[owner]}@{start}" for owner, start in zip(owners, starts, strict=True)],
            dtype=object,
        )
        # Where there are no groups to keep apart, rows are.
        several = len({str(group) for group in corpus.groups}) > 1
        self.groups = (corpus.groups if several else corpus.keys)[self.owners]
        self.labels = corpus.labels[self.owners]
        self.splits = corpus.splits[self.owners]
        self.lengths = np.full(len(self.owners), length)
        self.weights = None

    def __len__(self) -> int:
        return len(self.owners)

    def assigned(self, splits: np.ndarray) -> "WindowedCorpus":
        """The same windows in other splits; one with the split "" is in none."""
        other = copy.copy(self)
        other.splits = np.asarray(splits, dtype=object)
        return other

    def rows(self, split: str) -> np.ndarray:
        """Numbers of the windows of a split, ascending."""
        return np.flatnonzero(self.splits == split)

    @property
    def sources(self) -> np.ndarray:
        """Key of the row that each window is of."""
        keys: np.ndarray = self.corpus.keys[self.owners]
        return keys

    def row(self, number: int) -> Row:
        """The columns of the row that a window is of, with its place in it."""
        row = self.corpus.row(int(self.owners[number]))
        return {
            **row,
            "key": self.keys[number],
            "group": self.groups[number],
            WINDOW: (int(self.starts[number]), self.length),
        }


WINDOW = "window"  # a column: the first step and the length


class Windowed:
    """An adapter that loads windows; all else is another's."""

    def __init__(self, adapter: ModalityAdapter) -> None:
        self.adapter, self.spec = adapter, adapter.spec

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "adapter":
            raise AttributeError(name)  # while it is unpickled there is no adapter yet
        return getattr(self.adapter, name)

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """The window of a row, or the row itself where it names none; a window is never augmented.

        An adapter may shift or shorten a row at random, and windows are counted from its stored start.
        """
        place = row.get(WINDOW)
        sample = self.adapter.load(row, rng if place is None else None)
        if place is None:
            return sample
        start, length = place
        return crop(sample, start, length, self.spec.code_stride or 1)

    def feature_encoder(self, dim: int) -> FeatureEncoder:
        """The adapter's own."""
        return self.adapter.feature_encoder(dim)


def windows_of(corpus: Corpus, length: int, every: int) -> WindowedCorpus:
    """All windows of all rows of a split, `every` steps apart; a row that is shorter has none."""
    owners, starts = [], []
    for number in np.flatnonzero(corpus.splits != "").tolist():
        for start in range(0, int(corpus.lengths[number]) - length + 1, every):
            owners.append(number)
            starts.append(start)
    return WindowedCorpus(corpus, owners, starts, length)


def last_windows(corpus: Corpus, length: int) -> WindowedCorpus:
    """The last window of each row that is long enough."""
    owners = np.flatnonzero(corpus.lengths >= length).tolist()
    return WindowedCorpus(corpus, owners, [int(corpus.lengths[n]) - length for n in owners], length)
