"""The sublayers of a block other than the mixer."""

import math
from typing import Annotated, Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from seqssl.model.bounds import ODD, POSITIVE, Divides
from seqssl.model.convolutions import Conv1d
from seqssl.model.dropout import Dropout
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.types import Frames


class FeedForward(nn.Sequential):
    """Norm, feed-forward module with Swish (Conformer, section 2.3); without `norm` it reads what it gets.

    `inner_dropout` is that of the inner activations; None = as after the module.
    """

    def __init__(
        self,
        dim: int,
        ffn_dim: int | None,
        dropout: float,
        *,
        norm: bool = True,
        activation: Literal["swish", "gelu"] = "swish",
        inner_dropout: float | None = None,
    ) -> None:
        ffn_dim = 4 * dim if ffn_dim is None else ffn_dim
        super().__init__(
            nn.LayerNorm(dim) if norm else nn.Identity(),
            nn.Linear(dim, ffn_dim),
            nn.SiLU() if activation == "swish" else nn.GELU(),
            Dropout(dropout if inner_dropout is None else inner_dropout),
            nn.Linear(ffn_dim, dim),
            Dropout(dropout),
        )


class ConvolutionModule(nn.Module):
    """Pointwise, GLU, depthwise, norm, Swish, pointwise (Conformer, section 2.2).

    `norm`: "batch", over the valid frames of all rows, or "layer", over the channels of each. `bias`: of the
    three convolutions; w2v-BERT 2.0 has none. `causal`: a frame reads itself and those before it.
    """

    def __init__(
        self,
        dim: int,
        *,
        kernel: int,
        norm: str,
        dropout: float,
        bias: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"conv_kernel must be odd, so that it has a middle; got {kernel}")
        if norm not in ("batch", "layer"):
            raise ValueError(f"conv_norm must be batch or layer, got {norm!r}")
        self.norm_in = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * dim, bias=bias)
        self.causal = causal
        self.sides = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)
        self.depthwise = nn.Conv1d(dim, dim, kernel, groups=dim, bias=bias)
        self.norm = MaskedBatchNorm(dim) if norm == "batch" else nn.LayerNorm(dim)
        self.contract = nn.Linear(dim, dim, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """Mix neighboring frames."""
        x = F.glu(self.expand(self.norm_in(x))) * valid[..., None]
        x = self.depthwise(F.pad(x.transpose(1, 2), self.sides)).transpose(1, 2)
        x = self.norm(x, valid) if isinstance(self.norm, MaskedBatchNorm) else self.norm(x)
        y: Tensor = self.dropout(self.contract(F.silu(x)))
        return y


class StackedConvPosition(nn.Module):
    """Relative position by several grouped convolutions, each with a norm and GELU (data2vec, 2202.03555).

    What they give is added to their input. The norms learn nothing.
    """

    causal = False

    def __init__(
        self,
        dim: int,
        *,
        kernel: Annotated[int, POSITIVE, ODD] = 19,
        groups: Annotated[int, POSITIVE, Divides("dim")] = 16,
        layers: Annotated[int, POSITIVE] = 5,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """`x` plus its position features."""
        position, valid = x, frames.valid[..., None]
        for conv in self.convs:
            position = conv((position * valid).transpose(1, 2)).transpose(1, 2)
            position = F.gelu(self.norm(position))
        return x + position


class ConvPosition(nn.Module):
    """Relative position by a wide grouped convolution, added to its input (wav2vec 2.0, section 2)."""

    causal = False

    def __init__(
        self, dim: int, *, kernel: Annotated[int, POSITIVE], groups: Annotated[int, POSITIVE, Divides("dim")]
    ) -> None:
        super().__init__()
        conv = Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (kernel * dim)))
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """`x` plus its position features."""
        position = self.conv((x * frames.valid[..., None]).transpose(1, 2))
        if self.conv.kernel_size[0] % 2 == 0:  # such a kernel gives one frame too many
            position = position[..., :-1]
        return x + F.gelu(position).transpose(1, 2)
