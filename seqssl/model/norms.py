"""Norms over channels, over frames, over rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqssl.model.precision import in_float32
from seqssl.model.types import is_traced

MIN_STD = 1e-6  # below it a channel counts as constant
FARTHEST = 4.0  # that a level may be from those of training: beyond, a row is only known to be far away


def identity(x: Tensor) -> Tensor:
    """The sum over ranks where there is one rank."""
    return x


def centered(
    x: Float[Tensor, "b s *d"], valid: Bool[Tensor, "b s *v"], dims: tuple[int, ...] = (1,)
) -> tuple[Float[Tensor, "b s *d"], Float[Tensor, "b 1 ..."]]:
    """Valid frames less their mean over `dims` of a row (0 elsewhere), and their variance; at least float32.

    `valid` is of frames (b, s), or of each of their values, of the shape of `x`.
    """
    inside = _of_values(x, valid)
    alike = x.shape[-1] if valid.dim() < x.dim() and x.dim() - 1 in dims else 1  # values of a frame
    count = (alike * inside.sum(dims, keepdim=True)).clamp(min=1)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    away = (x - (x * inside).sum(dims, keepdim=True) / count) * inside
    return away, away.square().sum(dims, keepdim=True) / count


def scaled(x: Float[Tensor, "b s *d"], valid: Bool[Tensor, "b s *v"]) -> Float[Tensor, "b s *d"]:
    """Each dimension of a row scaled to zero mean and unit variance over its valid frames; 0 elsewhere.

    A dimension that does not change within the row becomes 0: its mean is rounded, and what is left over
    would be scaled up. `valid` as for `centered`; the result is float32.
    """
    away, variance = centered(x, valid)
    outside = ~_of_values(x, valid)
    highest = x.detach().masked_fill(outside, -torch.inf).amax(1, keepdim=True)
    lowest = x.detach().masked_fill(outside, torch.inf).amin(1, keepdim=True)
    return away / variance.sqrt().clamp(min=MIN_STD) * (highest > lowest)


def _of_values(x: Float[Tensor, "b s *d"], valid: Bool[Tensor, "b s *v"]) -> Bool[Tensor, "b s ..."]:
    """A mask of frames or of values that can be multiplied with `x`."""
    return valid if valid.dim() == x.dim() else valid[..., None]


class ChannelNorm(nn.Module):
    """Scales each channel by its mean and standard deviation, which are fixed and stored with the weights.

    `set` takes them from the training data. Missing values become 0, the mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def set(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take over statistics; a channel that never changes keeps its scale."""
        with torch.no_grad():
            self.mean.copy_(torch.tensor(mean))
            self.std.copy_(torch.tensor([value if value > MIN_STD else 1.0 for value in std]))

    def forward(
        self, inputs: Float[Tensor, "b t *c"], present: Bool[Tensor, "b t *c"]
    ) -> Float[Tensor, "b t *c"]:
        """The scaled inputs."""
        return (inputs - self.mean) / self.std * present


class InstanceNorm(nn.Module):
    """Scales each channel of each row to zero mean and unit variance over its observed values.

    This is RevIN without the affine map (Kim et al., ICLR 2022). What it removes, such as a level, is lost to
    the model.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, inputs: Float[Tensor, "b t *c"], present: Bool[Tensor, "b t *c"]
    ) -> Float[Tensor, "b t *c"]:
        """The scaled inputs; a channel that does not change within the row becomes 0."""
        return scaled(inputs, present)


class LevelNorm(ChannelNorm):
    """Scales each channel of each row by itself, as `InstanceNorm`, and keeps what that takes away.

    The model adds a learned map of `levels` to all frames of the row: forecasts want rows that are alike, and
    classes often differ in level. Levels are bounded, because rows of another place may lie anywhere.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.num_levels = 2 * channels

    def forward(
        self, inputs: Float[Tensor, "b t *c"], present: Bool[Tensor, "b t *c"]
    ) -> Float[Tensor, "b t *c"]:
        """The inputs, scaled by their own row."""
        return scaled(inputs, present)

    def levels(
        self, inputs: Float[Tensor, "b t *c"], present: Bool[Tensor, "b t *c"]
    ) -> Float[Tensor, "b l"]:
        """The mean of each channel of a row, then the logarithms of the deviations; float32.

        Both in units of the training data, and at most `FARTHEST`. A channel without a value has the mean 0.
        """
        x = super().forward(inputs.float(), present)
        mean = x.sum(1) / present.sum(1).clamp(min=1)
        _, variance = centered(x, present)
        spread = variance[:, 0].sqrt().clamp(min=MIN_STD).log()
        rows = [found[..., None].flatten(1) for found in (mean, spread)]
        return torch.cat(rows, 1).clamp(-FARTHEST, FARTHEST)


class FrameNorm(nn.LayerNorm):
    """Scales each frame of the feature encoder to zero mean and unit variance.

    It keeps features from collapsing in short runs (docs/decisions/0004-tiny-runs.md). With `affine`, a scale
    and a shift of each dimension are learned, as wav2vec 2.0 does.
    """

    def __init__(self, input_dim: int, *, affine: bool = False) -> None:
        super().__init__(input_dim, elementwise_affine=affine)


class TimeNorm(nn.Module):
    """Scales each dimension of a row to zero mean and unit variance over its valid frames, then learned.

    Group norm with one dimension a group, as wav2vec 2.0 BASE has after its first convolution; but padding
    has no part in it, so that a row is encoded alike in any batch.
    """

    dims: tuple[int, ...] = (1,)  # that share a mean and a variance

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """The scaled frames, the shift alone where there are none; statistics are float32."""
        if is_traced():
            away, variance = centered(x, valid, self.dims)
            return (away * (variance + self.eps).rsqrt() * self.weight + self.bias).to(x.dtype)
        y: Tensor = _TimeNorm.apply(x, valid, self.weight, self.bias, self.dims, self.eps)  # type: ignore[no-untyped-call]
        return y


class _TimeNorm(torch.autograd.Function):
    """What `TimeNorm` computes, in a third of the passes over values that autograd would take."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, valid: Tensor, weight: Tensor, bias: Tensor, dims: tuple[int, ...], eps: float
    ) -> Tensor:
        with in_float32(x.device):
            away, variance = centered(x, valid, dims)
            scale = (variance + eps).rsqrt()
            ctx.save_for_backward(away, valid, scale, weight)
            ctx.dims, ctx.dtype = dims, x.dtype
            return torch.addcmul(bias, away, scale * weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        away, valid, scale, weight = ctx.saved_tensors
        with in_float32(away.device):
            inside = valid[..., None].to(away.dtype)
            count = inside.sum(1, keepdim=True).mul_(away.shape[2] if 2 in ctx.dims else 1).clamp_(min=1)
            grad_bias = grads[0].sum((0, 1), dtype=away.dtype)
            grad = grads[0] * inside
            along = (grad * away).sum(1, keepdim=True)  # b 1 d
            grad_weight = (along * scale).sum((0, 1))
            # A frame's gradient, less what it has in common with the others by their mean and variance.
            rest = tuple(dim for dim in ctx.dims if dim > 1)  # summed over frames they are already
            both = torch.stack([along, grad.sum(1, keepdim=True)]) * weight
            turn, shift = (each.sum(rest, keepdim=True) if rest else each for each in both)
            grad.mul_(scale * weight).addcmul_(away, -turn * scale**3 / count)
            grad.addcmul_(inside, -shift * scale / count)
        return grad.to(ctx.dtype), None, grad_weight, grad_bias, None, None


class RowNorm(TimeNorm):
    """The same over all valid frames and dimensions of a row at once.

    Group norm with one group, as wav2vec has after each convolution.
    """

    dims = (1, 2)


class MaskedBatchNorm(nn.Module):
    """Batch norm over valid frames only, with statistics summed over ranks.

    `seqssl.training.parallel.Replicated` replaces `all_reduce`. Under activation checkpointing the running
    statistics are updated at the recomputation too, which only makes them follow faster. A batch whose sums
    are not finite leaves them as they are, and so does one of fewer than two frames, which is normalized by
    them. Without `affine` nothing is learned.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.1, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None
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
            several = sums[-1] > 1  # one frame has no variance, and none has no mean
            with torch.no_grad():
                unbiased = var * (sums[-1] / (sums[-1] - 1).clamp(min=1))
                whole = sums.isfinite().all() & several
                for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                    running.copy_(torch.where(whole, running.lerp(now, self.momentum), running))
            mean = torch.where(several, mean, self.running_mean)
            var = torch.where(several, var, self.running_var)
        scale = torch.rsqrt(var + self.eps)
        if self.weight is None or self.bias is None:
            return (x * scale - mean * scale).to(x.dtype)
        scale = self.weight * scale
        return (x * scale + (self.bias - mean * scale)).to(x.dtype)
