"""Maskings with one mistake each; `fails` names the checks that must find it."""

from typing import ClassVar

import torch
from torch import Generator, Tensor

from seqssl.model.masking import SpanMasking


class BrokenMasking:
    """A plain class, which will do for a masking; by itself nothing is wrong with it."""

    fails: ClassVar[set[str]] = set()

    def __init__(self, input_dim: int) -> None:
        self.sound = SpanMasking(input_dim, start_prob=0.1, span=3)

    def sample(self, lengths: Tensor, generator: Generator) -> Tensor:
        """As it should be."""
        return self.sound.sample(lengths, generator)

    def apply(self, x: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """As it should be."""
        return self.sound.apply(x, mask, generator)


class MasksPadding(BrokenMasking):
    """Spans run on behind the row."""

    fails: ClassVar = {"padding_is_never_masked"}

    def sample(self, lengths: Tensor, generator: Generator) -> Tensor:
        """As if all rows were the longest."""
        return super().sample(lengths.max().expand_as(lengths), generator)


class OneMaskForAll(BrokenMasking):
    """The shortest long row's mask for all."""

    fails: ClassVar = {"rows_get_masks_of_their_own"}

    def sample(self, lengths: Tensor, generator: Generator) -> Tensor:
        """Draw one row, cut it to each length."""
        longest = lengths.max()
        mask = super().sample(longest[None], generator)
        return mask & (torch.arange(int(longest)) < lengths[:, None])


class MasksNothing(BrokenMasking):
    """The start probability got lost."""

    fails: ClassVar = {
        "long_rows_are_masked_in_part",
        "rows_get_masks_of_their_own",
        "sample_draws_only_from_its_generator",
    }

    def sample(self, lengths: Tensor, generator: Generator) -> Tensor:
        """All false."""
        return torch.zeros_like(super().sample(lengths, generator))


class GlobalSpans(BrokenMasking):
    """Spans come from torch's global random state."""

    fails: ClassVar = {"sample_draws_only_from_its_generator"}

    def sample(self, lengths: Tensor, generator: Generator) -> Tensor:
        """The generator is not used."""
        return super().sample(lengths, torch.default_generator)


class GlobalFill(BrokenMasking):
    """Fills come from torch's global random state."""

    fails: ClassVar = {"apply_draws_only_from_its_generator", "apply_hides_what_is_masked"}

    def apply(self, x: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """The generator is not used."""
        return super().apply(x, mask, torch.default_generator)


class MaskOfNumbers(BrokenMasking):
    """A mask of zeros and ones."""

    fails: ClassVar = {"sample_has_one_entry_per_frame"}

    def sample(self, lengths: Tensor, generator: Generator) -> Tensor:
        """uint8, of all types."""
        return super().sample(lengths, generator).to(torch.uint8)


class FillsEverywhere(BrokenMasking):
    """Noise on all frames."""

    fails: ClassVar = {"apply_leaves_other_frames_alone", "gradient_reaches_every_parameter"}

    def apply(self, x: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """The mask is not used."""
        return super().apply(x, torch.ones_like(mask), generator)


class AddsNoise(BrokenMasking):
    """Noise is added to masked frames, not put in their place."""

    fails: ClassVar = {"apply_hides_what_is_masked", "gradient_reaches_every_parameter"}

    def apply(self, x: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """What was there shows through."""
        return super().apply(x, mask, generator) + x * mask[..., None]


class FillsInPlace(BrokenMasking):
    """The quantizer would see masked frames."""

    fails: ClassVar = {"apply_keeps_type_and_input", "gradient_reaches_every_parameter"}

    def apply(self, x: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """Writes into its input."""
        return x.mul_(~mask[..., None])


class UpcastsFrames(BrokenMasking):
    """Everything becomes float32."""

    fails: ClassVar = {"apply_keeps_type_and_input"}

    def apply(self, x: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """The input's type is lost."""
        return super().apply(x, mask, generator).float()
