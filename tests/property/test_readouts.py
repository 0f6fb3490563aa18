"""Pools against a row at a time, and against padding."""

import numpy as np
import pytest
import torch
from hypothesis import given

from seqssl.model.readouts import POOLS, WEIGHTLESS
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, seeds

WIDTH = 3


def by_hand(pool: str, x: np.ndarray) -> np.ndarray:
    """The vector of one row of frames (s, d), without padding."""
    if pool == "last":
        return x[-1]
    if pool == "statistics":
        return np.concatenate([x.mean(0), np.sqrt(x.var(0) + 1e-5)])
    if pool == "thirds":
        size = len(x)
        parts = [x[[place for place in range(size) if 3 * place // size == third]] for third in range(3)]
        return np.concatenate([(part if len(part) else x).mean(0) for part in parts])
    return x.mean(0)


@pytest.mark.parametrize("pool", WEIGHTLESS)
@given(row_lengths=lengths(max_length=11), seed=seeds)
def test_a_row_is_what_it_is_alone(pool: str, row_lengths: torch.Tensor, seed: int) -> None:
    x = torch.randn(len(row_lengths), int(row_lengths.max()), WIDTH, generator=seeded(seed))
    valid = torch.arange(x.shape[1]) < row_lengths[:, None]
    found = WEIGHTLESS[pool](WIDTH)(x, valid)
    assert found.shape == (len(x), WEIGHTLESS[pool](WIDTH).dim)
    for vector, row, length in zip(found, x, row_lengths.tolist(), strict=True):
        np.testing.assert_allclose(vector, by_hand(pool, row[:length].numpy()), atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
@given(row_lengths=lengths(max_length=9), seed=seeds)
def test_padding_has_no_part_in_it(pool: str, row_lengths: torch.Tensor, seed: int) -> None:
    x = torch.randn(len(row_lengths), int(row_lengths.max()) + 2, WIDTH, generator=seeded(seed))
    valid = torch.arange(x.shape[1]) < row_lengths[:, None]
    part = POOLS[pool](WIDTH)
    with torch.no_grad():
        found, other = part(x, valid), part(x.masked_fill(~valid[..., None], 7.0), valid)
    torch.testing.assert_close(found, other)


def test_gaps_in_the_middle_are_left_out() -> None:
    x = torch.arange(12.0).view(1, 6, 2)
    valid = torch.tensor([[True, False, True, True, False, False]])
    thirds = WEIGHTLESS["thirds"](2)(x, valid)[0].tolist()
    assert thirds == [0, 1, 4, 5, 6, 7]
    assert WEIGHTLESS["last"](2)(x, valid)[0].tolist() == [6, 7]
