"""Targets of a user's own: the entry of a random codebook nearest to a random projection (BEST-RQ)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from seqssl import Batch, FixedCodes


class BestRq(FixedCodes):
    """Inputs are scaled row by row; a frame is `stride` steps of all channels laid end to end."""

    projection: Tensor
    codebook: Tensor

    def __init__(
        self, stride: float, channels: int, input_dim: int, vector_dim: int, *, num_entries: int = 16
    ) -> None:
        super().__init__((num_entries,), input_dim, vector_dim)
        self.stride = round(stride)
        self.register_buffer("projection", torch.randn(self.stride * channels, 8))
        self.register_buffer("codebook", F.normalize(torch.randn(num_entries, 8), dim=-1))

    def usable(self, batch: Batch, valid: Tensor) -> Tensor:
        return valid

    def codes_of(self, batch: Batch, num_frames: int) -> Tensor:
        valid = (torch.arange(batch.inputs.shape[1], device=batch.lengths.device) < batch.lengths[:, None])[
            ..., None
        ]
        count = valid.sum(1, keepdim=True)
        x = (batch.inputs - (batch.inputs * valid).sum(1, keepdim=True) / count) * valid
        x = x / (x.square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-6)
        missing = num_frames * self.stride - x.shape[1]
        x = F.pad(x, (0, 0, 0, max(0, missing)))[:, : num_frames * self.stride]
        frames = x.reshape(len(x), num_frames, -1)
        return (F.normalize(frames @ self.projection, dim=-1) @ self.codebook.T).argmax(-1, keepdim=True)
