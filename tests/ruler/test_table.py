"""What pre-training is worth in labels, and the table."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssl.finetuning.scoring import AUROC, CLASSES, ERRORS, Scored, confusion
from seqssl.ruler.table import Entry, Table, labels_for, markdown


def test_labels_are_read_off_the_curve() -> None:
    labels, curve = [10.0, 100.0, 1000.0], [0.2, 0.4, 0.6]
    assert labels_for(labels, curve, 0.1) == 10
    assert labels_for(labels, curve, 0.2) == 10
    assert labels_for(labels, curve, 0.3) == pytest.approx(10**1.5)
    assert labels_for(labels, curve, 0.6) == pytest.approx(1000)
    assert labels_for(labels, curve, 0.7) == math.inf


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0, 1), st.floats(0, 1))
def test_a_better_score_never_needs_fewer_labels(curve: list[float], one: float, two: float) -> None:
    labels = [10.0 * 3**n for n in range(len(curve))]
    low, high = sorted((one, two))
    assert labels_for(labels, curve, low) <= labels_for(labels, curve, high)


def entry(row: str, labels: int, rate: float, groups: int = 12) -> Entry:
    """Groups of 50 rows, of which a share is right; it differs a little from group to group."""
    rows = []
    for group in range(groups):
        right = round(50 * rate) + group % 3 - 1
        table = np.array([[right, 50 - right], [0, 0]], float)
        rows.append(Scored(f"{group}", f"g{group}", 0, 0, table))
    return Entry(row, labels / 1000, labels, {0: rows, 1: rows})


def test_a_gain_is_told_in_labels() -> None:
    entries = [entry("scratch", 10, 0.2), entry("scratch", 1000, 0.6), entry("pretrained", 10, 0.4)]
    entries.append(entry("pretrained", 1000, 0.61))
    table = Table(CLASSES[0], entries, [f"g{n}" for n in range(12)], 200)
    worth = table.worth()
    assert worth["at"][0]["worth"] == pytest.approx(100, rel=0.2)
    assert worth["at"][0]["worth_low"] <= 100 <= worth["at"][0]["worth_high"]
    assert worth["at"][0]["gain"] == pytest.approx(0.2)
    assert worth["sentence"].startswith("With 10 labels, pre-training is worth ")
    assert "the same accuracy in the same 200 updates." in worth["sentence"] and worth["shown"]
    line = table.line(entries[0])
    assert line["low"] <= line["mean"] <= line["high"]
    assert line["mean"] == pytest.approx(0.2)
    assert set(line["by_seed"]) == {"0", "1"}


def test_no_gain_and_a_loss_are_told_as_such() -> None:
    same = [entry("scratch", 10, 0.3), entry("pretrained", 10, 0.3)]
    told = Table(CLASSES[0], same, ["a", "b"], 200).worth()["sentence"]
    assert told.startswith("No gain is shown: with 10 labels")
    worse = [entry("scratch", 10, 0.5), entry("pretrained", 10, 0.3)]
    assert "it is worse than scratch" in Table(CLASSES[0], worse, ["a", "b"], 200).worth()["sentence"]


@pytest.mark.parametrize("right, is_told", [(0.0, True), (0.01, True), (0.2, False)])
def test_rows_that_say_the_most_frequent_label_are_told(right: float, is_told: bool) -> None:
    """7 of 10 rows are of class 0; of the others so many of all rows are told apart from it."""

    def said(row: str) -> Entry:
        wanted = [0] * 70 + [1] * 30
        guesses = [0] * 70 + [1] * round(100 * right) + [0] * (30 - round(100 * right))
        pairs = enumerate(zip(wanted, guesses, strict=True))
        rows = [
            Scored(f"{n}", f"g{n % 10}", true, guess, None, np.eye(2)[guess]) for n, (true, guess) in pairs
        ]
        return Entry(row, 1.0, 100, {0: rows, 1: rows})

    table = Table(CLASSES[0], [said("scratch"), said("pretrained")], [f"g{n}" for n in range(10)], 40)
    told = (
        "With 100 labels, neither tells them apart: the most frequent one is right in 70.0%"
        in (table.worth()["sentence"])
    )
    assert told is is_told


def test_what_does_better_without_pretraining_is_told() -> None:
    entries = [entry("scratch", 10, 0.2), entry("pretrained", 10, 0.4), entry("classical", 10, 0.5)]
    told = Table(CLASSES[0], entries, ["a", "b"], 200).worth()["sentence"]
    assert told.endswith("With 10 labels, a method without an encoder did better.")
    entries += [entry("random", 10, 0.45)]
    told = Table(CLASSES[0], entries, ["a", "b"], 200).worth()["sentence"]
    assert told.endswith("a method without an encoder and a random encoder, frozen, did better.")
    assert "did better" not in Table(CLASSES[0], entries[:2], ["a", "b"], 200).worth()["sentence"]


def test_errors_count_downwards() -> None:
    def errors(row: str, labels: int, size: float) -> Entry:
        rows = [Scored(str(n), f"g{n}", 0, 0, np.array([size, size, 1.0])) for n in range(6)]
        return Entry(row, 1.0, labels, {0: rows})

    table = Table(ERRORS[0], [errors("scratch", 10, 4.0), errors("pretrained", 10, 1.0)], ["a", "b"], 200)
    assert table.differences("pretrained", "scratch")[0]["gain"] == 3.0
    assert table.worth()["at"][0]["worth"] is None, "more than scratch was given"


def test_the_table_in_markdown() -> None:
    both = [entry("scratch", 10, 0.2), entry("pretrained", 10, 0.4)]
    table = Table(CLASSES[0], both, ["a", "b"], 200, "windows")
    values = {"metric": "accuracy", "unit": "share", "examples": "windows"}
    lines = markdown({**values, "results": [table.line(e) for e in table.entries]}).splitlines()
    assert lines[0] == "| accuracy | 0.01 (10 windows) |"
    assert lines[2].startswith("| trained from scratch | 20.0 (")
    assert table.worth()["sentence"].startswith("With 10 windows, pre-training is worth more than 10 windows")


def test_one_group_means_rows_are_drawn() -> None:
    rows = [
        Scored(str(n), "only", n % 2, 0, confusion(np.array([n % 2]), np.array([0]), 2)) for n in range(40)
    ]
    table = Table(CLASSES[0], [Entry("scratch", 1.0, 9, {0: rows})], [], 200)
    line = table.line(table.entries[0])
    assert 0.3 < line["low"] < 0.5 < line["high"] < 0.7


def ranked(row: str, labels: int, noise: float, kinds: int = 2) -> Entry:
    """Groups of one class each: a draw of test groups may hold one class alone."""
    rng = np.random.default_rng(labels)
    rows = []
    for n in range(8):
        wanted = n % kinds
        score = wanted + noise * rng.normal()
        rows.append(Scored(str(n), f"g{n}", wanted, 0, np.zeros((2, 2)), np.array([-score, score])))
    return Entry(row, labels / 1000, labels, {0: rows})


def test_draws_without_a_value_do_not_widen_what_it_is_worth() -> None:
    entries = [ranked("scratch", 10, 5.0), ranked("scratch", 1000, 0.01)]
    entries += [ranked("pretrained", 10, 0.01), ranked("pretrained", 1000, 0.01)]
    at = Table(AUROC, entries, [f"g{n}" for n in range(8)], 200).worth()["at"]
    assert at[0]["worth"] is not None and at[0]["worth_high"] is not None


def test_what_is_not_defined_has_not_diverged() -> None:
    one_class = [ranked("scratch", 10, 1.0, kinds=1), ranked("pretrained", 10, 1.0, kinds=1)]
    told = Table(AUROC, one_class, ["a", "b"], 200).worth()["sentence"]
    assert "hold one class alone" in told and "diverged" not in told
    bad = [entry("scratch", 10, 0.2), entry("pretrained", 10, 0.2)]
    sums = bad[1].by_seed[0][0].sums
    assert sums is not None
    sums[:] = np.nan
    assert "diverged" in Table(CLASSES[0], bad, ["a", "b"], 200).worth()["sentence"]


def of(row: str, labels: int, shares: list[float]) -> Entry:
    """Groups of 100 rows, with the share of each that is right."""
    rows = [
        Scored(str(n), f"g{n}", 0, 0, np.array([[100 * share, 100 - 100 * share], [0, 0]]))
        for n, share in enumerate(shares)
    ]
    return Entry(row, labels / 1000, labels, {0: rows})


@pytest.mark.parametrize(("number", "is_shown"), [(3, False), (5, False), (6, True)])
def test_few_groups_show_nothing(number: int, is_shown: bool) -> None:
    """All groups gain, which of five happens by chance more often than once in twenty times."""
    names = [f"g{n}" for n in range(number)]
    entries = [of("scratch", 10, [0.5] * number), of("pretrained", 10, [0.6] * number)]
    table = Table(CLASSES[0], entries, names, 200)
    worth = table.worth()
    assert table.num_units == number and worth["at"][0]["low"] > 0 and worth["shown"] == is_shown
    assert worth["sentence"].endswith(f" {number} groups are too few to be sure.") != is_shown


def test_what_is_better_without_pretraining_is_told_at_the_claim() -> None:
    """With 10 labels the classical method is far ahead; only all labels counted, where it is not."""
    names, level = [f"g{n}" for n in range(8)], [0.5, 0.75] * 4
    entries = [
        of("scratch", 10, [0.3] * 8), of("scratch", 100, [0.6] * 8),
        of("pretrained", 10, [0.5] * 8), of("pretrained", 100, [0.6] * 8),
        of("classical", 10, [0.8] * 8), of("classical", 100, level),
    ]  # fmt: skip
    worth = Table(CLASSES[0], entries, names, 200).worth()
    assert worth["sentence"].startswith("With 10 labels, pre-training is worth ")
    assert worth["sentence"].endswith(
        " With 10 labels, a method without an encoder did better. With 100 labels, a method without an "
        "encoder did no worse."
    )
    assert not worth["shown"]
    assert worth["at"][0]["rivals"]["classical"]["gain"] == pytest.approx(0.3)
    entries[4] = of("classical", 10, [0.4, 0.5] * 4)
    assert Table(CLASSES[0], entries, names, 200).worth()["shown"]


def test_a_gain_is_not_worth_fewer_labels_than_were_given() -> None:
    """Scratch falls: what it had with 10 labels, pre-training has with 100."""
    names = [f"g{n}" for n in range(8)]
    falling = [of("scratch", 10, [0.7] * 8), of("scratch", 100, [0.4] * 8), of("scratch", 1000, [0.8] * 8)]
    small = [of("pretrained", n, [share] * 8) for n, share in ((10, 0.7), (100, 0.6), (1000, 0.8))]
    worth = Table(CLASSES[0], [*falling, *small], names, 200).worth()
    assert worth["sentence"].startswith("No gain in labels: with 100 labels the accuracy ")
    assert "but with fewer labels scratch had as much." in worth["sentence"] and not worth["shown"]
    assert "scratch is not rising: with 100 labels it did worse than with fewer." in worth["sentence"]
    large = [of("pretrained", n, [share] * 8) for n, share in ((10, 0.7), (100, 0.75), (1000, 0.8))]
    worth = Table(CLASSES[0], [*falling, *large], names, 200).worth()
    between = 100 * 10**0.5  # halfway from the best so far, 0.7, to 0.8
    assert worth["at"][1]["worth"] == pytest.approx(between) and worth["shown"]
    assert worth["sentence"].startswith("With 100 labels, pre-training is worth 316 labels")
