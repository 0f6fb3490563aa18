"""The speed of a recipe: what is timed is the same work, and what cannot be compared is said."""

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import TOY, write_waves

from seqssl.assembly import assemble
from seqssl.cli import main
from seqssl.errors import UserError
from seqssl.interop.peers import negatives_of, peer_loss, peer_of
from seqssl.model.types import MaskedFrames
from seqssl.studies import bench as benching
from seqssl.studies import steps
from seqssl.studies.bench import bench, page
from seqssl.studies.steps import OURS, THEIRS, Work, own_step, peak_mib, peer_step
from seqssl.testing.harness import seeded

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
CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but what a test is about takes long."""
    monkeypatch.setattr(benching, "HEAD_REPEATS", 1)
    monkeypatch.setattr(benching, "READ_SECONDS", 0.2)
    monkeypatch.setattr(benching, "peak_mib", lambda work, name, precision, beside: 1.0)


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


def test_a_batch_is_noise_of_rows_down_to_half_the_length_and_zeros_behind() -> None:
    config = WORK.config()
    batch = WORK.batch(config, WORK.stream(config))
    assert batch.lengths.tolist() == [6400, 3200] and batch.inputs.shape == (2, 6400)
    assert (batch.inputs[1, 3200:] == 0).all() and batch.inputs[1, :3200].std() > 0.05


def test_rows_are_views_of_clips_where_the_recipe_has_several() -> None:
    work = Work("wearables_views", ("size=tiny", "train.device=cpu"), rows=4, length=4.0)
    config = work.config()
    batch = work.batch(config, work.stream(config))
    assert batch.clips is not None and batch.clips.tolist() == [0, 0, 1, 1]
    own_step(config, work.stream(config), batch, CPU)()


def test_a_peer_has_as_many_weights_and_a_finite_loss() -> None:
    pytest.importorskip("transformers")
    config = WORK.config()
    stream = WORK.stream(config)
    peer, model = peer_of(config, stream.spec).build(), assemble(config, [stream]).of("")
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in model.parameters())
    batch = WORK.batch(config, stream)
    size = int(model.feature_encoder.output_lengths(batch.lengths).max())
    frames = MaskedFrames.of(torch.arange(size) < torch.tensor([[6], [4]]))
    loss = peer_loss(peer, batch, frames, negatives_of(frames, 5, seeded(0)))
    assert loss.isfinite() and loss > 0
    peer_step(config, stream, batch, CPU)()


def test_a_step_of_ours_changes_the_weights_and_is_followed_by_what_follows_updates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed = []
    monkeypatch.setattr(steps.PretrainTask, "after_update", lambda task: followed.append(task.model))
    config = WORK.config()
    stream = WORK.stream(config)
    step = own_step(config, stream, WORK.batch(config, stream), CPU)
    assert not followed
    step()
    (model,) = followed
    fresh = dict(assemble(config, [stream]).of("").named_parameters())
    moved = [not torch.equal(p, fresh[name]) for name, p in model.named_parameters()]
    assert sum(moved) > 0.9 * len(moved)


def test_targets_that_are_fitted_are_fitted_to_the_batch() -> None:
    work = Work("base/clusters", (*TOY[:4], "size=tiny", "data=.", "train.device=cpu"), rows=2, length=12.0)
    config = work.config()
    stream = work.stream(config)
    with pytest.raises(UserError, match=r"cannot be fitted to this batch.*Take more rows"):
        own_step(config, stream, work.batch(config, stream), CPU)
    more = Work(work.recipe, (*work.settings, "targets.num_clusters=5"), rows=2, length=12.0)
    config = more.config()
    stream = more.stream(config)
    own_step(config, stream, more.batch(config, stream), CPU)()


def test_both_are_timed_and_shown() -> None:
    pytest.importorskip("transformers")
    said: list[str] = []
    values = bench(WORK, repeats=1, precisions=["float32"], say=said.append)
    found = values["steps"]["float32"]
    assert set(found["seconds"]) == {OURS, THEIRS} == set(found["peak_mib"])
    assert all(times[0] > 0 for times in found["seconds"].values()) and found["flops"] > 0
    assert all(value > 0 for value in found["peak_mib"].values())
    assert set(values["heads"]) == {"quantizer", "contrastive loss"}
    assert values["input"] == pytest.approx(0.6) and said
    shown = page(values)
    assert "times transformers" in shown and "4,096 masked frames" in shown and "loader" not in shown


def test_a_recipe_without_a_peer_is_timed_alone_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    command = [
        "bench", "recipe=dna_w2vbert", "size=tiny", "rows=2", "length=600", "repeats=1", "train.device=cpu",
        "precisions=float32", f"out={tmp_path / 'bench'}",
    ]  # fmt: skip
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "Not beside transformers" in told and "GFLOP/s" in told and "e+" not in told
    values = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert set(values["steps"]["float32"]["seconds"]) == {OURS} and values["commit"]
    assert (tmp_path / "bench" / "bench.md").read_text() in told


def test_without_transformers_a_recipe_is_timed_alone(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    values = bench(WORK, repeats=1, precisions=["float32"], say=lambda text: None)
    assert "pip install 'seqssl[hf]'" in values["alone"] and "heads" not in values


def test_the_loader_is_timed_where_there_are_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    data = f"data={write_waves(tmp_path / 'waves')}"
    work = Work("base/w2vbert", (*TOY, data, "size=tiny", "train.device=cpu"), length=5.0)
    values = bench(work, repeats=1, say=lambda text: None)
    assert values["read"] > 0 and "The loader reads" in page(values)
    assert set(values["steps"]) == {"float32"}, "as its settings have it"
    with pytest.raises(UserError, match="nowhere"):
        bench(Work(work.recipe, (*work.settings, "data=nowhere"), length=5.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.checkpoint_activations=true"], "train.checkpoint_activations=false"),
        (["encoder.taps={output: 1}"], "its highest tap at its last layer"),
        (["quantizer.revive=0.1"], "quantizer.revive=0"),
        (["quantizer_norm=batch"], "quantizer_norm=none"),
        (
            ["objectives.contrastive.final_dim=null", "quantizer.dim=24"],
            "a contrastive objective with a final_dim",
        ),
        (["encoder.block.target=conformer"], "no such encoder"),
    ],
)
def test_what_computes_something_else_is_no_peer(changes: list[str], message: str) -> None:
    config = Work(WORK.recipe, (*SHRUNK, *changes)).config()
    with pytest.raises(UserError, match=message):
        peer_of(config, WORK.stream(config).spec)


def test_objectives_may_be_called_anything() -> None:
    renamed = [
        "objectives.contrastive=null",
        "objectives.find={target: contrastive, tap: output, final_dim: 10, num_negatives: 5}",
    ]
    config = Work(WORK.recipe, (*SHRUNK, *renamed)).config()
    assert peer_of(config, WORK.stream(config).spec).values["num_negatives"] == 5


def test_a_process_that_dies_of_its_step_is_told_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_peak_mib", _die)
    with pytest.raises(UserError, match="the memory does not suffice for a step of seqssl in float32"):
        peak_mib(WORK, OURS, "float32", beside=False)


def _die(*arguments: object) -> float:
    import os

    os._exit(9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows=0"], "rows = 0"),
        (["repeats=0"], "repeats = 0"),
        (["precisions=int8"], "precisions = int8"),
        (["recipe=joint_w2vbert"], "several streams"),
        (["length=1e-5"], "too few to train on"),
        (["length=0"], "length = 0: expected"),
        (["length=-3"], "length = -3: expected"),
        (["quantizer.dim=255"], "quantizer"),
    ],
)
def test_what_cannot_be_measured(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "train.device=cpu", *arguments]) == 2
    assert message in capsys.readouterr().err
