"""Encoders for other libraries: what is written is read back there, and gives the same."""

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from toy import TOY, toy_config, write_letters, write_waves

from seqssl import build_model, cli, load_recipe, train
from seqssl.config.schema import FinetuneConfig
from seqssl.errors import UserError
from seqssl.finetuning.tuned import Tuned
from seqssl.model.linear_mixers import LocalAttention
from seqssl.runs import export as exporting
from seqssl.runs.export import Trial, compared, export
from seqssl.runs.folder import load, read_provenance
from seqssl.runs.starting import starting_weights

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
    with pytest.raises(UserError, match=r"it holds no model\.safetensors: AutoModel"):
        train(load_recipe(str(samples), f"init=hf:{tmp_path}", f"out={tmp_path / 'y'}"))


@pytest.mark.parametrize("kind", ["waves", "letters"])
@pytest.mark.parametrize("to", ["onnx", "safetensors"])
def test_an_encoder_of_any_data_is_exported(kind: str, to: str, tmp_path: Path) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    source = write_waves(tmp_path / "data") if kind == "waves" else write_letters(tmp_path / "data")
    own = ["input_norm=level"] if kind == "waves" else ["modality=toy:Letters"]
    train(toy_config(source, tmp_path / "run", "train.num_updates=2", *own), say=lambda text: None)
    assert alone("export", f"run={tmp_path / 'run'}", f"to={to}", f"out={tmp_path / 'out'}").returncode == 0
    told = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert told["max_abs_difference"] <= told["tolerance"] and told["to"] == to
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
    with pytest.raises(UserError, match=r"differs by 0\.0\d+, more than 0\.000\d+: nothing is kept"):
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


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: shape checks of the tests read sizes that tracing does not know."""
    places = [Path(__file__).parent, *Path(__file__).parents[1:3]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    command = [sys.executable, "-m", "seqssl", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def onnx_of(samples: Path, tmp_path: Path, mixer: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """What an export to ONNX of one layer with this mixer said, and its folder."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    small = ("encoder={num_layers: 1, taps: {output: 1}}", "train.num_updates=1")
    train(
        load_recipe(str(samples), f"mixer={mixer}", *small, f"out={tmp_path / 'run'}"), say=lambda text: None
    )
    out = tmp_path / "onnx"
    return alone("export", f"run={tmp_path / 'run'}", "to=onnx", f"out={out}"), out


def test_mixers_of_linear_cost_are_exported_for_rows_of_any_length(samples: Path, tmp_path: Path) -> None:
    """The row that is traced has two chunks, the longest fifty."""
    done, out = onnx_of(samples, tmp_path, "{target: blend:Blend}")
    assert done.returncode == 0, done.stderr
    told = json.loads((out / "certificate.json").read_text())
    assert told["max_abs_difference"] <= told["tolerance"] and max(told["lengths"]) == 4 * 400


def test_a_mixer_that_a_trace_does_not_follow_is_found(samples: Path, tmp_path: Path) -> None:
    """Rows of 400 frames would lie in its first chunk, as the one that is traced does."""
    done, out = onnx_of(samples, tmp_path, "{target: blend:Looping}")
    assert done.returncode == 2 and "differs by" in done.stderr, done.stderr
    assert not out.exists()


def test_what_onnx_cannot_do_is_said() -> None:
    with pytest.raises(UserError, match=r"ONNX has no form of this encoder \(RuntimeError: no such op\)"):
        with exporting.told():
            raise RuntimeError("no such\n op")


def test_rows_are_like_those_that_the_run_was_trained_on(samples: Path) -> None:
    encoder = load(samples)
    trial = Trial.of(encoder, {"mean": [20.0], "std": [3.0]}, gaps=False)
    assert abs(trial.row(3).mean() - 20) < 1 and abs(trial.row(3).std() - 3) < 0.5
    assert Trial.of(encoder, None, gaps=False).row(3).std() == pytest.approx(0.1, abs=0.02)
    assert not np.isnan(trial.row(0)).any()
    holes = np.isnan(Trial.of(encoder, None, gaps=True).row(0))
    assert 0 < holes.mean() < 0.1
    encoder.model.extra_inputs = []
    assert not np.isnan(Trial.of(encoder, None, gaps=True).row(0)).any()


def test_rows_are_no_longer_than_the_encoder_takes(samples: Path) -> None:
    encoder = load(samples)
    encoder.spec = replace(encoder.spec, max_len=150)
    trial = Trial.of(encoder, None, gaps=True)
    assert trial.lengths == [64, 150]
    ours = lambda row: encoder.frames([row], [encoder.tap])[encoder.tap][0]  # noqa: E731
    assert compared(encoder, ours, trial)[0] == 0


def test_the_tolerance_follows_the_largest_output(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = export(samples, "safetensors", tmp_path / "sure")
    assert sure.max_abs_difference == 0 and sure.largest_output > 2
    assert sure.tolerance == pytest.approx(1e-4 * sure.largest_output)
    assert sure.scale == read_provenance(samples)["statistics"]
    right = exporting._safetensors
    monkeypatch.setattr(exporting, "_safetensors", lambda *given: lambda row: right(*given)(row) + 1.5e-4)
    assert export(samples, "safetensors", tmp_path / "out").max_abs_difference > 1e-4


def test_an_export_with_our_names_is_opened_and_is_a_start(samples: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "out.partial"
    theirs.mkdir()
    export(samples, "safetensors", tmp_path / "out")
    assert theirs.exists() and {path.name for path in tmp_path.iterdir()} == {"out", "out.partial"}
    row = [np.random.default_rng(1).normal(size=150).astype(np.float32)]
    np.testing.assert_array_equal(load(tmp_path / "out").embed(row), load(samples).embed(row))
    again = build_model(load_recipe(str(samples), "seed=7"))
    lines = starting_weights(again, str(tmp_path / "out"))
    assert "drawn anew" in lines[1] and "targets." in lines[1] and "encoder." not in lines[1]
    name = "encoder.blocks.0.mixer_norm.weight"
    assert torch.equal(again.state_dict()[name], load(samples).model.state_dict()[name])
    weights = load_file(tmp_path / "out" / "model.safetensors")
    weights.pop("encoder.blocks.0.mixer.output.bias")
    save_file(weights, tmp_path / "out" / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks encoder\.blocks\.0\.mixer\.output\.bias"):
        load(tmp_path / "out")


def test_what_lora_added_is_exported(samples: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    encoder = load(samples, device="cpu")
    tuned = Tuned(encoder.model, nn.Identity(), FinetuneConfig(lora_rank=2))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    config, origin = load_recipe(samples), read_provenance(samples)
    trial = Trial.of(encoder, origin["statistics"], gaps=False)
    plain = compared(load(samples), lambda row: encoder.frames([row], [encoder.tap])[encoder.tap][0], trial)
    assert plain[0] > 0.01
    for name, write in (
        ("hf", partial(exporting._hugging_face, config)),
        ("ours", partial(exporting._safetensors, config, origin)),
    ):
        (tmp_path / name).mkdir()
        assert compared(encoder, write(encoder, tmp_path / name), trial)[0] < 1e-4, name


def test_a_stream_of_a_joint_run_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_waves(tmp_path / "data")
    own = [text for text in TOY if text.startswith(("modality", "data", "masking", "quantizer"))]
    shared = [text for text in TOY if text not in own]
    streams = [
        f"streams.{name}.{text}" for name in ("one", "other") for text in [*own, f"data.source={source}"]
    ]
    (tmp_path / "waves.yaml").write_text("extends: [base/run, base/w2vbert]\nmodality: toy:Toy\n")
    (tmp_path / "joint.yaml").write_text(
        f"extends: [base/run, base/w2vbert]\nstreams: {{one: {{recipe: {tmp_path}/waves.yaml}}, "
        f"other: {{recipe: {tmp_path}/waves.yaml}}}}\n"
    )
    run, out = tmp_path / "run", tmp_path / "out"
    train(load_recipe(tmp_path / "joint.yaml", "size=tiny", f"out={run}", *shared, *streams,
                      "streams.other.input_norm=channel", "train.num_updates=2"),
          say=lambda text: None)  # fmt: skip
    assert cli.main(["export", f"run={run}", "to=safetensors", f"out={out}"]) == 2
    assert "stream=NAME with one of one, other" in capsys.readouterr().err
    assert cli.main(["export", f"run={run}", "to=safetensors", "stream=other", f"out={out}"]) == 0
    told = json.loads((out / "certificate.json").read_text())
    assert told["stream"] == "other" and told["max_abs_difference"] == 0
    row = [np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)]
    np.testing.assert_array_equal(load(out).embed(row), load(run, stream="other").embed(row))
    assert not np.allclose(load(out).embed(row), load(run, stream="one").embed(row), atol=1e-3)


def test_the_page_shows_an_upstream_that_runs(samples: Path) -> None:
    """docs/export.md, word for word, for waveforms of several lengths."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    known: dict[str, Any] = {}
    exec(code.replace("runs/first", str(samples)), known)
    states = known["upstream"]([torch.randn(200), torch.randn(90)])["hidden_states"]
    assert len(states) == 2 and {x.shape for x in states} == {(2, 49, 16)}
    assert not states[0][1, 30:].any() and states[0][1, 0].any()
