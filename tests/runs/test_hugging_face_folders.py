"""Folders of transformers as starts: which are read, and what is said of the others."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from raw import Samples
from safetensors.torch import load_file, save_file
from test_export import SAMPLES

from seqssl import build_model, load_recipe
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.evaluation.frozen import Encoder
from seqssl.interop.hugging_face import export_folder, weights_from
from seqssl.interop.twins import twin_of
from seqssl.runs import export as exporting

pytest.importorskip("transformers")
SPEC = Samples.spec
FEATURES = ("mask_at=features", "masking.fill=learned")


def config_of(*settings: str) -> RunConfig:
    return load_recipe("base/wav2vec2", "size=tiny", "input_norm=instance", "data=none", *SAMPLES, *settings)


def written(folder: Path, *settings: str) -> Path:
    config = config_of(*settings)
    export_folder(twin_of(config, SPEC), build_model(config).state_dict(), folder)
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("theirs") / "hf")


def changed(theirs: Path, out: Path, name: str, **values: object) -> Path:
    shutil.copytree(theirs, out)
    known = json.loads((out / name).read_text())
    (out / name).write_text(json.dumps({**known, **values}))
    return out


def test_weights_may_lie_in_several_files(theirs: Path, tmp_path: Path) -> None:
    whole = weights_from(theirs, config_of(), SPEC)
    folder = changed(theirs, tmp_path / "shards", "config.json")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(weights)}
    for file in set(shards.values()):
        save_file({name: x for name, x in weights.items() if shards[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    found = weights_from(folder, config_of(), SPEC)
    assert found.keys() == whole.keys() and all(torch.equal(found[name], x) for name, x in whole.items())
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot be read as a model of transformers: .*model-00001"):
        weights_from(folder, config_of(), SPEC)


def test_what_is_no_folder_of_safetensors_is_said(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="init = hf:org/model: it must be a folder on this machine; download"):
        weights_from(Path("org/model"), config_of(), SPEC)
    folder = changed(theirs, tmp_path / "bin", "config.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"holds no model\.safetensors: AutoModel\.from_pretrained\(NAME\)"):
        weights_from(folder, config_of(), SPEC)


@pytest.mark.parametrize(
    ("name", "setting", "value", "words"),
    [
        ("preprocessor_config.json", "sampling_rate", 8000, r"8000 there, 100 here \(the modality's rate\)"),
        ("preprocessor_config.json", "do_normalize", False, r"False there, True here \(input_norm\)"),
        ("config.json", "hidden_size", 8, r"8 there, 16 here \(encoder\.dim\)"),
        ("config.json", "layer_norm_eps", 1e-6, "1e-06 there, 1e-05 here"),
    ],
)
def test_each_difference_is_named(
    theirs: Path, tmp_path: Path, name: str, setting: str, value: object, words: str
) -> None:
    folder = changed(theirs, tmp_path / "other", name, **{setting: value})
    with pytest.raises(UserError, match=rf"init = hf:.*: its encoder is another one: {setting} {words}\."):
        weights_from(folder, config_of(), SPEC)
    if name == "preprocessor_config.json":
        (folder / name).unlink()
        assert weights_from(folder, config_of(), SPEC)


def test_a_recipe_without_a_twin_is_told_which_start_it_was(theirs: Path) -> None:
    with pytest.raises(UserError, match=r"init = hf:.*: transformers has no such encoder: .*position=none"):
        weights_from(theirs, config_of("mixer.position=rotary"), SPEC)


def test_the_vector_of_masked_frames_belongs_to_pre_training(theirs: Path, tmp_path: Path) -> None:
    """Whichever side has one that the other lacks."""
    assert "masking.vector" in weights_from(theirs, config_of(), SPEC)
    assert "masking.vector" not in weights_from(theirs, config_of(*FEATURES), SPEC)
    without = written(tmp_path / "without", *FEATURES)
    assert "masked_spec_embed" not in load_file(without / "model.safetensors")
    assert "masking.vector" not in weights_from(without, config_of(), SPEC)


def test_inputs_are_scaled_there_where_they_are_here(tmp_path: Path) -> None:
    def asked(*settings: str) -> bool:
        folder = written(tmp_path / str(len(settings)), *settings)
        found: bool = json.loads((folder / "preprocessor_config.json").read_text())["do_normalize"]
        return found

    assert asked() and not asked("input_norm=null")


def test_blocks_above_the_highest_tap_are_refused(tmp_path: Path) -> None:
    config = config_of("encoder.taps={output: 1}")
    encoder = Encoder(build_model(config), SPEC, batch_inputs=400)
    with pytest.raises(UserError, match="would have to be its highest tap at its last layer"):
        exporting._hugging_face(config, encoder, tmp_path)
