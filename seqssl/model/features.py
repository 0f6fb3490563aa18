"""Generic feature encoders: raw inputs to frames. What an input means is the adapter's business."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl.model.types import Features, length_mask


class Conv2dSubsampling(nn.Module):
    """Two 3x3 convolutions of stride 2 in time and in frequency, each with ReLU: four times fewer frames.

    The subsampling of the Conformer family (Google's public encoder: 3x3, 32 channels, SAME padding).
    Input (b, t, num_bins); output width `channels * ceil(num_bins / 4)`, s = ceil(t / 4).
    """

    def __init__(self, num_bins: int, *, channels: int = 32) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, channels, kernel_size=3, stride=2, padding=1) for inputs in (1, channels)
        )
        for conv in self.convs:
            # Keeps the variance of the input; torch's default loses two thirds of it per layer, and codes
            # drawn from so little variation are noise at the start
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        self.dim = channels * math.ceil(math.ceil(num_bins / 2) / 2)

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Frames made of so many input steps: ceil(t / 4)."""
        for _ in self.convs:
            lengths = (lengths + 1) // 2
        return lengths

    def forward(self, inputs: Float[Tensor, "b t f"], lengths: Int[Tensor, "b"]) -> Features:
        """Subsample; padding is zeroed before each convolution, so a row never sees its batch mates."""
        x = inputs[:, None]  # b 1 t f
        for conv in self.convs:
            x = x * length_mask(lengths, x.shape[2])[:, None, :, None]
            x = F.relu(conv(x))
            lengths = (lengths + 1) // 2
        return Features(x.permute(0, 2, 1, 3).flatten(2), lengths)


class Conv1dStack(nn.Module):
    """Strided 1-D convolutions over raw samples, each with layer norm and GELU (wav2vec 2.0, section 2).

    Input (b, t) or (b, t, channels); no padding, so a frame sees only its receptive field; a row shorter
    than that is read as if zeros followed. Every row gives at least one frame.
    """

    def __init__(
        self,
        channels: int,
        *,
        dim: int = 512,
        kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2),
        strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2),
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len(kernels) != len(strides) or not kernels:
            raise ValueError(f"kernels {kernels} and strides {strides} must have the same length, at least 1")
        self.dim = dim
        widths = [channels, *[dim] * len(kernels)]
        self.convs = nn.ModuleList(
            nn.Conv1d(inputs, dim, kernel, stride, bias=bias)
            for inputs, kernel, stride in zip(widths, kernels, strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in kernels)
        self.kernels, self.strides = tuple(kernels), tuple(strides)

    @property
    def receptive_field(self) -> int:
        """Input steps that one frame sees."""
        size = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            size = (size - 1) * stride + kernel
        return size

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Frames made of so many input steps."""
        lengths = lengths.clamp(min=self.receptive_field)
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def forward(self, inputs: Shaped[Tensor, "b t *c"], lengths: Int[Tensor, "b"]) -> Features:
        """Encode raw samples."""
        x = inputs[..., None] if inputs.dim() == 2 else inputs
        x = x * length_mask(lengths, x.shape[1])[..., None]
        x = F.pad(x, (0, 0, 0, max(0, self.receptive_field - x.shape[1])))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.gelu(norm(convolve(conv, x)))
        return Features(x, self.output_lengths(lengths))


def convolve(conv: Any, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b s d"]:
    """`conv(x.transpose(1, 2)).transpose(1, 2)` of an `nn.Conv1d` without padding, as one matrix product.

    Each frame's window is laid end to end. The norm wants channels last, the convolution kernels channels
    first: without turning back and forth a training step of the stack takes a quarter less time.
    """
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    end = x.shape[1] - kernel + 1
    windows = torch.cat([x[:, i : i + end : stride] for i in range(kernel)], dim=-1)  # b s k*c
    return F.linear(windows, conv.weight.transpose(1, 2).flatten(1), conv.bias)


def standard_deviation(x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Standard deviation over frames, mean over dimensions: near 0 where a stage has collapsed."""
    x, count = x.detach().float(), max(1, len(x))
    variance = (x - x.sum(0) / count).square().sum(0) / count
    return variance.sqrt().mean()
