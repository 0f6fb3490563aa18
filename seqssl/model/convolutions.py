"""Convolutions whose sums can be trusted on any CPU."""

import torch
from torch import Tensor, nn

# oneDNN's bfloat16 kernels for CPUs with AMX add up wrongly where a group has an even number of input
# channels below this, and windows overlap: relative errors of 0.7 to 1.1 (docs/decisions/0012-bfloat16.md).
SAFE_CHANNELS = 16


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` that is computed in full precision on a CPU where its bfloat16 kernels may be wrong.

    These have 2 to 15 input channels in a group. Weights in bfloat16 are taken as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, t) to (b, d, s), as `torch.nn.Conv1d`; the name of the argument is that of torch."""
        channels = self.in_channels // self.groups
        if input.device.type != "cpu" or not 1 < channels < SAFE_CHANNELS:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))
