"""Norms over the frames of a row: values and gradients against torch's group norm, row by row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seqssl.model.norms import RowNorm, TimeNorm
from seqssl.model.types import length_mask
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, seeds


def row_by_row(norm: TimeNorm, x: Tensor, sizes: Tensor) -> Tensor:
    """Group norm of the valid frames of each row alone; the shift elsewhere."""
    groups = 1 if isinstance(norm, RowNorm) else x.shape[2]
    rows = []
    for row, size in zip(x, sizes.tolist(), strict=True):
        valid = row[None, :size].transpose(1, 2)
        scaled = F.group_norm(valid, groups, norm.weight, norm.bias, norm.eps)[0].T if size else row[:0]
        rows.append(torch.cat([scaled, norm.bias.expand(len(row) - size, -1)]))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", [TimeNorm, RowNorm])
@given(sizes=lengths(max_rows=4, max_length=6, min_length=2), dim=st.integers(1, 4), seed=seeds)
def test_values_and_gradients_are_those_of_group_norm(
    kind: type[TimeNorm], sizes: Tensor, dim: int, seed: int
) -> None:
    generator = seeded(seed)
    norm = kind(dim).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(len(sizes), int(sizes.max()) + 1, dim, dtype=torch.float64, generator=generator)
    x.requires_grad_()
    ours = norm(x, length_mask(sizes, x.shape[1]))
    theirs = row_by_row(norm, x, sizes)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(ours.shape, dtype=torch.float64, generator=generator)
    wanted = [x, norm.weight, norm.bias]
    seen, right = (torch.autograd.grad(each, wanted, upstream) for each in (ours, theirs))
    torch.testing.assert_close(seen, right)


@pytest.mark.parametrize("kind", [TimeNorm, RowNorm])
def test_a_row_without_frames_and_half_precision(kind: type[TimeNorm]) -> None:
    norm, x = kind(3), torch.randn(2, 5, 3, generator=seeded()).requires_grad_()
    valid = length_mask(torch.tensor([0, 5]), 5)
    y = norm(x, valid)
    assert torch.equal(y[0], norm.bias.expand(5, 3))
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert (gradient[0] == 0).all()
    assert gradient.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = norm(x.bfloat16(), valid)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, atol=0.05, rtol=0.05)
