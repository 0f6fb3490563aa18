"""Batches by their numbers, over the borders of epochs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_config, write_waves

import seqssl
from seqssl.data import order
from seqssl.data.epochs import Batches, epoch_batches
from seqssl.data.order import Order


def ordered(num_rows: int = 40, *, weights: bool = False, **options: object) -> Order:
    rng = np.random.default_rng(num_rows)
    settings = {"batch_length": 300, "max_length": None, "join_length": None, "seed": 0, "shuffle": True}
    return Order(
        rng.integers(1, 100, num_rows),
        rng.integers(0, 3, num_rows),
        rng.random(num_rows) if weights else None,
        **{**settings, "at_least": 1, **options},
    )  # type: ignore[arg-type]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that were planned, one after the other."""
    epochs: list[int] = []

    def noted(*columns: np.ndarray, epoch: int, **options: object) -> Batches:
        epochs.append(epoch)
        return epoch_batches(*columns, epoch=epoch, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(order, "epoch_batches", noted)
    return epochs


@given(st.integers(0, 60), st.integers(0, 60), st.booleans())
def test_any_cursor_is_where_it_was(cursor: int, before: int, weights: bool) -> None:
    one, other = ordered(weights=weights), ordered(weights=weights)
    one.epoch_of(before)
    other.recall(json.loads(json.dumps(one.counted)))
    assert one.epoch_of(cursor) == other.epoch_of(cursor) == ordered(weights=weights).epoch_of(cursor)


def test_what_was_counted_is_not_planned_again(planned: list[int]) -> None:
    one, other = ordered(), ordered()
    place = one.epoch_of(60)
    assert place[0] == max(planned) > 2
    planned.clear()
    other.recall(one.counted)
    assert other.epoch_of(60) == place and planned == []
    assert other.epoch(place[0])[place[1]] == one.epoch(place[0])[place[1]]
    assert planned == [place[0]]


@pytest.mark.parametrize(
    "other",
    [
        ordered(39),
        ordered(weights=True),
        ordered(batch_length=299),
        ordered(max_length=80),
        ordered(join_length=80),
        ordered(seed=1),
        ordered(shuffle=False),
        ordered(at_least=2),
        replace(ordered(), groups=np.zeros(40, np.int64)),
    ],
)
def test_another_order_counts_anew(planned: list[int], other: Order) -> None:
    one = ordered()
    one.epoch_of(60)
    planned.clear()
    other.recall(one.counted)
    other.epoch_of(0)
    assert planned == [0]


def test_a_run_goes_on_without_its_past_epochs(tmp_path: Path, planned: list[int]) -> None:
    waves, usual = write_waves(tmp_path / "raw"), ("train.processes=1", "train.save_every=1")
    config = toy_config(waves, tmp_path / "run", *usual, "train.num_updates=14")
    seqssl.train(config, say=None)
    assert max(planned) == 2, "the run reaches a third epoch"
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000014")
    state = json.loads((tmp_path / "run/checkpoints/step-00000013/state.json").read_text())
    (sizes,) = state["epochs"].values()
    assert len(sizes) == 3 and sum(sizes[:2]) <= 13 < sum(sizes)
    planned.clear()
    seqssl.train(config, say=None)
    assert 1 not in planned and 2 in planned
