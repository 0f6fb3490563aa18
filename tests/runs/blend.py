"""Mixers for tests of exports: those of linear cost in one, and one that a trace does not follow."""

from torch import Tensor, nn

from seqssl import Frames
from seqssl.model.linear_mixers import FFTConvolution, GatedLinear, LocalAttention, SummaryMixing


class Blend(nn.Module):
    """The sum of all: where one of them differs, so does this."""

    def __init__(self, dim: int, *, size: int = 8) -> None:
        super().__init__()
        self.size = size
        self.parts = nn.ModuleList(
            [
                LocalAttention(dim, num_heads=2, window=size),
                SummaryMixing(dim),
                FFTConvolution(dim),
                GatedLinear(dim, num_heads=2, chunk=size),
            ]
        )

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        return sum((part(x, frames) for part in self.parts), x)


class Looping(nn.Module):
    """Adds the sum of the row, chunk by chunk, in a loop: a trace has as many rounds as its own row."""

    def __init__(self, dim: int, *, chunk: int = 450) -> None:
        super().__init__()
        self.chunk, self.map = chunk, nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        found = x
        for number in range(-(-x.shape[1] // self.chunk)):
            part = x[:, number * self.chunk : (number + 1) * self.chunk]
            found = found + part.sum(1, keepdim=True)
        y: Tensor = self.map(found)
        return y
