"""What flows through the core, and what an adapter speaks.

Letters, everywhere in this package:
b batch, t input time, c channels, s frames, d width, n masked frames (flat over rows),
g codebooks, v entries per codebook, q code width, k negatives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
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


@dataclass(frozen=True)
class SampleSpec:
    """The input contract of a modality; it is stored in every checkpoint."""

    dtype: str  # "float32" or "int64"
    units: str  # what one value means: "amplitude in [-1, 1]", "g", "token id", ...
    channels: int | None = None  # None: samples have no channel axis
    vocab_size: int | None = None  # for int64 inputs
    rate_hz: float | None = None  # input steps per second; None: not a time series
    max_len: int | None = None  # longest row in input steps; None: no limit
    channel_names: tuple[str, ...] | None = None  # one per channel
    symbols: str | None = None  # one character per id, where the ids have such names
    missing_id: int | None = None  # the id that stands for "unknown": never observed

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> "SampleSpec":
        """A spec from JSON or YAML, which know lists only."""
        names = values.get("channel_names")
        return cls(**{**values, "channel_names": None if names is None else tuple(names)})


@dataclass(frozen=True)
class Sample:
    """One row, ready to be batched."""

    values: Shaped[np.ndarray, "t *c"]
    label: str = ""
    group: str = ""
    observed: Bool[np.ndarray, "t *c"] | None = None  # False = missing; of the values' shape
    times: Float[np.ndarray, "t"] | None = None  # seconds


@dataclass(frozen=True)
class Rows:
    """Many rows from one read (the windows of a long recording), with what was noticed on the way.

    Each row is a mapping like the one of a `Record` that gives a single row. A text `part` in it makes the
    row's key `<record's key>#<part>` (its number where there is none, nothing where it is empty). `quality`
    is written to quality.jsonl: counts, errors before and after a correction, what was left out and why.
    """

    rows: Sequence[Mapping[str, object]]
    quality: Mapping[str, object] = field(default_factory=dict)  # plain JSON values


@dataclass(frozen=True)
class Record:
    """A row, or a file of rows, found in raw files.

    `read` is the expensive part and runs in a worker process, so it must be picklable (a
    `functools.partial`, a bound method). It returns the columns to store, or `Rows` of them, and raises
    `ValueError` with the reason when the data is bad. Columns with a meaning: `length` (int, input steps,
    needed), `label` (text, instead of the record's), `weight` (float, how often training draws the row
    relative to others; 1 where the column is missing).
    """

    key: str  # unique in the source and stable: a relative path, with an offset where needed
    read: Callable[[], Mapping[str, object] | Rows]
    group: str = ""  # speaker, subject, chromosome, piece, station
    label: str = ""
    split: str = ""  # a split that the source itself gives; "" = drawn by `prepare`


@dataclass(frozen=True)
class Rejected:
    """A raw file or row that cannot be used, and why."""

    path: str
    reason: str
