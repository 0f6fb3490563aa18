"""Who is tested: no group on both sides, and every label fraction holds the smaller ones."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssl.data.windows import WindowedCorpus, windows_of
from seqssl.errors import UserError
from seqssl.ruler.folds import MIN_LABELS, development, learnable, make_folds, subset

GROUPS = st.lists(st.sampled_from(["", "a", "b", "c", "d", "e"]), min_size=2, max_size=40)


@given(GROUPS, st.sampled_from(["rotate", "leave_one_out", "2", "4"]), st.integers(1, 5))
def test_no_group_is_on_both_sides(groups: list[str], how: str, seeds: int) -> None:
    folds = make_folds(groups, ["train"] * len(groups), how, seeds)
    tested: list[int] = []
    for fold in folds:
        assert len(fold.train) and len(fold.test)
        assert sorted([*fold.train, *fold.test]) == list(range(len(groups)))
        if len(set(groups)) > 1:
            assert not {groups[row] for row in fold.train} & {groups[row] for row in fold.test} - {""}
        train, held_out = development(fold.train, groups)
        assert sorted([*train, *held_out]) == sorted(fold.train)
        if len({groups[row] for row in fold.train}) > 1:
            assert not {groups[row] for row in train} & {groups[row] for row in held_out} - {""}
        tested += fold.test.tolist()
    assert sorted(tested) == list(range(len(groups))), "each row is tested once"
    if how == "leave_one_out":  # a row without a group is one by itself
        units = len({*groups} - {""}) + groups.count("")
        assert len(folds) == (units if len(set(groups)) > 1 else len(groups))


@given(
    st.lists(st.sampled_from("xyz"), min_size=1, max_size=60),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.integers(0, 9),
)
def test_a_fraction_holds_the_smaller_ones(classes: list[str], one: float, two: float, seed: int) -> None:
    rows = np.arange(len(classes))
    small, large = (subset(rows, classes, fraction, seed) for fraction in sorted((one, two)))
    assert {*small.tolist()} <= {*large.tolist()}
    counts, wanted = Counter(classes[row] for row in small.tolist()), Counter(classes)
    for name, number in wanted.items():
        assert counts[name] == min(number, max(MIN_LABELS, round(min(one, two) * number)))
    assert len(subset(rows, None, 1.0, seed)) == len(rows)
    assert len(subset(rows, classes, 1.0, seed)) == len(rows)


def test_the_split_of_the_source() -> None:
    (fold,) = make_folds(["a", "b", "a"], ["train", "valid", "train"], "split", 3)
    assert fold.train.tolist() == [0, 2]
    assert fold.test.tolist() == [1]
    with pytest.raises(UserError, match="all on one side"):
        make_folds(["a", "b"], ["train", "train"], "split", 3)


@pytest.mark.parametrize("how", ["1", "often", "-2"])
def test_other_ways_are_refused(how: str) -> None:
    with pytest.raises(UserError, match="expected rotate, leave_one_out, split, or a number from 2 on"):
        make_folds(["a", "b"], ["train", "train"], how, 3)


def test_classes_that_some_fold_cannot_learn_are_left_out() -> None:
    groups, classes = ["a", "a", "b", "b", "b"], ["x", "y", "x", "y", "z"]
    folds = make_folds(groups, ["train"] * 5, "leave_one_out", 3)
    assert learnable(classes, folds) == ["x", "y"]


def windowed(lengths: list[int], groups: list[str], length: int, every: int) -> WindowedCorpus:
    rows: Any = SimpleNamespace(
        manifest=None, folder=None, keys=np.array([f"k{n}" for n in range(len(lengths))], object),
        groups=np.array(groups, object), labels=np.full(len(lengths), "", object),
        splits=np.full(len(lengths), "train", object), lengths=np.array(lengths),
    )  # fmt: skip
    return windows_of(rows, length, every)


@given(
    st.lists(st.integers(4, 60), min_size=1, max_size=4),
    st.sampled_from(["ab", "aa"]),
    st.integers(2, 9),
    st.integers(1, 6),
)
def test_no_step_is_on_both_sides_of_a_choice(
    lengths: list[int], names: str, length: int, every: int
) -> None:
    """Windows of one row overlap: to divide them one by one was to choose by what had been learned."""
    windows = windowed(lengths, [names[n % 2] for n in range(len(lengths))], length, every)
    for group in sorted({*windows.groups.tolist()}):
        rows = np.flatnonzero(windows.groups == group)  # a fold may have one training group
        sides = development(rows, windows.groups.tolist(), windows)
        learned, chosen = (
            {
                (windows.owners[n], step)
                for n in side
                for step in range(windows.starts[n], windows.starts[n] + length)
            }
            for side in sides
        )
        assert chosen and not learned & chosen


def test_of_one_row_the_last_third_is_chosen_by() -> None:
    windows = windowed([60], ["a"], 4, 2)  # 29 windows
    train, held_out = development(np.arange(29), windows.groups.tolist(), windows)
    assert windows.starts[held_out].tolist() == list(range(38, 57, 2))
    assert windows.starts[train].tolist() == list(range(0, 35, 2))


def test_rows_of_one_group_stay_whole() -> None:
    windows = windowed([20, 20, 20, 20], ["a", "a", "a", "b"], 4, 2)
    rows = np.flatnonzero(windows.groups == "a")
    train, held_out = development(rows, windows.groups.tolist(), windows)
    assert {*windows.sources[held_out]} == {"k0"} and {*windows.sources[train]} == {"k1", "k2"}
