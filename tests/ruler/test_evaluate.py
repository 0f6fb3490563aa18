"""The ruler end to end: it sees what is there, and nothing where there is nothing."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from tuned_toys import Labelled, Segmented, pretrain, tune, write_labelled

from seqssl import Record, Sample, Segment, cli
from seqssl.errors import UserError
from seqssl.ruler import cells
from seqssl.ruler.evaluate import evaluate
from seqssl.ruler.plan import Request
from seqssl.ruler.processes import held
from seqssl.runs.sources import seen_by

FAST = ("train.num_updates=40", "optim.warmup_updates=4", "train.device=cpu")
FEW = "train.num_updates=6"  # where it does not matter what is learned
SMALL = Request(fractions=(0.5, 1.0), seeds=2, rates=(0.01,), jobs=1)


class Shuffled(Labelled):
    """Labels that have nothing to do with the rows."""

    def records(self, source: Path, split: str) -> Iterator[Record]:
        found = [*super().records(source, split)]
        labels = np.random.default_rng(1).permutation([record.label for record in found])
        for record, label in zip(found, labels.tolist(), strict=True):
            yield replace(record, label=label)


class ShuffledSegments(Segmented):
    """Segments whose names say nothing."""

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        sample = super().load(row, rng)
        seed = crc32(row["key"].encode())
        names = np.random.default_rng(seed).permutation(["quiet", "loud"])
        segments = [
            Segment(s.start, s.end, name) for s, name in zip(sample.segments or (), names, strict=True)
        ]
        return replace(sample, segments=tuple(segments))


class Given(Labelled):
    """Noise, and the label in two bits."""

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        sample = super().load(row, rng)
        values = np.random.default_rng(crc32(row["key"].encode())).normal(size=sample.values.shape)
        number = "abcd".index(str(row["label"]))
        values = 0.1 * values + 3 * np.array([number % 2, number // 2]) - 1.5
        return replace(sample, values=values.astype(np.float32))


def measured(
    source: Path, place: Path, modality: str, task: str, *settings: str, **request: Any
) -> dict[str, Any]:
    run = pretrain(source, place / "run", modality=modality)
    asked = replace(SMALL, **request)
    return evaluate(run, task, *FAST, *settings, request=asked, out=place / "out", say=lambda text: None)


def line(values: dict[str, Any], row: str, fraction: float = 1.0) -> dict[str, Any]:
    return next(e for e in values["results"] if e["row"] == row and e["fraction"] == fraction)


def test_the_file_and_that_nothing_is_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    values = measured(source, tmp_path, "tuned_toys:Labelled", "classify", FEW)
    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert stored == json.loads(json.dumps(values))
    assert {"task", "metric", "higher_is_better", "groups_held_out", "results", "worth"} <= set(stored)
    assert stored["groups_held_out"] == ["group0", "group1", "group2"] and stored["num_units"] == 3
    assert stored["worth"]["sentence"].endswith(" 3 groups are too few to be sure.")
    assert not stored["worth"]["shown"]
    assert stored["pretraining_known"] and 0 < stored["test_rows_seen_unlabelled_in_pretraining"] <= 36
    assert "Learning rates, given" in (tmp_path / "out" / "report.html").read_text()
    assert {e["row"] for e in stored["results"]} == {"classical", "random", "scratch", "frozen", "pretrained"}
    for entry in stored["results"]:
        assert set(entry) == {"row", "words", "fraction", "num_labels", "mean", "low", "high", "by_seed"}
        assert len(entry["by_seed"]) == 2
        assert entry["low"] - 1e-9 <= entry["mean"] <= entry["high"] + 1e-9
    assert line(values, "classical")["mean"] > 0.5, "four frequencies, which are easily told"
    assert stored["worth"]["sentence"]
    assert {len(row["points"]) for row in [stored["projection"]]} == {36}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 1 and page.count("data:image/png") == 3

    def never(*arguments: object) -> None:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(cells, "run_cell", never)
    again = evaluate(
        tmp_path / "run", "classify", *FAST, FEW, request=SMALL, out=tmp_path / "out", say=lambda _: None
    )
    assert again["results"] == values["results"]
    with pytest.raises(UserError, match="with other settings"):
        evaluate(
            tmp_path / "run",
            "classify",
            *FAST,
            FEW,
            "task.pool=attention",
            request=SMALL,
            out=tmp_path / "out",
        )


def test_processes_give_the_same_numbers(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    small = {"fractions": (1.0,), "rows": ("scratch", "pretrained"), "seeds": 1}
    one = measured(source, tmp_path, "tuned_toys:Labelled", "classify", FEW, **small)
    shutil.rmtree(tmp_path / "out")
    two = measured(source, tmp_path, "tuned_toys:Labelled", "classify", FEW, **small, jobs=2)
    assert one["results"] == two["results"]


@pytest.mark.parametrize(
    ("modality", "task", "chance"),
    [("test_evaluate:Shuffled", "classify", 0.25), ("test_evaluate:ShuffledSegments", "tag", 0.5)],
)
def test_shuffled_labels_give_chance(tmp_path: Path, modality: str, task: str, chance: float) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=72, num_groups=6)
    values = measured(source, tmp_path, modality, task, fractions=(1.0,), seeds=2)
    for entry in values["results"]:
        assert entry["low"] - 0.06 <= chance <= entry["high"] + 0.06, entry


def test_numbers_that_say_nothing_are_told_no_better_than_by_their_mean(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=72, num_groups=6)
    modality = "{target: test_evaluate:Shuffled, kind: number}"
    values = measured(source, tmp_path, modality, "regress", fractions=(1.0,))
    spread = np.var([1.5 * n - 2 for n in range(4)])
    for entry in values["results"]:
        assert entry["high"] > 0.9 * spread, entry


def test_an_encoder_that_is_given_the_label_is_seen_as_perfect(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=48)
    values = measured(
        source, tmp_path, "test_evaluate:Given", "classify", "train.num_updates=150", fractions=(1.0,),
        rows=("classical", "frozen", "pretrained"),
    )  # fmt: skip
    assert {entry["mean"] for entry in values["results"]} == {1.0}


def test_rates_are_chosen_on_training_groups(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    values = measured(
        source, tmp_path, "tuned_toys:Labelled", "classify", "finetune.head_start=zeros", rates=(1e-6, 0.01),
        fractions=(1.0,), seeds=1, rows=("scratch", "pretrained"),
    )  # fmt: skip
    assert values["learning_rates"] == {"scratch": [0.01], "pretrained": [0.01]}


@pytest.mark.parametrize(
    ("task", "modality", "settings"),
    [
        ("forecast", "tuned_toys:Labelled", ("task.lookback=20", "task.horizon=4")),
        ("ctc", "{target: tuned_toys:Labelled, kind: text}", ("task.width=16",)),
        ("ctc", "{target: tuned_toys:Labelled, kind: text}", ("task.width=16", "data.join_frames=90")),
        ("regress", "{target: tuned_toys:Labelled, kind: number}", ()),
        ("tag", "tuned_toys:Segmented", ()),
    ],
)
def test_every_kind_of_task_is_measured(
    tmp_path: Path, task: str, modality: str, settings: tuple[str, ...]
) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    values = measured(source, tmp_path, modality, task, *settings, FEW, fractions=(0.5, 1.0), seeds=1)
    rows = {entry["row"] for entry in values["results"]}
    assert rows == {"random", "scratch", "frozen", "pretrained"} | ({"classical"} if task != "ctc" else set())
    assert all(np.isfinite(entry["mean"]) for entry in values["results"])
    assert values["heads_fitted"] == (task != "ctc")
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("from a head that was fitted" in page) == values["heads_fitted"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    run = pretrain(source, tmp_path / "run")
    command = ["evaluate", f"run={run}", "task=classify", "fractions=[1]", "seeds=1", "lrs=0.01", "jobs=1"]
    command += ["rows=scratch,pretrained", "train.num_updates=4", "train.device=cpu"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "evaluating: 2 of 2 | " in out and "about 0.0 min left" in out
    assert "| trained from scratch |" in out
    page = (run / "report.html").read_text()
    assert "<h2>Evaluation: classify</h2>" in page, "the run's own report has it"
    for bad, words in (
        ("fractions=[0]", "expected shares above 0"),
        ("fractions=a", "expected numbers"),
        ("rows=x", "expected some of classical"),
        ("metric=wer", "this task has accuracy"),
        ("lrs=[-1]", "expected learning rates above 0"),
        ("folds=x", "expected rotate"),
    ):
        assert cli.main([*command, bad, f"out={tmp_path / 'bad'}"]) == 2
        assert words in capsys.readouterr().err


class Noise(Labelled):
    """Rows without anything to learn: each step is drawn by itself."""

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        sample = super().load(row, None)
        values = np.random.default_rng(crc32(row["key"].encode())).normal(size=sample.values.shape)
        return replace(sample, values=values.astype(np.float32))


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (
            "forecast",
            ("task.lookback=20", "task.horizon=4", "feature_encoder={target: patch, dim: 12, patch: 4}"),
        ),
        ("impute", ("feature_encoder={target: patch, dim: 12, patch: 4}",)),
    ],
)
def test_of_noise_nothing_can_be_told(tmp_path: Path, task: str, settings: tuple[str, ...]) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36, num_groups=4)
    patch = "feature_encoder={target: patch, dim: 12, patch: 4}"
    run = pretrain(source, tmp_path / "run", patch, modality="test_evaluate:Noise")
    values = evaluate(run, task, *FAST, *settings, request=replace(SMALL, fractions=(1.0,), rates=(1e-3,)),
                      out=tmp_path / "out", say=lambda text: None)  # fmt: skip
    for entry in values["results"]:
        assert entry["high"] > 0.95, f"noise has variance 1, and its mean is the best guess: {entry}"


def test_shuffled_texts_cannot_be_written(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=48, num_groups=4)
    modality = "{target: test_evaluate:Shuffled, kind: text}"
    values = measured(source, tmp_path, modality, "ctc", "task.width=16", fractions=(1.0,), seeds=2)
    for entry in values["results"]:
        assert entry["high"] > 0.7, f"three of four texts are wrong by chance: {entry}"


def test_folders_of_others_and_folders_in_use_are_left_alone(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    run = pretrain(source, tmp_path / "run", "train.num_updates=1")
    with pytest.raises(UserError, match="is not empty and holds no evaluation"):
        evaluate(run, "classify", *FAST, request=SMALL, out=source)
    page = (run / "report.html").read_text()
    with pytest.raises(UserError, match="is not empty and holds no evaluation"):
        evaluate(run, "classify", *FAST, request=SMALL, out=run)
    assert (run / "report.html").read_text() == page, "the report of the run is not that of an evaluation"
    (tmp_path / "new").mkdir()
    with held(tmp_path / "new"), pytest.raises(UserError, match="is in use by another process"):
        evaluate(run, "classify", *FAST, request=SMALL, out=tmp_path / "new")
    with pytest.raises(UserError, match="leave init alone"):
        evaluate(run, "classify", *FAST, "init=null", request=SMALL, out=tmp_path / "out")


def test_a_ranking_is_measured_where_draws_miss_groups(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    values = measured(source, tmp_path, "tuned_toys:Labelled", "classify", metric="auroc", fractions=(1.0,),
                      rows=("scratch", "pretrained"))  # fmt: skip
    assert all(0 <= entry["low"] <= entry["high"] <= 1 for entry in values["results"])


def test_a_tuned_run_is_not_judged_as_one_without_labels(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    run = pretrain(source, tmp_path / "run", "train.num_updates=1")
    tuned = tune(run, "classify", tmp_path / "tuned", "train.num_updates=1").out
    later = pretrain(source, tmp_path / "later", "train.num_updates=1", f"init={tuned}")
    for start in (tuned, later):
        with pytest.raises(UserError, match=r"was tuned on the labels of \d+ tested rows: take the run"):
            evaluate(start, "classify", *FAST, request=SMALL, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
    one, two, three = map(seen_by, (run, tuned, later))
    assert one.is_known and one.keys and one.groups == {"group0", "group1", "group2"} and not one.labelled
    assert (two.keys, two.groups, two.labelled) == (one.keys, one.groups, one.keys)
    assert (three.keys, three.labelled) == (one.keys, one.keys)
    assert not seen_by(tmp_path / "nothing").is_known
    request = replace(SMALL, fractions=(1.0,), rows=("frozen",), folds="split", seeds=1, pictures=False)
    values = evaluate(tuned, "classify", *FAST, request=request, out=tmp_path / "out", say=lambda _: None)
    assert any("was tuned with labels" in note for note in values["notes"])
    assert values["test_rows_seen_unlabelled_in_pretraining"] == 0, "they are those that were held out"


def test_windows_of_rows_that_were_seen_are_counted(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=24)
    values = measured(
        source, tmp_path, "tuned_toys:Labelled", "forecast", "task.lookback=20", "task.horizon=4",
        rows=("frozen",), fractions=(1.0,), pictures=False,
    )  # fmt: skip
    seen = values["test_rows_seen_unlabelled_in_pretraining"]
    assert 0 < seen <= values["num_tested"], "their keys are those of rows, with a place behind"


def test_rows_too_few_to_choose_a_rate_by_are_told(tmp_path: Path) -> None:
    source = tmp_path / "waves"
    for name in ("one", "two"):
        (source / name).mkdir(parents=True)
        np.save(source / name / "a_00.npy", np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32))
    split = ("data.split_by=group", "data.valid_groups=[two]", "train.num_updates=1")
    run = pretrain(source, tmp_path / "run", *split)
    request = replace(SMALL, rates=(0.01, 0.1), rows=("frozen",), seeds=1)
    with pytest.raises(UserError, match=r"lrs = \[0.01, 0.1\]: fold 0 has too few training rows"):
        evaluate(run, "forecast", *FAST, "task.lookback=30", "task.horizon=4", request=request,
                 out=tmp_path / "out", say=lambda _: None)  # fmt: skip
