"""wav2vec's parts: against references written from the paper, and what a frame may know of later ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from torch.nn import functional as F

from seqssl.model.features import Conv1dStack
from seqssl.model.future import (
    AllFrames,
    CausalConvBlock,
    FeatureTarget,
    FuturePredictionLoss,
    NextLatentLoss,
    at_places,
    sketched_isotropy,
)
from seqssl.model.mixers import Attention
from seqssl.model.norms import RowNorm
from seqssl.model.types import Context, Features, Frames, MaskedFrames, Quantized
from seqssl.testing import check_block
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, seeds

DIM, WIDTH = 6, 4


def case(row_lengths: torch.Tensor, seed: int) -> tuple[Context, MaskedFrames, torch.Tensor, Features]:
    size = int(row_lengths.max())
    mask = torch.arange(size) < row_lengths[:, None]
    frames = MaskedFrames.of(mask)
    x = torch.randn(len(frames), DIM, generator=seeded(seed))
    vectors = torch.randn(len(frames), WIDTH, generator=seeded(seed + 1))
    features = Features(torch.zeros(*mask.shape, WIDTH), row_lengths)
    return Context(x, frames, features), frames, vectors, features


@given(lengths(max_length=9), st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), seeds)
def test_the_loss_is_the_papers(
    row_lengths: torch.Tensor, steps: int, offset: int, negatives: int, seed: int
) -> None:
    """One frame, step and negative at a time: equation 2, with the negatives that were drawn."""
    context, frames, vectors, features = case(row_lengths, seed)
    torch.manual_seed(seed)
    objective = FuturePredictionLoss(DIM, WIDTH, steps=steps, offset=offset, num_negatives=negatives)
    target = FeatureTarget(WIDTH)(vectors, temperature=None)
    term = objective(context, target, seeded(seed))
    places = objective._negatives(frames.mask, seeded(seed))
    others = at_places(places, frames.put(vectors))
    place = {(int(r), int(c)): n for n, (r, c) in enumerate(zip(frames.rows, frames.columns, strict=True))}
    total, sure, possible, chance, nearest, count = 0.0, 0, 0, 0.0, 0, 0
    for (row, column), number in place.items():
        maps = objective.heads(context.x[number]).view(steps, WIDTH)
        for k in range(offset, offset + steps):
            if (row, column + k) not in place:
                continue
            count += 1
            positive = float((maps[k - offset] * vectors[place[row, column + k]]).sum().detach())
            scores = (others[row, column + k] @ maps[k - offset]).detach()
            total -= float(F.logsigmoid(torch.tensor(positive))) + float(F.logsigmoid(-scores).sum())
            if k > offset:
                continue
            # Judged at the nearest step, by other frames than the one that comes: it cannot outdo itself.
            nearest += 1
            own = places[row, column + k]
            scores = scores[own != column + k]
            sure += bool((positive > scores + 1e-5).all())
            possible += bool((positive > scores - 1e-5).all())
            chance += 1 / (1 + len({*own.tolist()} - {column + k}))
    assert term.total.item() == pytest.approx(total, rel=1e-4, abs=1e-4)
    assert int(term.count) == count == int(objective.counted(frames, features.lengths))
    share = nearest / max(1, count)  # what is shown is divided by the count of all pairs
    assert sure <= float(term.stats["accuracy"]) * share + 1e-4
    assert float(term.stats["accuracy"]) * share <= possible + 1e-4
    assert float(term.stats["chance"]) * share == pytest.approx(chance, rel=1e-4)


def test_equal_codes_cannot_be_told_apart_and_are_not_asked_to() -> None:
    """Before, a run whose codes are few was judged at chance, however well it told what can be told."""
    frames = MaskedFrames.of(torch.ones(1, 40, dtype=torch.bool))
    codes = (torch.arange(40) % 2)[:, None]
    vectors = torch.eye(2)[codes[:, 0]]
    objective = FuturePredictionLoss(2, 2, steps=3, num_negatives=10)
    with torch.no_grad():  # the code of the next frame is the other one, and the frame says its own
        objective.heads.weight.zero_()
        objective.heads.bias.zero_()
        objective.heads.weight[:2] = 5 * torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    context = Context(vectors, frames, Features(torch.zeros(1, 40, 2), torch.tensor([40])))
    target = Quantized(vectors, codes, torch.zeros(0, 0))
    term = objective(context, target, seeded())
    assert float(term.stats["accuracy"] / term.count) == pytest.approx(1.0)
    assert float(term.stats["chance"] / term.count) == pytest.approx(0.5, abs=0.02), "one other code"


@given(lengths(max_length=12), seeds)
def test_negatives_are_frames_of_the_same_row(row_lengths: torch.Tensor, seed: int) -> None:
    _, frames, _, _ = case(row_lengths, seed)
    marks = torch.stack([frames.rows.float(), frames.columns.float() + 1], dim=1)
    objective = FuturePredictionLoss(DIM, 2, num_negatives=30)
    found = at_places(objective._negatives(frames.mask, seeded(seed)), frames.put(marks))
    for row, length in enumerate(row_lengths.tolist()):
        if length:
            assert (found[row, :length, :, 0] == row).all()
            assert found[row, :length, :, 1].min() >= 1 and found[row, :length, :, 1].max() <= length


def test_every_frame_is_as_likely_a_negative() -> None:
    _, frames, _, _ = case(torch.tensor([5]), 0)
    drawn = FuturePredictionLoss(DIM, 1, num_negatives=4000)._negatives(frames.mask, seeded())
    counts = torch.bincount(drawn.flatten(), minlength=5)
    assert (counts / counts.sum() - 0.2).abs().max() < 0.01


@pytest.mark.parametrize("norm", ["row", "frame"])
def test_a_block_sees_nothing_of_what_comes(norm: str) -> None:
    """With the norm over the row: nothing but its mean and spread, so the convolution alone is looked at."""
    block = CausalConvBlock(DIM, 3, kernel=2, norm=norm).eval()  # type: ignore[arg-type]
    assert block.kernel == 5
    frames = Frames(torch.ones(1, 20, dtype=torch.bool))
    x = torch.randn(1, 20, DIM, generator=seeded()).requires_grad_()
    if norm == "row":
        block.norm = torch.nn.Identity()
    grad = torch.autograd.grad(block(x, frames)[0, 9].sum(), x)[0][0].abs().sum(1)
    assert (grad > 0).tolist() == [5 <= column <= 9 for column in range(20)]


@pytest.mark.parametrize("norm", ["row", "frame"])
def test_the_block_keeps_its_contract(norm: str) -> None:
    check_block(lambda dim: CausalConvBlock(dim, 1, norm=norm))  # type: ignore[arg-type]


@given(lengths(max_length=9), seeds)
def test_all_frames_are_targets_and_none_is_hidden(row_lengths: torch.Tensor, seed: int) -> None:
    masking = AllFrames(WIDTH)
    mask = masking.sample(row_lengths, seeded(seed))
    assert mask.sum(1).tolist() == row_lengths.tolist()
    x = torch.randn(*mask.shape, WIDTH)
    assert masking.apply(x, mask, seeded(seed)) is x


def test_the_norm_of_a_row_is_torchs_and_padding_has_no_part_in_it() -> None:
    norm, theirs = RowNorm(DIM), torch.nn.GroupNorm(1, DIM)
    x = torch.randn(1, 9, DIM, generator=seeded()) * 3 + 1
    expected = theirs(x.transpose(1, 2)).transpose(1, 2)
    padded = torch.cat([x, torch.full((1, 4, DIM), 50.0)], dim=1)
    found = norm(padded, torch.arange(13)[None] < 9)[:, :9]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_feature_encoder_of_wav2vec() -> None:
    """Five convolutions, each with a norm over the row and ReLU, one after the other."""
    torch.manual_seed(0)
    stack = Conv1dStack(
        1, dim=8, kernels=(10, 8, 4, 4, 4), strides=(5, 4, 2, 2, 2), norm="row", activation="relu"
    )
    x = torch.randn(1, 2_000, generator=seeded())
    y = x[:, None]
    for conv, norm in zip(stack.convs, stack.norms, strict=True):
        y = F.conv1d(y, conv.weight, conv.bias, stride=conv.stride)  # type: ignore[arg-type]
        y = F.relu(F.group_norm(y, 1, norm.weight, norm.bias))  # type: ignore[arg-type]
    found = stack(x, torch.tensor([2_000]))
    torch.testing.assert_close(found.x, y.transpose(1, 2), rtol=1e-3, atol=1e-4)
    assert int(found.lengths) == y.shape[2]
    assert stack.output_lengths(torch.tensor(160_000)) in range(990, 1_001), "a frame each 10 ms at 16 kHz"


@given(lengths(max_length=9), seeds)
def test_next_latents_are_compared_in_the_projector(row_lengths: torch.Tensor, seed: int) -> None:
    """One pair of frames at a time."""
    context, frames, vectors, features = case(row_lengths, seed)
    torch.manual_seed(seed)
    objective = NextLatentLoss(DIM, WIDTH, isotropy=3.0, directions=8, hidden_dim=7, final_dim=5)
    target = FeatureTarget(WIDTH)(vectors, temperature=None)
    term = objective(context, target, seeded(seed))
    place = {(int(r), int(c)): n for n, (r, c) in enumerate(zip(frames.rows, frames.columns, strict=True))}
    distance, count = 0.0, 0
    for (row, column), number in place.items():
        if (row, column + 1) in place:
            found = objective.projector(objective.predict(context.x[number]))
            wanted = objective.projector(vectors[place[row, column + 1]])
            distance, count = distance + (found - wanted).square().mean().item(), count + 1
    # Each row of two frames or more by itself, targets and predictions, in the same directions.
    parts = [
        sketched_isotropy(part[frames.rows == row], 8, seeded(seed)).item()
        for part in (objective.projector(vectors), objective.projector(objective.predict(context.x)))
        for row in frames.rows.unique()
        if (frames.rows == row).sum() > 1
    ]
    away = sum(parts) / max(1, len(parts))
    assert int(term.count) == count == int(objective.counted(frames, features.lengths))
    assert term.stats["distance"].item() == pytest.approx(distance, rel=1e-3, abs=1e-5)
    assert term.total.item() == pytest.approx(distance + 3 * away * count, rel=1e-3, abs=1e-4)


def test_the_isotropy_is_epps_and_pulleys_integral() -> None:
    """Each direction's integral against adaptive quadrature of the characteristic functions."""
    x = torch.randn(40, 3, generator=seeded(5)) * torch.tensor([1.0, 0.3, 2.0]) + 0.5
    directions = F.normalize(torch.randn(3, 4, generator=seeded(6)), dim=0)
    expected = []
    for projected in (x @ directions).T.double():

        def difference(u: float, h: torch.Tensor = projected) -> float:
            found = torch.exp(1j * u * h).mean()
            return float(abs(found - torch.exp(torch.tensor(-u * u / 2))) ** 2) * float(
                torch.exp(torch.tensor(-u * u / 2))
            )

        expected.append(integrate.quad(difference, -3, 3)[0])
    found = sketched_isotropy(x, 4, seeded(6)).item()
    assert found == pytest.approx(sum(expected) / 4, rel=0.02)


def test_isotropy_tells_normal_vectors_from_collapsed_ones() -> None:
    normal = torch.randn(4000, 8, generator=seeded(1))
    away = {
        "normal": sketched_isotropy(normal, 64, seeded(2)).item(),
        "one point": sketched_isotropy(torch.zeros(4000, 8), 64, seeded(2)).item(),
        "one line": sketched_isotropy(normal[:, :1].expand(-1, 8), 64, seeded(2)).item(),
        "too wide": sketched_isotropy(normal * 3, 64, seeded(2)).item(),
    }
    assert away.pop("normal") < 0.002
    assert min(away.values()) > 0.1, away


def test_its_gradient_spreads_what_has_collapsed() -> None:
    x = (torch.randn(256, 4, generator=seeded(1)) * 0.1).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for step in range(150):
        loss = sketched_isotropy(x, 32, seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert x.detach().std(0).min() > 0.7 and x.detach().std(0).max() < 1.3


@given(lengths(max_length=12), seeds)
def test_causal_attention_sees_nothing_that_comes(row_lengths: torch.Tensor, seed: int) -> None:
    torch.manual_seed(seed)
    mixer = Attention(DIM, num_heads=1, position="rotary", causal=True)
    size = int(row_lengths.max())
    valid = torch.arange(size) < row_lengths[:, None]
    x = torch.randn(len(row_lengths), size, DIM, generator=seeded(seed))
    changed = x.clone()
    changed[:, size // 2 :] += 1
    one, two = (mixer(y, Frames(valid)) for y in (x, changed))
    assert torch.equal(one[:, : size // 2], two[:, : size // 2])
    # And it is attention over what came: the last frame of a prefix, computed alone.
    for end in range(1, size + 1):
        alone = mixer(x[:, :end], Frames(valid[:, :end] | (torch.arange(end) == 0)))
        inside = valid[:, end - 1]
        torch.testing.assert_close(alone[inside, -1], one[inside, end - 1], rtol=1e-4, atol=1e-5)
