"""What an evening finds in data to judge an encoder by: labels, forecasts, or nothing."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from toy import Toy

from seqssl.studies.looking import SHORTEST_WINDOW, trial_of, untellable


class OnlySplits:
    """Of a corpus what labels are judged by."""

    def __init__(self, labels: list[str], groups: list[str]) -> None:
        self.labels, self.groups = np.array(labels, object), np.array(groups, object)
        self.splits = np.full(len(labels), "train", dtype=object)


def test_labels_that_no_fold_can_learn_are_told_before_training() -> None:
    labels = [label for label in ("cat", "dog", "cow") for _ in range(6)]
    counts = Counter(labels)
    own = OnlySplits(labels, labels)  # a folder for each label, and no other groups
    assert "of one group alone" in untellable(own, "*", counts)  # type: ignore[arg-type]
    shared = OnlySplits(labels, ["a", "b", "c"] * 6)
    assert untellable(shared, "*", counts) == ""  # type: ignore[arg-type]
    several = OnlySplits(
        [f"{'animal' if n % 2 else 'place'}/{label}" for n, label in enumerate(labels)], labels
    )
    assert "belong to several tasks" in untellable(several, "*", Counter(several.labels))  # type: ignore[arg-type]


class Continuing(Toy):
    """Waves go on, and their labels are its own."""

    own_labels = ("a", "b", "c", "d")


@pytest.fixture
def waves() -> Any:
    """Twenty rows of 30 to 68 steps, of five places; the last four are held out."""
    corpus: Any = OnlySplits(["a", "b", "c", "d"] * 5, [group for group in "pqrst" for _ in range(4)])
    corpus.lengths = np.arange(30, 70, 2)
    corpus.keys = np.array([f"{number}.npy" for number in range(20)], object)
    corpus.splits[-4:] = "valid"
    corpus.manifest = corpus.folder = None
    return corpus


def test_rows_with_the_wanted_labels_are_counted(waves: Any) -> None:
    trial = trial_of(waves, Toy(), "a,b")
    assert trial.task == ["classify", 'task.labels="a,b"', "task.min_rows=4"]
    assert (trial.num_labels, trial.classes) == (10, 2)


def test_series_that_nobody_labelled_are_judged_by_forecasts(waves: Any) -> None:
    """Before, an evening on hourly measurements was judged by telling seasons, which the adapter had made."""
    trial = trial_of(waves, Continuing(), "")
    length, horizon = 49, 6  # of the median row
    assert trial.task == ["forecast", "task.lookback=43", "task.horizon=6", "task.every=6"]
    windows = [range(0, steps - length + 1, horizon) for steps in waves.lengths]
    assert (trial.num_labels, trial.classes) == (sum(map(len, windows)), 0)
    assert "nobody labelled these rows" in trial.words[0] and "their a, b, c, d apart" in trial.words[1]
    assert trial_of(waves, Continuing(), "*").task[0] == "classify", "it was asked for"
    assert trial_of(waves, Toy(), "").task[0] == "classify"
    waves.labels[:4] = "gust"
    assert trial_of(waves, Continuing(), "").task[0] == "classify", "somebody gave labels"


def test_where_forecasts_cannot_be_judged_own_labels_are_told_apart(waves: Any) -> None:
    waves.lengths = np.minimum(waves.lengths, SHORTEST_WINDOW - 1)
    assert trial_of(waves, Continuing(), "").task[0] == "classify"
    waves.lengths = np.where(waves.splits == "train", 60, 20)
    assert trial_of(waves, Continuing(), "").task[0] == "classify", "no held-out row is long enough"
