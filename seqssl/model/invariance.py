"""What is true of a whole clip: several views of it mean the same."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from seqssl.model.bounds import NOT_NEGATIVE, POSITIVE
from seqssl.model.precision import in_float32
from seqssl.model.types import Context, LossTerm, MaskedFrames, Quantized, Stat

EPSILON = 1e-4  # added to a variance before its root, whose slope is infinite at 0


class InvarianceLoss(nn.Module):
    """Views of one clip get vectors that are alike, and those of different clips spread (VICReg, 2105.04906).

    The frames of a row that could be masked are averaged, and go through a projector of three layers. Three
    terms, each a mean over the dimensions: the squared distance between the views of a clip; how far the
    standard deviation over the rows falls below 1; and, `covariance` times as much, the squared covariance of
    different dimensions. The paper has weights of 25, 25 and 1, here divided by 25. Deviation and covariance
    are those of the micro-batch. `data.views` says how many views a clip has.
    """

    compares_views = compares_rows = True
    reads = "all"
    stats: ClassVar[tuple[Stat, ...]] = (
        Stat("accuracy", "views told apart", "share", against="chance", against_words="chance"),
        Stat("distance", "squared distance of views"),
        Stat("spread", "spread of clips", rule="variance"),
    )

    def __init__(
        self,
        context_dim: int,
        *,
        tap: str = "",
        weight: float = 1.0,
        covariance: Annotated[float, NOT_NEGATIVE] = 0.08,
        hidden_dim: Annotated[int, POSITIVE] = 512,
        final_dim: Annotated[int, POSITIVE] = 512,
    ) -> None:
        super().__init__()
        self.tap, self.weight, self.covariance = tap, weight, covariance
        hidden = [
            part
            for size in (context_dim, hidden_dim)
            for part in (nn.Linear(size, hidden_dim), nn.LayerNorm(hidden_dim), nn.ReLU())
        ]
        self.projector = nn.Sequential(*hidden, nn.Linear(hidden_dim, final_dim))

    def counted(self, frames: MaskedFrames, lengths: Int[Tensor, "b"]) -> Int[Tensor, ""]:
        """The number of rows with a frame to read."""
        return frames.mask.any(dim=1).sum()

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Total over rows; stats: how often the nearest row is another view of the same clip, and others."""
        frames, clips = context.frames, context.features.clips
        if clips is None:
            clips = torch.arange(len(frames.mask), device=context.x.device)
        there = frames.mask.any(dim=1)
        x = self.projector(pooled(context.x, frames)[there]).float()
        count, same = there.sum(), clips[there][:, None] == clips[there]
        with in_float32(x.device):
            value, distance, spread = vicreg(x, same, self.covariance)
            right, chance = told_apart(x.detach(), same)
        stats = {
            "accuracy": right,
            "chance": chance,
            "distance": distance.detach() * count,
            "spread": spread.detach() * count,
        }
        return LossTerm(value * count, count, stats)


def pooled(x: Float[Tensor, "n d"], frames: MaskedFrames) -> Float[Tensor, "b d"]:
    """The mean of the chosen frames of each row; 0 for a row without any."""
    sums = x.new_zeros(len(frames.mask), x.shape[1], dtype=torch.float32)
    sums = sums.index_add(0, frames.rows, x.float())
    return sums / frames.mask.sum(dim=1, keepdim=True).clamp(min=1)


def vicreg(
    x: Float[Tensor, "b q"], same: Bool[Tensor, "b b"], covariance: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of some rows, the mean squared distance of those of one clip, and the deviation over rows.

    `same` says which rows are of one clip. Without two such rows the distance is 0.
    """
    rows, size = len(x), x.shape[1]
    views = same.sum(dim=1, keepdim=True).to(x.dtype)
    means = same.to(x.dtype) @ x / views
    # The squared distances of all pairs of n vectors sum to n times those from their mean.
    distances = (views * (x - means).square()).sum() / size
    distance = distances / ((views - 1).sum() / 2).clamp(min=1)
    if rows < 2:
        return distance, distance, distance.detach()
    centered = x - x.mean(0)
    deviations = (centered.square().sum(0) / (rows - 1) + EPSILON).sqrt()
    products = centered.T @ centered / (rows - 1)
    others = (products.square().sum() - products.diagonal().square().sum()) / size
    value = distance + F.relu(1 - deviations).mean() + covariance * others
    return value, distance, deviations.mean()


def told_apart(
    x: Float[Tensor, "b q"], same: Bool[Tensor, "b b"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How many rows have another view of their clip as the nearest row, and how many would by chance."""
    own = torch.eye(len(x), dtype=torch.bool, device=x.device)
    if len(x) < 2:
        return x.new_zeros(()), x.new_zeros(())
    nearest = torch.cdist(x, x).masked_fill(own, torch.inf).argmin(dim=1)
    others = (same & ~own).sum(dim=1)
    right = same[torch.arange(len(x), device=x.device), nearest]
    return right.sum().to(x.dtype), (others / (len(x) - 1)).sum().to(x.dtype)
