"""Quantizers: frames to codes, and to the vectors that stand for them."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from seqssl.model.types import Quantized


class StraightThroughLookup(torch.autograd.Function):
    """Forward: the chosen entries. Backward: as if the soft mixture `probs @ codebook` had been taken.

    It gives the same numbers as `(one_hot + probs - probs.detach()) @ codebook`, by a gather instead of the
    (n, g, v) x (g, v, e) product: the forward pass is hard, `probs` gets the gradient of the mixture, the
    codebook gets the gradient of the entries that were used.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, probs: Tensor, codebook: Tensor, codes: Tensor) -> Tensor:
        """Look up (n, g) codes in a (g, v, e) codebook: (n, g, e)."""
        ctx.save_for_backward(codebook, codes)
        return codebook[torch.arange(codebook.shape[0], device=codes.device), codes]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of probs, codebook and codes."""
        (grad,) = grads  # n g e
        codebook, codes = ctx.saved_tensors
        num_codebooks, size, width = codebook.shape
        grad_probs = (grad.transpose(0, 1) @ codebook.transpose(1, 2)).transpose(0, 1)  # n g v
        flat = (codes + torch.arange(num_codebooks, device=codes.device) * size).flatten()
        grad_codebook = codebook.new_zeros(num_codebooks * size, width).index_add(0, flat, grad.flatten(0, 1))
        return grad_probs, grad_codebook.view_as(codebook), None


class GumbelProductQuantizer(nn.Module):
    """G codebooks of V entries, chosen by a straight-through Gumbel softmax (wav2vec 2.0, section 2).

    `dim` is the width of a quantized vector, split evenly over the codebooks. Everything after the logits
    runs in float32. Initial values as in the public w2v-BERT code of the paper's first author:
    entries U(0, 1), logit weights N(0, logit_init_std^2), bias 0.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        num_codebooks: int = 1,
        codebook_size: int = 1024,
        dim: int = 1024,
        logit_init_std: float = 1.0,
    ) -> None:
        super().__init__()
        if num_codebooks < 1 or codebook_size < 1 or dim % num_codebooks:
            raise ValueError(
                f"the quantizer's dim ({dim}) must be a multiple of num_codebooks ({num_codebooks}), "
                f"and codebook_size ({codebook_size}) at least 1"
            )
        self.num_codebooks, self.codebook_size, self.dim = num_codebooks, codebook_size, dim
        self.logits = nn.Linear(input_dim, num_codebooks * codebook_size)
        nn.init.normal_(self.logits.weight, std=logit_init_std)
        nn.init.zeros_(self.logits.bias)
        self.codebook = nn.Parameter(torch.rand(num_codebooks, codebook_size, dim // num_codebooks))

    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize; the codes are those that made the vectors (the sampled ones, in training)."""
        logits = self.logits(x).unflatten(-1, (self.num_codebooks, self.codebook_size))
        logits = logits.to(self.codebook.dtype)  # n g v
        clean = logits.softmax(-1)
        noisy = logits if generator is None else logits + gumbel_noise(logits, generator)
        probs = clean if temperature is None else (noisy / temperature).softmax(-1)
        codes = (logits if temperature is None else noisy).argmax(-1)
        vectors = StraightThroughLookup.apply(probs, self.codebook, codes)  # type: ignore[no-untyped-call]
        usage = clean.sum(0) / max(1, len(x))
        return Quantized(vectors.flatten(1), codes, usage, probs=probs)


def gumbel_noise(like: Tensor, generator: Generator) -> Tensor:
    """Standard Gumbel noise, finite by construction: -log of an exponential draw kept above zero."""
    draws = torch.empty_like(like, requires_grad=False).exponential_(generator=generator)
    return -draws.clamp(min=torch.finfo(like.dtype).tiny).log()


class RandomProjectionQuantizer(nn.Module):
    """Frozen random projection and nearest entry of a frozen random codebook (BEST-RQ, 2202.01855).

    Frames are standardized, projected (Xavier) to `dim` per codebook, and matched by cosine to normal
    entries. Nothing is trained; the vectors are the matched entries. Temperature and noise are ignored.
    """

    projection: Tensor
    codebook: Tensor

    def __init__(
        self, input_dim: int, *, num_codebooks: int = 1, codebook_size: int = 8192, dim: int = 16
    ) -> None:
        super().__init__()
        self.num_codebooks, self.codebook_size, self.dim = num_codebooks, codebook_size, dim * num_codebooks
        bound = math.sqrt(6 / (input_dim + dim))
        self.register_buffer("projection", torch.rand(num_codebooks, input_dim, dim) * 2 * bound - bound)
        self.register_buffer("codebook", F.normalize(torch.randn(num_codebooks, codebook_size, dim), dim=-1))

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize; equal input always gives equal codes."""
        standardized = F.layer_norm(x.float(), x.shape[-1:])
        projected = F.normalize(torch.einsum("nd,gde->nge", standardized, self.projection), dim=-1)
        similarity = torch.einsum("nge,gve->ngv", projected, self.codebook)
        codes: Int[Tensor, "n g"] = similarity.argmax(-1)
        vectors = self.codebook[torch.arange(self.num_codebooks, device=x.device), codes]
        usage = F.one_hot(codes, self.codebook_size).sum(0) / max(1, len(x))
        return Quantized(vectors.flatten(1), codes, usage)


class LinearTarget(nn.Module):
    """A linear map in a quantizer's place: continuous vectors, no codes (w2v-Conformer, 2010.10504)."""

    num_codebooks = 0
    codebook_size = 0

    def __init__(self, input_dim: int, *, dim: int = 1024) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.Linear(input_dim, dim)

    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Project; temperature and noise are ignored."""
        codes = torch.empty(len(x), 0, dtype=torch.long, device=x.device)
        return Quantized(self.project(x), codes, x.new_empty(0, 0))
