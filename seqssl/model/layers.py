"""The sublayers of a block other than the mixer."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def identity(x: Tensor) -> Tensor:
    """The sum over ranks when there is one rank."""
    return x


class FeedForward(nn.Sequential):
    """Pre-norm feed-forward module with Swish (Conformer, section 2.3)."""

    def __init__(self, dim: int, ffn_dim: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(dim),
            nn.Linear(dim, ffn_dim),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(ffn_dim, dim),
            nn.Dropout(dropout),
        )


class MaskedBatchNorm(nn.Module):
    """Batch norm over valid frames only, with statistics summed over ranks.

    `all_reduce` is replaced by `seqssl.training.distributed.synchronize`. Under activation checkpointing
    the running statistics are updated at the recomputation too, which only makes them follow faster.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.momentum, self.eps = momentum, eps
        self.all_reduce: Callable[[Tensor], Tensor] = identity

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """Normalize every frame; statistics are float32."""
        if not self.training:
            mean, var = self.running_mean, self.running_var
        else:
            frames = x.float() * valid[..., None]
            count = valid.sum().to(frames.dtype)[None]
            sums = self.all_reduce(torch.cat([frames.sum((0, 1)), frames.square().sum((0, 1)), count]))
            mean, square = (sums[:-1] / sums[-1].clamp(min=1)).chunk(2)
            var = (square - mean.square()).clamp(min=0)
            with torch.no_grad():
                unbiased = var * (sums[-1] / (sums[-1] - 1).clamp(min=1))
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (x * scale + (self.bias - mean * scale)).to(x.dtype)


class ConvolutionModule(nn.Module):
    """Pointwise, GLU, depthwise, norm, Swish, pointwise (Conformer, section 2.2)."""

    def __init__(self, dim: int, *, kernel: int, norm: str, dropout: float) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"conv_kernel must be odd, so that it has a middle; got {kernel}")
        if norm not in ("batch", "layer"):
            raise ValueError(f"conv_norm must be batch or layer, got {norm!r}")
        self.norm_in = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = MaskedBatchNorm(dim) if norm == "batch" else nn.LayerNorm(dim)
        self.contract = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """Mix neighboring frames."""
        x = F.glu(self.expand(self.norm_in(x))) * valid[..., None]
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        x = self.norm(x, valid) if isinstance(self.norm, MaskedBatchNorm) else self.norm(x)
        y: Tensor = self.dropout(self.contract(F.silu(x)))
        return y


class ConvPosition(nn.Module):
    """Relative position by a wide grouped convolution, added to its input (wav2vec 2.0, section 2)."""

    def __init__(self, dim: int, *, kernel: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (kernel * dim)))
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """`x` plus its position features."""
        position = self.conv((x * valid[..., None]).transpose(1, 2))
        position = position[..., : x.shape[1]]  # an even kernel gives one frame too many
        return x + F.gelu(position).transpose(1, 2)
