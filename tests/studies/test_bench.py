"""The speed of a recipe: what is timed is the same work, and what cannot be compared is said."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import TOY, write_waves

from seqssl.assembly import assemble
from seqssl.cli import main
from seqssl.errors import UserError
from seqssl.model.types import MaskedFrames
from seqssl.studies.bench import bench, page
from seqssl.studies.steps import OURS, THEIRS, Work, own_step
from seqssl.testing.harness import seeded

pytest.importorskip("transformers")
from seqssl.interop.peers import negatives_of, peer_loss, peer_of

SHRUNK = (
    "size=small",
    "feature_encoder.dim=8",
    "encoder={dim: 24, num_layers: 2, taps: {output: 2}, block: {ffn_dim: 32}}",
    "encoder.position={kernel: 6, groups: 2}",
    "mixer.num_heads=4",
    "quantizer={codebook_size: 8, dim: 12}",
    "objectives.contrastive={final_dim: 10, num_negatives: 5}",
    "train.device=cpu",
)
WORK = Work("speech_wav2vec2", SHRUNK, rows=2, length=0.4)


@given(
    mask=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3).filter(
        lambda rows: any(map(any, rows))
    ),
    number=st.integers(1, 5),
)
def test_negatives_of_a_peer_are_other_masked_frames_of_the_row(mask: list[list[bool]], number: int) -> None:
    frames = MaskedFrames.of(torch.tensor(mask))
    found = negatives_of(frames, number, seeded(0))
    flat = frames.mask.flatten()
    for row, column in zip(frames.rows.tolist(), frames.columns.tolist(), strict=True):
        places = found[row, column]
        assert flat[places].all() and (places // 6 == row).all()
        if frames.mask[row].sum() > 1:
            assert (places % 6 != column).all()


def test_a_peer_has_as_many_weights_and_a_finite_loss() -> None:
    config = WORK.config()
    stream = WORK.stream(config)
    model = assemble(config, [stream]).of("")
    peer = peer_of(config, stream.spec)
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in model.parameters())
    batch = WORK.batch(stream, model)
    frames = MaskedFrames.of(
        torch.arange(int(model.feature_encoder.output_lengths(batch.lengths).max()))
        < torch.tensor([[6], [4]])
    )
    loss = peer_loss(peer, batch, frames, negatives_of(frames, 5, seeded(0)))
    assert loss.isfinite() and loss > 0


def test_a_step_of_ours_changes_the_weights() -> None:
    config = WORK.config()
    stream = WORK.stream(config)
    model = assemble(config, [stream]).of("")
    before = [p.detach().clone() for p in model.parameters()]
    own_step(model, config, WORK.batch(stream, model), torch.device("cpu"))()
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_rows_have_other_lengths_down_to_half() -> None:
    config = WORK.config()
    stream = WORK.stream(config)
    batch = WORK.batch(stream, assemble(config, [stream]).of(""))
    assert batch.lengths.tolist() == [6400, 3200] and batch.inputs.shape == (2, 6400)


def test_both_are_timed_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqssl.studies.bench.HEAD_REPEATS", 1)
    said: list[str] = []
    values = bench(WORK, repeats=1, precisions=["float32"], say=said.append)
    found = values["steps"]["float32"]
    assert set(found["seconds"]) == {OURS, THEIRS} == set(found["peak_mib"])
    assert all(value > 0 for value in found["seconds"].values()) and found["flops"] > 0
    assert set(values["heads"]) == {"quantizer", "contrastive loss"}
    assert values["input"] == pytest.approx(0.6) and said
    shown = page(values)
    assert "times transformers" in shown and "4,096 masked frames" in shown and "loader" not in shown


def test_a_recipe_without_a_peer_is_timed_alone_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "bench", "recipe=dna_w2vbert", "size=tiny", "rows=2", "length=600", "repeats=1", "train.device=cpu",
        "precisions=float32", f"out={tmp_path / 'bench'}",
    ]  # fmt: skip
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "Not beside transformers" in told and "GFLOP/s" in told
    values = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert set(values["steps"]["float32"]["seconds"]) == {OURS} and values["commit"]
    assert (tmp_path / "bench" / "bench.md").read_text() in told


def test_the_loader_is_timed_where_there_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("seqssl.studies.bench.peak_mib", lambda work, name, precision: 1.0)
    waves = write_waves(tmp_path / "waves")
    monkeypatch.setattr("seqssl.studies.bench.READ_SECONDS", 0.2)
    work = Work("base/w2vbert", (*TOY, f"data={waves}", "size=tiny", "train.device=cpu"), length=5.0)
    values = bench(work, repeats=1, precisions=["float32"], say=lambda text: None)
    assert values["read"] > 0 and "The loader reads" in page(values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows=0"], "rows = 0"),
        (["repeats=0"], "repeats = 0"),
        (["precisions=int8"], "precisions = int8"),
        (["recipe=joint_w2vbert"], "several streams"),
        (["length=1e-5"], "too short for a frame"),
    ],
)
def test_what_cannot_be_measured(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "train.device=cpu", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(UserError, match="length"):
        Work("dna_w2vbert", ("size=tiny",), length=-3).config()
