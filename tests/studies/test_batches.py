"""A search for the size of micro-batches: what it tries, where it ends, and what it suggests."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssl import cli
from seqssl.assembly import Stream
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.model.types import Batch
from seqssl.planning import hardware
from seqssl.studies import batches
from seqssl.studies.batches import Trial, best_of, find_batch, sizes, suggest
from seqssl.studies.steps import Step

TOY = (
    "size=tiny",
    "modality=toy:Toy",
    "data=.",
    "data.batch_frames=640",
    "data.max_frames=160",
    "train.accumulate=3",
    "encoder={dim: 16, num_layers: 2, taps: {contrastive: 1, output: 2}, block: {ffn_dim: 16}}",
    "encoder.position={kernel: 4, groups: 2}",
    "mixer.num_heads=2",
    "quantizer={codebook_size: 8, dim: 16}",
    "train.device=cpu",
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST", 2)


def test_sizes_grow_by_half_or_a_third_and_hold_whole_clips() -> None:
    assert [*itertools.islice(sizes(), 8)] == [1, 2, 3, 4, 6, 8, 12, 16]
    assert [*itertools.islice(sizes(2), 4)] == [2, 4, 6, 8]


@given(st.floats(1, 1e6), st.floats(0.1, 100), st.integers(1, 64), st.integers(1, 64))
def test_a_suggestion_keeps_the_update_and_fits(update: float, row: float, rows: int, devices: int) -> None:
    batch, accumulate = suggest(update, row, rows, devices)
    assert accumulate >= 1 and batch >= row * (1 - 1e-9)
    if update >= row * devices * (1 + 1e-6):
        assert batch * accumulate * devices == pytest.approx(update)
        # A lone micro-batch a device may hold less than two rows, though one was the best.
        assert batch <= rows * row * (1 + 1e-6) or batch < 2 * row
    else:
        assert (batch, accumulate) == (pytest.approx(row), 1), "a row for each, and the update grows"


@pytest.mark.parametrize(
    ("update", "row", "rows", "devices", "expected"),
    [
        (65_536, 32, 24, 1, (512, 128)),  # 24 rows would not divide 2,048
        (65_536, 32, 24, 64, (512, 2)),
        (4_096, 16, 1_000, 1, (4_096, 1)),  # no larger than an update
        (32, 12, 8, 1, (32, 1)),
        (149 * 2, 2, 16, 1, (149 / 5, 10)),  # a prime number of rows
        (100, 32, 8, 8, (32, 1)),
    ],
)
def test_suggestions(update: float, row: float, rows: int, devices: int, expected: tuple[float, int]) -> None:
    assert suggest(update, row, rows, devices) == pytest.approx(expected)


def test_the_best_is_the_smallest_that_is_about_as_fast_as_any() -> None:
    trials = [Trial(1, 10, 0, 10.0), Trial(2, 20, 0, 10.0), Trial(4, 40, 0, 19.8), Trial(8, 80, 0)]
    assert best_of(trials).rows == 2


def test_micro_batches_are_run_until_more_rows_are_no_faster(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "RISE", math.inf)
    search = find_batch("base/w2vbert", TOY)
    assert [trial.rows for trial in search.trials] == [1, 2, 3]
    assert search.ended == "more rows are no faster"
    for trial in search.trials:
        assert trial.input == 16 * trial.rows and trial.speed > 0
        assert trial.peak is None or trial.peak >= 0
    planned = [trial.planned for trial in search.trials]
    assert planned == sorted(planned)
    assert (search.key, search.update, search.accumulate * search.batch) == ("data.batch_seconds", 192, 192)


class Stub:
    """Steps that take no time, up to a number of rows that the memory holds."""

    def __init__(self, most: int = 10**9) -> None:
        self.most, self.made = most, list[int]()

    def __call__(
        self, config: RunConfig, stream: Stream, first: Batch, device: torch.device
    ) -> Callable[[Batch], Step]:
        self.made.append(len(first.lengths))
        assert config.train.precision in ("float32", "bfloat16"), "that of a run"
        return lambda batch: partial(self.step, batch)

    def step(self, batch: Batch) -> None:
        assert (batch.lengths == 160).all(), "rows of full length"
        if len(batch.lengths) > self.most:
            raise torch.OutOfMemoryError


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub()
    monkeypatch.setattr(batches, "own_steps", made)
    monkeypatch.setattr(batches, "PATIENCE", 9)
    return made


def test_one_model_takes_larger_and_larger_batches_until_memory_is_full(stub: Stub) -> None:
    stub.most = 4
    search = find_batch("base/w2vbert", TOY)
    assert stub.made == [4], "targets are fitted to a micro-batch of the recipe"
    assert [trial.seconds is None for trial in search.trials] == [False] * 4 + [True]
    assert search.ended == "the memory does not hold 6 rows"
    stub.most = 0
    with pytest.raises(UserError, match="the memory does not hold 1 row: take a smaller size"):
        find_batch("base/w2vbert", TOY)


def test_main_memory_and_time_end_a_search(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.most = 3
    planned = [trial.planned for trial in find_batch("base/w2vbert", TOY).trials]
    stub.most = 10**9
    monkeypatch.setattr(hardware, "main_memory", lambda: 2 * planned[2])
    search = find_batch("base/w2vbert", TOY)
    assert [trial.rows for trial in search.trials] == [1, 2, 3]
    assert "4 rows would take" in search.ended and "main memory" in search.ended
    monkeypatch.setattr(hardware, "main_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"1 row would take .* take a smaller size"):
        find_batch("base/w2vbert", TOY)
    monkeypatch.setattr(hardware, "main_memory", lambda: 2**40)
    monkeypatch.setattr(batches, "LIMIT_S", 0.0)
    with pytest.raises(UserError, match="than the 0 s that a search has"):
        find_batch("base/w2vbert", TOY)


def test_a_joint_recipe_is_refused() -> None:
    with pytest.raises(UserError, match="several streams"):
        find_batch("joint_w2vbert", ("size=tiny",))


@pytest.mark.parametrize("recipe", ["wearables_views", "dna_w2vbert", "base/hubert"])
def test_other_kinds_of_batches(recipe: str, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of clips, ids, and a teacher of a stage that has not run."""
    more = (*TOY[1:3], "data.batch_frames=1600", TOY[4]) if recipe.startswith("base") else ()
    monkeypatch.setattr(batches, "LIMIT_S", 1e9)
    monkeypatch.setattr(batches, "PATIENCE", 1)
    monkeypatch.setattr(batches, "RISE", math.inf)
    search = find_batch(recipe, ("size=tiny", "train.device=cpu", *more))
    assert [trial.rows for trial in search.trials] == ([2, 4] if recipe == "wearables_views" else [1, 2])
    assert search.key == ("data.batch_frames" if recipe == "dna_w2vbert" else "data.batch_seconds")


def test_plan_shows_what_was_found(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batches, "RISE", math.inf)
    assert cli.main(["plan", "recipe=base/w2vbert", *TOY, "find_batch=true", "devices=2"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "more rows are no faster",
        "Suggested on 2: data.batch_seconds=",
        "(an update stays 192 s)",
    ):
        assert words in text
