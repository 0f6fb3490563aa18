"""A block of a user's own: each frame sees the frames before it only, so it can also be run step by step."""

import torch
from torch import Tensor, nn

from seqssl import Frames


class CausalBlock(nn.Module):
    """A leaky sum of what came before, gated, between two linear maps (a diagonal linear recurrence)."""

    def __init__(self, dim: int, *, expansion: int = 2) -> None:
        super().__init__()
        inner = expansion * dim
        self.norm, self.into, self.out = nn.LayerNorm(dim), nn.Linear(dim, 2 * inner), nn.Linear(inner, dim)
        self.decay = nn.Parameter(torch.linspace(-2, 2, inner))

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        values, gates = self.into(self.norm(x)).chunk(2, dim=-1)
        values = values * frames.valid[..., None]
        size, keep = x.shape[1], self.decay.sigmoid()
        ages = torch.arange(size, device=x.device)[:, None] - torch.arange(size, device=x.device)
        weights = torch.where(ages[..., None] >= 0, keep ** ages.clamp(min=0)[..., None], 0)  # to from inner
        states = torch.einsum("tfi,bfi->bti", weights, values.float()).to(x.dtype)
        return x + self.out(states * gates.sigmoid())

    def init_state(self, num_rows: int) -> Tensor:
        return torch.zeros(num_rows, len(self.decay))

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        value, gate = self.into(self.norm(x)).chunk(2, dim=-1)
        state = state * self.decay.sigmoid() + value
        return x + self.out(state * gate.sigmoid()), state
