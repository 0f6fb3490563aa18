"""Targets with one mistake each; `fails` names the checks that must find it."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from seqssl.model.quantizers import GumbelProductQuantizer
from seqssl.model.targets import LearnedCodes
from seqssl.model.types import Batch, Features, MaskedFrames, Quantized

INPUT_DIM = 6


class BrokenTargets(LearnedCodes):
    """By itself nothing is wrong with it."""

    fails: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__(GumbelProductQuantizer(INPUT_DIM, num_codebooks=2, codebook_size=5, dim=4))

    def forward(
        self,
        batch: Batch,
        features: Features,
        frames: MaskedFrames,
        *,
        temperature: float | None,
        generator: Generator | None,
    ) -> Quantized:
        """The codes, changed by what a subclass does to them."""
        found = super().forward(batch, features, frames, temperature=temperature, generator=generator)
        return self.changed(found, batch, features)

    def changed(self, found: Quantized, batch: Batch, features: Features) -> Quantized:
        """Nothing."""
        return found


class UsablePadding(BrokenTargets):
    """Every frame has a target, it says."""

    fails: ClassVar = {
        "usable_frames_are_valid",
        "everywhere_says_the_same",
        "padding_never_changes_a_code",
    }

    def usable(self, batch: Batch, valid: Tensor) -> Tensor:
        """Those of padding too."""
        return torch.ones_like(valid)


class OtherWidth(BrokenTargets):
    """The vectors are not as wide as announced."""

    fails: ClassVar = {"sizes_are_as_announced"}

    def changed(self, found: Quantized, batch: Batch, features: Features) -> Quantized:
        """One entry is cut off."""
        return replace(found, vectors=found.vectors[:, :-1])


class CodeTooHigh(BrokenTargets):
    """Codes count from 1."""

    fails: ClassVar = {"codes_are_in_range", "everywhere_says_the_same"}

    def changed(self, found: Quantized, batch: Batch, features: Features) -> Quantized:
        """One more than there are."""
        return replace(found, codes=found.codes + 4)


class UsageIsASum(BrokenTargets):
    """Not the mean use of entries, but how often they were used."""

    fails: ClassVar = {"usage_sums_to_one"}

    def changed(self, found: Quantized, batch: Batch, features: Features) -> Quantized:
        """Times the number of frames."""
        return replace(found, usage=found.usage * max(2, len(found.codes)))


class NormedOverFrames(BrokenTargets):
    """Vectors are centered over the frames that are asked for."""

    fails: ClassVar = {"a_target_is_its_frames_own"}

    def changed(self, found: Quantized, batch: Batch, features: Features) -> Quantized:
        """Their mean is taken off."""
        return replace(found, vectors=found.vectors - found.vectors.mean(0))


class CodesOnPadding(BrokenTargets):
    """Padding has code 0."""

    fails: ClassVar = {"everywhere_says_the_same"}

    def everywhere(self, batch: Batch, features: Features) -> Tensor:
        """Where it should be -1."""
        return super().everywhere(batch, features).clamp(min=0)


class ScaledByThePaddedInput(BrokenTargets):
    """The mean of a batch's inputs counts padding in."""

    fails: ClassVar = {"padding_never_changes_a_code"}

    def changed(self, found: Quantized, batch: Batch, features: Features) -> Quantized:
        """It is added to the vectors."""
        return replace(found, vectors=found.vectors + batch.inputs.float().mean())


class DrawsAlways(BrokenTargets):
    """Noise where nobody asked for it."""

    fails: ClassVar = {
        "is_deterministic_without_noise",
        "a_target_is_its_frames_own",
        "padding_never_changes_a_code",
    }

    def changed(self, found: Quantized, batch: Batch, features: Features) -> Quantized:
        """From torch's global generator."""
        return replace(found, vectors=found.vectors + torch.randn_like(found.vectors))
