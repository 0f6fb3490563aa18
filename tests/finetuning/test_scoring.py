"""Scores against scikit-learn and jiwer; intervals against their definition."""

import tracemalloc
from dataclasses import replace

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from seqssl.errors import UserError
from seqssl.finetuning.scoring import (
    AUROC,
    CLASSES,
    ERRORS,
    TEXTS,
    Metric,
    Resampling,
    Scored,
    confusion,
    find_metric,
    interval,
    sums_of_errors,
    sums_of_texts,
    too_few,
)

ACCURACY, MACRO_F1, MCC = CLASSES


def rows_of(wanted: np.ndarray, scores: np.ndarray) -> list[Scored]:
    return [
        Scored(str(n), f"g{n % 5}", int(w), int(s.argmax()), None, s)
        for n, (w, s) in enumerate(zip(wanted, scores, strict=True))
    ]


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=60)
@given(st.integers(0, 2**20), st.integers(2, 6), st.integers(2, 40))
def test_scores_of_classes_are_those_of_scikit_learn(seed: int, num_classes: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.integers(num_classes, size=num_rows)
    scores = rng.dirichlet(np.ones(num_classes), size=num_rows).round(1)
    said = scores.argmax(1)
    rows = rows_of(wanted, scores)
    assert ACCURACY(rows) == pytest.approx(reference.accuracy_score(wanted, said), abs=1e-9)
    f1 = reference.f1_score(wanted, said, average="macro", zero_division=0)
    assert MACRO_F1(rows) == pytest.approx(f1, abs=1e-9)
    assert MCC(rows) == pytest.approx(reference.matthews_corrcoef(wanted, said), abs=1e-9)
    areas = [
        reference.roc_auc_score(wanted == number, scores[:, number])
        for number in (range(num_classes) if num_classes > 2 else [1])
        if 0 < (wanted == number).sum() < num_rows
    ]
    if areas:
        assert AUROC(rows) == pytest.approx(np.mean(areas), abs=1e-9)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=20))
def test_errors_are_those_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    wanted, said = np.array(pairs).T
    rows = [Scored("", "", w, s, sums_of_errors(np.array([w]), np.array([s]))) for w, s in pairs]
    assert ERRORS[0](rows) == pytest.approx(reference.mean_squared_error(wanted, said), rel=1e-9, abs=1e-9)
    assert ERRORS[1](rows) == pytest.approx(reference.mean_absolute_error(wanted, said), rel=1e-9, abs=1e-9)


def test_missing_values_do_not_count() -> None:
    sums = sums_of_errors(np.array([1.0, 9.0]), np.array([2.0, 0.0]), np.array([True, False]))
    assert sums.tolist() == [1.0, 1.0, 1.0]


TEXT = st.text(alphabet="ab c", min_size=1, max_size=12).map(lambda text: " ".join(text.split())).filter(bool)


@given(st.lists(st.tuples(TEXT, st.one_of(st.just(""), TEXT)), min_size=1, max_size=6))
def test_error_rates_of_texts_are_those_of_jiwer(pairs: list[tuple[str, str]]) -> None:
    wanted, said = [list(side) for side in zip(*pairs, strict=True)]
    rows = [Scored("", "", w, s, sums_of_texts(w, s)) for w, s in pairs]
    assert TEXTS[0](rows) == pytest.approx(jiwer.wer(wanted, said), abs=1e-9)
    assert TEXTS[1](rows) == pytest.approx(jiwer.cer(wanted, said), abs=1e-9)


@pytest.mark.parametrize("metric", [ACCURACY, AUROC])
def test_the_interval_is_over_groups(metric: Metric) -> None:
    """Two groups, one always right and one always wrong: of four equal draws one is 0, two a half, one 1."""
    rows = []
    for group, right in (("x", True), ("y", False)):
        for number in range(4):
            wanted = number % 2
            scores = np.eye(2)[wanted if right else 1 - wanted]
            table = confusion(np.array([wanted]), scores.argmax(keepdims=True), 2)
            rows.append(Scored(f"{group}{number}", group, wanted, 0, table, scores))
    resampling = Resampling.of([row.group for row in rows], num_draws=400)
    values = resampling.values(metric, [rows])
    assert set(values.tolist()) == {0.0, 0.5, 1.0}
    assert np.mean(values == 0.5) == pytest.approx(0.5, abs=0.1)
    assert interval(values) == (0.0, 1.0)


def test_seeds_that_test_other_groups_are_averaged_where_they_were_drawn() -> None:
    one = [Scored("a", "x", 0, 0, confusion(np.array([0]), np.array([0]), 2))]
    two = [Scored("b", "y", 0, 1, confusion(np.array([0]), np.array([1]), 2))]
    resampling = Resampling.of(["x", "y"], num_draws=200)
    assert set(resampling.values(ACCURACY, [one, two]).tolist()) == {0.0, 0.5, 1.0}


def test_classes_are_scored_as_by_a_table_for_each_row() -> None:
    rng = np.random.default_rng(0)
    plain = rows_of(rng.integers(4, size=60), rng.dirichlet(np.ones(4), size=60))
    tables = [
        replace(row, sums=confusion(np.array([row.wanted]), np.array([row.said]), 4), scores=None)
        for row in plain
    ]
    for by_row in (False, True):
        resampling = Resampling.of([row.key if by_row else row.group for row in plain], num_draws=60)
        for metric in CLASSES:
            assert metric(plain) == metric(tables)
            one, two = (resampling.values(metric, [rows], by_row) for rows in (plain, tables))
            np.testing.assert_array_equal(one, two)


def test_many_classes_and_rows_take_little_memory() -> None:
    """A table of 300 classes is 720 kB: 1,000 rows had 720 MB, and each draw 8 bytes a row."""
    names = np.arange(1000) % 300
    rows = [
        Scored(str(n), "", int(name), int(name), None, np.zeros(300, np.float32))
        for n, name in enumerate(names)
    ]
    tracemalloc.start()
    resampling = Resampling.of([row.key for row in rows], num_draws=20)
    values = resampling.values(ACCURACY, [rows], by_row=True)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (values == 1).all() and most < 2**24
    assert resampling.draws.nbytes == 20 * 1000


def test_draws_are_bootstrap_draws() -> None:
    names = ["b", "a", "a", "c"]
    resampling = Resampling.of(names, seed=3, num_draws=90)
    wanted = np.random.default_rng(3).multinomial(3, np.full(3, 1 / 3), size=90)
    np.testing.assert_array_equal(resampling.draws, wanted)
    assert resampling.places(names).tolist() == [1, 0, 0, 2]
    values = np.array([1.0, 2.0, 4.0, 8.0])
    means = (wanted @ [6.0, 1.0, 8.0]) / (wanted @ [2, 1, 1])
    assert resampling.interval_of_mean(values, names) == pytest.approx(interval(means))


@pytest.mark.parametrize(("number", "sentence"), [(5, "5 groups are too few to be sure."), (6, "")])
def test_of_five_groups_all_gain_too_often_by_chance(number: int, sentence: str) -> None:
    assert too_few(number) == sentence
    assert (2 * 0.5**number > 0.05) == bool(sentence)


def test_unknown_metrics_are_refused() -> None:
    assert find_metric(CLASSES, "") is ACCURACY
    with pytest.raises(UserError, match="this task has accuracy, macro_f1, mcc"):
        find_metric(CLASSES, "wer")
