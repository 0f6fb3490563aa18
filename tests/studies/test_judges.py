"""What judges an encoder: the best that fits the time, and what each of its parts costs."""

from dataclasses import asdict, fields, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from seqssl.studies import evening as evenings
from seqssl.studies import judges
from seqssl.studies.evening import Evening
from seqssl.studies.judges import FEWEST_ROWS, JUDGES, MOST, Costs, judge_for


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "FEWEST", 2)


COSTS = Costs(
    open=4.0,
    start=3.0,
    begin=5.0,
    update=0.5,
    head_update=0.2,
    test=0.02,
    describe=0.02,
    fit=0.005,
    head_fit=0.03,
)


def judge(seconds: float, rows: int = 1, **more: float) -> judges.Judge:
    return judge_for(seconds, replace(COSTS, **more), at_once=2, rows=rows)


def test_the_judge_fits_the_time() -> None:
    seen = [judge(seconds) for seconds in (0, 100, 600, 2000, 5000, 40_000, 10**6)]
    assert [each.number for each in seen] == sorted((each.number for each in seen), reverse=True)
    assert (seen[0].number, seen[0].updates) == (len(JUDGES) - 1, 2)
    assert seen[0].seconds > 0, "it says that nothing fits"
    assert (seen[-1].number, seen[-1].updates) == (0, MOST) and seen[-1].is_best
    assert not any(each.is_best for each in seen[:3])


@pytest.mark.parametrize("cost", [entry.name for entry in fields(Costs)])
def test_everything_that_a_judge_does_takes_its_time(cost: str) -> None:
    """The reckoned seconds, against what a judge does, counted one by one."""
    counts = {"open": 1.0, "start": 2.0, "begin": 0.0, "update": 0.0, "head_update": 0.0, "test": 0.0}
    rows, seeds, found = 600, 3, judge(10**6, 600)
    fractions, rates, weights, learning = 3, 2, ("trained", "random"), ("update", "head_update")
    for _, _, learns in product(range(seeds * (fractions + rates)), weights, learning):
        counts["begin"] += 1 / 2  # two at once
        counts[learns] += MOST / 2
        counts["test"] += rows / seeds / 2
    learned = rows * (
        1 - 1 / seeds
    )  # heads are fitted to them in each cell, for a rate to two thirds of them
    counts["head_fit"] = seeds * len(weights) * (learned * (0.01 + 0.1 + 1.0) + rates * learned * 2 / 3)
    counts["describe"], counts["fit"] = rows, seeds * rows * (0.01 + 0.1 + 1.0)
    assert found.is_best
    doubled = judge(10**6, 600, **{cost: 2 * getattr(COSTS, cost)})
    assert doubled.seconds - found.seconds == pytest.approx(counts[cost] * getattr(COSTS, cost))


def test_tests_of_many_rows_take_time_from_the_judge() -> None:
    """Before, 100,000 rows were tested in every cell, whatever the time was."""
    few, many = judge(8000, 1000), judge(8000, 100_000)
    assert few.share == 1 and FEWEST_ROWS / 100_000 < many.share < 0.5
    assert few.seconds <= 8000 and many.seconds <= 8000
    assert judge(10**6, 100_000).share == 1
    least = judge(20, 100_000)
    assert least.share == FEWEST_ROWS / 100_000 and least.seconds > 20
    assert judge(60, FEWEST_ROWS).share == 1, "of few rows all are taken"


@pytest.mark.parametrize(("hours", "spare"), [(1.0, False), (1e4, True)])
def test_time_that_the_best_judge_leaves_goes_to_training(
    hours: float, spare: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evenings, "resolve", lambda *_: SimpleNamespace(config=SimpleNamespace(train=None)))
    monkeypatch.setattr(evenings, "cells_at_once", lambda _: 2)
    plan = Evening({}, hours, recipe="any", judged_by=["classify"], num_labels=600, costs=asdict(COSTS))
    work = evenings._Work(plan, tmp_path, str, lambda *_: None)
    seconds = work._affordable(1e-3) * 1e-3 * (1 + evenings.EVALUATED / 3)
    best = judge(10**6, 600)
    assert seconds == pytest.approx(3600 * hours - best.seconds if spare else 0.55 * 3600 * hours, rel=1e-3)
    assert (plan.tuning_updates == MOST) == spare
