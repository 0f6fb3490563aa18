"""What `seqssl.data.epochs` computes with arrays, row by row: the reference of its tests."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from seqssl.data.epochs import LENGTH_NOISE, MAX_PADDING, Item


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
) -> list[list[Item]]:
    """The batches that `seqssl.data.epochs.epoch_batches` gives."""
    rng = np.random.default_rng([seed, epoch])
    lengths = np.minimum(lengths, max_length) if max_length else np.asarray(lengths)
    order = _drawn(len(lengths), weights, rng) if shuffle else np.arange(len(lengths))
    if join_length is None:
        items: list[Item] = [(row,) for row in order.tolist()]
    else:
        items = _join(lengths, groups, order, min(join_length, max_length or join_length))
    sizes = np.array([sum(lengths[row] for row in item) for item in items], dtype=np.int64)
    noise = rng.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(items)) if shuffle else 1.0
    # Neighbors in length are batched, which leaves little padding; noise makes other neighbors each epoch.
    by_length = np.argsort(sizes * noise, kind="stable")
    batches = _with_enough(_cut(by_length.tolist(), sizes.tolist(), batch_length), at_least)
    # An epoch must not go from short rows to long ones.
    turns = rng.permutation(len(batches)) if shuffle else np.arange(len(batches))
    return [[items[index] for index in batches[turn]] for turn in turns]


def repeats(batches: Iterable[Sequence[Item]]) -> list[list[Item]]:
    """For each row of each item, how often the row came before in these batches."""
    seen: Counter[int] = Counter()
    found: list[list[Item]] = []
    for batch in batches:
        found.append([])
        for item in batch:
            before = []
            for row in item:
                before.append(seen[row])
                seen[row] += 1
            found[-1].append(tuple(before))
    return found


def _drawn(num_rows: int, weights: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """All rows in random order; with weights, as many rows, each as often as its weight says."""
    if weights is None:
        return rng.permutation(num_rows)
    # Systematic resampling: even steps along the summed weights, from one random offset, meet row i as often
    # as its share says, but for rounding. Independent draws would leave many rows out of an epoch.
    edges = np.cumsum(weights, dtype=np.float64)
    points = (np.arange(num_rows) + rng.random()) * (edges[-1] / num_rows)
    return rng.permutation(np.minimum(np.searchsorted(edges, points, side="right"), num_rows - 1))


def _join(lengths: np.ndarray, groups: np.ndarray, order: np.ndarray, join_length: int) -> list[Item]:
    """Rows of each group, in the order given, joined up to `join_length`; a longer row stays alone."""
    codes = np.unique(groups, return_inverse=True)[1]
    by_group = order[np.argsort(codes[order], kind="stable")]
    items: list[Item] = []
    for rows in np.split(by_group, np.flatnonzero(np.diff(codes[by_group])) + 1):
        alone = lengths[rows] >= join_length
        items += [(row,) for row in rows[alone].tolist()]
        items += _fill(rows[~alone].tolist(), lengths, join_length)
    return items


def _fill(rows: Sequence[int], lengths: np.ndarray, join_length: int) -> list[Item]:
    """Rows joined one after the other while they fit; the last two items share their rows evenly."""
    items: list[list[int]] = []
    total = join_length  # full, so that the first row opens an item
    for row, length in zip(rows, lengths[rows].tolist(), strict=True):
        total += length
        if total > join_length:
            items.append([])
            total = length
        items[-1].append(row)
    if len(items) > 1:  # the last item has what is left, which is often very short
        tail = items[-2] + items[-1]
        sums = np.cumsum(lengths[tail])
        half = int(np.searchsorted(sums, sums[-1] / 2, side="right"))
        if half and sums[-1] - sums[half - 1] <= join_length:
            items[-2:] = [tail[:half], tail[half:]]
    return [tuple(item) for item in items]


def _cut(order: Sequence[int], sizes: Sequence[int], batch_length: int) -> list[list[int]]:
    """Batches of neighbors in `order`, as large as they may be while the epoch's padding stays small."""
    # Loose limits make large batches, so they are tried first. The last one always keeps the epoch's bound.
    for limit in (1.0, 0.5, 0.25, 0.1, MAX_PADDING):
        batches = _cut_within(order, sizes, batch_length, limit)
        if _padding([[sizes[index] for index in batch] for batch in batches]) <= MAX_PADDING:
            break
    return batches


def _cut_within(
    order: Sequence[int], sizes: Sequence[int], batch_length: int, limit: float
) -> list[list[int]]:
    """Batches of neighbors, none longer than `batch_length` or with a share of padding above `limit`."""
    batches: list[list[int]] = []
    longest = real = 0
    for index in order:
        longest, real = max(longest, sizes[index]), real + sizes[index]
        padded = longest * (len(batches[-1]) + 1) if batches else batch_length + 1
        if padded > batch_length or padded - real > limit * padded:
            batches.append([])
            longest = real = sizes[index]
        batches[-1].append(index)
    return batches


def _with_enough(batches: list[list[int]], at_least: int) -> list[list[int]]:
    """The same, with what batches that are too small lack taken from the one before, or the one after."""
    found: list[list[int]] = []
    for batch in batches:
        if not found or min(len(batch), len(found[-1])) >= at_least:
            found.append(batch)
            continue
        both = found.pop() + batch
        cut = len(both) - at_least if len(batch) < at_least else at_least
        found += [both[:cut], both[cut:]] if at_least <= cut <= len(both) - at_least else [both]
    return [(batch * at_least)[:at_least] if len(batch) < at_least else batch for batch in found]


def _padding(batches: Iterable[Sequence[int]]) -> float:
    """The share of padding in batches that are given by the lengths of their items."""
    real, padded = 0, 0
    for sizes in batches:
        real += sum(sizes)
        padded += len(sizes) * max(sizes)
    return 1 - real / max(padded, 1)
