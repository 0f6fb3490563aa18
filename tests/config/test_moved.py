"""Old names of keys work for one release, and say the new one; saved runs open without a word."""

from pathlib import Path

import pytest

from seqssl import UserError, load_recipe
from seqssl.config import moved
from seqssl.config.moved import Translation
from seqssl.config.schema import hint_at, kind_of
from seqssl.config.tree import split
from seqssl.planning.plan import resolve

BASE = ("base/w2vbert", "size=tiny", "data=x", "data.batch_frames=9", "modality=speech")
SAVED = """
recipe: w2vbert
modality: {target: speech}
feature_encoder: null
input_norm: none
target: auto
mask_at: auto
masking: {target: span, span: 3}
quantizer: {target: gumbel, codebook_size: 8, dim: 16}
objectives:
  contrastive: {target: contrastive, tap: output}
data: {source: /somewhere, batch_frames: 160}
size: tiny
health: warn
streams: {}
mixer: {target: attention, num_heads: 2}
encoder:
  block: %s
  num_layers: 2
  dim: 16
  ffn_dim: 32
  conv_kernel: 3
  conv_norm: layer
  dropout: 0.1
  stochastic_depth: 0.0
  feature_norm: layer
  position: %s
  position_kernel: 4
  position_groups: 2
  taps: {output: 2}
eval: {}
provenance: {seqssl: 0.1.0}
"""


def saved(folder: Path, block: str, position: str) -> Path:
    (folder / "config.yaml").write_text(SAVED % (block, position))
    return folder


def test_old_keys_on_the_command_line() -> None:
    keys = ["ffn_dim=16", "position_kernel=4", "dropout=0.2", "position_groups=2", "conv_kernel=3"]
    old = resolve(*BASE, *(f"encoder.{key}" for key in keys), "encoder.conv_norm=batch")
    new = resolve(*BASE, "encoder.block={ffn_dim: 16, dropout: 0.2, conv_kernel: 3, conv_norm: batch}",
                  "encoder.position={kernel: 4, groups: 2}")  # fmt: skip
    assert old.config == new.config and not new.note
    assert old.origins["encoder.block.ffn_dim"] == "command line"
    lines = old.note.splitlines()
    assert len(lines) == 6
    assert lines[0] == (
        "encoder.ffn_dim is now encoder.block.ffn_dim; the old name works for one release (command line)."
    )


def test_old_keys_in_recipes_and_their_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: base/w2vbert\nmodality: speech\ndata: {demo: x, batch_frames: 9}\n"
        "encoder: {conv_kernel: 7}\nquantizer: {dim: '${encoder.ffn_dim}'}\n"
        "sizes: {tiny: {encoder: {ffn_dim: 24, dim: 24, position_groups: 8}}}\neval: {}\n"
    )
    found = resolve(path, "size=tiny")
    assert found.config.encoder.block["ffn_dim"] == 24 and found.config.encoder.block["conv_kernel"] == 7
    assert found.config.encoder.position == {"target": "conv", "kernel": 32, "groups": 8}
    assert found.config.quantizer["dim"] == 24
    assert "eval is read no more" in found.note and str(path) in found.note


def test_a_value_by_its_new_name_goes_first() -> None:
    translated = Translation().translate(
        {"encoder": {"block": {"target": "conformer", "ffn_dim": 8}, "ffn_dim": 16}}, "here"
    )
    assert translated == {"encoder": {"block": {"ffn_dim": 8, "target": "conformer"}}}


@pytest.mark.parametrize("block", ["conformer", "transformer"])
@pytest.mark.parametrize("position", ["conv", "none"])
def test_runs_of_older_versions_open_without_a_word(tmp_path: Path, block: str, position: str) -> None:
    found = resolve(saved(tmp_path, block, position))
    encoder = found.config.encoder
    own = {"conv_kernel": 3, "conv_norm": "layer"} if block == "conformer" else {}
    assert encoder.block.items() >= {"target": block, "ffn_dim": 32, "dropout": 0.1, **own}.items()
    assert encoder.position == (None if position == "none" else {"target": "conv", "kernel": 4, "groups": 2})
    assert encoder.feature_norm == {"target": "layer", "affine": False}
    assert found.config.input_norm is None
    assert found.config.task["target"] == "pretrain" and found.config.context == "features"
    assert found.note == ""


def test_the_streams_of_a_saved_run_are_complete(tmp_path: Path) -> None:
    """Their recipes may be gone, and fields that came since have their defaults."""
    text = SAVED % ("conformer", "conv")
    stream = (
        "streams:\n  one: {recipe: gone, modality: speech, masking: span, quantizer: gumbel, target: auto,\n"
    )
    stream += "    objectives: {contrastive: {target: contrastive, tap: output}}, input_norm: none,\n"
    stream += "    data: {demo: speech, batch_frames: 9}}\n"
    (tmp_path / "config.yaml").write_text(text.replace("streams: {}\n", stream))
    config = load_recipe(tmp_path)
    assert config.streams["one"].recipe == "gone" and config.streams["one"].context == "features"
    with pytest.raises(UserError, match="no recipe 'gone_too'"):
        load_recipe(tmp_path, "streams.two=gone_too")


def test_a_key_can_be_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(moved.REFUSED, "encoder.width", "say encoder.dim, and mind the taps")
    with pytest.raises(UserError, match=r"encoder.width = 3: say encoder.dim, and mind the taps"):
        load_recipe(*BASE, "encoder.width=3")


@pytest.mark.parametrize(
    ("old", "new"), [("auto", None), ("latent", "learned"), ("identity", "symbols"), ("both", "both")]
)
def test_old_values_have_new_names_too(old: str, new: str | None) -> None:
    found = resolve(*BASE, f"target={old}")
    assert (found.config.targets or {}).get("target") == new
    assert found.note.startswith("target is now targets")


def test_every_new_name_is_that_of_a_setting() -> None:
    new_names = [split(new) for new in moved.RENAMED.values()]
    assert all(hint_at(path) or kind_of(hint_at(path[:-1])) for path in new_names)
    assert all(hint_at(split(old)) is None for old in {*moved.RENAMED, *moved.DROPPED, *moved.REFUSED})
