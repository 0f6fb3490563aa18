"""Mixers and a block that a stranger may write; nobody counts their cost by the names of their settings."""

import torch
from torch import Tensor, nn

from seqssl import Frames, Mixer


class Recurrent(nn.Module):
    """Two passes of a gated recurrence."""

    def __init__(self, dim: int, *, num_passes: int = 2) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.Linear(2 * dim, dim) for _ in range(num_passes)])

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        for cell in self.cells:
            state, states = x[:, 0] * 0, []
            for frame in x.unbind(1):
                state = cell(torch.cat([frame, state], dim=-1)).tanh()
                states.append(state)
            x = torch.stack(states, dim=1) * frames.valid[..., None]
        return x


class Sorting(nn.Module):
    """Mixes only frames whose first entry is positive, and so looks at values."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        y = self.project(x * frames.valid[..., None])
        if float(y.detach().abs().max()) > 0:
            y = y + (y @ y.transpose(1, 2)).tanh() @ y / y.shape[1]
        return y


class Squeeze(nn.Module):
    """A feed-forward module with a wide middle, beside the mixer."""

    def __init__(self, mixer: Mixer, dim: int, *, rate: int = 2) -> None:
        super().__init__()
        self.mixer = mixer
        self.wide = nn.Sequential(nn.Linear(dim, rate * dim), nn.GELU(), nn.Linear(rate * dim, dim))

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        return x + self.wide(x) + self.mixer(x, frames)
