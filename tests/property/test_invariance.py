"""The loss of several views, against the paper's formulas one row and one dimension at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssl import Context, Features, MaskedFrames, Quantized
from seqssl.model.invariance import EPSILON, InvarianceLoss, pooled, told_apart, vicreg
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import seeds

WIDTH = 5
NOTHING = Quantized(torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, 0))


def same_of(clips: torch.Tensor) -> torch.Tensor:
    return clips[:, None] == clips


@given(st.integers(1, 6), st.integers(1, 3), st.integers(2, 5), seeds)
def test_the_loss_is_the_papers(clips: int, views: int, size: int, seed: int) -> None:
    x = torch.randn(clips * views, size, generator=seeded(seed), dtype=torch.float64)
    numbers = torch.arange(clips).repeat_interleave(views)
    value, distance, spread = vicreg(x, same_of(numbers), 0.04)
    rows, n = x.numpy(), len(x)
    apart = [
        float(np.square(rows[i] - rows[j]).mean())
        for i in range(n)
        for j in range(i)
        if numbers[i] == numbers[j]
    ]
    wanted = float(np.mean(apart)) if apart else 0.0
    assert float(distance) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    if n < 2:
        assert float(value) == pytest.approx(wanted)
        return
    deviations = np.sqrt(rows.var(axis=0, ddof=1) + EPSILON)
    table = np.cov(rows, rowvar=False)
    off = sum(table[i, j] ** 2 for i in range(size) for j in range(size) if i != j) / size
    wanted += float(np.maximum(0, 1 - deviations).mean()) + 0.04 * off
    assert float(value) == pytest.approx(wanted, rel=1e-9)
    assert float(spread) == pytest.approx(float(deviations.mean()))


@given(st.integers(1, 6), st.integers(1, 3), seeds)
def test_views_are_told_apart_by_the_nearest_row(clips: int, views: int, seed: int) -> None:
    x = torch.randn(clips * views, 3, generator=seeded(seed), dtype=torch.float64)
    numbers = torch.arange(clips).repeat_interleave(views)
    right, chance = told_apart(x, same_of(numbers))
    found, expected = 0, 0.0
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        if others:
            nearest = min(others, key=lambda j: float((x[i] - x[j]).norm()))
            found += int(numbers[nearest] == numbers[i])
            expected += sum(bool(numbers[j] == numbers[i]) for j in others) / len(others)
    assert int(right) == found
    assert float(chance) == pytest.approx(expected, rel=1e-5)


def context_of(mask: torch.Tensor, clips: torch.Tensor | None, seed: int) -> Context:
    frames = MaskedFrames.of(mask)
    x = torch.randn(len(frames), WIDTH, generator=seeded(seed))
    features = Features(torch.zeros(*mask.shape, 2), mask.sum(1), clips=clips)
    return Context(x, frames, features)


def test_a_row_is_the_mean_of_its_frames_and_one_without_any_has_no_part() -> None:
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1]], dtype=torch.bool)
    context = context_of(mask, torch.tensor([0, 0, 1, 1]), 0)
    means = pooled(context.x, context.frames)
    assert torch.allclose(means[0], context.x[:2].mean(0)) and not means[1].any()
    objective = InvarianceLoss(WIDTH, hidden_dim=8, final_dim=4)
    term = objective(context, NOTHING, seeded(0))
    assert int(term.count) == int(objective.counted(context.frames, mask.sum(1))) == 3
    z = objective.projector(means[[0, 2, 3]])
    value, _, _ = vicreg(z, same_of(torch.tensor([0, 1, 1])), 0.08)
    assert torch.allclose(term.total, value * 3)


def test_without_views_nothing_is_alike() -> None:
    mask = torch.ones(4, 3, dtype=torch.bool)
    term = InvarianceLoss(WIDTH, hidden_dim=8, final_dim=4)(context_of(mask, None, 1), NOTHING, seeded(0))
    assert float(term.stats["distance"]) == 0 and float(term.stats["chance"]) == 0


def test_it_learns_to_tell_views_from_others() -> None:
    """Two views are one hidden vector with noise in other dimensions, which is all that a mean sees."""
    torch.manual_seed(0)
    generator, hidden = seeded(0), torch.randn(32, 2, generator=seeded(1))
    clips = torch.arange(32).repeat_interleave(2)
    mask = torch.ones(64, 3, dtype=torch.bool)
    objective = InvarianceLoss(WIDTH, hidden_dim=32, final_dim=8)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    found = []
    for _ in range(60):
        noise = 2 * torch.randn(64, 3, generator=generator)
        rows = torch.cat([hidden[clips], noise], dim=1)
        x = rows.repeat_interleave(3, dim=0)
        term = objective(Context(x, MaskedFrames.of(mask), Features(torch.zeros(64, 3, 2), mask.sum(1),
                         clips=clips)), NOTHING, generator)  # fmt: skip
        found.append(float(term.stats["accuracy"] / term.count))
        optimizer.zero_grad()
        (term.total / term.count).backward()
        optimizer.step()
    assert np.mean(found[-10:]) > 2 * np.mean(found[:3])
