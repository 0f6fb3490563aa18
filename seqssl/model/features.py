"""Generic feature encoders: raw inputs to frames. What an input means is the adapter's business."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl.model.norms import RowNorm, TimeNorm
from seqssl.model.types import Features, is_traced, length_mask


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
        """The number of frames for each number t of input steps: ceil(t / 4)."""
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
    """Strided 1-D convolutions over raw samples, each with a norm and GELU (wav2vec 2.0, section 2).

    `norm`: "layer" scales each frame after every convolution (wav2vec 2.0 LARGE); "group" scales each
    dimension over the row after the first one, and there alone (BASE, HuBERT); "row" scales the whole row
    after each one (wav2vec, with `activation="relu"`).

    Input (b, t) or (b, t, channels). There is no padding, so a frame sees only its receptive field; a shorter
    row is read as if zeros followed, so that every row gives at least one frame. Missing values count as
    zero; with `mark_missing`, each channel has a second one that is 1 where its value is missing.
    """

    def __init__(
        self,
        channels: int,
        *,
        dim: int = 512,
        kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2),
        strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2),
        bias: bool = True,
        norm: Literal["layer", "group", "row"] = "layer",
        activation: Literal["gelu", "relu"] = "gelu",
        mark_missing: bool = False,
    ) -> None:
        super().__init__()
        if len(kernels) != len(strides) or not kernels:
            raise ValueError(f"kernels {kernels} and strides {strides} must have the same length, at least 1")
        self.dim, self.mark_missing = dim, mark_missing
        widths = [channels * (1 + mark_missing), *[dim] * len(kernels)]
        self.convs = nn.ModuleList(
            nn.Conv1d(inputs, dim, kernel, stride, bias=bias)
            for inputs, kernel, stride in zip(widths, kernels, strides, strict=False)
        )
        if norm == "group":  # the layers behind the first have no norm, and torch's start lets each shrink it
            for conv in self.convs:
                nn.init.kaiming_normal_(conv.get_parameter("weight"))
        self.norms = nn.ModuleList(
            [TimeNorm(dim)]
            if norm == "group"
            else [nn.LayerNorm(dim) if norm == "layer" else RowNorm(dim) for _ in kernels]
        )
        self.activation = F.gelu if activation == "gelu" else F.relu
        self.kernels, self.strides = tuple(kernels), tuple(strides)

    @property
    def receptive_field(self) -> int:
        """Input steps that one frame sees."""
        size = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            size = (size - 1) * stride + kernel
        return size

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """The number of frames for each number of input steps."""
        return self._lengths_after(lengths, len(self.kernels))

    def _lengths_after(self, lengths: Int[Tensor, "*b"], layers: int) -> Int[Tensor, "*b"]:
        """The number of frames after the first so many convolutions."""
        lengths = lengths.clamp(min=self.receptive_field)
        for kernel, stride in zip(self.kernels[:layers], self.strides[:layers], strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def forward(
        self,
        inputs: Shaped[Tensor, "b t *c"],
        lengths: Int[Tensor, "b"],
        observed: Bool[Tensor, "b t *c"] | None = None,
    ) -> Features:
        """Encode raw samples; `observed` None means that every valid value is present."""
        x = inputs[..., None] if inputs.dim() == 2 else inputs
        valid = length_mask(lengths, x.shape[1])[..., None]
        present = valid if observed is None else valid & observed.reshape(x.shape)
        x = x * present
        if self.mark_missing:
            x = torch.cat([x, (valid & ~present).expand_as(x).to(x.dtype)], dim=-1)
        x = F.pad(x, (0, 0, 0, max(0, self.receptive_field - x.shape[1])))
        for layer, conv in enumerate(self.convs):
            x = convolve(conv, x)
            norm = self.norms[layer] if layer < len(self.norms) else None
            if isinstance(norm, TimeNorm):
                x = norm(x, length_mask(self._lengths_after(lengths, layer + 1), x.shape[1]))
            elif norm is not None:
                x = norm(x)
            x = self.activation(x)
        return Features(x, self.output_lengths(lengths))


class PatchEncoder(nn.Module):
    """Patches of `patch` steps, each a frame, by one linear map of all its channels (PatchTST, 2211.14730).

    Input (b, t, channels). The map also reads which values are missing; these count as zero. It reads what is
    missing, not what is present, so that a whole patch of a sparse input stays sparse. A row that ends within
    a patch has missing steps there: s = ceil(t / patch).
    """

    def __init__(self, channels: int, *, dim: int = 192, patch: int = 8) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch must be at least 1, got {patch}")
        self.dim, self.patch = dim, patch
        self.project = nn.Linear(2 * channels * patch, dim)
        self.norm = nn.LayerNorm(dim)

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """The number of frames for each number t of input steps: ceil(t / patch)."""
        return (lengths + self.patch - 1) // self.patch

    def forward(
        self,
        inputs: Float[Tensor, "b t c"],
        lengths: Int[Tensor, "b"],
        observed: Bool[Tensor, "b t c"] | None = None,
    ) -> Features:
        """Encode; `observed` None means that every valid value is present."""
        tail = (0, 0, 0, -inputs.shape[1] % self.patch)  # its steps are missing, as those of shorter rows are
        present = length_mask(lengths, inputs.shape[1] + tail[-1])[..., None].expand(-1, -1, inputs.shape[2])
        if observed is not None:
            present = present & F.pad(observed, tail)
        inputs = F.pad(inputs, tail)
        x = torch.cat([inputs * present, (~present).to(inputs.dtype)], dim=-1)
        return Features(self.norm(self.project(fold(x, self.patch))), self.output_lengths(lengths))


class TokenEncoder(nn.Module):
    """Embedded ids, a convolution that keeps the length, then `stride` steps laid end to end for each frame.

    Input (b, t), or (b, t, channels) for compound tokens; their embeddings are added. An id that is not
    observed has one learned vector in the place of its embedding, so the same encoder reads gaps and masked
    symbols. s = ceil(t / stride): frame j stands for exactly the steps [j stride, (j + 1) stride).
    """

    def __init__(
        self,
        vocab_size: int,
        channels: int | None = None,
        *,
        dim: int = 192,
        embedding_dim: int = 64,
        kernel: int = 9,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or stride < 1:
            raise ValueError(f"kernel must be odd and stride at least 1, got {kernel} and {stride}")
        self.dim, self.stride, self.fields = dim, stride, channels or 1
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(self.fields * vocab_size, embedding_dim)
        self.missing = nn.Parameter(torch.randn(self.fields, embedding_dim))
        self.conv = nn.Conv1d(embedding_dim, embedding_dim, kernel)
        self.norm = nn.LayerNorm(embedding_dim)
        self.project = nn.Linear(stride * embedding_dim, dim)

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """The number of frames for each number t of input steps: ceil(t / stride)."""
        return (lengths + self.stride - 1) // self.stride

    def forward(
        self,
        inputs: Int[Tensor, "b t *c"],
        lengths: Int[Tensor, "b"],
        observed: Bool[Tensor, "b t *c"] | None = None,
    ) -> Features:
        """Encode; `observed` None means that every id is present."""
        ids = inputs[..., None] if inputs.dim() == 2 else inputs  # b t c
        offsets = torch.arange(self.fields, device=ids.device) * self.vocab_size
        x = self.embedding(ids + offsets)  # b t c e
        if observed is not None:
            x = torch.where(observed.reshape(ids.shape)[..., None], x, self.missing)
        valid = length_mask(lengths, ids.shape[1])[..., None]
        x = x.sum(2) * valid
        sides = self.conv.kernel_size[0] // 2
        around = convolve(self.conv, F.pad(x, (0, 0, sides, sides)))
        x = self.norm(x + F.gelu(around)) * valid
        return Features(self.project(fold(x, self.stride)), self.output_lengths(lengths))


def fold(x: Float[Tensor, "b t c"], size: int) -> Float[Tensor, "b s d"]:
    """Every `size` steps laid end to end; zeros fill up the last: s = ceil(t / size)."""
    x = F.pad(x, (0, 0, 0, -x.shape[1] % size))
    return x.reshape(len(x), x.shape[1] // size, size * x.shape[2])


def convolve(conv: Any, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b s d"]:
    """`conv(x.transpose(1, 2)).transpose(1, 2)` of an `nn.Conv1d` without padding, as one matrix product.

    Each frame's window is laid end to end. The norm wants channels last, the kernels of convolutions channels
    first; without turning back and forth, a training step of the stack takes a quarter less time.
    """
    if is_traced():  # slices hide from a trace how long they are
        y: Tensor = conv(x.transpose(1, 2)).transpose(1, 2)
        return y
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    windows: Tensor = Windows.apply(x, kernel, stride)  # type: ignore[no-untyped-call]
    return F.linear(windows, conv.weight.transpose(1, 2).flatten(1), conv.bias)


class Windows(torch.autograd.Function):
    """Each window of `kernel` steps, `stride` apart, laid end to end: (b, t, c) to (b, s, kernel * c).

    Backward: what torch does with the slices, but into one tensor. Torch makes one for each step of a window,
    zero but for one slice, and adds them up.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int) -> Tensor:
        """Lay windows end to end."""
        ctx.kernel, ctx.stride, ctx.size = kernel, stride, x.shape[1]
        end = ctx.size - kernel + 1
        return torch.cat([x[:, i : i + end : stride] for i in range(kernel)], dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of a step: the sum over the windows that it is in."""
        parts = grads[0].unflatten(-1, (ctx.kernel, -1)).unbind(2)
        whole = grads[0].new_zeros(len(grads[0]), ctx.size, parts[0].shape[-1])
        end = ctx.size - ctx.kernel + 1
        for i, part in reversed([*enumerate(parts)]):  # torch's order: sums of three parts round the same
            whole[:, i : i + end : ctx.stride] += part
        return whole, None, None


def standard_deviation(x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Standard deviation over frames, mean over dimensions: near 0 where a stage has collapsed."""
    x, count = x.detach().float(), max(1, len(x))
    variance = (x - x.sum(0) / count).square().sum(0) / count
    return variance.sqrt().mean()
