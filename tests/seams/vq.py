"""A quantizer of a user's own, whose vectors the context encoder reads (vq-wav2vec, 1910.05453)."""

import torch
from torch import Generator, Tensor, nn

from seqssl import Quantized


class KMeansQuantizer(nn.Module):
    """The nearest entry, with the gradient passed straight through to the frame.

    With `context=quantized` the context encoder sees entries of the codebook and nothing else.
    """

    num_codebooks = 1

    def __init__(self, input_dim: int, *, codebook_size: int = 8, dim: int = 16) -> None:
        super().__init__()
        self.codebook_size, self.dim = codebook_size, dim
        self.project = nn.Linear(input_dim, dim)
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))

    def forward(
        self, x: Tensor, *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        projected = self.project(x).float()
        codes = (projected[:, None] - self.codebook).square().sum(-1).argmin(-1)
        chosen = self.codebook[codes]
        # Forward the entry; backward the identity to the frame, and the entry's own gradient to the entry.
        vectors = chosen + projected - projected.detach()
        usage = nn.functional.one_hot(codes, self.codebook_size).float().sum(0) / max(1, len(x))
        return Quantized(vectors, codes[:, None], usage[None])
