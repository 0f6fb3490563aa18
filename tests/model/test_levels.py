"""Rows scaled by themselves whose levels the model is told of beside."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import toy_config, write_waves

from seqssl import Attention, Batch, ContextEncoder, PatchEncoder, PretrainingModel, SpanMasking, load, train
from seqssl.model.blocks import TransformerBlock
from seqssl.model.norms import FARTHEST, InstanceNorm, LevelNorm
from seqssl.model.objectives import RegressionLoss
from seqssl.model.teachers import EmaTeacher
from seqssl.testing.harness import seeded

CHANNELS, PATCH, DIM = 2, 4, 16


def batch(*, shift: float = 0.0, scale: float = 1.0) -> Batch:
    """Two rows of 32 and 21 steps, with values that are missing."""
    inputs = torch.randn(2, 32, CHANNELS, generator=seeded(1)) * 3 + 5
    observed = torch.rand(2, 32, CHANNELS, generator=seeded(2)) > 0.2
    lengths = torch.tensor([32, 21])
    observed &= (torch.arange(32) < lengths[:, None])[..., None]
    inputs = (inputs * scale + shift).masked_fill(~observed, torch.pi)  # garbage
    return Batch(inputs, lengths, observed=observed)


def norm_of(data: Batch) -> LevelNorm:
    norm = LevelNorm(CHANNELS)
    norm.set([4.0, 2.0], [2.0, 0.5])
    return norm


def model_of(norm: torch.nn.Module, *, mask_input: bool = False) -> PretrainingModel:
    """A transformer on patches that is taught by its own running mean; its map of levels is drawn, too."""
    torch.manual_seed(0)
    features = PatchEncoder(CHANNELS, dim=DIM, patch=PATCH)
    blocks = [TransformerBlock(Attention(DIM, num_heads=2), dim=DIM, ffn_dim=24) for _ in range(2)]
    encoder = ContextEncoder(blocks, None, taps={"output": 2})
    made = PretrainingModel(
        features,
        SpanMasking(features.dim, start_prob=0.3, span=2),
        EmaTeacher(DIM, layers=2),
        encoder,
        {"regression": RegressionLoss(DIM, DIM, tap="output")},
        DIM,
        input_norm=norm,
        mask_input=mask_input,
    ).eval()
    if made.level_projection is not None:
        assert not any(weight.any() for weight in made.level_projection.parameters())
        torch.nn.init.normal_(made.level_projection.weight, generator=seeded(3))
    return made


def output_of(model: PretrainingModel, data: Batch) -> Tensor:
    return model.encode(data).x


def test_levels_are_means_and_deviations_in_units_of_training() -> None:
    data = batch()
    norm = norm_of(data)
    found = norm.levels(data.inputs, data.observed)  # type: ignore[arg-type]
    assert found.shape == (2, norm.num_levels)
    for row, (values, known) in enumerate(zip(data.inputs.numpy(), data.observed.numpy(), strict=True)):  # type: ignore[union-attr]
        own = [values[known[:, c], c].astype(float) for c in range(CHANNELS)]
        means = [(own[c].mean() - m) / s for c, (m, s) in enumerate(((4.0, 2.0), (2.0, 0.5)))]
        spreads = [np.log(own[c].std() / s) for c, s in enumerate((2.0, 0.5))]
        expected = np.clip([*means, *spreads], -FARTHEST, FARTHEST)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, -1e30, 1e6])
def test_levels_of_rows_far_away_or_without_values_are_finite_and_bounded(value: float) -> None:
    norm = LevelNorm(1)
    one = torch.full((1, 9), value)
    for present in (torch.ones(1, 9, dtype=torch.bool), torch.zeros(1, 9, dtype=torch.bool)):
        found = norm.levels(one, present)
        assert found.isfinite().all() and found.abs().max() <= FARTHEST
        assert not norm(one, present).any()


def test_a_level_changes_what_is_said_of_a_row_and_not_its_features() -> None:
    model, without = model_of(norm_of(batch())), model_of(InstanceNorm())
    for other in (batch(shift=2.0), batch(scale=0.5)):
        ours = [model.encode_features(data).x for data in (batch(), other)]
        torch.testing.assert_close(*ours, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            *(output_of(without, data) for data in (batch(), other)), rtol=1e-3, atol=1e-4
        )
        assert not torch.allclose(*(output_of(model, data) for data in (batch(), other)), atol=0.1)


def test_before_it_has_learned_levels_it_is_the_model_without() -> None:
    model = model_of(norm_of(batch()))
    torch.nn.init.zeros_(model.level_projection.weight)  # type: ignore[union-attr]
    assert torch.equal(output_of(model, batch()), output_of(model_of(InstanceNorm()), batch()))


def test_rows_are_encoded_alike_in_any_batch() -> None:
    data = batch()
    alone = Batch(data.inputs[1:, :21], data.lengths[1:], observed=data.observed[1:, :21])  # type: ignore[index]
    model = model_of(norm_of(data))
    size = model.encode_features(alone).x.shape[1]
    torch.testing.assert_close(output_of(model, data)[1:, :size], output_of(model, alone))


def test_levels_do_not_tell_what_is_hidden_from_the_feature_encoder() -> None:
    """A mean over all steps would: with the rest of them it gives away the sum of those that are hidden."""
    model, data = model_of(norm_of(batch()), mask_input=True), batch()
    frames = model.draw_mask(data, seeded(4))
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    steps = frames.mask.repeat_interleave(PATCH, 1)[..., None]
    changed = Batch(data.inputs + 7.0 * steps, data.lengths, observed=data.observed)
    for each in (data, changed):
        model(each, frames, temperature=None, generator=seeded())
    assert steps.any() and torch.equal(seen[0], seen[1])


def test_a_teacher_is_told_of_levels_as_the_model_is() -> None:
    model = model_of(norm_of(batch()))
    data = batch()
    features = model.encode_features(data)
    assert isinstance(model.targets, EmaTeacher)
    model.encoder.tap_every_layer()
    taps = model.contexts(data, features, features.x)
    valid = features.valid
    (layer, *_) = model.targets.scaled_layers(data, features)
    own = taps["layer1"] if "layer1" in taps else next(iter(taps.values()))
    for row in range(2):
        x = own[row, valid[row]]
        expected = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(layer[row, valid[row]], expected, rtol=1e-3, atol=1e-3)


def test_a_run_keeps_the_scale_of_levels(tmp_path: Path) -> None:
    waves = write_waves(tmp_path / "waves")
    made = train(toy_config(waves, tmp_path / "out", "input_norm=level", "train.num_updates=4"), say=None)
    state = load(made.out).model.state_dict()
    assert state["input_norm.std"].ne(1).all() and state["level_projection.weight"].any()
