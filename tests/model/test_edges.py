"""What is too little or too much: constants, one frame, numbers out of range, half of the precision."""

import pytest
import torch
from torch.nn import functional as F

from seqssl.model.codebooks import FiniteScalarQuantizer
from seqssl.model.future import FeatureTarget, NextLatentLoss
from seqssl.model.invariance import InvarianceLoss, pooled, vicreg
from seqssl.model.norms import InstanceNorm, MaskedBatchNorm, scaled
from seqssl.model.objectives import MaskedPredictionLoss
from seqssl.model.types import Context, Features, LossTerm, MaskedFrames, Quantized
from seqssl.testing.harness import seeded
from seqssl.testing.objectives import Sizes, random_case

DIM, WIDTH = 6, 4


@pytest.mark.parametrize("value", [101.3, 1013.2])
def test_a_constant_is_scaled_to_zero_whatever_it_is(value: float) -> None:
    """Before, what was left over by rounding its mean was scaled up to 1 or -1."""
    norm = InstanceNorm()
    for length in (*range(1, 100), *range(100, 2001, 37), 2000):
        inputs = torch.full((1, length + 5), value)
        present = torch.arange(length + 5)[None] < length
        assert not norm(inputs, present).any(), length
        assert not norm(inputs[..., None], present[..., None]).any(), length


def test_what_changes_is_scaled_as_before() -> None:
    x = torch.randn(2, 30, 3, generator=seeded(1)) * 2 + 40
    x[..., 1] = 40.1
    valid = torch.arange(30) < torch.tensor([30, 12])[:, None]
    found = scaled(x, valid)
    assert not found[1, 12:].any() and not found[..., 1].any()
    for row, length in enumerate((30, 12)):
        own = x[row, :length, ::2].double()
        expected = (own - own.mean(0)) / own.std(0, correction=0)
        torch.testing.assert_close(found[row, :length, ::2].double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [0, 1])
def test_a_batch_without_a_spread_is_normalized_by_the_running_one(frames: int) -> None:
    norm = MaskedBatchNorm(4).train()
    norm(torch.randn(1, 20, 4, generator=seeded(1)) * 3 + 5, torch.ones(1, 20, dtype=torch.bool))
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    x, valid = torch.randn(1, frames, 4, generator=seeded(2)), torch.ones(1, frames, dtype=torch.bool)
    found = norm(x, valid)
    assert torch.equal(norm.running_mean, mean) and torch.equal(norm.running_var, var)
    assert torch.equal(found, norm.eval()(x, valid))


def next_latent(*row_lengths: int) -> tuple[LossTerm, list[torch.Tensor]]:
    """The term of rows of these lengths, and its gradients; the first row is always the same."""
    torch.manual_seed(0)
    objective = NextLatentLoss(DIM, WIDTH, directions=8, hidden_dim=7, final_dim=5)
    lengths = torch.tensor(row_lengths)
    frames = MaskedFrames.of(torch.arange(max(row_lengths)) < lengths[:, None])
    x = torch.randn(20, DIM, generator=seeded(1))[: len(frames)] + 1
    vectors = torch.randn(20, WIDTH, generator=seeded(2))[: len(frames)] + 1
    features = Features(torch.zeros(*frames.mask.shape, WIDTH), lengths)
    term = objective(Context(x, frames, features), FeatureTarget(WIDTH)(vectors, temperature=None), seeded(3))
    return term, [*torch.autograd.grad(term.total, [*objective.parameters()])]


def test_a_row_of_one_frame_has_no_part_in_the_isotropy() -> None:
    """Nothing can be foreseen in it, and its statistic would only draw the frame to 0."""
    (alone, grads), (beside, others) = next_latent(9), next_latent(9, 1)
    assert int(alone.count) == int(beside.count) == 8
    torch.testing.assert_close(beside.stats["isotropy"], alone.stats["isotropy"])
    torch.testing.assert_close(others, grads)
    term, grads = next_latent(1, 1)
    assert float(term.total.detach()) == 0 and not any(grad.any() for grad in grads)


def test_levels_of_a_long_dimension_stay_in_range() -> None:
    """The little more that lets the last level be reached is more than half a level there."""
    quantizer = FiniteScalarQuantizer(1, levels=(1024,))
    with torch.no_grad():
        quantizer.project.weight.fill_(1.0)
        quantizer.project.bias.zero_()
    found = quantizer(torch.tensor([[-50.0], [50.0]]), temperature=None)
    assert found.codes[:, 0].tolist() == [0, 1023]
    assert found.vectors[:, 0].tolist() == [-1.0, 511 / 512]


def test_a_cosine_head_compares_in_full_precision() -> None:
    torch.manual_seed(0)
    context, targets = random_case((8, 6), Sizes(context_dim=12, num_codebooks=2, codebook_size=5))
    objective = MaskedPredictionLoss(12, 2, 5, tap="", final_dim=6)
    assert objective.embeddings is not None
    with torch.autocast("cpu", torch.bfloat16):
        x = objective.head(context.x)
        found = objective(context, targets, seeded()).total
    assert x.dtype == torch.bfloat16
    codes = F.normalize(objective.embeddings, dim=-1)
    logits = (F.normalize(x.float(), dim=-1) @ codes.T / objective.temperature).view(-1, 5)
    expected = F.cross_entropy(logits, targets.codes.flatten(), reduction="sum") / 2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_views_are_compared_in_full_precision() -> None:
    torch.manual_seed(0)
    mask, clips = torch.ones(6, 3, dtype=torch.bool), torch.arange(3).repeat_interleave(2)
    frames = MaskedFrames.of(mask)
    x = torch.randn(len(frames), DIM, generator=seeded(1))
    context = Context(x, frames, Features(torch.zeros(6, 3, 2), mask.sum(1), clips=clips))
    nothing = Quantized(torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, 0))
    objective = InvarianceLoss(DIM, covariance=10.0, hidden_dim=8, final_dim=4)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = objective.projector(pooled(x, frames))
        found = objective(context, nothing, seeded()).total
    assert vectors.dtype == torch.bfloat16
    value, _, _ = vicreg(vectors.float(), clips[:, None] == clips, 10.0)
    torch.testing.assert_close(found, value * 6, rtol=1e-5, atol=0)
