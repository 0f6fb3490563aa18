"""Codes of another run as input: they are that run's, they stand still, and what does not fit is said."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import TOY, write_waves

from seqssl import cli, load_recipe
from seqssl.assembly import assemble, build_model, streams_of
from seqssl.errors import UserError
from seqssl.model.discrete import CodeReader, ReadCodes
from seqssl.model.features import PatchEncoder
from seqssl.model.masking import SpanMasking
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, MaskedFrames
from seqssl.planning.plan import stage_of
from seqssl.runs.folder import load
from seqssl.runs.train import train
from seqssl.testing import check_targets
from seqssl.testing.harness import seeded
from seqssl.training.tasks import PretrainTask


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two codebooks of 8."""
    folder = tmp_path_factory.mktemp("other")
    source, out = write_waves(folder / "waves"), folder / "run"
    settings = ["recipe=base/w2vbert", "size=tiny", f"data={source}", f"out={out}", "train.num_updates=3"]
    assert cli.main(["train", *TOY, *settings, "quantizer.num_codebooks=2"]) == 0
    return out


def opened(run: str) -> PretrainingModel:
    model: Any = load(Path(run)).model
    return model  # type: ignore[no-any-return]


def waves() -> Batch:
    """Two rows of a toy's kind."""
    return Batch(torch.randn(2, 60, 2, generator=seeded(3)), torch.tensor([60, 41]))


def test_frames_are_looked_up_by_the_codes_of_the_run(other: Path) -> None:
    reader, batch = CodeReader(opened, run=str(other), dim=7), waves()
    features = reader(batch.inputs, batch.lengths)
    codes = opened(str(other)).eval().codes(batch)
    assert features.codes is not None and torch.equal(features.codes, codes) and codes.shape[-1] == 2
    for row, length in enumerate(features.lengths.tolist()):
        for column in range(length):
            own = [table.weight[code] for table, code in zip(reader.tables, codes[row, column], strict=True)]
            torch.testing.assert_close(features.x[row, column], own[0] + own[1])
    assert torch.equal(reader.output_lengths(batch.lengths), features.lengths)


def test_the_other_model_stands_still_and_is_saved(other: Path) -> None:
    reader = CodeReader(opened, run=str(other), dim=7).train()
    assert not any(part.training for part in reader.reader.modules())
    assert [name for name, p in reader.named_parameters() if p.requires_grad] == [
        "tables.0.weight",
        "tables.1.weight",
    ]
    assert any(name.startswith("reader.") for name in reader.state_dict())


def test_its_codes_are_targets(other: Path) -> None:
    reader, batch = CodeReader(opened, run=str(other), dim=7), waves()
    features = reader(batch.inputs, batch.lengths)
    check_targets(lambda: ReadCodes(reader), batch, features)


def test_what_does_not_fit_is_said(other: Path) -> None:
    with pytest.raises(ValueError, match="2 codebooks of 8 entries, not 2 of 320: set num_codebooks"):
        CodeReader(opened, run=str(other), codebook_size=320)
    with pytest.raises(ValueError, match="2 codebooks of 8 entries, not 1 of 8"):
        CodeReader(opened, run=str(other), num_codebooks=1)
    with pytest.raises(ValueError, match="read_codes needs a feature encoder that reads codes"):
        ReadCodes(PatchEncoder(2))
    recipe = ["base/discretebert", "size=tiny", "modality=toy:Toy", "data=.", "data.batch_frames=160"]
    with pytest.raises(UserError, match="not 2 of 320"):
        build_model(load_recipe(*recipe, f"feature_encoder.run={other}", "feature_encoder.codebook_size=320"))
    with pytest.raises(UserError, match="run = nowhere: there is no run in this folder"):
        build_model(load_recipe(*recipe, "feature_encoder.run=nowhere"))


def test_a_run_without_codes_cannot_be_read(tmp_path: Path) -> None:
    source, out = write_waves(tmp_path / "waves"), tmp_path / "run"
    settings = ["recipe=base/w2vbert", "size=tiny", f"data={source}", f"out={out}", "train.num_updates=1"]
    toy = [text for text in TOY if not text.startswith("quantizer")]
    own = ["quantizer={target: linear, dim: 16}", "objectives={diversity: null, masked_prediction: null}"]
    assert cli.main(["train", *toy, *settings, *own]) == 0
    with pytest.raises(ValueError, match="this run has no codes to read that"):
        CodeReader(opened, run=str(out))


def test_a_stage_that_has_not_run_can_be_planned_and_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_recipe("speech_discretebert", "size=tiny")
    waiting = stage_of("speech_discretebert", "size=tiny", "stages.quantizer.quantizer.codebook_size=9")
    model = assemble(config, streams_of(config, waiting), "meta").of("")
    assert model.targets.codebook_sizes == (9, 9)
    for attempt in (train, build_model):
        with pytest.raises(UserError, match="stage:quantizer stands for a stage that has not run"):
            attempt(config)
    assert cli.main(["info", "speech_discretebert", "size=tiny"]) == 0
    assert "read_codes" in capsys.readouterr().out


def test_a_stage_is_planned_as_it_is_set_wherever_the_recipe_lies(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("extends: base/discretebert\nstages: {quantizer: {quantizer: {codebook_size: 9}}}\n")
    toy = ["size=tiny", "modality=toy:Toy", "data=.", "data.batch_frames=160"]
    frames = ["data.batch_seconds=null", "data.max_seconds=null", "data.join_seconds=null"]
    for name, settings, size in ((str(own), toy, 9), ("speech_discretebert", [*toy, *frames], 64)):
        streams = streams_of(load_recipe(name, *settings), stage_of(name, *settings))
        model = assemble(load_recipe(name, *settings), streams, "meta").of("")
        assert model.targets.codebook_sizes == (size, size)


def test_bert_masks_as_it_says() -> None:
    """Of the masked frames 80 % become the vector, 10 % another masked place's frame, 10 % stay."""
    masking = SpanMasking(3, fill="learned", kept=0.1, exchanged=0.1)
    x = torch.arange(40_000.0).view(4, 10_000, 1).expand(-1, -1, 3)
    mask = torch.rand(4, 10_000, generator=seeded(0)) < 0.5
    assert (masking.eval().apply(x, mask, seeded(1))[mask] == masking.vector).all(), "forecasts hide all"
    found = masking.train().apply(x, mask, seeded(1))
    assert torch.equal(found[~mask], x[~mask])
    hidden = (found[mask] == masking.vector).all(-1)
    kept = (found[mask] == x[mask]).all(-1)
    exchanged = ~hidden & ~kept
    assert hidden.float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert kept.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert exchanged.float().mean().item() == pytest.approx(0.1, abs=0.01)
    sources = found[mask][exchanged][:, 0]
    assert torch.isin(sources, x[mask][:, 0]).all(), "only masked places are exchanged"
    with pytest.raises(ValueError, match="shares of one whole"):
        SpanMasking(3, kept=0.6, exchanged=0.6)


def test_a_batch_with_nothing_masked_is_left_alone() -> None:
    masking = SpanMasking(2, kept=0.3, exchanged=0.3)
    x = torch.randn(2, 5, 2)
    assert torch.equal(masking.apply(x, torch.zeros(2, 5, dtype=torch.bool), seeded()), x)
    assert MaskedFrames.of(torch.zeros(1, 1, dtype=torch.bool)).max_per_row == 0


def test_what_moves_without_a_gradient_stands_still_in_the_reader(other: Path, tmp_path: Path) -> None:
    """Codebooks of running means would go on moving after each update of the run that reads them."""
    source, out = write_waves(tmp_path / "waves"), tmp_path / "run"
    toy = [text for text in TOY if not text.startswith("quantizer")]
    own = ["quantizer={target: nearest, num_codebooks: 1, codebook_size: 5, dim: 16, decay: 0.5}",
           "objectives={diversity: null, commitment: commitment}"]  # fmt: skip
    assert cli.main(["train", *toy, *own, "recipe=base/w2vbert", "size=tiny", f"data={source}", f"out={out}",
                     "train.num_updates=3"]) == 0  # fmt: skip
    model: Any = build_model(load_recipe(
        "base/discretebert", "size=tiny", "modality=toy:Toy", "data=.", "data.batch_frames=160",
        f"feature_encoder.run={out}",
    ))  # fmt: skip
    before = {name: x.clone() for name, x in model.feature_encoder.reader.state_dict().items()}
    task = PretrainTask(model)
    for _ in range(3):
        task.after_update()
    after = model.feature_encoder.reader.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())


def test_a_run_of_other_inputs_is_refused(other: Path) -> None:
    config = load_recipe("base/discretebert", "size=tiny", "modality=toy:Letters", "data=.",
                         "data.batch_frames=160", f"feature_encoder.run={other}")  # fmt: skip
    with pytest.raises(UserError, match=r"it was made for inputs of dtype float32, and these have int64"):
        build_model(config)


def test_a_run_may_be_moved_with_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_waves(tmp_path / "waves")
    monkeypatch.chdir(tmp_path)
    body = [text for text in TOY if not text.startswith(("quantizer", "encoder.", "masking"))]
    small = ["encoder={dim: 16, num_layers: 1, taps: {output: 1}}", "encoder.block.ffn_dim=16",
             "encoder.position={kernel: 3, groups: 2}",
             "stages.quantizer.quantizer={codebook_size: 4, dim: 8}",
             "stages.quantizer.encoder={dim: 16, num_layers: 1, taps: {output: 1}}",
             "stages.quantizer.train.num_updates=1", "train.num_updates=1"]  # fmt: skip
    arguments = ["train", "recipe=base/discretebert", "size=tiny", f"data={source}", *body, *small]
    assert cli.main([*arguments, "out=here"]) == 0
    assert "run: stage:quantizer" in (tmp_path / "here" / "config.yaml").read_text()
    rows = [torch.randn(40, 2, generator=seeded(1)).numpy()]
    expected = load("here").embed(rows)
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir("/")
    found = load(tmp_path / "there").embed(rows)
    assert (found == expected).all()
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "out=there"]) == 0, "it is the same run still"
    assert cli.main([*arguments, "out=there", "stages.quantizer.quantizer.codebook_size=5"]) == 2
