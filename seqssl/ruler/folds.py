"""Who is tested, and from which labels is learned: groups are never on both sides."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seqssl.data.windows import WindowedCorpus
from seqssl.errors import UserError

Rows = npt.NDArray[np.int64]
MIN_LABELS = 3  # of a class, or of all rows where there are no classes
DEV_SHARE = 1 / 3  # of the training groups, on which learning rates are chosen


@dataclass(frozen=True)
class Fold:
    """Row numbers to test on, and those that may be learned from."""

    number: int
    train: Rows
    test: Rows


def make_folds(groups: Sequence[str], splits: Sequence[str], how: str, num_seeds: int) -> list[Fold]:
    """The folds of labelled rows, each group being in the test of one.

    `how`: "rotate" makes as many folds as seeds, "leave_one_out" one for each group, a number so many, and
    "split" takes the data's own held-out rows. Where all rows are of one group, rows are the groups.
    """
    places = np.arange(len(groups))
    if how == "split":
        held_out = np.array([split != "train" for split in splits], dtype=bool)
        if held_out.all() or not held_out.any():
            raise UserError("folds = split: the labelled rows are all on one side; say folds=rotate.")
        return [Fold(0, places[~held_out], places[held_out])]
    units = units_of(groups)
    sizes = Counter(units)
    if how == "leave_one_out":
        number = len(sizes)
    elif how == "rotate":
        number = max(2, num_seeds)
    elif how.isdecimal() and int(how) >= 2:
        number = int(how)
    else:
        raise UserError(f"folds = {how}: expected rotate, leave_one_out, split, or a number from 2 on.")
    number = min(number, len(sizes))
    if number < 2:
        raise UserError("folds: there is one labelled row only.")
    fold_of = assign(sizes, number)
    owners = np.array([fold_of[unit] for unit in units])
    return [Fold(n, places[owners != n], places[owners == n]) for n in range(number)]


def units_of(groups: Sequence[str]) -> list[str]:
    """What is kept together: the groups; a row without one, or where there are no two, is by itself."""
    several = len(set(groups)) > 1
    return [group if group and several else f"\n{number}" for number, group in enumerate(groups)]


def assign(sizes: Counter[str], number: int) -> dict[str, int]:
    """A fold for each unit: the largest first, each to the fold that has the fewest rows so far."""
    filled = [0] * number
    found = {}
    for unit, size in sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0])):
        fold = filled.index(min(filled))
        found[unit] = fold
        filled[fold] += size
    return found


def development(
    rows: Rows, groups: Sequence[str], windows: WindowedCorpus | None = None
) -> tuple[Rows, Rows]:
    """The rows to learn from and those to choose a learning rate on: parts of the training groups.

    Windows of one row overlap. Where all are of one group, those of a row are kept together; where all are of
    one row, the last third is held out, and those that reach into it are in neither part.
    """
    own = [groups[row] for row in rows.tolist()]
    if windows is not None and len(set(own)) < 2:
        own = [str(owner) for owner in windows.owners[rows].tolist()]
        if len(set(own)) < 2:
            starts = windows.starts[rows]
            border = np.quantile(starts, 1 - DEV_SHARE, method="higher")
            return rows[starts + windows.length <= border], rows[starts >= border]
    sizes = Counter(units_of(own))
    fold_of = assign(sizes, min(len(sizes), round(1 / DEV_SHARE)))
    held_out = np.array([fold_of[unit] == 0 for unit in units_of(own)], dtype=bool)
    return rows[~held_out], rows[held_out]


def subset(rows: Rows, classes: Sequence[Any] | None, fraction: float, seed: int) -> Rows:
    """A part of the labelled rows: `fraction` of each class, at least `MIN_LABELS` where there are so many.

    `classes` holds the class of every row of the corpus; None = no classes. A larger fraction of the same
    seed holds the smaller one.
    """
    rng = np.random.default_rng([seed, 7])
    order = rows[rng.permutation(len(rows))]
    names = [None] * len(order) if classes is None else [classes[row] for row in order.tolist()]
    wanted = {
        name: min(number, max(MIN_LABELS, round(fraction * number)))
        for name, number in Counter(names).items()
    }
    taken: Counter[Any] = Counter()
    chosen = []
    for row, name in zip(order.tolist(), names, strict=True):
        if taken[name] < wanted[name]:
            taken[name] += 1
            chosen.append(row)
    return np.sort(np.array(chosen, dtype=np.int64))


def learnable(classes: Sequence[str], folds: Sequence[Fold]) -> list[str]:
    """The classes that can be learned in every fold."""
    counts = [Counter(classes[row] for row in fold.train.tolist()) for fold in folds]
    return sorted(name for name in counts[0] if all(count[name] for count in counts))
