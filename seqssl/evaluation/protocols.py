"""Protocols of probes: what is trained on and what is tested, by groups, splits and takes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqssl.evaluation.embedding import Rows
from seqssl.evaluation.frozen import Array

Names = npt.NDArray[np.str_]
NUM_FOLDS = 5  # of held-out takes


@dataclass(frozen=True)
class Fold:
    """What one probe is trained on and tested on: places in the probed rows, which never overlap."""

    name: str  # what is held out
    train: Rows
    test: Rows


@dataclass(frozen=True)
class Table:
    """Embedded rows, with what the protocols must know of them."""

    stages: dict[tuple[str, str], Array]  # (weights, stage) -> (n, d)
    labels: Names
    groups: Names
    unheard: npt.NDArray[np.bool_]  # rows of a second corpus, which the encoder was not trained on
    held_out: npt.NDArray[np.bool_]  # rows of the other corpus that are to be tested (see held_out_rows)


def held_out_split(table: Table) -> Iterator[Fold]:
    """Test on the rows that are held out, train on the others."""
    own = ~table.unheard
    yield from _fold(table, "valid", own & ~table.held_out, own & table.held_out)


def leave_one_group_out(table: Table) -> Iterator[Fold]:
    """Train on all groups of the first corpus but one, test on that one."""
    for group in np.unique(table.groups[~table.unheard]):
        out = table.groups == group
        yield from _fold(table, str(group), ~table.unheard & ~out, ~table.unheard & out)


def held_out_takes(table: Table) -> Iterator[Fold]:
    """Within each group, labels with several rows: train on some rows, test on the others."""
    from sklearn.model_selection import StratifiedKFold

    for group in np.unique(table.groups):
        rows = np.flatnonzero(table.groups == group)
        names, counts = np.unique(table.labels[rows], return_counts=True)
        rows = rows[np.isin(table.labels[rows], names[counts > 1])]
        if len(names[counts > 1]) < 2:
            continue
        num_folds = min(NUM_FOLDS, int(counts[counts > 1].min()))
        splitter = StratifiedKFold(num_folds, shuffle=True, random_state=0)
        for number, (train, test) in enumerate(splitter.split(rows, table.labels[rows])):
            yield Fold(f"{group}/{number}", rows[train], rows[test])


def unheard_group(table: Table) -> Iterator[Fold]:
    """Train on all groups of both corpora but one that the encoder was not trained on, test on that one."""
    for group in np.unique(table.groups[table.unheard]):
        out = table.groups == group
        yield from _fold(table, str(group), ~out, out)


def unheard_relative(table: Table) -> Iterator[Fold]:
    """As `unheard_group`, within a family: groups fr_a and fr_b are trained on, and fr_c is tested.

    A group's family is its name up to the first `_`.
    """
    families = np.array([group.partition("_")[0] for group in table.groups.tolist()], dtype=np.str_)
    for group in np.unique(table.groups[table.unheard]):
        out = table.groups == group
        yield from _fold(table, str(group), ~out & (families == families[out][0]), out)


HELD_OUT = "held-out split"
PROTOCOLS: Mapping[str, Callable[[Table], Iterator[Fold]]] = {
    HELD_OUT: held_out_split,
    "leave one group out": leave_one_group_out,
    "held-out takes": held_out_takes,
    "unheard group": unheard_group,
    "unheard, same family": unheard_relative,
}


def _fold(
    table: Table, name: str, train: npt.NDArray[np.bool_], test: npt.NDArray[np.bool_]
) -> Iterator[Fold]:
    """One fold of the labels that both sides have; none where these are fewer than two."""
    common = np.intersect1d(table.labels[train], table.labels[test])
    if len(common) >= 2:
        shared = np.isin(table.labels, common)
        yield Fold(name, np.flatnonzero(train & shared), np.flatnonzero(test & shared))
