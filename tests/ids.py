"""Batches of random ids of which some are missing."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from seqssl import Batch
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths

VOCAB = 5
sizes = lengths(max_rows=3, max_length=40)
strides = st.integers(1, 5)


def ids_batch(row_lengths: Tensor, seed: int, channels: tuple[int, ...] = (), gaps: float = 0.2) -> Batch:
    """Rows of ids below VOCAB, of which a share (`gaps`) is not observed."""
    shape = (len(row_lengths), int(row_lengths.max()), *channels)
    inputs = torch.randint(VOCAB, shape, generator=seeded(seed))
    observed = torch.rand(shape, generator=seeded(seed + 1)) >= gaps
    return Batch(inputs, row_lengths, observed=observed)
