"""Mixers with one mistake each; `fails` names the checks that must find it."""

from typing import ClassVar

import torch
from torch import Tensor

from seqssl.model.mixers import Attention
from seqssl.model.types import Frames


class BrokenMixer(Attention):
    """By itself nothing is wrong with it."""

    fails: ClassVar[set[str]] = set()

    def __init__(self, dim: int) -> None:
        super().__init__(dim, num_heads=2)


class SeesPadding(BrokenMixer):
    """The mask is not used."""

    fails: ClassVar = {"padding_never_changes_a_frame", "padding_gets_no_gradient"}

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """All frames are attended to."""
        return super().forward(x, Frames(torch.ones_like(frames.valid)))


class SeesEveryRow(BrokenMixer):
    """A mean over the batch."""

    fails: ClassVar = {"batch_mates_never_change_a_frame", "padding_never_changes_a_frame"}

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Valid frames only, at least."""
        valid = x * frames.valid[..., None]
        mean = valid.sum((0, 1)) / frames.valid.sum().clamp(min=1)
        return super().forward(x, frames) + mean


class SeesTheRowNumber(BrokenMixer):
    """The row's place in the batch leaks in."""

    fails: ClassVar = {"rows_may_be_permuted", "padding_never_changes_a_frame"}

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Row 0 gets 0, row 1 gets 1, ..."""
        return super().forward(x, frames) + torch.arange(len(x))[:, None, None]


class MixesNothing(BrokenMixer):
    """Each frame for itself."""

    fails: ClassVar = {"moves_information_between_frames"}

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Attention to oneself."""
        value = self.query_key_value(x).chunk(3, dim=-1)
        mixed: Tensor = self.output(value[0] * value[1] + value[2])
        return mixed


class DropsFrames(BrokenMixer):
    """The last frame is lost."""

    fails: ClassVar = {
        "keeps_shape_and_stays_finite",
        "padding_never_changes_a_frame",
        "padding_gets_no_gradient",
        "rows_may_be_permuted",
        "gradient_reaches_every_parameter",
        "bfloat16_agrees_with_float32",
        "times_may_be_known",
    }

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """An even kernel, padded badly."""
        return super().forward(x, frames)[:, :-1]


class Detached(BrokenMixer):
    """The output layer alone is trained."""

    fails: ClassVar = {
        "moves_information_between_frames",
        "gradient_reaches_every_parameter",
        "padding_gets_no_gradient",
    }

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Under no_grad."""
        with torch.no_grad():
            return super().forward(x, frames)


class DropsInEvaluation(BrokenMixer):
    """Dropout that never stops."""

    fails: ClassVar = {
        "is_deterministic",
        "padding_never_changes_a_frame",
        "batch_mates_never_change_a_frame",
        "rows_may_be_permuted",
        "bfloat16_agrees_with_float32",
    }

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """training is always true."""
        return torch.nn.functional.dropout(super().forward(x, frames), 0.5)
