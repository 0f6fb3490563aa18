"""A block of a user's own that is told the group of a row: its speaker, its station, its sensor."""

import torch
from torch import Tensor, nn

from seqssl import Batch, Frames, Mixer


class GroupEmbedding(nn.Module):
    """A learned vector for each group; rows of no group get the last one."""

    def __init__(self, *, num_groups: int = 8, dim: int = 6) -> None:
        super().__init__()
        self.dim, self.num_groups = dim, num_groups
        self.vectors = nn.Embedding(num_groups + 1, dim)

    def forward(self, batch: Batch) -> Tensor:
        groups = batch.groups
        if groups is None:
            groups = torch.full_like(batch.lengths, self.num_groups)
        return self.vectors(groups.clamp(max=self.num_groups))


class FilmBlock(nn.Module):
    """Mixer and feed-forward, scaled and shifted by the condition of the row (FiLM, 1709.07871)."""

    def __init__(self, mixer: Mixer, dim: int, condition_dim: int, *, ffn_dim: int = 32) -> None:
        super().__init__()
        self.mixer, self.norm = mixer, nn.LayerNorm(dim)
        self.film = nn.Linear(condition_dim, 2 * dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, ffn_dim), nn.GELU(), nn.Linear(ffn_dim, dim)
        )

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        assert frames.condition is not None
        scale, shift = self.film(frames.condition)[:, None].chunk(2, dim=-1)
        x = x + self.mixer(self.norm(x) * (1 + scale) + shift, frames)
        return x + self.feed_forward(x)
