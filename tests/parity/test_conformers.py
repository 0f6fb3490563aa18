"""Whole encoders against Hugging Face's Wav2Vec2ConformerModel and Wav2Vec2BertModel, weights copied.

transformers is the oracle; nothing of it is copied.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seqssl.testing.harness import seeded

pytest.importorskip("transformers")
import transformers

from modalities.speech import StackedMelEncoder
from seqssl import build_model, load_recipe
from seqssl.config.schema import RunConfig
from seqssl.data.adapters import SampleSpec
from seqssl.errors import UserError
from seqssl.interop.hugging_face import fill, is_head
from seqssl.interop.names import exported, taken
from seqssl.interop.twins import Twin, twin_of
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch

SPEC = SampleSpec(dtype="float32", units="amplitude", rate_hz=16_000.0)
SMALL = ("encoder.dim=24", "encoder.num_layers=3", "encoder.taps={contrastive: 1, output: 3}",
         "encoder.block.ffn_dim=32", "mixer.num_heads=4")  # fmt: skip
CONFORMER = (
    "speech_w2vconformer", "size=xl", "input_norm=instance", "quantizer.dim=24",
    "objectives.contrastive.final_dim=8", "feature_encoder={target: conv1d, dim: 8, norm: layer}",
    "encoder.feature_norm={target: layer, affine: true}", "encoder.position=none", "encoder.norm=output",
    "encoder.block.conv_bias=false", "mask_at=projection", "masking.fill=learned",
)  # fmt: skip
BERT = ("speech_w2vbert2", "size=xl", "encoder.block.conv_kernel=5", "mixer={max_left: 5, max_right: 2}",
        "quantizer={codebook_size: 4, dim: 8}", "objectives.contrastive.final_dim=8")  # fmt: skip


def pair(*settings: str) -> tuple[PretrainingModel, Any, Twin, RunConfig]:
    """Our model, shrunk, with random weights everywhere, and theirs with the same."""
    name, *rest = settings
    config = load_recipe(name, *rest, *SMALL)
    ours = build_model(config).eval()
    for key, tensor in ours.state_dict().items():
        if tensor.dtype.is_floating_point and key.startswith(("encoder", "input_projection", "feature_norm")):
            scale = 0.1 if "running_var" in key or tensor.dim() < 2 else 0.3
            tensor.copy_(torch.randn(tensor.shape, generator=seeded(len(key))) * scale)
            if "running_var" in key:
                tensor.abs_().add_(0.5)
    twin = twin_of(config, SPEC)
    settings_of_theirs = getattr(transformers, twin.name.replace("Model", "Config"))(**twin.values)
    theirs: nn.Module = getattr(transformers, twin.name)(settings_of_theirs).eval()
    fill(theirs, twin, ours.state_dict())
    return ours, theirs, twin, config


def layers(ours: PretrainingModel, batch: Batch) -> dict[str, torch.Tensor]:
    ours.encoder.tap_every_layer()
    features = ours.encode_features(batch)
    return ours.contexts(batch, features, ours.clear(batch, features))


@pytest.mark.parametrize("position", ["none", "relative"])
def test_a_conformer_over_samples_is_theirs(position: str) -> None:
    ours, theirs, twin, _ = pair(*CONFORMER, f"mixer.position={position}")
    assert twin.name == "Wav2Vec2ConformerModel"
    inputs = torch.randn(2, 6_000, generator=seeded(1))
    scaled = ours.input_norm(inputs, torch.ones_like(inputs, dtype=torch.bool))  # type: ignore[misc]
    found = theirs(scaled, output_hidden_states=True)
    taps = layers(ours, Batch(inputs, torch.tensor([6_000, 6_000])))
    torch.testing.assert_close(taps["contrastive"], found.hidden_states[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(taps["output"], found.last_hidden_state, rtol=1e-4, atol=1e-4)


def test_w2v_bert_2_is_theirs_from_samples_on() -> None:
    """Rows of two lengths, one with an odd number of windows: their extractor, then their model."""
    ours, theirs, twin, _ = pair(*BERT)
    assert twin.name == "Wav2Vec2BertModel"
    extract = transformers.SeamlessM4TFeatureExtractor()
    rows = [0.1 * torch.randn(n, generator=seeded(n)) for n in (8_000, 5_200)]
    given = extract([row.numpy() for row in rows], sampling_rate=16_000, return_tensors="pt")
    found = theirs(given.input_features, attention_mask=given.attention_mask, output_hidden_states=True)
    lengths = torch.tensor([len(row) for row in rows])
    batch = Batch(nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths)
    taps = layers(ours, batch)
    made = ours.feature_encoder.output_lengths(lengths)
    assert made.tolist() == given.attention_mask.sum(1).tolist()
    for row, size in enumerate(made.tolist()):
        for tap, theirs_at in (("contrastive", found.hidden_states[1]), ("output", found.last_hidden_state)):
            torch.testing.assert_close(taps[tap][row, :size], theirs_at[row, :size], rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("size", [400, 401, 560, 719, 720, 5_000])
def test_the_bands_are_those_of_their_extractor(size: int) -> None:
    encoder = StackedMelEncoder()
    row = np.random.default_rng(size).normal(size=size).astype(np.float32) * 0.1
    found = encoder(torch.from_numpy(row)[None], torch.tensor([size]))
    if size < 720:
        assert found.x.shape == (1, 1, 160) and found.x.isfinite().all()
        return  # theirs have no frame, and no variance of one window
    given = transformers.SeamlessM4TFeatureExtractor()(row, sampling_rate=16_000, return_tensors="pt")
    count = int(found.lengths[0])
    expected = given.input_features[0, :count]
    torch.testing.assert_close(found.x[0, :count], expected, rtol=1e-3, atol=1e-3)


def test_bands_follow_the_rate() -> None:
    """Half the rate, every second sample: the same number of windows."""
    slow, fast = StackedMelEncoder(None, 8_000.0), StackedMelEncoder(None, 16_000.0)
    assert (slow.window_length, slow.hop_length) == (200, 80)
    assert int(slow.num_windows(torch.tensor(4_000))) == int(fast.num_windows(torch.tensor(8_000)))
    with pytest.raises(ValueError, match="these inputs have none"):
        StackedMelEncoder(None, None)


@pytest.mark.parametrize(
    "settings", [(*CONFORMER, "mixer.position=relative"), BERT], ids=["conformer", "bert"]
)
def test_names_go_both_ways(settings: tuple[str, ...]) -> None:
    ours, theirs, twin, _ = pair(*settings)
    weights = {name: x for name, x in ours.state_dict().items() if not is_head(name)}
    there = exported(twin.pairs, ours.state_dict(), ignore=is_head)
    back = taken(twin.pairs, there, ignore=lambda name: False)
    assert back.keys() == weights.keys() and all(torch.equal(back[name], x) for name, x in weights.items())
    own = taken(twin.pairs, theirs.state_dict(), ignore=twin.has_no_use_for)
    assert all(torch.equal(own[name], x) for name, x in weights.items())


@pytest.mark.parametrize(
    ("settings", "setting", "words"),
    [
        (CONFORMER, "encoder.block.conv_bias=true", "conv_bias=false"),
        (CONFORMER, "encoder.norm=none", "encoder.norm=output"),
        (CONFORMER, "feature_encoder.norm=row", "feature_encoder.norm=group or layer"),
        (BERT, "feature_encoder.num_bins=64", "feature_encoder.num_bins=80"),
        (CONFORMER, "mixer.position=relative_key", "mixer.position=none or relative"),
        (CONFORMER, "encoder.block.conv_causal=true", "conv_causal=false"),
        (BERT, "encoder.block.conv_causal=false", "conv_causal=true"),
        (BERT, "encoder.block.conv_norm=batch", "conv_norm=layer"),
        (BERT, "mixer.causal=true", "mixer.causal=false"),
        (CONFORMER, "mixer={target: local, position: none}", "mixer.target=attention"),
        (BERT, "mixer.position=rotary", "none, relative or relative_key"),
        (BERT, "feature_encoder.stack=1", "feature_encoder.stack=2"),
        (BERT, "input_norm=channel", "input_norm=instance or none"),
        (CONFORMER, "input_norm=channel", "input_norm=instance or none"),
    ],
)
def test_an_encoder_that_they_lack_is_said(settings: tuple[str, ...], setting: str, words: str) -> None:
    config = load_recipe(*settings, *SMALL, setting)
    with pytest.raises(UserError, match=f"would have to be .*{words}"):
        twin_of(config, SPEC)


@pytest.mark.parametrize(
    ("settings", "rate_hz", "words"),
    [(CONFORMER, 0.5, "a whole number of steps a second"), (BERT, 8_000.0, "16000 steps a second")],
)
def test_a_rate_that_they_lack_is_said(settings: tuple[str, ...], rate_hz: float, words: str) -> None:
    config = load_recipe(*settings, *SMALL)
    with pytest.raises(UserError, match=f"would have to be .*{words}"):
        twin_of(config, replace(SPEC, rate_hz=rate_hz))


def test_the_number_of_parameters_is_that_of_the_released_model() -> None:
    """580 million, as the paper says; quantizer and heads of pre-training are ours."""
    model = build_model(load_recipe("speech_w2vbert2", "size=xl"), "meta")
    count = sum(p.numel() for name, p in model.named_parameters() if not is_head(name))
    with torch.device("meta"):
        theirs = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig())
    assert count == sum(p.numel() for p in theirs.parameters())
    assert round(count / 1e6) == 580
