"""Heads of tasks: linear maps of what an encoder gives, which may start at a fit (`head_start`)."""

from typing import Literal

import torch
from torch import Tensor, nn

from seqssl.finetuning.head_start import Linear
from seqssl.model.readouts import POOLS

Pool = Literal["mean", "statistics", "thirds", "last", "attention"]


class PooledHead(nn.Module):
    """A pool over frames, and a linear map of what it gives, in units of its spread over rows.

    Frames of different rows have most in common: a map of their plain pools would learn that before anything
    else. `mean` and `std` of the pools are set once, see `begin_at`; until then they are 0 and 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, size: int, pool: Pool, dropout: float) -> None:
        super().__init__()
        chosen = POOLS[pool](dim)
        self.pool, self.dropout, self.linear = chosen, nn.Dropout(dropout), nn.Linear(chosen.dim, size)
        self.register_buffer("mean", torch.zeros(chosen.dim))
        self.register_buffer("std", torch.ones(chosen.dim))
        nn.init.zeros_(self.linear.weight)  # no class is preferred at the start
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Scores (b, size)."""
        with torch.autocast(x.device.type, enabled=False):  # the spread is small beside what is common
            scaled = (self.pool(x.float(), valid) - self.mean) / self.std
            scores: Tensor = self.linear(self.dropout(scaled))
        return scores

    @torch.no_grad()
    def begin_at(self, fitted: Linear) -> None:
        """Take over a linear map that was fitted to pools, and their spread."""
        self.mean.copy_(torch.as_tensor(fitted.mean))
        self.std.copy_(torch.as_tensor(fitted.std))
        self.linear.weight.copy_(torch.as_tensor(fitted.weight))
        self.linear.bias.copy_(torch.as_tensor(fitted.bias))


class FrameHead(nn.Module):
    """A linear map of each frame."""

    def __init__(self, dim: int, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(dim, size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Scores (b, s, size)."""
        scores: Tensor = self.linear(self.dropout(x))
        return scores

    @torch.no_grad()
    def begin_at(self, fitted: Linear) -> None:
        """Take over a linear map that was fitted to frames."""
        weight = fitted.weight / fitted.std
        self.linear.weight.copy_(torch.as_tensor(weight))
        self.linear.bias.copy_(torch.as_tensor(fitted.bias - weight @ fitted.mean))


class ForecastHead(nn.Module):
    """The sum of two linear maps: of all frames side by side, and of the look-back itself.

    The first has the whole window for each number (PatchTST, 2211.14730), the second is the same for all
    channels (NLinear, 2205.13504). Of what the first reads, `dropout` is left out.
    """

    def __init__(
        self, dim: int, num_frames: int, lookback: int, horizon: int, channels: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim * num_frames, horizon * channels)
        self.shortcut = nn.Linear(lookback, horizon, bias=False)
        for weight in self.parameters():
            nn.init.zeros_(weight)
        # Adam changes every weight by the rate, so an output moves in an update as far as it has inputs. With
        # these multiples of the rate it moves no further than that of a head for one frame, which has `dim`.
        self.lr_scales = {"linear.weight": 1 / num_frames, "shortcut.weight": min(1.0, dim / lookback)}

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """Frames x (b, s, d) and the scaled look-back (b, t, c) to forecasts (b, horizon, c)."""
        straight = self.shortcut(past.transpose(1, 2)).transpose(1, 2)
        forecast: Tensor = self.linear(self.dropout(x.flatten(1))).view_as(straight) + straight
        return forecast

    @torch.no_grad()
    def begin_at(self, fitted: Linear) -> None:
        """Take over a map of the look-back that was fitted, through zero."""
        self.shortcut.weight.copy_(torch.as_tensor(fitted.weight / fitted.std))
