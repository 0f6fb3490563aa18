"""Frames that dead entries may become are those of one rank, not a mean of all."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssl.model.codebooks import draw_by_lot, won


def drawn(x: torch.Tensor, number: int, seed: int) -> torch.Tensor:
    return draw_by_lot(x, number, torch.Generator().manual_seed(seed))


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 9), st.floats(1e-6, 1e6))
def test_one_rank_has_its_own_frames_bit_for_bit(seed: int, rows: int, number: int, scale: float) -> None:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed)) * scale
    found = won(drawn(x, number, seed))
    assert found.shape == (number, 3)
    assert all((x == frame).all(1).any() for frame in found)


def test_of_several_ranks_one_wins() -> None:
    ranks = [drawn(torch.full((5, 2), value), 400, seed) for seed, value in enumerate((-1.0, 2.0, 5.0))]
    found = won(ranks[0] + ranks[1] + ranks[2])[:, 0]
    shares = [float(((found - value).abs() < 0.1).float().mean()) for value in (-1.0, 2.0, 5.0)]
    assert min(shares) > 0.25 and sum(shares) > 0.9, shares


def test_a_rank_without_frames_leaves_it_to_the_others() -> None:
    other = drawn(torch.full((1, 2), 3.0), 4, 0)
    assert (won(torch.zeros(4, 3) + other) == 3).all()
    assert (won(torch.zeros(4, 3)) == 0).all()
