"""What comes next is recognized: the parts of wav2vec (1904.05862) and of what follows it."""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from seqssl.model.bounds import NOT_NEGATIVE, POSITIVE, SHARE
from seqssl.model.convolutions import Conv1d
from seqssl.model.dropout import Dropout
from seqssl.model.features import standard_deviation
from seqssl.model.norms import RowNorm
from seqssl.model.objectives import count_distinct
from seqssl.model.types import Context, Frames, LossTerm, MaskedFrames, Quantized, Stat, length_mask


class AllFrames(nn.Module):
    """Masking that hides nothing: every frame is a target. For encoders that cannot see what comes."""

    hides = False

    def __init__(self, input_dim: int) -> None:
        super().__init__()

    def sample(self, lengths: Int[Tensor, "b"], generator: Generator) -> Bool[Tensor, "b s"]:
        """All valid frames."""
        return length_mask(lengths, int(lengths.max()))

    def apply(  # type: ignore[override]  # the seam's name; nn.Module.apply(fn) is not used on this class
        self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"], generator: Generator
    ) -> Float[Tensor, "b s d"]:
        """`x` as it is."""
        return x


class FeatureTarget(nn.Module):
    """The features themselves in a quantizer's place: continuous vectors, no codes (wav2vec)."""

    num_codebooks = 0
    codebook_size = 0

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.dim = input_dim

    def forward(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """The frames; temperature and noise are ignored."""
        return Quantized(x, x.new_empty(len(x), 0, dtype=torch.long), x.new_empty(0, 0))


class CausalConvBlock(nn.Module):
    """A convolution over a frame and those before it, norm, ReLU, and the input added (wav2vec's context).

    The kernel is `kernel` in the first block and `growth` wider in each block above it. The norm is over the
    row, as in the paper: so frames know the mean and the spread of what comes, and nothing more of it. With
    `norm="frame"` they know nothing. The sum is scaled by sqrt(1/2).
    """

    def __init__(
        self,
        dim: int,
        layer: int,
        *,
        kernel: Annotated[int, POSITIVE] = 2,
        growth: int = 1,
        norm: Literal["row", "frame"] = "row",
        dropout: Annotated[float, SHARE] = 0.0,
    ) -> None:
        super().__init__()
        self.kernel = kernel + growth * layer
        if self.kernel < 1:
            raise ValueError(f"the kernel of block {layer + 1} would be {self.kernel}")
        self.conv = Conv1d(dim, dim, self.kernel)
        self.dropout = Dropout(dropout)
        self.norm = RowNorm(dim) if norm == "row" else nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """The output of the block."""
        inside = x * frames.valid[..., None]
        y = self.conv(F.pad(inside.transpose(1, 2), (self.kernel - 1, 0))).transpose(1, 2)
        y = self.dropout(y)
        y = self.norm(y, frames.valid) if isinstance(self.norm, RowNorm) else self.norm(y)
        found: Tensor = (x + F.relu(y)) * 0.5**0.5
        return found


class FuturePredictionLoss(nn.Module):
    """Tell the target of the frame k steps ahead from those of other frames of the row.

    `steps` values of k, from `offset` on: nearer frames may share input with the last one that was read.
    A binary decision for the true one and for each of `num_negatives` (wav2vec, equation 2): scores are inner
    products with an affine map of the context, one for each k. Negatives are drawn uniformly from the row's
    frames, for each target anew; the target itself may be among them, as in the paper. How many targets are
    recognized is judged at the nearest step alone, beside negatives that differ from them: farther frames are
    often as good as drawn, and an equal code cannot score less.
    """

    stats: ClassVar[tuple[Stat, ...]] = (
        Stat("accuracy", unit="share", against="chance", rule="discrimination", short="future acc"),
    )
    foresees = True  # no frame may read what comes after it

    def __init__(
        self,
        context_dim: int,
        target_dim: int,
        *,
        tap: str = "",
        weight: float = 1.0,
        steps: Annotated[int, POSITIVE] = 12,
        offset: Annotated[int, POSITIVE] = 1,
        num_negatives: Annotated[int, POSITIVE] = 10,
    ) -> None:
        super().__init__()
        if target_dim < 1:
            raise ValueError(
                "the future_prediction objective compares vectors, and these targets are codes only"
            )
        self.tap, self.weight, self.num_negatives = tap, weight, num_negatives
        self.steps, self.offset = range(offset, offset + steps), offset
        self.heads = nn.Linear(context_dim, steps * target_dim)

    def counted(self, frames: MaskedFrames, lengths: Int[Tensor, "b"]) -> Int[Tensor, ""]:
        """The number of pairs of a frame and one ahead of it."""
        return torch.stack([pairs(frames.mask, k).sum() for k in self.steps]).sum()

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Total over pairs in nats, positive and negatives; stats: of the nearest step, beside chance."""
        frames, mask = context.frames, context.frames.mask
        wanted = frames.put(targets.vectors.float())  # b s q
        heads = frames.put(self.heads(context.x).float()).unflatten(-1, (len(self.steps), -1))  # b s k q
        places = self._negatives(mask, generator)
        others = at_places(places, wanted)  # b s n q
        count = self.counted(frames, context.features.lengths)
        total, stats = wanted.new_zeros(()), dict.fromkeys(("accuracy", "chance"), wanted.new_zeros(()))
        for step, k in enumerate(self.steps):
            if k >= mask.shape[1]:
                break
            there = pairs(mask, k)
            ahead = heads[:, :-k, step]
            positive = (ahead * wanted[:, k:]).sum(-1)
            negative = (ahead[:, :, None] * others[:, k:]).sum(-1)
            losses = F.softplus(-positive) + F.softplus(negative).sum(-1)
            total = total + (losses * there).sum()
            if step == 0:
                differs, distinct = self._differing(frames, targets, places)
                right = ((positive[..., None] > negative) | ~differs[:, k:]).all(-1) & there
                guessed = there / (1 + distinct[:, k:])
                of_all = count / there.sum().clamp(min=1)  # stats are shown divided by the count of all pairs
                stats = {"accuracy": right.sum() * of_all, "chance": guessed.sum() * of_all}
        return LossTerm(total, count, stats)

    def _negatives(self, mask: Bool[Tensor, "b s"], generator: Generator) -> Int[Tensor, "b s n"]:
        """Places of frames of the same row, drawn for every frame."""
        b, s = mask.shape
        draws = torch.rand(b, s * self.num_negatives, generator=generator, device=mask.device)
        count = mask.sum(1, keepdim=True)
        slots = torch.minimum((draws * count).long(), (count - 1).clamp(min=0))
        # The places of a row's frames come first in a stable sort of the mask.
        places = mask.long().argsort(dim=1, descending=True, stable=True).gather(1, slots)
        return places.view(b, s, self.num_negatives)

    def _differing(
        self, frames: MaskedFrames, targets: Quantized, places: Int[Tensor, "b s n"]
    ) -> tuple[Bool[Tensor, "b s n"], Float[Tensor, "b s"]]:
        """Which negatives have other codes than the target itself; without codes: which are other frames.

        And how many different ones there are.
        """
        own = frames.put(targets.identity)  # b s i
        if not own.shape[2]:
            own = torch.arange(own.shape[1], device=own.device)[None, :, None].expand(len(own), -1, 1)
        codes = at_places(places, own)
        differs = (codes != own[:, :, None]).any(-1)
        distinct = count_distinct(codes.flatten(0, 1), differs.flatten(0, 1))
        return differs, distinct.view(places.shape[:2])


def at_places(places: Int[Tensor, "b s n"], x: Shaped[Tensor, "b s d"]) -> Shaped[Tensor, "b s n d"]:
    """What a row has at each of the places drawn for its frames."""
    found = x.gather(1, places.flatten(1)[..., None].expand(-1, -1, x.shape[2]))
    return found.view(*places.shape, -1)


def pairs(mask: Bool[Tensor, "b s"], k: int) -> Bool[Tensor, "b _"]:
    """Where a frame and the one k ahead of it are both chosen."""
    return mask[:, :-k] & mask[:, k:]


class NextLatentLoss(nn.Module):
    """Regress what comes next in a space that is kept isotropic (LeNEPA, 2607.00958).

    A linear map of the context at a frame, and the target of the next frame, go through one projector; their
    mean squared difference is the loss. Nothing is detached: what keeps all targets from becoming one is
    `isotropy` times the statistic of `sketched_isotropy`, of projected targets and predictions, over the
    frames of each row: what is the same in a whole row, and so needs no prediction, must not spread them.
    `hidden_dim` and `final_dim`: of the projector.
    """

    compares_rows = True
    foresees = True  # no frame may read what comes after it
    stats: ClassVar[tuple[Stat, ...]] = (
        Stat("target_std", "spread of targets", rule="variance"),
        Stat("distance", "squared distance", against="variance", rule="regression"),
        Stat("isotropy", "distance from isotropy"),
    )

    def __init__(
        self,
        context_dim: int,
        target_dim: int,
        *,
        tap: str = "",
        weight: float = 1.0,
        isotropy: Annotated[float, NOT_NEGATIVE] = 20.0,
        directions: Annotated[int, POSITIVE] = 256,
        hidden_dim: Annotated[int, POSITIVE] = 1536,
        final_dim: Annotated[int, POSITIVE] = 64,
    ) -> None:
        super().__init__()
        if target_dim < 1:
            raise ValueError("the next_latent objective regresses vectors, and these targets are codes only")
        self.tap, self.weight, self.isotropy, self.directions = tap, weight, isotropy, directions
        self.predict = nn.Linear(context_dim, target_dim)
        self.projector = nn.Sequential(
            nn.Linear(target_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, final_dim)
        )

    def counted(self, frames: MaskedFrames, lengths: Int[Tensor, "b"]) -> Int[Tensor, ""]:
        """The number of frames that have a next one."""
        return pairs(frames.mask, 1).sum()

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Total over pairs of frames; stats: distance beside variance, spread, isotropy."""
        frames, count = context.frames, self.counted(context.frames, context.features.lengths)
        wanted = self.projector(targets.vectors).float()
        found = frames.put(self.projector(self.predict(context.x)).float())
        there = pairs(frames.mask, 1)
        distances = (found[:, :-1] - frames.put(wanted)[:, 1:]).square().mean(-1)
        total = (distances * there).sum()
        away = total * 0
        if len(wanted):
            both = torch.cat([wanted, frames.take(found)])
            rows = torch.cat([frames.rows, frames.rows + len(there)])
            # A row without a pair would only draw its lone frame to 0.
            away = sketched_isotropy(both, self.directions, generator, rows=rows, kept=there.any(1).repeat(2))
        with torch.no_grad():
            spread = standard_deviation(wanted)
            stats = {
                "distance": total,
                "variance": wanted.var(0, correction=0).mean() * count if len(wanted) else spread,
                "target_std": spread * count,
                "isotropy": away * count,
            }
        return LossTerm(total + self.isotropy * away * count, count, stats)


def sketched_isotropy(
    x: Float[Tensor, "n q"],
    directions: int,
    generator: Generator,
    *,
    rows: Int[Tensor, "n"] | None = None,
    kept: Bool[Tensor, "b"] | None = None,
    knots: int = 17,
    reach: float = 3.0,
) -> Float[Tensor, ""]:
    """How far vectors are from a standard normal distribution, 0 if not at all (SIGReg, 2511.08544).

    The mean over random directions of Epps and Pulley's statistic of the projections: the squared difference
    between their characteristic function and that of N(0, 1), weighted by exp(-u^2 / 2) and integrated from
    -`reach` to `reach` by the trapezoidal rule. It is not multiplied by the number of vectors. `rows`: the
    number of the row that each vector is of, and `kept`: which rows count; the statistic is then the mean of
    those of the rows kept, 0 where none is. Without them, all vectors are of one row.
    """
    if rows is None or kept is None:
        rows = torch.zeros(len(x), dtype=torch.long, device=x.device)
        kept = torch.ones(1, dtype=torch.bool, device=x.device)
    drawn = torch.randn(x.shape[1], directions, generator=generator, device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        projected = x.float() @ F.normalize(drawn, dim=0)  # n r
    places = torch.linspace(0, reach, knots, device=x.device)
    normal = torch.exp(-places.square() / 2)
    angles = projected[..., None] * places
    nothing = angles.new_zeros(len(kept), *angles.shape[1:])
    counts = angles.new_zeros(len(kept)).index_add(0, rows, torch.ones_like(angles[:, 0, 0]))
    cosines, sines = (
        nothing.index_add(0, rows, part) / counts.clamp(min=1)[:, None, None]
        for part in (angles.cos(), angles.sin())
    )
    differences = (cosines - normal).square() + sines.square()
    found = 2 * torch.trapezoid(differences * normal, places)  # b r
    return (found * kept[:, None]).sum() / (kept.sum() * directions).clamp(min=1)
