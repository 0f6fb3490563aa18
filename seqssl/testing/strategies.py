"""Hypothesis strategies for what flows through the core: tensors, lengths, masks, batches, codebooks.

Sizes and extreme values are drawn by Hypothesis, which can shrink them; bulk values come from a drawn seed.
"""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from seqssl.data.adapters import SampleSpec
from seqssl.model.types import Batch, MaskedFrames
from seqssl.testing.features import random_inputs
from seqssl.testing.harness import seeded


@dataclass(frozen=True)
class CodebookSizes:
    """Sizes of a product quantizer; `entry_dim` is the width of one entry."""

    num_codebooks: int
    codebook_size: int
    entry_dim: int

    @property
    def dim(self) -> int:
        """Width of a quantized vector."""
        return self.num_codebooks * self.entry_dim


seeds: SearchStrategy[int] = st.integers(0, 2**31 - 1)
temperatures: SearchStrategy[float] = st.floats(math.log(1e-3), math.log(1e3)).map(math.exp)
codebook_sizes: SearchStrategy[CodebookSizes] = st.builds(
    CodebookSizes, st.integers(1, 4), st.integers(1, 17), st.integers(1, 5)
)


@st.composite
def tensors(
    draw: st.DrawFn,
    *shape: int,
    scales: tuple[float, ...] = (1.0, 0.0, 1e-4, 100.0),
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Normal values at one of `scales`; sometimes with equal frames, sometimes with a frame of zeros."""
    x = torch.randn(shape, generator=seeded(draw(seeds)), dtype=dtype) * draw(st.sampled_from(scales))
    if shape[0] > 1 and draw(st.booleans()):
        x[draw(st.integers(0, shape[0] - 1))] = draw(st.sampled_from([x[0].clone(), torch.zeros_like(x[0])]))
    return x


def lengths(max_rows: int = 5, max_length: int = 40, min_length: int = 1) -> SearchStrategy[Tensor]:
    """Lengths of the rows of a batch."""
    row = st.integers(min_length, max_length)
    return st.lists(row, min_size=1, max_size=max_rows).map(torch.tensor)


@st.composite
def masked_frames(draw: st.DrawFn, *, max_rows: int = 4, max_length: int = 20) -> MaskedFrames:
    """Masked frames of rows with any number of them, none and one included."""
    num_rows, size = draw(st.integers(1, max_rows)), draw(st.integers(1, max_length))
    counts = torch.tensor(draw(st.lists(st.integers(0, size), min_size=num_rows, max_size=num_rows)))
    ranks = torch.rand(num_rows, size, generator=seeded(draw(seeds))).argsort(1).argsort(1)
    return MaskedFrames.of(ranks < counts[:, None])


@st.composite
def batches(draw: st.DrawFn, spec: SampleSpec, *, max_rows: int = 4, max_length: int = 60) -> Batch:
    """Padded rows as `spec` describes them, with random values in the padding too."""
    sizes = draw(lengths(max_rows, min(max_length, spec.max_len or max_length)))
    inputs = random_inputs(spec, int(sizes.max()), num_rows=len(sizes), seed=draw(seeds))
    return Batch(inputs, sizes, keys=[f"row-{i}" for i in range(len(sizes))])
