"""Feature encoders with one mistake each; `fails` names the checks that must find it."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from seqssl.data.adapters import SampleSpec
from seqssl.model.features import Conv2dSubsampling
from seqssl.model.types import Features

SPEC = SampleSpec(dtype="float32", units="any", channels=6, max_len=400)


class BrokenFeatures(Conv2dSubsampling):
    """By itself nothing is wrong with it; it reads what `SPEC` says."""

    fails: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__(6, channels=3)


class RoundsDown(BrokenFeatures):
    """The length formula of convolutions without padding."""

    fails: ClassVar = {"output_lengths_are_real"}

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """0 frames for the shortest rows."""
        return lengths // 4


class LengthsOfOneDimension(BrokenFeatures):
    """Lengths must be flat."""

    fails: ClassVar = {"output_lengths_take_any_shape"}

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Flattens."""
        return super().output_lengths(lengths.flatten())


class SeesPadding(BrokenFeatures):
    """Padding is not zeroed."""

    fails: ClassVar = {"padding_never_changes_a_frame"}

    def forward(self, inputs: Tensor, lengths: Tensor) -> Features:
        """All rows count as full."""
        x = super().forward(inputs, torch.full_like(lengths, inputs.shape[1])).x
        return Features(x, self.output_lengths(lengths))


class NormsOverTheBatch(BrokenFeatures):
    """Inputs are scaled by the loudest value of the batch."""

    fails: ClassVar = {"padding_never_changes_a_frame", "batch_mates_never_change_a_frame"}

    def forward(self, inputs: Tensor, lengths: Tensor) -> Features:
        """Peak normalization, over too much."""
        return super().forward(inputs / inputs.abs().max(), lengths)


class WrongDim(BrokenFeatures):
    """dim promises another width."""

    fails: ClassVar = {"frames_are_finite_and_dim_wide"}

    def __init__(self) -> None:
        super().__init__()
        self.dim += 1


class LogOfZero(BrokenFeatures):
    """A logarithm without a floor."""

    fails: ClassVar = {
        "frames_are_finite_and_dim_wide",
        "padding_never_changes_a_frame",
        "batch_mates_never_change_a_frame",
    }

    def forward(self, inputs: Tensor, lengths: Tensor) -> Features:
        """Minus infinity where ReLU gives 0."""
        features = super().forward(inputs, lengths)
        return Features(features.x.log(), features.lengths)


class Detached(BrokenFeatures):
    """Frozen, but it does not say so."""

    fails: ClassVar = {"gradient_reaches_every_parameter"}

    def forward(self, inputs: Tensor, lengths: Tensor) -> Features:
        """Under no_grad."""
        with torch.no_grad():
            return super().forward(inputs, lengths)


class DithersInEvaluation(BrokenFeatures):
    """A little noise on every input."""

    fails: ClassVar = {
        "is_deterministic",
        "padding_never_changes_a_frame",
        "batch_mates_never_change_a_frame",
    }

    def forward(self, inputs: Tensor, lengths: Tensor) -> Features:
        """Dither."""
        return super().forward(inputs + 0.05 * torch.randn_like(inputs), lengths)


class WritesIntoItsInputs(BrokenFeatures):
    """Rectifies the caller's tensor."""

    fails: ClassVar = {"is_deterministic"}

    def forward(self, inputs: Tensor, lengths: Tensor) -> Features:
        """In place."""
        return super().forward(F.relu(inputs, inplace=True), lengths)


class PeeksAtTheMissing(BrokenFeatures):
    """Knows what is missing, and reads it all the same."""

    fails: ClassVar = {"missing_values_never_change_a_frame"}

    def forward(self, inputs: Tensor, lengths: Tensor, observed: Tensor | None = None) -> Features:
        """Missing values count half."""
        present = torch.ones_like(inputs) if observed is None else 0.5 + 0.5 * observed
        return super().forward(inputs * present, lengths)


class NotesNoGap(BrokenFeatures):
    """Takes `observed`, and does nothing with it."""

    fails: ClassVar = {"missing_values_never_change_a_frame"}

    def forward(self, inputs: Tensor, lengths: Tensor, observed: Tensor | None = None) -> Features:
        """As if all were there."""
        return super().forward(inputs, lengths)
