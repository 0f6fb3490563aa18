"""Probes with a known answer, and protocols that must not look at what they test on."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from seqssl.errors import UserError
from seqssl.evaluation import probe, protocols
from seqssl.evaluation.held_out import UNKNOWN, Seen, held_out_rows
from seqssl.evaluation.protocols import Fold, Table
from seqssl.evaluation.scores import probe_tables

LABELS = "abcd"
GROUPS = ("x_1", "x_2", "y_1")


def make_table(*, takes: int = 1, groups: tuple[str, ...] = GROUPS, unheard: tuple[str, ...] = ()) -> Table:
    """Every group has every label `takes` times; `trained` knows it, with an offset of the group."""
    rng = np.random.default_rng(0)
    rows = [(label, group) for group in groups for label in LABELS for _ in range(takes)]
    labels, names = (np.array(column) for column in zip(*rows, strict=True))
    one_hot = np.eye(len(LABELS))[[LABELS.index(label) for label in labels]]
    offsets = np.array([[100.0 * groups.index(name)] for name in names])
    stages = {
        ("trained", "signal"): one_hot + offsets + 0.01 * rng.normal(size=one_hot.shape),
        ("random", "signal"): rng.normal(size=one_hot.shape),
    }
    held_out = np.isin(names, ("x_1",))
    return Table(stages, labels, names, np.isin(names, unheard), held_out)


def scores_of(table: Table, protocol: str) -> dict[str, probe.Score]:
    folds = list(protocols.PROTOCOLS[protocol](table))
    scores = probe.score_all(table, "*", protocol, folds)
    return {f"{score.weights} {score.stage}": score for score in scores}


def assert_honest(table: Table, folds: list[Fold]) -> None:
    """No row is on both sides, no group where a whole one is held out; every tested label was trained on."""
    assert folds
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert set(table.labels[fold.test]) <= set(table.labels[fold.train])
        if fold.name in table.groups:
            assert set(table.groups[fold.test]) == {fold.name}
            assert fold.name not in table.groups[fold.train]


def leaky_leave_one_group_out(table: Table) -> Iterator[Fold]:
    """Broken: trains on the group that it tests on."""
    for fold in protocols.leave_one_group_out(table):
        yield replace(fold, train=np.concatenate([fold.train, fold.test]))


def swapped_leave_one_group_out(table: Table) -> Iterator[Fold]:
    """Broken: one row of the held-out group is trained on, its neighbor tested."""
    for fold in protocols.leave_one_group_out(table):
        yield replace(fold, train=np.append(fold.train, fold.test[0]), test=fold.test[1:])


def test_separable_labels_are_found_in_an_unseen_group_and_noise_is_chance() -> None:
    found = scores_of(make_table(takes=8), "leave one group out")
    assert found["trained signal"].accuracy == 1.0
    assert found["random signal"].accuracy < 0.5
    assert found["none majority"].accuracy == 0.25
    assert set(found["trained signal"].folds) == set(GROUPS)
    assert (found["trained signal"].num_rows, found["trained signal"].num_classes) == (96, 4)


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
@pytest.mark.parametrize("takes", [1, 3, 7])
def test_protocols_are_honest(protocol: str, takes: int) -> None:
    unheard = ("y_1",) if protocol == "held-out split" else ("x_2", "y_1")
    table = make_table(takes=takes, unheard=unheard)
    folds = list(protocols.PROTOCOLS[protocol](table))
    if protocol == "held-out takes" and takes == 1:
        assert not folds
    elif protocol == "leave one group out":
        assert not folds  # one group is left of the encoder's own
    else:
        assert_honest(table, folds)


def test_the_held_out_split_is_scaled_by_its_training_rows_alone() -> None:
    """Rows of the test side may hold anything: what the probe learns does not change."""
    table = make_table(takes=4, groups=("x_1", "x_2"))
    (fold,) = protocols.held_out_split(table)
    assert set(table.groups[fold.test]) == {"x_1"}
    assert set(table.groups[fold.train]) == {"x_2"}
    x = table.stages["trained", "signal"]
    changed = x.copy()
    changed[fold.test] *= 1e6
    one, two = probe.scale_by(x, fold.train), probe.scale_by(changed, fold.train)
    np.testing.assert_array_equal(one[fold.train], two[fold.train])
    np.testing.assert_allclose(one[fold.train].std(axis=0), 1, atol=1e-3)


def test_leave_one_group_out_never_sees_the_unheard() -> None:
    table = make_table(takes=2, unheard=("y_1",))
    folds = list(protocols.leave_one_group_out(table))
    assert_honest(table, folds)
    assert {fold.name for fold in folds} == {"x_1", "x_2"}
    assert all("y_1" not in table.groups[np.append(fold.train, fold.test)] for fold in folds)


@pytest.mark.parametrize("broken", [leaky_leave_one_group_out, swapped_leave_one_group_out])
def test_a_leak_is_caught(broken: object) -> None:
    table = make_table(takes=2)
    assert_honest(table, list(protocols.leave_one_group_out(table)))
    with pytest.raises(AssertionError):
        assert_honest(table, list(broken(table)))  # type: ignore[operator]


def test_unheard_groups_are_tested_within_their_family_only() -> None:
    table = make_table(takes=2, groups=("x_1", "x_2", "y_1", "z_1"), unheard=("x_2", "z_1"))
    anywhere = {fold.name: set(table.groups[fold.train]) for fold in protocols.unheard_group(table)}
    assert anywhere == {"x_2": {"x_1", "y_1", "z_1"}, "z_1": {"x_1", "x_2", "y_1"}}
    related = {fold.name: set(table.groups[fold.train]) for fold in protocols.unheard_relative(table)}
    assert related == {"x_2": {"x_1"}}  # z_1 has no relative


def test_labels_of_one_side_only_are_left_out() -> None:
    table = make_table()
    table.labels[table.groups == "y_1"] = ["a", "b", "e", "f"]
    fold = next(fold for fold in protocols.leave_one_group_out(table) if fold.name == "y_1")
    assert sorted(table.labels[fold.test]) == ["a", "b"]
    assert set(table.labels[fold.train]) == {"a", "b"}


def test_a_single_shared_label_makes_no_fold() -> None:
    table = make_table()
    table.labels[table.groups == "y_1"] = ["a", "e", "f", "g"]
    assert {fold.name for fold in protocols.leave_one_group_out(table)} == {"x_1", "x_2"}


def test_held_out_takes_test_every_row_once() -> None:
    table = make_table(takes=3)
    folds = list(protocols.held_out_takes(table))
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(table.labels)))
    assert all(len(set(table.groups[np.append(fold.train, fold.test)])) == 1 for fold in folds)
    assert scores_of(table, "held-out takes")["trained signal"].accuracy == 1.0


def test_standardizing_removes_the_group_and_keeps_the_label() -> None:
    table = make_table(takes=4)
    x = probe.standardize(table.stages["trained", "signal"], table.groups)
    for group in GROUPS:
        rows = x[table.groups == group]
        np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-3)
    constant = probe.standardize(np.full((4, 2), 7.0), np.array(["a"] * 4))
    np.testing.assert_array_equal(constant, 0)


def test_majority_is_what_the_training_part_says() -> None:
    assert probe.majority(np.array(["b", "b", "a"]), np.array(["a", "a", "a", "b"])).mean() == 0.25


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [("*", [1, 1, 1, 0]), ("n/*", [1, 1, 0, 0]), ("n/[0-9]", [1, 0, 0, 0]), ("n", [0] * 4)],
)
def test_patterns_choose_labels(pattern: str, chosen: list[int]) -> None:
    labels = np.array(["n/1", "n/10", "m/1", ""])
    assert probe.matching(labels, pattern).astype(int).tolist() == chosen


def test_json_holds_every_fold() -> None:
    scores = probe.score_all(
        make_table(takes=2), "*", "p", list(protocols.leave_one_group_out(make_table(takes=2)))
    )
    lines = probe.to_json(scores)
    assert {(line["weights"], line["stage"]) for line in lines} == {
        ("none", "majority"),
        ("trained", "signal"),
        ("random", "signal"),
    }
    assert all(set(line["folds"]) == set(GROUPS) and 0 <= line["accuracy"] <= 1 for line in lines)


def test_accuracy_is_over_rows_not_folds() -> None:
    score = probe.Score(
        "*", "any", "trained", "output", {"big": 0.9, "tiny": 0.0}, {"big": 297, "tiny": 3}, 2
    )
    assert score.num_rows == 300
    assert score.accuracy == pytest.approx(0.891)


def test_intervals_are_over_groups() -> None:
    """One group always right and one always wrong: whole groups are drawn, so that nothing is sure."""
    right = np.array([True] * 50 + [False] * 50)
    assert probe.bootstrap(right, np.array(["a"] * 50 + ["b"] * 50)) == (0.0, 1.0)
    low, high = probe.bootstrap(right, np.arange(100).astype(str))
    assert 0.39 <= low < 0.5 < high <= 0.61


def test_groups_of_one_label_keep_what_tells_it() -> None:
    """Their own mean is the label: taken off, the probe learned from noise."""
    rng = np.random.default_rng(0)
    groups = np.array([f"g{n}" for n in range(8) for _ in range(6)] + ["t"] * 12)
    labels = np.array(["ab"[n % 2] for n in range(8) for _ in range(6)] + ["a", "b"] * 6)
    x = np.where(labels == "a", 1.0, -1.0)[:, None] + 0.2 * rng.normal(size=(60, 3))
    nobody = np.zeros(60, bool)
    table = Table({(w, "signal"): x for w in ("trained", "random")}, labels, groups, nobody, nobody)
    few, several = (
        probe.score_all(each, pattern, "leave one group out", list(protocols.leave_one_group_out(each)))
        for each, pattern in ((table, "one"), (make_table(takes=2), "all"))
    )
    found = next(score for score in few if score.weights == "trained")
    assert found.rows == {"t": 12} and found.accuracy == 1.0
    assert found.num_poor == 8 and found.num_units == 12, "one tested group: rows are drawn"
    assert {(score.num_poor, score.num_units) for score in several} == {(0, 3)}
    shown = " ".join(text(probe_tables([*few, *several], "signal")).split())
    assert "one, leave one group out: 8 groups of one label are scaled by the training rows." in shown
    assert "all, leave one group out: 3 groups are too few to be sure." in shown


def text(table: object) -> str:
    console = Console(markup=False, width=100)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


class Rows:
    """Of a corpus what its rows are called, and where they belong."""

    folder = "rows"

    def __init__(self, keys: str, splits: str) -> None:
        self.keys, self.labels = (np.array([*keys], object) for _ in range(2))
        self.groups = np.full(len(keys), "x", object)
        self.splits = np.array([{"t": "train", "v": "valid"}[split] for split in splits], object)

    def __len__(self) -> int:
        return len(self.keys)


@pytest.mark.parametrize(
    ("keys", "splits", "seen", "held_out", "is_known"),
    [
        ("abcd", "ttvv", Seen(frozenset("ab"), is_known=True), "cd", True),  # the run's own data
        ("abcd", "ttvv", Seen(frozenset("a"), is_known=True), "cd", True),  # a part of it: groups stay whole
        ("abcd", "tttv", Seen(frozenset("ad")), "bc", False),  # a run before it may have learned b and c
        ("abcd", "tttv", Seen(frozenset("ad"), is_known=True), "bc", True),  # split anew, and d was learned
        (
            "abcd",
            "tttv",
            Seen(frozenset("a"), labelled=frozenset("d"), is_known=True),
            "bc",
            True,
        ),  # with its label
        ("abcd", "ttvv", Seen(frozenset("xy"), is_known=True), "cd", False),  # other data
        ("abcd", "ttvv", UNKNOWN, "cd", False),
        ("ab", "tv", Seen(frozenset("abc"), is_known=True), "", True),  # nothing is held out
    ],
)
def test_held_out_is_what_the_training_did_without(
    keys: str, splits: str, seen: Seen, held_out: str, is_known: bool
) -> None:
    rows: Any = Rows(keys, splits)
    chosen, known = held_out_rows(rows, seen)
    assert "".join(rows.keys[chosen]) == held_out and known == is_known


@pytest.mark.parametrize(("seen", "name"), [("ab", "held-out split"), ("x", "split of the source")])
def test_other_data_has_a_split_of_its_own(seen: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def embedded(*arguments: Any, **settings: Any) -> Table:
        return replace(make_table(groups=("x", "y")), held_out=np.repeat([False, True], 4))

    monkeypatch.setattr(probe, "embed_table", embedded)
    nothing, rows = cast(Any, None), cast(Any, Rows("abcd", "ttvv"))
    scores = probe.probe_run(nothing, nothing, rows, nothing, seen=Seen(frozenset(seen), is_known=True))
    assert {score.protocol for score in scores} - {"leave one group out"} == {name}


def test_groups_of_the_training_are_not_unheard() -> None:
    nothing, rows, others = cast(Any, None), cast(Any, Rows("abcd", "ttvv")), cast(Any, Rows("ef", "tv"))
    others.groups = np.array(["y", "z"], object)
    with pytest.raises(UserError, match="groups z are in the training, too"):
        probe.probe_run(nothing, nothing, rows, nothing, unheard=others, seen=Seen(groups=frozenset("z")))
