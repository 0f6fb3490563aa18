"""Which rows meet in which batch: a pure function of their lengths, the seed and the epoch."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

Item = tuple[int, ...]  # rows that are joined in time
MAX_PADDING = 0.05  # share of an epoch's batches
LENGTH_NOISE = 0.02  # relative; lets rows of like length meet other batch mates in each epoch


def plan_epoch(
    lengths: np.ndarray,
    groups: np.ndarray,
    *,
    batch_length: int,
    max_length: int | None,
    join_length: int | None,
    seed: int,
    epoch: int,
    shuffle: bool,
) -> list[list[Item]]:
    """All rows of one epoch, each exactly once, in batches of like length.

    A batch holds at most `batch_length` input steps, padding included (a longer row is a batch of
    its own). Rows count with at most `max_length`. With `join_length`, rows of one group are
    joined up to that length. Padding stays under 5 % of the epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    lengths = np.minimum(lengths, max_length) if max_length else np.asarray(lengths)
    order = rng.permutation(len(lengths)) if shuffle else np.arange(len(lengths))
    if join_length is None:
        items: list[Item] = [(row,) for row in order.tolist()]
    else:
        items = _join(lengths, groups, order, min(join_length, max_length or join_length))
    sizes = np.array([sum(lengths[row] for row in item) for item in items], dtype=np.int64)
    noise = rng.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(items)) if shuffle else 1.0
    by_length = np.argsort(sizes * noise, kind="stable")
    batches = _cut(by_length.tolist(), sizes.tolist(), batch_length)
    turns = rng.permutation(len(batches)) if shuffle else np.arange(len(batches))
    return [[items[index] for index in batches[turn]] for turn in turns]


def _join(lengths: np.ndarray, groups: np.ndarray, order: np.ndarray, join_length: int) -> list[Item]:
    """Rows of each group, in the order given, joined up to `join_length`; a longer row stays alone."""
    codes = np.unique(groups, return_inverse=True)[1]
    by_group = order[np.argsort(codes[order], kind="stable")]
    borders = np.flatnonzero(np.diff(codes[by_group])) + 1
    items: list[Item] = []
    for rows in np.split(by_group, borders):
        alone = lengths[rows] >= join_length
        items += [(row,) for row in rows[alone].tolist()]
        greedy = _fill(rows[~alone], lengths, join_length, math.inf)
        # Again with as many items of even length, or the last one would often be very short.
        items += _fill(rows[~alone], lengths, join_length, lengths[rows[~alone]].sum() / max(len(greedy), 1))
    return items


def _fill(rows: np.ndarray, lengths: np.ndarray, join_length: int, target: float) -> list[Item]:
    """Runs of rows, none longer than `join_length`, that end near the multiples of `target`."""
    items: list[list[int]] = []
    current = total = 0
    for row, length in zip(rows.tolist(), lengths[rows].tolist(), strict=True):
        if not items or current + length > join_length or total + length / 2 > target * len(items):
            items.append([])
            current = 0
        items[-1].append(row)
        current += length
        total += length
    return [tuple(item) for item in items]


def _cut(order: Sequence[int], sizes: Sequence[int], batch_length: int) -> list[list[int]]:
    """Batches of neighbors in `order`, as large as they may be while the epoch's padding stays small."""
    for limit in (1.0, 0.5, 0.25, 0.1, MAX_PADDING):
        batches = _cut_within(order, sizes, batch_length, limit)
        if _padding([[sizes[index] for index in batch] for batch in batches]) <= MAX_PADDING:
            break
    return batches


def _cut_within(
    order: Sequence[int], sizes: Sequence[int], batch_length: int, limit: float
) -> list[list[int]]:
    """No batch is longer than `batch_length` nor has a larger share of padding than `limit`."""
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


def _padding(batches: Iterable[Sequence[int]]) -> float:
    real, padded = 0, 0
    for sizes in batches:
        real += sum(sizes)
        padded += len(sizes) * max(sizes)
    return 1 - real / max(padded, 1)


def padding_share(
    batches: Iterable[Sequence[Item]], lengths: np.ndarray, max_length: int | None = None
) -> float:
    """Share of padding in a plan's batches."""
    lengths = np.minimum(lengths, max_length) if max_length else lengths
    return _padding([[int(sum(lengths[row] for row in item)) for item in batch] for batch in batches])
