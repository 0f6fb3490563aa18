"""Blocks with one mistake each; `fails` names the checks that must find it."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from seqssl.model.types import Frames
from seqssl.testing.mocks.mixers import DropsFrames


class BrokenBlock(nn.Module):
    """A leaky sum of the frames before, that can be run step by step; by itself nothing is wrong with it."""

    fails: ClassVar[set[str]] = set()
    keep = 0.5

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """One step after the other."""
        state, outputs = self.init_state(len(x)), []
        for frame, valid in zip(x.unbind(1), frames.valid.unbind(1), strict=True):
            y, state = self.step(frame * valid[:, None], state)
            outputs.append(y)
        return torch.stack(outputs, dim=1)

    def init_state(self, num_rows: int) -> Tensor:
        """Nothing came before."""
        return torch.zeros(num_rows, self.linear.out_features)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Half of the past, and the frame."""
        state = self.keep * state + self.linear(x)
        return x + state, state


class ForgetsItsState(BrokenBlock):
    """Step by step each frame is the first; the whole row is right."""

    fails: ClassVar = {"step_by_step_is_the_row_at_once"}

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """With the state that `step` leaves out."""
        state, outputs = self.init_state(len(x)), []
        for frame, valid in zip(x.unbind(1), frames.valid.unbind(1), strict=True):
            state = self.keep * state + self.linear(frame * valid[:, None])
            outputs.append(frame * valid[:, None] + state)
        return torch.stack(outputs, dim=1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The state that comes in is not read."""
        state = self.linear(x)
        return x + state, state


class SeesTheFuture(BrokenBlock):
    """It offers steps, and yet a row at once reads the frame to come."""

    fails: ClassVar = {"step_by_step_is_the_row_at_once", "the_future_never_changes_the_past"}

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """The next frame is added, if it is valid."""
        ahead = (x * frames.valid[..., None]).roll(-1, dims=1)
        ahead = torch.cat([ahead[:, :-1], torch.zeros_like(ahead[:, :1])], dim=1)
        return super().forward(x, frames) + ahead


class DividesByTime(BrokenBlock):
    """The first frame is at 0 seconds."""

    fails: ClassVar = {"times_may_be_known"}

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Later frames count less."""
        y = super().forward(x, frames)
        return y if frames.times is None else y / frames.times[..., None]


class LosesAFrame(BrokenBlock):
    """One frame too few."""

    fails: ClassVar = DropsFrames.fails | {"step_by_step_is_the_row_at_once"}

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """The last one is gone."""
        return super().forward(x, frames)[:, :-1]


class ReadsPadding(BrokenBlock):
    """The mean is over all frames."""

    fails: ClassVar = {
        "padding_never_changes_a_frame",
        "padding_gets_no_gradient",
        "step_by_step_is_the_row_at_once",
        "the_future_never_changes_the_past",
    }

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Padding too."""
        return super().forward(x, frames) + x.mean(1, keepdim=True)
