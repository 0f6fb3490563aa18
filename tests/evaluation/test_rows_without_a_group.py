"""Where some rows have a group and others have none, the latter are no group of their own."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seqssl.evaluation import probe
from seqssl.evaluation.frames import Labelled
from seqssl.evaluation.protocols import Fold, Table
from seqssl.finetuning.scoring import CLASSES, Scored
from seqssl.ruler import table as ruler

GROUPS = st.lists(st.sampled_from(["", "", "a", "b"]), min_size=1, max_size=12)


def num_units(groups: list[str]) -> int:
    return len({*groups} - {""}) + groups.count("") if len({*groups}) > 1 else len(groups)


@given(GROUPS)
def test_frames_are_held_out_by_group_or_row(groups: list[str]) -> None:
    keys = [f"row {number}" for number in range(len(groups))]
    labelled = Labelled(keys, groups, [np.zeros(1)] * len(groups), ["x"])
    assert len({*labelled.units}) == num_units(groups)
    folds, unit = labelled.folds()
    assert unit == ("groups" if len({*groups}) > 1 else "rows")
    fold_of = dict(zip(labelled.units, folds.tolist(), strict=True))
    assert [fold_of[unit] for unit in labelled.units] == folds.tolist()
    sizes = Counter(folds.tolist())
    assert len(sizes) > 1 or num_units(groups) == 1


@given(GROUPS)
def test_intervals_of_probes_are_over_groups_or_rows(groups: list[str]) -> None:
    none = np.zeros(len(groups), bool)
    found = Table({}, np.array(["x"] * len(groups)), np.array(groups), none, none)
    units = probe.units_of(found, [Fold("all", np.array([], int), np.arange(len(groups)))])
    assert len({*units.tolist()}) == num_units(groups)


@given(GROUPS)
def test_intervals_of_the_ruler_are_over_groups_or_rows(groups: list[str]) -> None:
    right = np.array([[1, 0], [0, 0]], float)
    rows = [Scored(f"row {number}", group, 0, 0, right) for number, group in enumerate(groups)]
    named = sorted({*groups} - {""})
    held_out = named if len(named) > 1 else []  # as evaluate says them
    found = ruler.Table(CLASSES[0], [ruler.Entry("scratch", 1.0, 9, {0: rows})], held_out, 200)
    assert found.num_units == (num_units(groups) if held_out else len(groups))
