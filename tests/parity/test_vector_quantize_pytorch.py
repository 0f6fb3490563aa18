"""The same codes as vector-quantize-pytorch's random projection, projection and codebook copied."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssl import RandomProjectionQuantizer
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import seeds

library = pytest.importorskip("vector_quantize_pytorch")


@given(st.integers(1, 3), st.integers(2, 20), st.integers(2, 6), st.integers(1, 30), seeds)
def test_codes_are_the_same(num_codebooks: int, codebook_size: int, dim: int, n: int, seed: int) -> None:
    """Codebook by codebook: with several, theirs puts one more random projection before them."""
    torch.manual_seed(seed)
    theirs = [
        library.RandomProjectionQuantizer(dim=10, codebook_size=codebook_size, codebook_dim=dim)
        for _ in range(num_codebooks)
    ]
    ours = RandomProjectionQuantizer(10, num_codebooks=num_codebooks, codebook_size=codebook_size, dim=dim)
    ours.projection.copy_(torch.cat([one.rand_projs for one in theirs]))
    ours.codebook.copy_(torch.cat([one.vq.codebook.view(1, codebook_size, dim) for one in theirs]))
    x = 3 * torch.randn(n, 10, generator=seeded(seed)) + 1
    expected = torch.stack([one(x[None])[0].view(n) for one in theirs], 1)
    assert torch.equal(ours(x, temperature=None).codes, expected)
