"""The whole pre-training model: what every combination of parts must keep."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from seqssl import (
    Attention,
    Batch,
    ConformerBlock,
    ContextEncoder,
    ContrastiveLoss,
    Conv2dSubsampling,
    DiversityLoss,
    FeaturePenalty,
    GumbelProductQuantizer,
    LearnedCodes,
    MaskedFrames,
    MaskedPredictionLoss,
    PretrainingModel,
    RandomProjectionQuantizer,
    SampleSpec,
    SpanMasking,
)
from seqssl.model.layers import ConvPosition
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import batches, seeds

DIM, BINS, BOOKS, ENTRIES = 16, 8, 2, 6
SPEC = SampleSpec(dtype="float32", units="any", channels=BINS)


def model(conv_norm: str = "layer", *, random_projection: bool = False, **masking: Any) -> PretrainingModel:
    """A tiny w2v-BERT; or BEST-RQ."""
    torch.manual_seed(0)
    features = Conv2dSubsampling(BINS, channels=2)
    blocks = [
        ConformerBlock(Attention(DIM, num_heads=2), dim=DIM, ffn_dim=24, conv_kernel=3, conv_norm=conv_norm)
        for _ in range(2)
    ]
    encoder = ContextEncoder(
        blocks, ConvPosition(DIM, kernel=4, groups=2), taps={"contrastive": 1, "output": 2}
    )
    objectives: dict[str, nn.Module] = {
        "masked_prediction": MaskedPredictionLoss(DIM, BOOKS, ENTRIES, tap="output", seen_weight=0.5)
    }
    quantizer: nn.Module
    if random_projection:
        quantizer = RandomProjectionQuantizer(features.dim, num_codebooks=BOOKS, codebook_size=ENTRIES, dim=4)
    else:
        quantizer = GumbelProductQuantizer(features.dim, num_codebooks=BOOKS, codebook_size=ENTRIES, dim=DIM)
        contrastive = ContrastiveLoss(DIM, DIM, tap="contrastive", num_negatives=8)
        objectives |= {
            "contrastive": contrastive,
            "diversity": DiversityLoss(),
            "penalty": FeaturePenalty(),
        }
    settings = {"start_prob": 0.2, "span": 3, **masking}
    targets = LearnedCodes(quantizer)
    return PretrainingModel(
        features, SpanMasking(features.dim, **settings), targets, encoder, objectives, DIM
    )


def batch(*lengths: int, seed: int = 0) -> Batch:
    inputs = torch.randn(len(lengths), max(lengths), BINS, generator=seeded(seed))
    return Batch(inputs, torch.tensor(lengths))


def padded(original: Batch, by: int) -> Batch:
    """The same rows with garbage behind them."""
    garbage = torch.full((len(original.inputs), by, BINS), 30.0)
    return Batch(torch.cat([original.inputs, garbage], 1), original.lengths)


def totals(made: PretrainingModel, given: Batch, frames: MaskedFrames, **settings: Any) -> dict[str, Tensor]:
    settings = {"temperature": 1.0, "generator": seeded(5), **settings}
    counts = made.counts(given, frames)
    return {name: total / counts[name] for name, total in made(given, frames, **settings).terms.items()}


@pytest.mark.parametrize("conv_norm", ["batch", "layer"])
@pytest.mark.parametrize("temperature", [2.0, None])
def test_every_parameter_is_trained(conv_norm: str, temperature: float | None) -> None:
    made, given = model(conv_norm, fill="learned"), batch(60, 33, 1)
    frames = made.draw_mask(given, seeded())
    torch.stack([*totals(made, given, frames, temperature=temperature).values()]).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith("query_key_value.bias"), (
            name
        )  # softmax ignores key biases


def test_a_frozen_quantizer_trains_the_rest() -> None:
    made, given = model(random_projection=True), batch(60, 33)
    frames = made.draw_mask(given, seeded())
    totals(made, given, frames)["masked_prediction"].backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


@given(batches(SPEC, max_rows=3, max_length=50), seeds)
def test_embeddings_ignore_padding_and_batch_mates(given_batch: Batch, seed: int) -> None:
    made = model("batch").eval()
    together = made.encode(padded(given_batch, 7))
    for row, length in enumerate(given_batch.lengths.tolist()):
        alone = made.encode(
            Batch(given_batch.inputs[row : row + 1, :length], given_batch.lengths[row : row + 1])
        )
        frames = int(alone.lengths)
        assert int(together.lengths[row]) == frames
        torch.testing.assert_close(together.x[row, :frames], alone.x[0], rtol=1e-3, atol=1e-4)


@given(st.sampled_from(["batch", "layer"]), batches(SPEC, max_rows=3, max_length=50), seeds)
def test_losses_ignore_the_values_in_the_padding(conv_norm: str, given_batch: Batch, seed: int) -> None:
    """In training too, batch statistics included."""
    made = model(conv_norm)
    frames = made.draw_mask(given_batch, seeded(seed))
    valid = torch.arange(given_batch.inputs.shape[1]) < given_batch.lengths[:, None]
    cleared = Batch(given_batch.inputs * valid[..., None], given_batch.lengths)
    one, two = totals(made, given_batch, frames), totals(made, cleared, frames)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


def test_predictions_do_not_see_the_masked_frames() -> None:
    """With targets held still, no gradient reaches the features of masked frames through the encoder."""
    made, given = model(), batch(80, 40)
    frames = made.draw_mask(given, seeded())
    features = made.feature_encoder(given.inputs, given.lengths)
    x = features.x.detach().requires_grad_()
    corrupted = made.masking.apply(x, frames.mask, seeded())
    taps = made.contexts(given, features, corrupted, seeded())
    (grad,) = torch.autograd.grad(sum(frames.take(tap).square().sum() for tap in taps.values()), x)
    assert not grad[frames.mask].any()
    assert grad[features.valid & ~frames.mask].any(-1).all()


def test_targets_are_those_before_masking() -> None:
    made, given = model(), batch(60, 33)
    frames = made.draw_mask(given, seeded())
    read = []
    made.objectives.named["masked_prediction"].register_forward_hook(
        lambda _, inputs, __: read.append(inputs[1].codes)
    )
    made(given, frames, temperature=None, generator=seeded())
    clean = made.encode_features(given).x[frames.mask]
    assert torch.equal(read[0], made.targets.quantizer(clean, temperature=None).codes)


def test_the_step_draws_only_from_its_generator() -> None:
    made, given = model(), batch(60, 33)
    before = torch.get_rng_state()
    frames = [made.draw_mask(given, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(frames[0].mask, frames[1].mask) and not torch.equal(frames[0].mask, frames[2].mask)
    one, two = (totals(made, given, frames[0], generator=seeded(3)) for _ in range(2))
    other = totals(made, given, frames[0], generator=seeded(4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["contrastive"], other["contrastive"])


def test_evaluation_keeps_no_state() -> None:
    made, given = model("batch").eval(), batch(60, 33)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    frames = made.draw_mask(given, seeded())
    made(given, frames, temperature=None, generator=seeded())
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("name", ["masked_prediction", "masked_prediction_seen"])
def test_two_micro_batches_add_up(name: str) -> None:
    """Prediction of given targets: a sum over frames, without batch statistics or shared draws."""
    made, whole = model(random_projection=True, fill="zero"), batch(60, 33, 41, 9)
    frames = made.draw_mask(whole, seeded())
    assert frames.seen is not None
    expected = made(whole, frames, temperature=None, generator=seeded()).terms[name]
    parts = []
    for rows in (slice(0, 2), slice(2, 4)):
        size = int(whole.lengths[rows].max())
        part = Batch(whole.inputs[rows, :size], whole.lengths[rows])
        num_frames = int(made.feature_encoder.output_lengths(part.lengths).max())
        mask, seen = (each.mask[rows, :num_frames] for each in (frames, frames.seen))
        parts.append((part, MaskedFrames.of(mask, seen=seen)))
    terms = [made(*part, temperature=None, generator=seeded()).terms[name] for part in parts]
    torch.testing.assert_close(sum(terms), expected, rtol=1e-4, atol=1e-4)
    counts = [int(made.counts(*part)[name]) for part in parts]
    assert sum(counts) == int(made.counts(whole, frames)[name])


def test_usage_is_that_of_all_ranks() -> None:
    """Two ranks of equal batches and an all-reduce that doubles: the mean use does not change."""
    made, given = model(), batch(60, 33)
    frames = made.draw_mask(given, seeded())
    features = made.encode_features(given)
    alone, both = (
        made.targets(given, features, frames, temperature=1.0, generator=seeded()).usage
        for made.targets.all_reduce in (lambda x: x, lambda x: 2 * x)
    )
    torch.testing.assert_close(alone, both)
    torch.testing.assert_close(both.sum(-1), torch.ones(BOOKS))


def test_bfloat16_step_is_finite_and_near() -> None:
    made, given = model("batch"), batch(60, 33)
    frames = made.draw_mask(given, seeded())
    exact = totals(made, given, frames, temperature=None)
    with torch.autocast("cpu", torch.bfloat16):
        low = totals(made, given, frames, temperature=None)
    torch.stack([*low.values()]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    torch.testing.assert_close(low["masked_prediction"], exact["masked_prediction"], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("lengths", [(1,), (1, 1, 1), (4, 1)])
def test_the_shortest_rows_work(lengths: tuple[int, ...]) -> None:
    made, given = model(), batch(*lengths)
    frames = made.draw_mask(given, seeded())
    losses = totals(made, given, frames)
    assert all(loss.isfinite() for loss in losses.values())
    assert float(losses["contrastive"].detach()) == 0


def test_nothing_masked_costs_nothing() -> None:
    made, given = model(start_prob=0.0, min_spans=0), batch(30, 12)
    frames = made.draw_mask(given, seeded())
    terms, counts = made(given, frames, temperature=1.0, generator=seeded()).terms, made.counts(given, frames)
    assert counts.keys() == terms.keys()
    assert int(counts.pop("penalty")) == int(made.feature_encoder.output_lengths(given.lengths).sum())
    assert all(int(count) == 0 for count in counts.values())  # the loop leaves such terms out
    hidden = [terms[name] for name in counts if not name.endswith("_seen")]
    assert all(float(total.detach()) == 0 for total in hidden)


def test_unknown_taps_are_refused() -> None:
    features = Conv2dSubsampling(BINS, channels=2)
    encoder = ContextEncoder([nn.Identity()], None, taps={"output": 1})
    quantizer = RandomProjectionQuantizer(features.dim)
    objectives = {"prediction": MaskedPredictionLoss(DIM, 1, 8192, tap="top")}
    with pytest.raises(ValueError, match="top"):
        PretrainingModel(
            features, SpanMasking(features.dim), LearnedCodes(quantizer), encoder, objectives, DIM
        )
