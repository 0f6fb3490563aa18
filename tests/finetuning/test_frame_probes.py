"""Frames judged one by one: after training, and while it goes on."""

import json
from pathlib import Path

import pytest
from tuned_toys import pretrain, write_labelled

from seqssl import cli
from seqssl.errors import UserError
from seqssl.evaluation.frames import probe_frames
from seqssl.runs.folder import load
from seqssl.runs.sources import open_source
from seqssl.training.log import read_records

PROBES = "task.probes=[accuracy,nearest,rank,pnmi,purity,abx_within,abx_across]"


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = write_labelled(tmp_path_factory.mktemp("segmented") / "waves")
    return pretrain(source, tmp_path_factory.mktemp("segmented") / "run", PROBES, "data.valid_share=0.5",
                    "train.keep_best=max:probe/accuracy_output", modality="tuned_toys:Segmented")  # fmt: skip


def test_every_layer_is_judged_beside_random_weights(segmented: Path) -> None:
    corpus, adapter = open_source(segmented, None)
    found = probe_frames(load(segmented), load(segmented, weights="random"), corpus, adapter)
    stages = {(score.weights, score.stage) for score in found.scores}
    assert ("none", "input with context") in stages
    for weights in ("trained", "random"):
        assert {stage for w, stage in stages if w == weights} == {
            "features", "contrastive", "output", "mix of layers"
        }  # fmt: skip
    for score in found.scores:
        assert 0 <= score.low <= score.accuracy <= score.high <= 1
        assert score.accuracy > (0.8 if score.weights == "trained" else 0.5), "silence and sound"
    assert found.unit == "groups" and found.num_classes == 2
    assert 0 <= found.pnmi["trained"] <= 1 and found.purity["trained"] >= 0.5
    mixed = next(s for s in found.scores if s.stage == "mix of layers")
    assert sum(mixed.layers) == pytest.approx(1, abs=1e-3)
    deep = next(s for s in found.scores if (s.weights, s.stage) == ("trained", "output"))
    assert deep.rank is not None and 1 <= deep.rank <= 16
    assert deep.abx_within is not None and deep.abx_within < 0.4
    assert deep.abx_across is not None and deep.nearest is not None


def test_labels_of_rows_stand_in_for_segments(run: Path) -> None:
    corpus, adapter = open_source(run, None)
    found = probe_frames(load(run), load(run, weights="random"), corpus, adapter, max_rows=20)
    assert found.num_classes == 4 and found.num_rows == 20
    with pytest.raises(UserError, match="frames want two kinds of labels"):
        probe_frames(load(run), load(run), corpus, adapter, labels="a")


def test_the_command(segmented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", f"run={segmented}", "task=frames"]) == 0
    assert "2 labels" in capsys.readouterr().out
    stored = json.loads((segmented / "frames.json").read_text())
    assert stored["scores"]["num_classes"] == 2


def test_probes_during_training_choose_the_checkpoint(segmented: Path) -> None:
    records = [dict(r) for r in read_records(segmented / "metrics.jsonl") if r["kind"] == "valid"]
    names = {name for name in records[0] if str(name).startswith("probe/")}
    assert names == {
        *(f"probe/{name}_{tap}" for name in ("accuracy", "nearest", "rank", "abx_within")
          for tap in ("contrastive", "output")),
        "probe/pnmi_codes", "probe/purity_codes",
    } | {name for name in names if "abx_across" in str(name)}  # fmt: skip
    state = json.loads((segmented / "checkpoints" / "best" / "state.json").read_text())
    assert state["best"] == -max(float(str(r["probe/accuracy_output"])) for r in records)
    page = (segmented / "report.html").read_text()
    assert "Frames told apart" in page


def test_rank_needs_no_labels(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves")
    run = pretrain(source, tmp_path / "run", "task.probes=[rank,accuracy]", "task.labels=nothing")
    (*_, last) = [dict(r) for r in read_records(run / "metrics.jsonl") if r["kind"] == "valid"]
    assert {name for name in last if str(name).startswith("probe/")} == {
        "probe/rank_contrastive", "probe/rank_output"
    }  # fmt: skip


@pytest.mark.parametrize("accuracy_only", [False, True])
def test_one_row_cannot_be_held_out(segmented: Path, accuracy_only: bool) -> None:
    corpus, adapter = open_source(segmented, None)
    encoder = load(segmented)
    with pytest.raises(UserError, match="frames of 1 rows have a label, and two are needed"):
        probe_frames(encoder, encoder, corpus, adapter, max_rows=1, accuracy_only=accuracy_only)
