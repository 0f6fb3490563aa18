"""Which rows meet in which batch: a pure function of their lengths, the seed and the epoch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Int

Item = tuple[int, ...]  # rows that are joined in time
MAX_PADDING = 0.05  # share of an epoch's batches
LENGTH_NOISE = 0.02  # relative; lets rows of like length meet other batch mates in each epoch
AT_A_TIME = 2**16  # numbers of an array that are Python's at the same time


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch, in order; each becomes a list of items when it is asked for.

    Three arrays hold them, since an epoch may have millions of rows, and as many tuples take gigabytes:

        rows     4 0 7 2 9    of all items, one after the other
        items    0 1 3 4 5    where each item begins in `rows`, and the end
        batches  0 2 4        where each batch begins in `items`, and the end

    These are the batches [(4,), (0, 7)] and [(2,), (9,)].
    """

    rows: Int[np.ndarray, "r"]
    items: Int[np.ndarray, "edges"]
    batches: Int[np.ndarray, "edges"]

    def __len__(self) -> int:
        return len(self.batches) - 1

    def __getitem__(self, number: int) -> list[Item]:
        if not 0 <= number < len(self):
            raise IndexError(f"there is no batch {number} among {len(self)}")
        edges = self.items[self.batches[number] : self.batches[number + 1] + 1].tolist()
        rows = self.rows[edges[0] : edges[-1]].tolist()
        if len(rows) == len(edges) - 1:
            return [(row,) for row in rows]
        first = edges[0]
        return [tuple(rows[start - first : end - first]) for start, end in pairwise(edges)]

    def __iter__(self) -> Iterator[list[Item]]:
        return (self[number] for number in range(len(self)))


def epoch_batches(
    lengths: np.ndarray,
    groups: np.ndarray,
    *,
    batch_length: int,
    max_length: int | None,
    join_length: int | None,
    seed: int,
    epoch: int,
    shuffle: bool,
    weights: np.ndarray | None = None,
    at_least: int = 1,
) -> Batches:
    """All rows of one epoch, each exactly once, in batches of like length and in random order.

    A batch holds at most `batch_length` input steps, padding included (a longer row is a batch of its own). A
    row counts as at most `max_length` steps. With `join_length`, rows of one group are joined up to that
    length. Padding stays under 5 % of the epoch.

    With `weights`, a shuffled epoch has as many rows, but row i comes n w_i / sum(w) times, rounded up or
    down at random.

    A batch of fewer than `at_least` items takes some of its neighbor in length, or all of them where too few
    would be left, whatever the limits say. Where there are fewer in all, they come again.
    """
    rng = np.random.default_rng([seed, epoch])
    lengths = np.minimum(lengths, max_length) if max_length else np.asarray(lengths)
    rows = _small(_drawn(len(lengths), weights, rng) if shuffle else np.arange(len(lengths)))
    items = None  # where each begins in `rows`; None: each is one row
    if join_length is not None:
        rows, items = _join(lengths, groups, rows, min(join_length, max_length or join_length))
    sizes = lengths[rows].astype(np.int64, copy=False)
    sizes = sizes if items is None else np.add.reduceat(sizes, items[:-1])
    noise = rng.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(sizes)) if shuffle else 1.0
    # Neighbors in length are batched, which leaves little padding; noise makes other neighbors each epoch.
    by_length = _small(np.argsort(sizes * noise, kind="stable"))
    batches = _with_enough(_cut(sizes[by_length], batch_length), at_least)
    if 0 < len(by_length) < at_least:
        by_length, batches = np.resize(by_length, at_least), np.array([0, at_least])
    # An epoch must not go from short rows to long ones.
    turns = rng.permutation(len(batches) - 1) if shuffle else np.arange(len(batches) - 1)
    chosen, batches = _gathered(batches, turns)
    places = by_length[chosen]
    if items is None:
        return Batches(rows[places], np.arange(len(places) + 1, dtype=rows.dtype), batches)
    places, items = _gathered(items, places)
    return Batches(rows[places], _small(items), batches)


def repeats(batches: Batches) -> Batches:
    """For each row of each item, how often the row came before in these batches."""
    order = np.argsort(batches.rows, kind="stable")
    ordered = batches.rows[order]
    places = np.arange(len(order))
    is_first = np.append(True, ordered[1:] != ordered[:-1])[: len(order)]
    before = np.empty_like(places)
    before[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return replace(batches, rows=before)


def _gathered(
    edges: Int[np.ndarray, "edges"], chosen: Int[np.ndarray, "m"]
) -> tuple[Int[np.ndarray, "places"], Int[np.ndarray, "new_edges"]]:
    """The places of the stretches that are chosen, one stretch after the other, and the stretches' new edges.

    Stretch i has the places from edges[i] to before edges[i + 1].
    """
    sizes = np.diff(edges)[chosen]
    ends = np.cumsum(sizes, dtype=np.int64)
    places = np.repeat(_small(edges[chosen] - (ends - sizes)), sizes)
    places += np.arange(len(places), dtype=places.dtype)
    return places, np.append(0, ends)


def _small(numbers: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Numbers of rows or of places in four bytes: an epoch has fewer than two thousand million."""
    return numbers.astype(np.int32, copy=False)


def _drawn(num_rows: int, weights: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """All rows in random order; with weights, as many rows, each as often as its weight says."""
    if weights is None:
        return rng.permutation(num_rows)
    # Systematic resampling: even steps along the summed weights, from one random offset, meet row i as often
    # as its share says, but for rounding. Independent draws would leave many rows out of an epoch.
    edges = np.cumsum(weights, dtype=np.float64)
    points = (np.arange(num_rows) + rng.random()) * (edges[-1] / num_rows)
    return rng.permutation(np.minimum(np.searchsorted(edges, points, side="right"), num_rows - 1))


def _join(
    lengths: Int[np.ndarray, "n"], groups: np.ndarray, order: Int[np.ndarray, "n"], join_length: int
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "edges"]]:
    """Rows of each group, in the order given, joined up to `join_length`; a longer row stays alone.

    Returns the rows, group by group, and where each item begins among them, with the end. The last two items
    of a group share their rows evenly, as the last one has what is left, which is often very short.
    """
    alone = lengths >= join_length
    order = order[np.argsort(~alone[order], kind="stable")]  # in each group, rows that stay alone come first
    rows = order[np.argsort(groups[order], kind="stable")]
    sizes, names, alone = lengths[rows].astype(np.int64), groups[rows], alone[rows]
    # A stretch: neighbors that may be joined.
    is_first = np.append(True, (names[1:] != names[:-1]) | alone[1:] | alone[:-1])[: len(rows)]
    stretch = np.cumsum(is_first) - 1
    ends = np.append(np.flatnonzero(is_first)[1:], len(rows))
    after = np.cumsum(sizes)
    before = after - sizes
    # Where an item ends that begins at a place: before the first row that no longer fits.
    full = np.searchsorted(after, before + join_length, side="right")
    starts = _followed(np.maximum(np.minimum(full, ends[stretch]), np.arange(len(rows)) + 1))
    last = np.flatnonzero(np.diff(stretch[starts], append=-1))  # item of each stretch
    last = last[(last > 0) & (stretch[starts[last - 1]] == stretch[starts[last]])]
    first, end = starts[last - 1], ends[stretch[starts[last]]]  # of the rows of two items
    base, total = before[first], after[end - 1] - before[first]
    half = np.searchsorted(after, base + total // 2, side="right")
    fits = (half > first) & (total - (after[half - 1] - base) <= join_length)
    starts[last[fits]] = half[fits]
    return rows, np.append(starts, len(rows))


def _followed(following: Int[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
    """The places from 0 on, each the one that follows the one before, up to the end."""
    found, place, size = [], 0, len(following)
    numbers = following.data
    while place < size:
        found.append(place)
        place = numbers[place]
    return np.array(found, dtype=np.int64)


def _cut(sizes: Int[np.ndarray, "i"], batch_length: int) -> Int[np.ndarray, "edges"]:
    """Batches of neighbors, as large as they may be while the epoch's padding stays small, as edges."""
    # Loose limits make large batches, so they are tried first. The last one always keeps the epoch's bound.
    for limit in (1.0, 0.5, 0.25, 0.1, MAX_PADDING):
        edges = _cut_within(sizes, batch_length, limit)
        padded = int(np.dot(np.diff(edges), np.maximum.reduceat(sizes, edges[:-1]))) if len(sizes) else 0
        if 1 - int(sizes.sum()) / max(padded, 1) <= MAX_PADDING:
            break
    return edges


def _cut_within(sizes: Int[np.ndarray, "i"], batch_length: int, limit: float) -> Int[np.ndarray, "edges"]:
    """Batches of neighbors, none longer than `batch_length` or with a share of padding above `limit`."""
    starts, place, longest, real, number = [], 0, batch_length + 1, 0, 0
    for first in range(0, len(sizes), AT_A_TIME):
        for size in sizes[first : first + AT_A_TIME].tolist():
            if size > longest:  # twice as fast as `max`, and there may be millions
                longest = size
            real += size
            number += 1
            padded = longest * number
            if padded > batch_length or padded - real > limit * padded:
                starts.append(place)
                longest, real, number = size, size, 1
            place += 1
    return np.array([*starts, place])


def _with_enough(edges: Int[np.ndarray, "edges"], at_least: int) -> Int[np.ndarray, "edges"]:
    """The edges, moved or left out where batches are too small: those take of the one before, or after."""
    if at_least <= 1 or len(edges) < 3:
        return edges
    starts = [0]
    for start, end in zip(edges[1:-1].tolist(), edges[2:].tolist(), strict=True):
        if min(end - start, start - starts[-1]) >= at_least:
            starts.append(start)
            continue
        both = end - starts[-1]
        cut = both - at_least if end - start < at_least else at_least
        if at_least <= cut <= both - at_least:
            starts.append(starts[-1] + cut)
    return np.array([*starts, edges[-1]])


def padding_share(
    batches: Iterable[Sequence[Item]], lengths: np.ndarray, max_length: int | None = None
) -> float:
    """The share of padding in batches of rows."""
    lengths = np.minimum(lengths, max_length) if max_length else lengths
    real, padded = 0, 0
    for batch in batches:
        sizes = [int(sum(lengths[row] for row in item)) for item in batch]
        real += sum(sizes)
        padded += len(sizes) * max(sizes)
    return 1 - real / max(padded, 1)
