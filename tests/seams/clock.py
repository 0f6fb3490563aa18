"""A mixer of a user's own that reads times: frames matter less the longer ago they were."""

import torch
from torch import Tensor, nn

from seqssl import Frames


class TimeMixer(nn.Module):
    """A weighted mean over all frames; the weight falls with the distance in time."""

    def __init__(self, dim: int, *, num_rates: int = 4) -> None:
        super().__init__()
        self.rates = nn.Parameter(torch.logspace(-2, 1, num_rates).log())
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        times = frames.times
        if times is None:  # regular: one frame, one second
            times = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        distances = (
            (times[:, :, None] - times[:, None]).abs().float()
        )  # b s s: a shift of all changes nothing
        scores = -distances[:, None] * self.rates.exp()[:, None, None]
        scores = scores.masked_fill(~frames.valid[:, None, None], -torch.inf)
        values = self.value(x).unflatten(-1, (len(self.rates), -1)).transpose(1, 2)  # b rates s e
        mixed = scores.softmax(-1).to(values.dtype) @ values
        return self.out(mixed.transpose(1, 2).flatten(2))
