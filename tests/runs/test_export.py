"""Encoders for other libraries: what is written is read back there, and gives the same."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import TOY, toy_config, write_letters, write_waves

from seqssl import cli, load_recipe, train
from seqssl.errors import UserError
from seqssl.model.linear_mixers import LocalAttention
from seqssl.runs import export as exporting
from seqssl.runs.export import export
from seqssl.runs.folder import load

SAMPLES = [
    *(text for text in TOY if not text.startswith(("quantizer", "encoder.", "mixer", "modality"))),
    "modality=raw:Samples",
    "feature_encoder={target: conv1d, dim: 8, norm: layer, kernels: [4, 3], strides: [2, 2]}",
    "quantizer={codebook_size: 4, dim: 8}",
    "encoder={dim: 16, num_layers: 2, taps: {output: 2}, position: {kernel: 4, groups: 2}}",
    "encoder.block={ffn_dim: 20}",
    "mixer={num_heads: 2, position: none}",
    "objectives.contrastive.final_dim=8",
    "train.num_updates=2",
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of one channel, and a wav2vec 2.0 run of them."""
    folder = tmp_path_factory.mktemp("samples")
    rng = np.random.default_rng(0)
    for row in range(12):
        path = folder / "rows" / f"{row}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, rng.normal(size=200).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQSSL_CACHE", str(folder / "cache"))
        train(load_recipe("base/wav2vec2", "size=tiny", "input_norm=instance", f"data={folder / 'rows'}",
                          f"out={folder / 'run'}", *SAMPLES), say=lambda text: None)  # fmt: skip
    return folder / "run"


CONFORMER = [
    "encoder.block={target: conformer, ffn_dim: 20, conv_kernel: 3, conv_norm: batch, conv_bias: false}",
    "encoder.position=none",
    "encoder.norm=output",
    "mixer.position=relative",
]


def test_a_conformer_comes_back_too(samples: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run, folder = tmp_path / "run", tmp_path / "hf"
    train(load_recipe(str(samples), f"out={run}", *CONFORMER), say=lambda text: None)
    assert cli.main(["export", f"run={run}", "to=hf", f"out={folder}"]) == 0
    assert json.loads((folder / "certificate.json").read_text())["max_abs_difference"] < 1e-4
    assert type(transformers.AutoModel.from_pretrained(folder)).__name__ == "Wav2Vec2ConformerModel"
    train(load_recipe(str(run), f"init=hf:{folder}", f"out={tmp_path / 'again'}", "seed=7",
                      "train.num_updates=1", "optim.lr=1e-12", "optim.weight_decay=0"),
          say=lambda text: None)  # fmt: skip
    row = [np.random.default_rng(1).normal(size=150).astype(np.float32)]
    # The one update has moved the running means of batch norm a little.
    np.testing.assert_allclose(load(tmp_path / "again").embed(row), load(run).embed(row), atol=0.2)
    weights = [load(place).model.encoder.blocks[0].mixer.output.weight for place in (tmp_path / "again", run)]  # type: ignore[union-attr]
    assert torch.allclose(*weights, atol=1e-6)


def test_w2v_bert_2_goes_there_and_comes_back(tmp_path: Path) -> None:
    """From the waveform on: their feature extractor reads rows as ours does."""
    transformers = pytest.importorskip("transformers")
    import soundfile

    rng = np.random.default_rng(0)
    for row in range(8):
        path = tmp_path / "rows" / f"{row}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * rng.normal(size=16_000), 16_000)
    small = ["size=tiny", "encoder={num_layers: 2, dim: 24, taps: {contrastive: 1, output: 2}}",
             "encoder.block={ffn_dim: 20, conv_kernel: 3}", "quantizer={codebook_size: 4, dim: 8}",
             "objectives.contrastive.final_dim=8", f"data={tmp_path / 'rows'}", "data.batch_seconds=4",
             "data.split_by=record", "train.num_updates=2"]  # fmt: skip
    run, folder = tmp_path / "run", tmp_path / "hf"
    train(load_recipe("speech_w2vbert2", *small, f"out={run}"), say=lambda text: None)
    assert cli.main(["export", f"run={run}", "to=hf", f"out={folder}"]) == 0
    assert json.loads((folder / "certificate.json").read_text())["max_abs_difference"] < 1e-4
    assert type(transformers.AutoModel.from_pretrained(folder)).__name__ == "Wav2Vec2BertModel"
    model = transformers.Wav2Vec2BertForCTC.from_pretrained(folder, vocab_size=5)
    assert model(torch.randn(1, 30, 160)).logits.shape == (1, 30, 5)
    train(load_recipe(str(run), f"init=hf:{folder}", f"out={tmp_path / 'again'}", "seed=7",
                      "train.num_updates=1", "optim.lr=1e-12"), say=lambda text: None)  # fmt: skip
    audio = [0.1 * rng.normal(size=9_000).astype(np.float32)]
    np.testing.assert_allclose(load(tmp_path / "again").embed(audio), load(run).embed(audio), atol=1e-4)


def test_transformers_opens_what_is_exported_and_it_comes_back(samples: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    assert cli.main(["export", f"run={samples}", "to=hf", f"out={tmp_path / 'hf'}"]) == 0
    told = json.loads((tmp_path / "hf" / "certificate.json").read_text())
    assert told["max_abs_difference"] < 1e-4 < told["largest_output"]
    assert len(set(told["lengths"])) == 4
    model = transformers.AutoModelForCTC.from_pretrained(tmp_path / "hf", vocab_size=5)
    assert model(torch.randn(1, 90)).logits.shape[2] == 5

    config = load_recipe(str(samples), f"init=hf:{tmp_path / 'hf'}", f"out={tmp_path / 'again'}", "seed=7",
                         "train.num_updates=1", "optim.lr=1e-12", "optim.weight_decay=0")  # fmt: skip
    lines: list[str] = []
    train(config, say=lines.append)
    assert any("tensors are those of hf:" in line and "are drawn anew" in line for line in lines)
    row = [np.random.default_rng(1).normal(size=150).astype(np.float32)]
    np.testing.assert_allclose(load(tmp_path / "again").embed(row), load(samples).embed(row), atol=1e-5)
    other = load_recipe(
        str(samples), f"init=hf:{tmp_path / 'hf'}", f"out={tmp_path / 'x'}", "encoder.block.ffn_dim=24"
    )
    with pytest.raises(UserError, match="its encoder is another one: intermediate_size 20 there, 24 here"):
        train(other)
    with pytest.raises(UserError, match="cannot be read as a model of transformers"):
        train(load_recipe(str(samples), f"init=hf:{tmp_path}", f"out={tmp_path / 'y'}"))


@pytest.mark.parametrize("kind", ["waves", "letters"])
@pytest.mark.parametrize("to", ["onnx", "safetensors"])
def test_an_encoder_of_any_data_is_exported(kind: str, to: str, tmp_path: Path) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    source = write_waves(tmp_path / "data") if kind == "waves" else write_letters(tmp_path / "data")
    own = [] if kind == "waves" else ["modality=toy:Letters"]
    train(toy_config(source, tmp_path / "run", "train.num_updates=2", *own), say=lambda text: None)
    # In a process of its own: the shape checks of the tests read sizes that tracing does not know.
    places = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    arguments = ["export", f"run={tmp_path / 'run'}", f"to={to}", f"out={tmp_path / 'out'}"]
    subprocess.run(
        [sys.executable, "-m", "seqssl", *arguments], env={**os.environ, "PYTHONPATH": places}, check=True
    )
    told = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert told["max_abs_difference"] <= 1e-4 and told["to"] == to
    if to == "safetensors":
        assert told["max_abs_difference"] == 0
    with pytest.raises(UserError, match="is there already"):
        export(tmp_path / "run", to, tmp_path / "out")


def test_rows_are_long_enough_to_tell_attention_to_near_frames_from_attention_to_all() -> None:
    """Its weights have the same names; before, no row was longer than what it sees."""
    window = inspect.signature(LocalAttention).parameters["window"].default
    assert max(exporting.FRAMES) > 4 * window


def test_an_encoder_that_differs_is_not_kept(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exporting._safetensors
    monkeypatch.setattr(exporting, "_safetensors", lambda *given: lambda row: right(*given)(row) + 0.01)
    with pytest.raises(UserError, match=r"differs by 0\.0\d+, more than 0\.0001: nothing is kept"):
        export(samples, "safetensors", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_no_other_library_has_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_waves(tmp_path / "data")
    train(toy_config(source, tmp_path / "run", "train.num_updates=1"), say=lambda text: None)
    assert cli.main(["export", f"run={tmp_path / 'run'}", "to=hf", f"out={tmp_path / 'out'}"]) == 2
    assert (
        "transformers has no such encoder: it would have to be inputs of one channel"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
    assert cli.main(["export", f"run={tmp_path / 'run'}", "to=tflite", f"out={tmp_path / 'out'}"]) == 2
