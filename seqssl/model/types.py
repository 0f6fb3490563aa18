"""What flows through the core, and what an adapter speaks.

Letters, everywhere in this package:
b batch, t input time, c channels, s frames, d width, n masked frames (flat over rows),
g codebooks, v entries per codebook, q code width, k negatives.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Padded inputs; `lengths` says how much of each row is real."""

    inputs: Shaped[Tensor, "b t *c"]
    lengths: Int[Tensor, "b"]
    observed: Bool[Tensor, "b t *c"] | None = None  # False = missing, never a target; of the inputs' shape
    times: Float[Tensor, "b t"] | None = None  # seconds; None = regular
    codes: Int[Tensor, "b s g"] | None = None  # targets given from outside (HuBERT, DiscreteBERT)
    keys: list[str] = field(default_factory=list)
    stream: str = ""  # which of a joint run's kinds of data; "" where there is one

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on `device`."""

        def moved(value: Any) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return Batch(**{name: moved(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Features:
    """Frames of the feature encoder; beyond `lengths` they are padding."""

    x: Float[Tensor, "b s d"]
    lengths: Int[Tensor, "b"]

    @property
    def valid(self) -> Bool[Tensor, "b s"]:
        """True on real frames, False on padding."""
        return length_mask(self.lengths, self.x.shape[1])


@dataclass(frozen=True)
class Quantized:
    """Targets made by a quantizer, which may be followed by codes that the data give."""

    vectors: Float[Tensor, "n q"]
    codes: Int[Tensor, "n g"]
    usage: Float[Tensor, "h v"]  # of the quantizer's own codebooks: mean softmax of the clean logits

    @property
    def own(self) -> Int[Tensor, "n h"]:
        """The codes that chose the vectors; where no codebook is learned, those that the data give."""
        return self.codes[:, : len(self.usage)] if len(self.usage) else self.codes


@dataclass(frozen=True)
class MaskedFrames:
    """Where the masked frames are. Made on the CPU, so that the step never waits for the device.

    `seen`: the frames that are not masked and could have been, where an objective reads those.
    """

    mask: Bool[Tensor, "b s"]
    rows: Int[Tensor, "n"]  # the row of each masked frame, ascending
    columns: Int[Tensor, "n"]  # its frame in the row
    slots: Int[Tensor, "n"]  # its place among the masked frames of the row
    max_per_row: int
    seen: "MaskedFrames | None" = None

    @classmethod
    def of(cls, mask: Bool[Tensor, "b s"]) -> "MaskedFrames":
        """Index the true entries of `mask`."""
        rows, columns = mask.nonzero(as_tuple=True)
        slots = mask.cumsum(dim=1)[rows, columns] - 1
        return cls(mask, rows, columns, slots, int(mask.sum(dim=1).max()))

    def to(self, device: torch.device | str) -> "MaskedFrames":
        """The same frames on `device`."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return MaskedFrames(
            moved(self.mask),
            moved(self.rows),
            moved(self.columns),
            moved(self.slots),
            self.max_per_row,
            None if self.seen is None else self.seen.to(device),
        )

    def take(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "n d"]:
        """The masked frames of `x`."""
        return x[self.rows, self.columns]

    def pack(self, x: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "b m d"]:
        """Flat masked frames to one zero-padded line per row; m = max_per_row."""
        packed = x.new_zeros(self.mask.shape[0], self.max_per_row, x.shape[1])
        return packed.index_put((self.rows, self.slots), x)


@dataclass(frozen=True)
class Context:
    """One tap of the context encoder, read at the masked frames (or at the seen ones)."""

    x: Float[Tensor, "n d"]
    frames: MaskedFrames
    features: Features  # the feature encoder's output, before masking


@dataclass(frozen=True)
class LossTerm:
    """Sums, never means: the loop adds them over micro-steps and ranks and divides once by `count`.

    `num_frames`: the frames that the total is over, where that is not the count; metrics show the mean
    over those.
    """

    total: Float[Tensor, ""]
    count: Shaped[Tensor, ""]
    stats: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    num_frames: Shaped[Tensor, ""] | None = None


def length_mask(lengths: Int[Tensor, "b"], size: int) -> Bool[Tensor, "b size"]:
    """True where the position is below the row's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
