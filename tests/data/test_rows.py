"""Files that give many rows: keys, quality, weights, statistics, groups held out by name."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssl import Record, Rejected, Rows, Sample, SampleSpec, UserError
from seqssl.data import writing
from seqssl.data.batching import BatchLoader
from seqssl.data.epochs import epoch_batches
from seqssl.data.prepare import prepare
from seqssl.data.rejections import most_frequent, told
from seqssl.data.shards import Corpus, Manifest
from seqssl.data.statistics import Sums


def read_windows(seed: int) -> Rows:
    """Two to four windows of different weight; file 3 is all bad, one window of file 4 is."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for number in range(2 + seed % 3):
        values = rng.normal(5, 2, (6 + number, 2)).astype(np.float32)
        if seed == 3 or (seed == 4 and number == 1):
            values[0, 0] = np.nan
        row = {"length": len(values), "values": values, "observed": rng.random(values.shape) < 0.8}
        rows.append({**row, "weight": float(number), "label": f"w{number}", "part": f"{number:02}"})
    return Rows(rows, {"seen": len(rows)})


class Windows:
    """Six files of windows, in three groups."""

    def __init__(self, *, kinds: tuple[str, ...] = ("a", "b")) -> None:
        self.kinds = list(kinds)
        self.spec = SampleSpec(dtype="float32", units="one", channels=2, channel_names=("x", "y"))

    def records(self, source: Path, split: str) -> Iterator[Record]:
        for seed in range(6):
            yield Record(f"file{seed}", partial(read_windows, seed), group=f"g{seed % 3}")

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        observed = np.asarray(row["observed"], bool)
        return Sample(row["values"] * observed, row["label"], row["group"], observed)

    def feature_encoder(self, dim: int) -> Any:
        raise NotImplementedError("rows are prepared and loaded without one")


def prepared(tmp_path: Path, name: str = "out", **options: Any) -> tuple[Corpus, Manifest]:
    (tmp_path / "raw").mkdir(exist_ok=True)
    manifest = prepare(Windows(), tmp_path / "raw", tmp_path / name, modality="m", num_workers=1, **options)
    return Corpus(tmp_path / name), manifest


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_get_keys_labels_and_reasons_of_their_own(tmp_path: Path) -> None:
    corpus, manifest = prepared(tmp_path)
    expected = [f"file{f}#{n:02}" for f in (0, 1, 2, 4, 5) for n in range(2 + f % 3) if (f, n) != (4, 1)]
    assert corpus.keys.tolist() == expected
    assert [key[-2:] for key in corpus.keys] == [f"0{label[1]}" for label in corpus.labels]
    reasons = {line["path"]: line["reason"] for line in lines(tmp_path / "out" / "rejected.jsonl")}
    assert set(reasons) == {"file3", "file4#01"}
    assert "not-a-number" in reasons["file3"]
    assert manifest.num_rejected == 2
    quality = {line["path"]: line["seen"] for line in lines(tmp_path / "out" / "quality.jsonl")}
    assert quality == {f"file{f}": 2 + f % 3 for f in range(6)}
    assert corpus.weights is not None and corpus.weights.tolist() == [int(key[-2:]) for key in corpus.keys]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_preparation_keeps_rows_quality_and_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(writing, "SHARD_BYTES", 150)  # a shard after each file or two
    whole, manifest = prepared(tmp_path, "whole")
    read, calls = writing._read_record, []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > stop:
            raise KeyboardInterrupt
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_read_record", dying)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path, "broken")
    resumed, again = prepared(tmp_path, "broken")
    assert resumed.content_hash == whole.content_hash
    assert again.statistics == manifest.statistics
    for name in ("quality.jsonl", "rejected.jsonl"):
        assert (tmp_path / "broken" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_statistics_are_those_of_the_observed_training_values(tmp_path: Path) -> None:
    corpus, manifest = prepared(tmp_path, valid_groups=["g1"])
    rows = [corpus.row(int(number)) for number in corpus.rows("train")]
    values = np.concatenate([row["values"] for row in rows]).astype(np.float64)
    seen = np.concatenate([row["observed"] for row in rows])
    masked = np.where(seen, values, np.nan)
    assert manifest.statistics is not None
    np.testing.assert_allclose(manifest.statistics["mean"], np.nanmean(masked, axis=0), rtol=1e-12)
    np.testing.assert_allclose(manifest.statistics["std"], np.nanstd(masked, axis=0), rtol=1e-12)
    assert manifest.spec["channel_names"] == ["x", "y"]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.floats(-1e6, 1e6), st.integers(0, 2**31))
def test_merged_sums_are_those_of_the_whole(sizes: list[int], offset: float, seed: int) -> None:
    """Also far from zero, where sums of squares would lose every digit."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(offset, 1, (size, 3)).astype(np.float32) for size in sizes]
    sums = Sums()
    for part in parts:
        one = Sums()
        if len(part):
            one.add(Sample(part))
        sums.merge(one)
    whole = np.concatenate(parts).astype(np.float64)
    found = sums.statistics()
    if not len(whole):
        assert found is None
        return
    assert found is not None
    np.testing.assert_allclose(found["mean"], whole.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found["std"], whole.std(axis=0), rtol=1e-5, atol=1e-9)


def test_groups_are_held_out_by_name(tmp_path: Path) -> None:
    corpus, _ = prepared(tmp_path, valid_groups=["g2", "g0"])
    assert {(group, split) for group, split in zip(corpus.groups, corpus.splits, strict=True)} == {
        ("g0", "valid"),
        ("g1", "train"),
        ("g2", "valid"),
    }
    with pytest.raises(UserError, match=r"no group g9; the data has g0, g1, g2"):
        prepared(tmp_path, "other", valid_groups=["g9"])


def test_settings_that_are_lists_make_another_corpus(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    prepare(Windows(), tmp_path / "raw", tmp_path / "out", modality="m", num_workers=1)
    with pytest.raises(UserError, match="another prepared corpus"):
        prepare(Windows(kinds=("a",)), tmp_path / "raw", tmp_path / "out", modality="m", num_workers=1)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_impossible_weights_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    read = read_windows

    def heavy(seed: int) -> Rows:
        found = read(seed)
        return Rows([{**row, "weight": weight} for row in found.rows])

    monkeypatch.setattr(f"{__name__}.read_windows", heavy)
    with pytest.raises(UserError, match="the weight is"):
        prepared(tmp_path)


def test_an_error_of_any_kind_rejects_its_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_windows

    def broken(seed: int) -> Rows:
        return read(seed) if seed != 2 else {}["missing"]

    monkeypatch.setattr(f"{__name__}.read_windows", broken)
    folder = prepared(tmp_path)[0].folder
    lines = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    (reason,) = [line["reason"] for line in lines if line["path"] == "file2"]
    assert len(Corpus(folder)) > 5 and re.search(
        r"damaged.*KeyError: 'missing', test_rows.py line \d+\)", reason
    )


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=40).filter(lambda weights: sum(weights) > 1e-3),
    st.integers(0, 9),
)
def test_weighted_epochs_draw_each_row_as_often_as_it_weighs(weights: list[float], epoch: int) -> None:
    count, total = len(weights), sum(weights)
    batches = epoch_batches(
        np.full(count, 5), np.zeros(count), batch_length=20, max_length=None, join_length=None,
        seed=0, epoch=epoch, shuffle=True, weights=np.array(weights),
    )  # fmt: skip
    drawn = Counter(row for batch in batches for item in batch for row in item)
    assert sum(drawn.values()) == count
    for row, weight in enumerate(weights):
        assert abs(drawn[row] - count * weight / total) < 1 + 1e-6


def test_evaluation_sees_every_row_whatever_it_weighs(tmp_path: Path) -> None:
    corpus, _ = prepared(tmp_path)
    loader = BatchLoader(corpus, Windows(), split="train", batch_length=20, shuffle=False)
    keys = [key for batch in loader.batches() for key in batch.keys]
    assert sorted(keys) == sorted(corpus.keys[corpus.rows("train")])
    trained = BatchLoader(corpus, Windows(), split="train", batch_length=20, shuffle=True)
    drawn = Counter(key for epoch in range(30) for batch in trained.batches(epoch) for key in batch.keys)
    assert not any(key.endswith("#00") for key in drawn)  # weight 0
    twos = [drawn[key] for key in drawn if key.endswith("#02")]
    ones = [drawn[key] for key in drawn if key.endswith("#01")]
    assert np.mean(twos) / np.mean(ones) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"part": "same"}, "its name is that of an earlier row"),
        ({"label": None}, "label is None, which cannot be stored"),
        ({"values": np.full((6, 2), 1e20, np.float32), "length": 6}, "too large to compute with"),
    ],
)
def test_rows_that_break_the_contract_are_rejected_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], words: str
) -> None:
    read = read_windows

    def changed(seed: int) -> Rows:
        rows = [{**row, **(change if number else {})} for number, row in enumerate(read(seed).rows)]
        first = {**rows[0], **({"part": "same"} if "part" in change else {})}
        observed = np.ones((6, 2), bool) if "values" in change else None
        return Rows(
            [first, *({**row, **({} if observed is None else {"observed": observed})} for row in rows[1:])]
        )

    monkeypatch.setattr(f"{__name__}.read_windows", changed)
    corpus, _ = prepared(tmp_path)
    assert len(corpus) == 5  # the first row of each file but the bad one
    assert words in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_missing_values_that_are_not_zero_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: Windows, row: Mapping[str, Any], rng: object) -> Sample:
        return Sample(row["values"], observed=np.asarray(row["observed"], bool))

    monkeypatch.setattr(Windows, "load", load)
    prepared(tmp_path)
    assert "a missing value is not 0" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_what_could_not_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    corpus, _ = prepared(tmp_path)
    line = told(corpus)
    assert "\n" not in line
    assert line.startswith(f"2 of {2 + len(corpus)} files or rows could not be used: 2 x ")
    assert "not-a-number" in line and "(as file3); " in line
    assert line.endswith("rejected.jsonl names them")
    (tmp_path / "out" / "rejected.jsonl").unlink()  # it was not copied with the folder
    assert told(corpus).startswith("2 of ")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), max_size=30), st.integers(1, 4))
def test_the_most_frequent_reasons_are_counted(found: list[tuple[str, int]], most: int) -> None:
    rejected = [Rejected(f"{n}", f"{word} is {size}") for n, (word, size) in enumerate(found)]
    slow: dict[str, list[Rejected]] = {}
    for line in rejected:
        slow.setdefault(line.reason.split()[0], []).append(line)
    expected = sorted(((len(lines), lines[0]) for lines in slow.values()), key=lambda pair: -pair[0])
    assert most_frequent(rejected, most) == expected[:most]


def test_no_group_is_left_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is left to train on"):
        prepared(tmp_path, valid_groups=["g0", "g1", "g2"])


@pytest.mark.parametrize("limit", ["seqssl.data.shards.ROW_GROUP_BYTES", "seqssl.data.writing.SHARD_BYTES"])
def test_a_whole_number_is_a_weight_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """Before, the column was one of integers, in which no later weight of 0.5 fitted."""
    read = read_windows

    def weighed(seed: int) -> Rows:
        return Rows([{**row, "weight": 0.5 if seed == 5 else 1} for row in read(seed).rows])

    monkeypatch.setattr(f"{__name__}.read_windows", weighed)
    monkeypatch.setattr(limit, 50)
    corpus, _ = prepared(tmp_path)
    assert corpus.weights is not None and corpus.weights.dtype == np.float64
    heavy = [key for key, weight in zip(corpus.keys, corpus.weights, strict=True) if weight == 1]
    assert heavy and not any(key.startswith("file5") for key in heavy)
    assert set(corpus.weights.tolist()) == {1.0, 0.5}
