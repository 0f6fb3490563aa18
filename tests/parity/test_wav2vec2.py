"""wav2vec 2.0 as a whole, against Hugging Face's Wav2Vec2ForPreTraining on the same weights.

transformers is the oracle; nothing of it is copied.
"""

from typing import Any

import pytest
import torch
from torch import nn

from seqssl.testing.harness import seeded

pytest.importorskip("transformers")
import transformers
from transformers import Wav2Vec2ForPreTraining

from seqssl import build_model, load_recipe
from seqssl.config.schema import RunConfig
from seqssl.data.adapters import SampleSpec
from seqssl.errors import UserError
from seqssl.interop.hugging_face import is_head
from seqssl.interop.names import exported, taken
from seqssl.interop.peers import peer_of
from seqssl.interop.twins import twin_of
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, MaskedFrames

SPEC = SampleSpec(dtype="float32", units="amplitude", rate_hz=16_000.0)
CODES, VALUES = 5, 6
SHRUNK = (
    "feature_encoder.dim=8",
    "encoder.dim=24",
    "encoder.num_layers=3",
    "encoder.taps={output: 3}",
    "encoder.block.ffn_dim=32",
    "encoder.position={kernel: 6, groups: 2}",
    "mixer.num_heads=4",
    f"quantizer={{codebook_size: {CODES}, dim: {2 * VALUES}}}",
    "objectives.contrastive={final_dim: 10, num_negatives: 7}",
)


def pair(size: str) -> tuple[PretrainingModel, nn.Module, RunConfig]:
    """Our model of a size, shrunk, and HF's with the same weights."""
    config = load_recipe("speech_wav2vec2", f"size={size}", *SHRUNK)
    ours = build_model(config).eval()
    for name, parameter in ours.named_parameters():
        if "original0" not in name:  # a norm of weights: it must stay positive
            nn.init.normal_(parameter, std=0.3, generator=seeded(len(name)))
    twin = twin_of(config, SPEC)
    theirs = peer_of(config, SPEC).build().eval()
    assert isinstance(theirs, Wav2Vec2ForPreTraining)
    weights = exported(twin.pairs, ours.state_dict(), ignore=is_head)
    theirs.wav2vec2.load_state_dict(weights)
    state, head = ours.targets.quantizer, ours.objectives["contrastive"]  # type: ignore[union-attr]
    with torch.no_grad():
        theirs.quantizer.codevectors.copy_(state.codebook.reshape(1, -1, VALUES))
        theirs.quantizer.weight_proj.load_state_dict(state.logits.state_dict())
        theirs.project_hid.load_state_dict(head.project_context.state_dict())
        theirs.project_q.load_state_dict(head.project_target.state_dict())
    return ours, theirs, config


@pytest.mark.parametrize("size", ["base", "large"])
def test_every_layer_and_the_loss_of_a_step_are_theirs(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two full rows: HF's group norm counts padding, ours does not."""
    ours, theirs, _ = pair(size)
    inputs = torch.randn(2, 6_000, generator=seeded(1))
    batch = Batch(inputs, torch.tensor([6_000, 6_000]))
    ours.encoder.tap_every_layer()
    features = ours.encode_features(batch)
    scaled = ours.input_norm(inputs, torch.ones_like(inputs, dtype=torch.bool))  # type: ignore[misc]
    found = theirs.wav2vec2(scaled, output_hidden_states=True)
    torch.testing.assert_close(features.x, found.extract_features, rtol=1e-4, atol=1e-4)
    taps = ours.contexts(batch, features, ours.clear(batch, features))
    for layer in (1, 2):
        torch.testing.assert_close(taps[f"layer{layer}"], found.hidden_states[layer], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(taps["output"], found.last_hidden_state, rtol=1e-4, atol=1e-4)

    mask = torch.zeros(features.x.shape[:2], dtype=torch.bool)
    mask[0, 2:9], mask[1, 5:12] = True, True
    frames = MaskedFrames.of(mask, valid=features.valid)
    drawn: list[torch.Tensor] = []
    contrast = ours.objectives["contrastive"]
    draw = contrast._draw

    def remember(frames: MaskedFrames, generator: torch.Generator) -> torch.Tensor:
        drawn.append(draw(frames, generator))
        return drawn[-1]

    monkeypatch.setattr(contrast, "_draw", remember)
    output = ours(batch, frames, temperature=None, generator=seeded(3))
    # Their negatives are places in the flattened batch, and stand at masked frames only.
    size_of_row = mask.shape[1]
    negatives = torch.zeros(2, size_of_row, drawn[0].shape[1], dtype=torch.long)
    columns = frames.columns.view(2, -1)
    negatives[frames.rows, frames.columns] = (
        columns[frames.rows].gather(1, drawn[0]) + frames.rows[:, None] * size_of_row
    )
    their = theirs(scaled, mask_time_indices=mask, sampled_negative_indices=negatives)
    torch.testing.assert_close(output.terms["contrastive"], their.contrastive_loss, rtol=1e-4, atol=1e-3)
    # They count the diversity of one-hot codes, summed over masked frames; ours is the mean of probabilities.
    logits = ours.targets.quantizer.logits(frames.take(features.x))  # type: ignore[union-attr]
    codes = torch.nn.functional.one_hot(logits.view(-1, 2, CODES).argmax(-1), CODES).float().mean(0)
    perplexity = torch.exp(-torch.xlogy(codes, codes).sum(-1)).sum()
    torch.testing.assert_close(their.codevector_perplexity, perplexity, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "size", "name"),
    [
        ("speech_hubert", "base", "HubertModel"),
        ("speech_hubert", "large", "HubertModel"),
        ("speech_data2vec", "base", "Data2VecAudioModel"),
    ],
)
def test_the_encoders_of_its_relatives_are_theirs(recipe: str, size: str, name: str) -> None:
    shrunk = [text for text in SHRUNK if not text.startswith(("quantizer", "objectives", "encoder.position"))]
    own = ["encoder.position={kernel: 5, groups: 2, layers: 2}", "targets.layers=2"]
    if recipe == "speech_hubert":
        own = ["encoder.position={kernel: 6, groups: 2}", "targets.num_clusters=4"]
    config = load_recipe(recipe, f"size={size}", *shrunk, *own)
    ours, twin = build_model(config).eval(), twin_of(config, SPEC)
    assert twin.name == name
    settings = getattr(transformers, name.replace("Model", "Config"))(**twin.values)
    theirs = getattr(transformers, name)(settings).eval()
    theirs.load_state_dict(exported(twin.pairs, ours.state_dict(), ignore=is_head))
    inputs = torch.randn(2, 6_000, generator=seeded(1))
    batch = Batch(inputs, torch.tensor([6_000, 6_000]))
    scaled = ours.input_norm(inputs, torch.ones_like(inputs, dtype=torch.bool))  # type: ignore[misc]
    found = theirs(scaled, output_hidden_states=True)
    ours.encoder.tap_every_layer()
    features = ours.encode_features(batch)
    taps = ours.contexts(batch, features, ours.clear(batch, features))
    torch.testing.assert_close(taps["layer1"], found.hidden_states[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(taps["output"], found.last_hidden_state, rtol=1e-4, atol=1e-4)


def test_names_go_both_ways() -> None:
    ours, _, config = pair("base")
    twin = twin_of(config, SPEC)
    weights = {name: x for name, x in ours.state_dict().items() if not is_head(name)}
    there = exported(twin.pairs, ours.state_dict(), ignore=is_head)
    back = taken(twin.pairs, there, ignore=lambda name: False)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], x) for name, x in weights.items())
    there.pop("encoder.layer_norm.bias")
    there["extra"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"lacks encoder\.layer_norm\.bias and has besides extra"):
        taken(twin.pairs, there, ignore=lambda name: False)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("mixer.position=rotary", "mixer.position=none"),
        ("mixer={target: local, position: none}", "mixer.target=attention"),
        ("encoder.norm=output", "encoder.norm=input"),
        ("encoder.feature_norm={target: layer, affine: false}", "affine: true"),
        ("encoder.block={target: conformer}", "encoder.position=none"),
        ("encoder.position={target: stacked_conv, kernel: 5, groups: 2}", "feature_encoder.norm=layer"),
    ],
)
def test_an_encoder_that_they_lack_is_said(setting: str, words: str) -> None:
    config: Any = load_recipe("speech_wav2vec2", "size=base", *SHRUNK, setting)
    with pytest.raises(UserError, match=f"would have to be .*{words}"):
        twin_of(config, SPEC)


@pytest.mark.parametrize(("size", "millions"), [("base", 95.04), ("large", 317.4)])
def test_the_number_of_parameters_is_that_of_the_released_models(size: str, millions: float) -> None:
    model = build_model(load_recipe("speech_wav2vec2", f"size={size}"), "meta")
    count = sum(p.numel() for p in model.parameters())
    assert abs(count / 1e6 - millions) < 0.06, count


def test_the_gradient_of_the_feature_encoder_is_scaled() -> None:
    config = load_recipe("speech_wav2vec2", "size=base", *SHRUNK)
    batch = Batch(torch.randn(1, 4_000, generator=seeded(1)), torch.tensor([4_000]))
    grads = []
    for scale in (1.0, 0.1):
        config.encoder.feature_gradient = scale
        model = build_model(config).eval()
        model.encode(batch).x.square().mean().backward()
        grads.append(model.feature_encoder.convs[0].weight.grad)  # type: ignore[attr-defined]
        assert model.input_projection.weight.grad is not None
    torch.testing.assert_close(grads[1], grads[0] * 0.1, rtol=1e-4, atol=1e-9)


def test_padding_does_not_change_the_group_norm() -> None:
    """HF's does; a row of ours is encoded alike alone and beside a longer one."""
    ours, _, _ = pair("base")
    row = torch.randn(1, 4_000, generator=seeded(2))
    alone = ours.encode(Batch(row, torch.tensor([4_000]))).x
    padded = torch.cat([torch.nn.functional.pad(row, (0, 2_000)), torch.randn(1, 6_000)])
    beside = ours.encode(Batch(padded, torch.tensor([4_000, 6_000]))).x[:1, : alone.shape[1]]
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-4)
