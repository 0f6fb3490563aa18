"""Quantizers: frames to codes, and to the vectors that stand for them."""

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from seqssl.model import kmeans
from seqssl.model.bounds import NOT_NEGATIVE
from seqssl.model.codebooks import draw_by_lot, finite, won
from seqssl.model.norms import identity
from seqssl.model.precision import in_float32
from seqssl.model.types import Quantized

COUNTS_DECAY = 0.99  # an update, of the running counts by which entries are found dead
GRACE = 100  # updates, before an entry is judged: at the start, and after it was revived
MARGIN = 1.0  # of logits, by which a revived entry leads at the frame that was drawn for it
# A softmax of logits that lie tens apart gives most of them gradients near 1e-40. No weight feels those, but
# a CPU takes a hundred times as long to multiply numbers below 1e-38.
NO_GRADIENT = 1e-30


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

    An entry that fewer than `revive` frames an update take, without noise and as a running mean, is given
    about half of the frames of a busy one: those that lie, from their mean, on the side of one of them, which
    is drawn (as codebooks are split by Linde, Buzo and Gray 1980). 0, the papers' way, leaves dead entries to
    the diversity loss.
    """

    counts: Tensor
    ages: Tensor

    def __init__(
        self,
        input_dim: int,
        *,
        num_codebooks: int = 1,
        codebook_size: int = 1024,
        dim: int = 1024,
        logit_init_std: float = 1.0,
        revive: Annotated[float, NOT_NEGATIVE] = 0.0,
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
        self.revive = revive
        if revive:
            self.register_buffer("counts", torch.zeros(num_codebooks, codebook_size))
            self.register_buffer("ages", torch.zeros(num_codebooks, codebook_size))
        self._taken: Tensor | None = None  # g v d+1: sums and counts of this update's frames, by their codes
        self._drawn: Tensor | None = None  # g v d+1: a frame for every entry, weighed by lot
        self.all_reduce: Callable[[Tensor], Tensor] = identity  # set by seqssl.training.parallel

    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize; the codes are those that made the vectors (the sampled ones, in training)."""
        logits = self.logits(x).unflatten(-1, (self.num_codebooks, self.codebook_size))
        logits = logits.to(self.codebook.dtype)  # n g v
        if logits.requires_grad:
            logits.register_hook(without_tiny)
        clean = logits.softmax(-1)
        noisy = logits if generator is None else logits + gumbel_noise(logits, generator)
        probs = clean if temperature is None else (noisy / temperature).softmax(-1)
        codes = (logits if temperature is None else noisy).argmax(-1)
        vectors = StraightThroughLookup.apply(probs, self.codebook, codes)  # type: ignore[no-untyped-call]
        usage = clean.sum(0) / max(1, len(x))
        if self.revive and self.training and generator is not None and len(x):
            self._count(x.detach(), logits.argmax(-1), generator)
        return Quantized(vectors.flatten(1), codes, usage, probs=probs)

    @torch.no_grad()
    def start_at_clusters(self, x: Float[Tensor, "n d"], generator: Generator) -> float:
        """Let a frame choose the entry of the nearest of V cluster centers of these frames.

        Each codebook clusters its own share of the dimensions. The logits of a frame keep the deviation that
        random ones have for what tells frames apart (the frames without their mean).
        Returns the mean squared distance to the nearest center; ValueError for fewer frames than entries.
        """
        before = self.logits(x - x.mean(0)).unflatten(-1, (self.num_codebooks, self.codebook_size))
        places = torch.arange(x.shape[1], device=x.device).tensor_split(self.num_codebooks)
        weights, distances = torch.zeros_like(self.logits.weight), []
        for number, (own, rows, bias) in enumerate(
            zip(
                places,
                weights.chunk(self.num_codebooks),
                self.logits.bias.chunk(self.num_codebooks),
                strict=True,
            )
        ):
            centers = kmeans.k_means(x[:, own].float(), self.codebook_size, generator)
            distances.append(kmeans.nearest(x[:, own].float(), centers)[1].mean())
            # The nearest center has the largest x.(c - m) - (|c|^2 - |m|^2) / 2, for any m. With the mean of
            # the centers these are the smallest numbers, which half precision can still tell apart.
            mean = centers.mean(0)
            slopes = centers - mean
            offsets = -(slopes * (centers + mean)).sum(1) / 2
            found = x[:, own].float() @ slopes.T + offsets
            spread = found.std(-1).mean().clamp(min=torch.finfo(found.dtype).tiny)
            scale = before[:, number].std(-1).mean() / spread if self.codebook_size > 1 else 1.0
            rows[:, own] = (slopes * scale).to(rows.dtype)
            bias.copy_(offsets * scale)
        self.logits.weight.copy_(weights)
        return float(torch.stack(distances).sum())

    def _count(self, x: Float[Tensor, "n d"], codes: Int[Tensor, "n g"], generator: Generator) -> None:
        """Add up frames by the codes that they have without noise, and draw one for each entry."""
        with_ones = F.pad(x.to(self.counts.dtype), (0, 1), value=1.0)
        taken = with_ones.new_zeros(self.num_codebooks, self.codebook_size, with_ones.shape[1])
        for own, places in zip(taken, codes.unbind(1), strict=True):
            own.index_add_(0, places, with_ones)
        self._taken = taken if self._taken is None else self._taken + taken
        drawn = draw_by_lot(x, self.num_codebooks * self.codebook_size, generator)
        self._drawn = drawn.unflatten(0, (self.num_codebooks, self.codebook_size))

    @torch.no_grad()
    def after_update(self) -> None:
        """Give dead entries frames of busy ones; the same on all ranks."""
        if not self.revive:
            return
        width = self.logits.in_features + 1
        nothing = self.counts.new_zeros(self.num_codebooks, self.codebook_size, width)
        taken = finite(self.all_reduce(nothing if self._taken is None else self._taken))
        drawn = finite(self.all_reduce(nothing if self._drawn is None else self._drawn))
        self._taken = self._drawn = None
        saw = (taken[..., -1].sum() > 0).to(self.ages.dtype)  # 0: this update was another stream's
        self.ages.add_(saw)
        self.counts.lerp_(taken[..., -1], (1 - COUNTS_DECAY) * saw)
        means = self.counts / (1 - COUNTS_DECAY**self.ages).clamp(min=1 - COUNTS_DECAY)
        judged = (self.ages >= GRACE) & (means < self.revive) & (saw > 0)
        parts = zip(
            self.logits.weight.chunk(self.num_codebooks), self.logits.bias.chunk(self.num_codebooks),
            taken, drawn, judged, self.counts, self.ages, strict=True,
        )  # fmt: skip
        for weight, bias, own, frames, unused, counts, ages in parts:
            frame = won(frames)
            busy = (frame @ weight.T + bias).argmax(-1)
            held = own[busy, -1:]
            mean = own[busy, :-1] / held.clamp(min=1)
            away = frame - mean
            dead = unused & (frames[:, -1] > 0) & (held[:, 0] > 0) & (away != 0).any(-1)
            # Not where it is nearer to the frame than to the mean: where a frame has many dimensions, that
            # is the frame alone.
            length = away.square().sum(-1, keepdim=True).clamp(min=torch.finfo(away.dtype).tiny)
            push = MARGIN * away / length
            weight.copy_(torch.where(dead[:, None], weight[busy] + push, weight))
            bias.copy_(torch.where(dead, bias[busy] - (push * mean).sum(-1), bias))
            counts.masked_fill_(dead, 0)
            ages.masked_fill_(dead, 0)


def without_tiny(gradient: Tensor) -> Tensor:
    """A gradient whose numbers within NO_GRADIENT of zero are zero; NaN stays."""
    return F.hardshrink(gradient, NO_GRADIENT)


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
        if input_dim < 2:
            raise ValueError(
                "random_projection scales each frame by itself, and a frame of one number is then always 0: "
                "take a feature encoder whose frames have several steps, or targets=clusters"
            )
        self.num_codebooks, self.codebook_size, self.dim = num_codebooks, codebook_size, dim * num_codebooks
        bound = math.sqrt(6 / (input_dim + dim))
        self.register_buffer("projection", torch.rand(num_codebooks, input_dim, dim) * 2 * bound - bound)
        self.register_buffer("codebook", F.normalize(torch.randn(num_codebooks, codebook_size, dim), dim=-1))

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize; equal input always gives equal codes."""
        with in_float32(x.device):
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
