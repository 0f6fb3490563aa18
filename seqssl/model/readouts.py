"""Read-outs: from the taps of an encoder to what a task's head reads."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class LayerMix(nn.Module):
    """A learnt weighted mean of layers of one width (ELMo, 1802.05365, 3.2; SUPERB, 2105.01051).

    Each layer is first scaled to zero mean and unit variance per frame, because layers of a pre-norm stack
    differ in size by far more than weights could make up for. All weights are equal at the start.
    """

    def __init__(self, num_layers: int, dim: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_layers))
        self.dim = dim

    @property
    def weights(self) -> Float[Tensor, "l"]:
        """The share of each layer."""
        return self.logits.softmax(0)

    def forward(self, layers: Float[Tensor, "l b s d"]) -> Float[Tensor, "b s d"]:
        """The mean of the layers."""
        scaled = nn.functional.layer_norm(layers, (self.dim,))
        return torch.einsum("l,lbsd->bsd", self.weights.to(scaled.dtype), scaled)


class MeanPool(nn.Module):
    """The mean over valid frames."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b d"]:
        """One vector a row."""
        weights = valid[..., None].to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


class AttentionPool(nn.Module):
    """A mean over frames with learnt weights (self-attentive pooling, 2008.01077)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.score = nn.Linear(dim, 1)
        nn.init.zeros_(self.score.weight)  # at the start it is the plain mean

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b d"]:
        """One vector a row."""
        weights = self.score(x)[..., 0].masked_fill(~valid, -torch.inf).softmax(-1)
        return torch.einsum("bs,bsd->bd", weights, x)


class StatisticsPool(nn.Module):
    """Mean and standard deviation over frames, side by side (x-vectors, Snyder et al. 2018)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = 2 * dim
        self.mean = MeanPool(dim)

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b e"]:
        """One vector a row; e = 2 d."""
        mean = self.mean(x, valid)
        variance = self.mean((x - mean[:, None]).square(), valid)
        return torch.cat([mean, (variance + 1e-5).sqrt()], dim=-1)


class ThirdsPool(nn.Module):
    """The means of the first, the middle and the last third of the valid frames, side by side.

    It keeps what a single mean loses: what came before what. A third without a frame has the mean of all.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = 3 * dim
        self.mean = MeanPool(dim)

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b e"]:
        """One vector a row; e = 3 d."""
        places = valid.cumsum(1) - 1
        thirds = 3 * places // valid.sum(1, keepdim=True).clamp(min=1)
        parts = [valid & (thirds == third) for third in range(3)]
        parts = [torch.where(part.any(1, keepdim=True), part, valid) for part in parts]
        return torch.cat([self.mean(x, part) for part in parts], dim=-1)


class LastPool(nn.Module):
    """The last valid frame: what a causal encoder has of the whole row."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b d"]:
        """One vector a row."""
        steps = torch.arange(x.shape[1], device=x.device)
        last = torch.where(valid, steps, 0).amax(1)
        return x[torch.arange(len(x), device=x.device), last]


WEIGHTLESS: dict[str, type[MeanPool] | type[StatisticsPool] | type[ThirdsPool] | type[LastPool]] = {
    "mean": MeanPool,
    "statistics": StatisticsPool,
    "thirds": ThirdsPool,
    "last": LastPool,
}
POOLS: dict[
    str, type[MeanPool] | type[StatisticsPool] | type[ThirdsPool] | type[LastPool] | type[AttentionPool]
] = {**WEIGHTLESS, "attention": AttentionPool}


def random_spans(
    lengths: Int[Tensor, "b"], size: int, *, share: float, span: int, generator: torch.Generator
) -> Bool[Tensor, "b p"]:
    """Places to hide: about `share` of each row's own, in runs of up to `span` (SpecAugment, 1904.08779).

    `lengths` counts the places of each row, of which there are at most `size`. Runs may overlap.
    """
    # A place is hidden where one of the `span` starts up to it was drawn: this chance gives the share.
    chance = 1 - (1 - share) ** (1 / span)
    starts = torch.rand(len(lengths), size, device=lengths.device, generator=generator) < chance
    reach = nn.functional.pad(starts.float()[:, None], (span - 1, 0))
    hidden = nn.functional.max_pool1d(reach, span, 1)[:, 0] > 0
    return hidden & (torch.arange(size, device=lengths.device) < lengths[:, None])
