"""Objectives: each reads one tap at some frames and returns a sum with its count.

`count` is the number of the frames read, unless the objective counts otherwise (`counted`); so micro-batches
and ranks add up to one big step.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from seqssl.model.features import standard_deviation
from seqssl.model.precision import in_float32
from seqssl.model.types import Context, LossTerm, MaskedFrames, Quantized, Stat


class ContrastiveLoss(nn.Module):
    """Pick the true target among `num_negatives` targets of other masked frames of the same row.

    InfoNCE on cosine / temperature (wav2vec 2.0, equation 3). Negatives are drawn uniformly with replacement.
    One with the same codes as the positive is no negative and is left out; where targets have no codes, all
    other frames are negatives. A row with one masked frame has no negative, and no loss. `final_dim` projects
    both sides first (as wav2vec 2.0 does); None compares them as they are, which needs equal widths.
    """

    stats: ClassVar[tuple[Stat, ...]] = (
        Stat("accuracy", unit="share", against="chance", rule="discrimination", short="contrastive acc"),
        Stat("num_negatives", "different negatives", is_key=False),
    )

    def __init__(
        self,
        context_dim: int,
        target_dim: int,
        *,
        tap: str,
        weight: float = 1.0,
        num_negatives: int = 100,
        temperature: float = 0.1,
        final_dim: int | None = None,
    ) -> None:
        super().__init__()
        if final_dim is None and context_dim != target_dim:
            raise ValueError(
                f"contexts are {context_dim} wide and targets {target_dim}: set the contrastive objective's "
                f"final_dim, or the quantizer's dim to {context_dim}"
            )
        if num_negatives < 1 or temperature <= 0:
            raise ValueError(
                f"the contrastive objective needs num_negatives >= 1 and temperature > 0; "
                f"got {num_negatives} and {temperature}"
            )
        if target_dim < 1:
            raise ValueError(
                "the contrastive objective compares vectors, and these targets are codes only: choose others "
                "or leave the objective out"
            )
        self.tap, self.weight = tap, weight
        self.num_negatives, self.temperature = num_negatives, temperature
        self.project_context = nn.Identity() if final_dim is None else nn.Linear(context_dim, final_dim)
        self.project_target = nn.Identity() if final_dim is None else nn.Linear(target_dim, final_dim)

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Total loss in nats over masked frames; stats: accuracy, chance, number of different negatives."""
        frames = context.frames
        similarity = self._similarity(context.x, targets.vectors, frames)  # n m
        negatives = self._draw(frames, generator)  # n k, slots
        codes = frames.pack(targets.identity)[frames.rows[:, None], negatives]  # n k i
        usable = negatives != frames.slots[:, None]
        if targets.identity.shape[1]:  # without codes there is nothing by which two frames could be the same
            usable &= (codes != targets.identity[:, None]).any(-1)
        positive = similarity.gather(1, frames.slots[:, None])
        negative = similarity.gather(1, negatives).masked_fill(~usable, -torch.inf)
        losses = torch.cat([positive, negative], dim=1).logsumexp(1) - positive.squeeze(1)
        with torch.no_grad():
            others = codes if codes.shape[-1] else negatives[..., None]
            distinct = count_distinct(others, usable)
            stats = {
                "accuracy": (positive > negative).all(1).sum().float(),
                "chance": (1 / (1 + distinct)).sum(),
                "num_negatives": distinct.sum(),
            }
        return LossTerm(losses.sum(), frames.mask.sum(), stats)

    def _similarity(self, x: Tensor, targets: Tensor, frames: MaskedFrames) -> Float[Tensor, "n m"]:
        """Cosine / temperature of each context with every target of its row: one product per row."""
        with torch.autocast(x.device.type, enabled=False):
            contexts = F.normalize(self.project_context(x.float()), dim=-1)
            candidates = F.normalize(self.project_target(targets.float()), dim=-1)
            product = frames.pack(contexts) @ frames.pack(candidates).transpose(1, 2)  # b m m
        return product[frames.rows, frames.slots] / self.temperature

    def _draw(self, frames: MaskedFrames, generator: Generator) -> Int[Tensor, "n k"]:
        """Slots of other masked frames of the same row, uniform; the frame itself where it is alone."""
        others = frames.mask.sum(1)[frames.rows, None] - 1
        draws = torch.rand(len(others), self.num_negatives, generator=generator, device=others.device)
        slots = torch.minimum((draws * others).long(), (others - 1).clamp(min=0))
        return slots + ((slots >= frames.slots[:, None]) & (others > 0))


def count_distinct(codes: Int[Tensor, "n k g"], usable: Bool[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """Number of different usable codes among each frame's negatives."""
    factors = 1_000_003 ** torch.arange(codes.shape[-1], device=codes.device)  # wraps: a hash will do
    hashes = (codes * factors).sum(-1) % (2**61 - 1)  # not negative
    values = hashes.masked_fill(~usable, -1).sort(dim=1).values
    changes = (values[:, 1:] != values[:, :-1]) & (values[:, 1:] >= 0)
    return (changes.sum(1) + (values[:, 0] >= 0)).float()


class MaskedPredictionLoss(nn.Module):
    """Predict the codes of masked frames: one softmax per codebook (w2v-BERT, section 3.2).

    The loss is the mean over codebooks, learned and given ones alike. Codes carry no gradient; with `pulls`
    they do, through the probabilities that they were drawn from: the quantizer then learns codes that are
    easy to predict (`seqssl study collapse`). It is there to be studied.
    With a `final_dim`, frames are projected to it and compared with a learned vector of each code: logits are
    cosine / `temperature` (HuBERT, equation 2); else they are a linear map.
    `codebook_sizes` are given where codebooks differ in size; `codebook_size` is then the largest. With a
    `seen_weight`, visible frames (not masked) count too, each with that weight (HuBERT, 2106.07447, section
    II-B; w2v-BERT has none): so the output of the context encoder keeps what is at a frame.
    """

    stats: ClassVar[tuple[Stat, ...]] = (
        Stat("accuracy", unit="share", against="trivial", rule="prediction", short="prediction acc"),
    )
    absent: Tensor | None

    def __init__(
        self,
        context_dim: int,
        num_codebooks: int,
        codebook_size: int,
        codebook_sizes: tuple[int, ...] | None = None,
        *,
        tap: str,
        weight: float = 1.0,
        seen_weight: float = 0.0,
        pulls: bool = False,
        final_dim: int | None = None,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.pulls, self.temperature = pulls, temperature
        if seen_weight < 0 or temperature <= 0:
            raise ValueError(
                f"seen_weight must be at least 0, and temperature above it; got {seen_weight}, {temperature}"
            )
        self.tap, self.weight, self.seen_weight = tap, weight, seen_weight
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        absent = None
        if codebook_sizes is not None:  # g v
            absent = torch.arange(codebook_size) >= torch.tensor(codebook_sizes)[:, None]
        self.register_buffer("absent", absent, persistent=False)
        num_codes = num_codebooks * codebook_size
        self.head = nn.Linear(context_dim, num_codes if final_dim is None else final_dim)
        self.embeddings = None if final_dim is None else nn.Parameter(torch.rand(num_codes, final_dim))

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Total cross-entropy in nats over frames; stats: accuracy, and both of each codebook."""
        logits = self.head(context.x).float()
        if self.embeddings is not None:
            with in_float32(logits.device):
                codes = F.normalize(self.embeddings.float(), dim=-1)
                logits = F.normalize(logits, dim=-1) @ codes.T / self.temperature
        logits = logits.view(-1, self.num_codebooks, self.codebook_size)
        if self.absent is not None:
            logits = logits.masked_fill(self.absent, -torch.inf)
        logits = logits.flatten(0, 1)
        losses = F.cross_entropy(logits, targets.codes.flatten(), reduction="none")
        losses = losses.view(-1, self.num_codebooks)
        if self.pulls and targets.probs is not None:
            # Zero in the forward pass: only the gradient of the probabilities is added.
            change = targets.probs - targets.probs.detach()
            # Codes that are learned come before those that are given.
            own = logits.view(-1, self.num_codebooks, self.codebook_size)[
                :, : change.shape[1], : change.shape[2]
            ]
            pull = -(change * own.log_softmax(-1)).sum(-1)
            losses = losses + F.pad(pull, (0, self.num_codebooks - pull.shape[1]))
        with torch.no_grad():
            found = logits.argmax(-1).view(-1, self.num_codebooks)
            correct = (found == targets.codes).sum(0).float()
            stats = {"accuracy": correct.mean(), "nats": losses.sum(0)}
            if self.num_codebooks > 1:
                stats |= {f"accuracy_{g}": correct[g] for g in range(self.num_codebooks)}
        return LossTerm(losses.sum() / self.num_codebooks, context.frames.mask.sum(), stats)


class DiversityLoss(nn.Module):
    """(G V - sum over codebooks of the perplexity of mean use) / (G V): 0 = even use, 1 - 1/V = collapse.

    The perplexity form (w2v-BERT, figure 2). It is a function of the mean use over a micro-batch of all
    ranks, not a sum over frames. So its count is 1 for each micro-batch, and accumulation takes the mean over
    them. Codes given by the data have no part in it; where no codes are learned, it is 0.
    """

    stats: ClassVar[tuple[Stat, ...]] = (Stat("loss", "unevenness of code use", rule="evenness"),)

    def __init__(self, *, tap: str = "", weight: float = 0.1) -> None:
        super().__init__()
        self.tap, self.weight = tap, weight

    def counted(self, frames: MaskedFrames, lengths: Int[Tensor, "b"]) -> Int[Tensor, ""]:
        """1, or 0 where nothing is masked."""
        return torch.tensor(int(len(frames) > 0))

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """The unevenness of the codes in this micro-batch; 0 where nothing is masked."""
        usage = targets.usage.float()
        value = 1 - perplexity(usage).sum() / usage.numel() if usage.numel() else usage.sum()
        count = self.counted(context.frames, context.features.lengths)
        return LossTerm(value * int(count), count)


def perplexity(distribution: Float[Tensor, "g v"]) -> Float[Tensor, "g"]:
    """exp of the entropy: the number of entries in effective use."""
    return torch.exp(-torch.xlogy(distribution, distribution.clamp(min=1e-12)).sum(-1))


class RegressionLoss(nn.Module):
    """Distance of a linear map of the frame from its target vector: squared, or smooth L1 below `beta`.

    The mean over the width, times `scale`, where a target is no NaN, which stands for a value that was not
    measured. (data2vec, 2202.03555, has the sum over the width by its root: `scale` is that root then.)
    Targets that hardly differ from frame to frame can be met without learning anything: `target_std` tells.
    """

    stats: ClassVar[tuple[Stat, ...]] = (
        Stat("distance", "squared distance", against="variance", rule="regression"),
        Stat("target_std", "spread of the targets", rule="variance"),
        Stat("output_std", "spread of what is predicted", rule="variance"),
    )

    def __init__(
        self,
        context_dim: int,
        target_dim: int,
        *,
        tap: str = "",
        weight: float = 1.0,
        beta: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if target_dim < 1:
            raise ValueError(
                "the regression objective wants targets that are vectors, and these are codes only"
            )
        if beta < 0 or scale <= 0:
            raise ValueError(
                f"the regression objective needs beta >= 0 and scale > 0; got {beta} and {scale}"
            )
        self.tap, self.weight, self.beta, self.scale = tap, weight, beta, scale
        self.head = nn.Linear(context_dim, target_dim)

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """The sum over frames; stats: squared distance and variance, how much targets and outputs differ."""
        found, wanted = self.head(context.x).float(), targets.vectors.detach().float()
        known = ~wanted.isnan()
        wanted = wanted.nan_to_num()
        if self.beta:
            losses = F.smooth_l1_loss(found, wanted, beta=self.beta, reduction="none")
        else:
            losses = (found - wanted).square()
        count = context.frames.mask.sum()
        with torch.no_grad():
            away = wanted - _mean_where(known, wanted, 0)
            stats = {
                "distance": _mean_where(known, (found - wanted).square()) * count,
                "variance": _mean_where(known, away.square()) * count,
                "target_std": standard_deviation(wanted) * count,
                "output_std": standard_deviation(found) * count,
            }
        return LossTerm(_mean_where(known, losses, 1).sum() * self.scale, count, stats)


def _mean_where(known: Bool[Tensor, "n q"], x: Float[Tensor, "n q"], axis: int | None = None) -> Tensor:
    """The mean of the known numbers, of all or along an axis; 0 where none is."""
    total, count = (
        ((x * known).sum(), known.sum()) if axis is None else ((x * known).sum(axis), known.sum(axis))
    )
    return total / count.clamp(min=1)


class CommitmentLoss(nn.Module):
    """How far frames are from the entries that stand for them (vq-wav2vec, 1910.05453, equation 3).

    It is what quantizers of nearest entries learn by (`NearestQuantizer`, `ResidualQuantizer`), which say how
    the two sides are weighed.
    """

    stats: ClassVar[tuple[Stat, ...]] = ()

    def __init__(self, *, tap: str = "", weight: float = 1.0) -> None:
        super().__init__()
        self.tap, self.weight = tap, weight

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """The sum over masked frames; ValueError for targets that have no such cost."""
        if targets.costs is None:
            raise ValueError(
                "the objective commitment wants a quantizer of nearest entries (nearest, residual)"
            )
        return LossTerm(targets.costs.sum(), context.frames.mask.sum())


class FeaturePenalty(nn.Module):
    """Mean square of the feature encoder's valid output (wav2vec 2.0 BASE): a mean over frames, not rows.

    It is that of the output before any feature norm, which would leave nothing to be made smaller.
    """

    stats: ClassVar[tuple[Stat, ...]] = ()

    def __init__(self, *, tap: str = "", weight: float = 10.0) -> None:
        super().__init__()
        self.tap, self.weight = tap, weight

    def counted(self, frames: MaskedFrames, lengths: Int[Tensor, "b"]) -> Int[Tensor, ""]:
        """The number of valid frames."""
        return lengths.sum()

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """The sum over valid frames of the mean square of their features."""
        features = context.features
        x = features.x if features.raw is None else features.raw
        squares = (x.float().square() * features.valid[..., None]).sum()
        return LossTerm(squares / x.shape[-1], features.lengths.sum())
