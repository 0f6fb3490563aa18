"""Quantizers beside the Gumbel one: the nearest entry, entries of what is left over, levels of a number."""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from seqssl.model.bounds import NOT_NEGATIVE, POSITIVE, Bound
from seqssl.model.norms import identity
from seqssl.model.types import Quantized

SMOOTHING = 1e-5  # of the counts that running means are divided by, as a share of an entry
DECAY = 0.99  # of the counts by which entries are found dead where they are no running means
Decay = Annotated[float, Bound(at_least=0, below=1)]
LOTS = 192  # powers of two that weigh drawn frames: of two ranks, one nearly always outweighs the other


def draw_by_lot(x: Float[Tensor, "n e"], number: int, generator: Generator) -> Float[Tensor, "number _"]:
    """Frames drawn at random, each times a random weight, and the weight beside it.

    Summed over ranks and divided by `won`, they are nearly always the frame of one rank, where there are few:
    weights are powers of two, so the largest outweighs the rest, and what it alone multiplies is the same bit
    for bit. A mean over ranks would be like no frame.
    """
    chosen = torch.randint(len(x), (number,), generator=generator, device=x.device)
    lots = torch.randint(LOTS, (number, 1), generator=generator, device=x.device)
    weights = torch.exp2(lots.float() - LOTS / 2)
    return torch.cat([x[chosen].float() * weights, weights], dim=1)


def won(drawn: Float[Tensor, "*n _"]) -> Float[Tensor, "*n _"]:
    """The frames that `draw_by_lot` drew, of the rank that won each; zeros where no rank had any."""
    weights = drawn[..., -1:]
    return drawn[..., :-1] / torch.where(weights > 0, weights, 1.0)


def finite(x: Float[Tensor, "*n e"]) -> Float[Tensor, "*n e"]:
    """The same, with zeros in the place of each row that is not finite throughout.

    A frame that is no number must not enter a running mean, which would be none from then on.
    """
    return torch.where(x.isfinite().all(-1, keepdim=True), x, 0.0)


class Codebook(nn.Module):
    """V entries of width e; each frame takes the nearest, and the gradient passes straight through.

    With a `decay`, entries are running means of the frames that took them (VQ-VAE, 1711.00937, appendix A);
    without, they learn by gradient from their distance to those frames. An entry whose running count falls
    below `revive` frames an update becomes a frame of the batch. Running means move once an update, after it:
    until then the frames of all micro-batches are only counted.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, *, decay: float | None, revive: float) -> None:
        super().__init__()
        bound = 1 / size
        entries = torch.rand(size, dim) * 2 * bound - bound
        self.learns, self.decay, self.revive = decay is None, DECAY if decay is None else decay, revive
        self.entries = nn.Parameter(entries, requires_grad=self.learns)
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", entries.clone())
        self._taken: Tensor | None = None  # v e+1: sums and counts of the frames of this update so far
        self._drawn: Tensor | None = None  # v e+1: frames that dead entries may become, weighed by lot
        self.all_reduce: Callable[[Tensor], Tensor] = identity  # set by seqssl.training.parallel

    def forward(
        self, x: Float[Tensor, "n e"], generator: Generator | None
    ) -> tuple[Int[Tensor, "n"], Float[Tensor, "n e"]]:
        """The place of the nearest entry, and the entry, with its own gradient.

        A `generator` means a step of training, whose frames are counted.
        """
        with torch.no_grad():
            # Differences one by one: the product form rounds, and ties would fall to another entry.
            places = torch.cdist(x, self.entries, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
            if self.training and generator is not None and len(x) and (self.revive or not self.learns):
                ones = torch.ones_like(x[:, :1])
                taken = torch.zeros(len(self.entries), x.shape[1] + 1, dtype=x.dtype, device=x.device)
                taken.index_add_(0, places, torch.cat([x, ones], dim=1))
                self._taken = taken if self._taken is None else self._taken + taken
                if self.revive:
                    self._drawn = draw_by_lot(x, len(taken), generator)
        return places, self.entries[places]

    @torch.no_grad()
    def after_update(self) -> None:
        """Move running means, and revive dead entries; the same on all ranks."""
        if not self.revive and self.learns:
            return
        nothing = torch.zeros(len(self.entries), self.entries.shape[1] + 1, device=self.entries.device)
        taken = finite(self.all_reduce(nothing if self._taken is None else self._taken.to(nothing.dtype)))
        saw = (taken[:, -1].sum() > 0).to(self.counts.dtype)  # 0: this update was another stream's
        self.counts.lerp_(taken[:, -1], (1 - self.decay) * saw)
        self.sums.lerp_(taken[:, :-1], (1 - self.decay) * saw)
        if not self.learns:
            total = self.counts.sum()
            smooth = (self.counts + SMOOTHING) / (total + len(self.counts) * SMOOTHING) * total
            self.entries.copy_(self.sums / smooth[:, None])
        if self.revive:
            self._replace_dead()
        self._taken = self._drawn = None

    def _replace_dead(self) -> None:
        """Put frames of the batch in the place of dead entries; the same on all ranks."""
        nothing = torch.zeros(len(self.entries), self.entries.shape[1] + 1, device=self.entries.device)
        drawn = finite(self.all_reduce(nothing if self._drawn is None else self._drawn))
        dead = ((self.counts < self.revive) & (drawn[:, -1] > 0))[:, None]
        frames = won(drawn)
        self.entries.copy_(torch.where(dead, frames, self.entries))
        self.sums.copy_(torch.where(dead, frames * self.revive, self.sums))
        self.counts.masked_fill_(dead[:, 0], self.revive)


def costs_of(
    x: Float[Tensor, "n e"], entries: Float[Tensor, "n e"], commitment: float, *, learn: bool
) -> Float[Tensor, "n"]:
    """How far a frame is from its entry: for the frame, `commitment` times; for the entry, if it learns."""
    cost = commitment * (x - entries.detach()).square().mean(-1)
    return cost + (entries - x.detach()).square().mean(-1) if learn else cost


class NearestQuantizer(nn.Module):
    """G codebooks of V entries; each part of a projected frame takes the nearest (vq-wav2vec's k-means).

    `dim` is the width of a quantized vector, split evenly over the codebooks. The objective `commitment` adds
    what the paper's equation 3 does, a mean over the codebooks: entries move to frames, and frames,
    `commitment` times as much, to entries. `decay` and `revive`: see `Codebook`. Temperature is ignored;
    noise is used to revive entries.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        num_codebooks: Annotated[int, POSITIVE] = 2,
        codebook_size: Annotated[int, POSITIVE] = 320,
        dim: Annotated[int, POSITIVE] = 256,
        commitment: Annotated[float, NOT_NEGATIVE] = 0.25,
        decay: Decay | None = None,
        revive: Annotated[float, NOT_NEGATIVE] = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_codebooks:
            raise ValueError(
                f"the quantizer's dim ({dim}) must be a multiple of num_codebooks ({num_codebooks})"
            )
        self.num_codebooks, self.codebook_size, self.dim = num_codebooks, codebook_size, dim
        self.commitment, self.learns = commitment, decay is None
        self.project = nn.Linear(input_dim, dim)
        self.codebooks = nn.ModuleList(
            Codebook(codebook_size, dim // num_codebooks, decay=decay, revive=revive)
            for _ in range(num_codebooks)
        )

    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize; equal input gives equal codes."""
        parts = self.project(x).float().chunk(self.num_codebooks, dim=-1)
        codes, vectors, costs = [], [], []
        for part, codebook in zip(parts, self.codebooks, strict=True):
            places, entries = codebook(part, generator)
            codes.append(places)
            vectors.append(entries.detach() + (part - part.detach()))  # the very entries, as numbers
            costs.append(costs_of(part, entries, self.commitment, learn=self.learns))
        return quantized(
            torch.stack(codes, 1), torch.cat(vectors, 1), self.codebook_size, torch.stack(costs).mean(0)
        )


class ResidualQuantizer(nn.Module):
    """Codebooks one after the other, each for what those before it left over (SoundStream, 2107.03312).

    A frame's vector is the sum of its entries. Settings as for `NearestQuantizer`.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        num_codebooks: Annotated[int, POSITIVE] = 4,
        codebook_size: Annotated[int, POSITIVE] = 256,
        dim: Annotated[int, POSITIVE] = 128,
        commitment: Annotated[float, NOT_NEGATIVE] = 1.0,
        decay: Decay | None = 0.99,
        revive: Annotated[float, NOT_NEGATIVE] = 0.0,
    ) -> None:
        super().__init__()
        self.num_codebooks, self.codebook_size, self.dim = num_codebooks, codebook_size, dim
        self.commitment, self.learns = commitment, decay is None
        self.project = nn.Linear(input_dim, dim)
        self.codebooks = nn.ModuleList(
            Codebook(codebook_size, dim, decay=decay, revive=revive) for _ in range(num_codebooks)
        )

    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize; equal input gives equal codes."""
        projected = self.project(x).float()
        left, total, codes, costs = projected, torch.zeros_like(projected), [], []
        for codebook in self.codebooks:
            places, entries = codebook(left, generator)
            codes.append(places)
            costs.append(costs_of(left, entries, self.commitment, learn=self.learns))
            total = total + entries.detach()
            left = left - entries.detach()
        vectors = total + (projected - projected.detach())
        return quantized(torch.stack(codes, 1), vectors, self.codebook_size, torch.stack(costs).sum(0))


class FiniteScalarQuantizer(nn.Module):
    """Each of a few projected numbers is rounded to a level: a codebook without entries (FSQ, 2309.15505).

    One code a frame, of as many as the product of `levels`. Nothing can collapse for want of use, but levels
    may stay unused. Temperature and noise are ignored.
    """

    num_codebooks = 1
    levels: Tensor
    basis: Tensor

    def __init__(
        self, input_dim: int, *, levels: tuple[Annotated[int, Bound(at_least=3)], ...] = (8, 5, 5, 5)
    ) -> None:
        super().__init__()
        if not levels or any(level < 3 for level in levels):
            raise ValueError(f"levels must be at least 3 each, and at least one; got {levels}")
        self.codebook_size, self.dim = math.prod(levels), len(levels)
        self.project = nn.Linear(input_dim, len(levels))
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer(
            "basis", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]), persistent=False
        )

    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize; equal input gives equal codes."""
        bounded = self.bounded(self.project(x).float())
        half = self.levels // 2
        # With more than 1001 levels, the little more that `bounded` reaches would round to one too many.
        whole = bounded.detach().round().clamp(-half, self.levels - 1 - half)
        rounded = whole + (bounded - bounded.detach())
        codes = ((whole + half).long() * self.basis).sum(-1, keepdim=True)
        return quantized(codes, rounded / half, self.codebook_size)

    def bounded(self, x: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        """Each number within its levels, which are one apart and, where they are even, half a level off 0."""
        reach = (self.levels - 1) * (1 + 1e-3) / 2  # a little more, so that the last level can be reached
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(x + torch.atanh(offset / reach)) * reach - offset


def quantized(
    codes: Int[Tensor, "n g"],
    vectors: Float[Tensor, "n q"],
    codebook_size: int,
    costs: Float[Tensor, "n"] | None = None,
) -> Quantized:
    """Codes and vectors; the use of entries is counted, and has no gradient."""
    counts = F.one_hot(codes, codebook_size).sum(0)
    return Quantized(vectors, codes, counts / max(1, len(codes)), costs=costs)
