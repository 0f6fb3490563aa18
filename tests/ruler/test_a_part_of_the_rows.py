"""A share of the labelled rows: drawn once, of each label, with groups apart as ever."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from seqssl.errors import UserError
from seqssl.finetuning.whole_rows import Classify
from seqssl.ruler.plan import Request, folds_of


def drawn(share: float, task: object) -> tuple[list[int], list[str]]:
    rows = 300
    corpus = SimpleNamespace(
        labels=np.array(["rare" if n % 50 == 0 else "ab"[n % 2] for n in range(rows)], object),
        groups=np.array([f"g{n % 7}" for n in range(rows)], object),
        splits=np.array(["train"] * rows, object),
    )
    notes: list[str] = []
    folds, _ = folds_of(corpus, Request(share=share), task, notes)  # type: ignore[arg-type]
    used = sorted({*folds[0].train.tolist(), *folds[0].test.tolist()})
    for fold in folds:
        assert not {row % 7 for row in fold.train.tolist()} & {row % 7 for row in fold.test.tolist()}
    return used, notes


def test_a_share_of_each_label_is_drawn_once() -> None:
    task = Classify.__new__(Classify)
    task.names = ["a", "b", "rare"]
    assert drawn(1.0, task) == (list(range(300)), [])
    used, notes = drawn(0.2, task)
    assert (used, notes) == drawn(0.2, task)
    assert Counter(row % 50 == 0 for row in used) == {False: 59, True: 3}
    assert notes == ["62 of the 300 labelled rows take part: a share of each label, drawn once."]


def test_tasks_without_classes_have_a_share_of_all_rows() -> None:
    used, notes = drawn(0.2, SimpleNamespace(examples="windows"))
    assert len(used) == 60 and notes == ["60 of the 300 windows take part: a share, drawn once."]


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="share = 0: expected more than 0"):
        Request(share=0).check()
