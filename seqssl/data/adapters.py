"""The interface of an adapter: everything that seqssl knows about a kind of data."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from seqssl.data.wording import printable, reason_of, shortened
from seqssl.model.protocols import FeatureEncoder
from seqssl.model.types import Segment

Row = Mapping[str, Any]  # the columns of a stored row: text, numbers, bytes, arrays of one or two dimensions


@dataclass(frozen=True)
class SampleSpec:
    """The input contract of a modality; it is stored with every prepared folder and every run."""

    dtype: str  # "float32" or "int64"
    units: str  # what one value means: "amplitude in [-1, 1]", "g", "token id", ...
    channels: int | None = None  # None: samples have no channel axis
    vocab_size: int | None = None  # for int64 inputs
    rate_hz: float | None = None  # input steps per second; None: not a time series
    max_len: int | None = None  # longest row in input steps; None: no limit
    channel_names: tuple[str, ...] | None = None  # one per channel
    symbols: str | None = None  # one character per id, where the ids have such names
    code_stride: int | None = None  # input steps of a code, where samples come with codes
    codebook_sizes: tuple[int, ...] | None = None  # of those codes
    missing_id: int | None = None  # the id that stands for "unknown": never observed

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> "SampleSpec":
        """A spec from JSON or YAML, which have lists in the place of tuples."""
        known: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**known)


@dataclass(frozen=True)
class Sample:
    """One row, ready to be batched."""

    values: Shaped[np.ndarray, "t *c"]
    label: object = ""  # of the whole row; a task knows what it is
    group: str = ""
    observed: Bool[np.ndarray, "t *c"] | None = None  # False = missing; of the values' shape
    times: Float[np.ndarray, "t"] | None = None  # seconds
    codes: Int[np.ndarray, "s g"] | None = None  # one frame for each spec.code_stride steps; -1 = none
    segments: Sequence[Segment] | None = None  # labelled stretches, in input steps


@dataclass(frozen=True)
class Rows:
    """Many rows from one read (the windows of a long recording), with what was noticed on the way.

    Each row is a mapping, like the one of a `Record` that gives a single row. Its key is `<record's
    key>#<part>`, where `part` is a text in the row; without one it is the row's number, and an empty one adds
    nothing to the record's key. `quality` is written to quality.jsonl: counts, errors before and after a
    correction, what was left out and why. What a person has to check is said in sentences, which `prepare`
    counts and prints: `readings` (how the file was understood) and `notices` (what was odd or dropped).
    """

    rows: Sequence[Row]
    quality: Row = field(default_factory=dict)  # plain JSON values
    readings: Sequence[str] = ()
    notices: Sequence[str] = ()


@dataclass(frozen=True)
class Record:
    """A row, or a file of rows, found in raw files.

    `read` is the expensive part and runs in a worker process, so it must be picklable (a
    `functools.partial`, a bound method). It returns the columns to store, or `Rows` of them, and raises
    `ValueError` with the reason when the data is bad. Columns with a meaning: `length` (int, input steps,
    needed), `label` and `group` (texts, instead of the record's), `weight` (float, how often training draws
    the row relative to others; 1 where the column is missing). Splits are given to records: all rows of one
    are in the same.
    """

    key: str  # unique in the source and stable: a relative path, with an offset where needed
    read: Callable[[], Row | Rows]
    group: str = ""  # speaker, subject, chromosome, piece, station
    label: str = ""
    split: str = ""  # a split that the source itself gives; "" = drawn by `prepare`
    amount: float = 0.0  # about how much it holds, say in bytes: the held-out share is one of the amount


@dataclass(frozen=True)
class Suggestion:
    """How an adapter would read data that nobody has described: its settings, and what it takes them for."""

    words: str  # "12 recordings (.wav)"
    settings: Row = field(default_factory=dict)  # plain values, as in a recipe
    problem: str = ""  # why it cannot be read so; "" = it can


@dataclass(frozen=True)
class Rejected:
    """A raw file or row that cannot be used, and why: printable text, the reason cut to 200 characters."""

    path: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", printable(self.path))
        object.__setattr__(self, "reason", shortened(self.reason))

    @classmethod
    def of(cls, path: str, error: Exception) -> "Rejected":
        """For an error of any kind; a library's words come in brackets behind ours."""
        return cls(path, reason_of(error))


class ModalityAdapter(Protocol):
    """All that seqssl knows about a kind of data. Must be picklable (loader workers hold a copy)."""

    spec: SampleSpec

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """A cheap scan of raw files into rows.

        `source` is a folder or a file. `split` is "all", or the name of a split that the source
        itself defines. Order must not depend on the file system.
        """
        ...

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """A stored row as an array; `rng` drives augmentation, None means evaluation."""
        ...

    def feature_encoder(self, dim: int) -> FeatureEncoder:
        """The modality's default feature encoder; `dim` is the context encoder's width, as a hint."""
        ...


@runtime_checkable
class HasViews(Protocol):
    """What an adapter may offer beside `ModalityAdapter`: several samples that mean the same."""

    def views(self, sample: Sample) -> list[Sample]:
        """Samples that mean the same, with the given one; pooled embeddings are averaged over them."""
        ...


@runtime_checkable
class Augments(Protocol):
    """What an adapter may offer beside `ModalityAdapter`: ways to change a sample that leave its meaning."""

    @property
    def augmentations(self) -> Mapping[str, Callable[[Sample, np.random.Generator], Sample]]:
        """Each way by its name: a changed copy of the sample, all of whose parts still belong together."""
        ...


@runtime_checkable
class HasDescriptors(Protocol):
    """What an adapter may offer beside `ModalityAdapter`: what a classical method would describe a row by."""

    def descriptors(self, sample: Sample) -> dict[str, Float[np.ndarray, "d"]]:
        """Descriptions of a sample by name, each a vector of the same length for all samples."""
        ...


@runtime_checkable
class Continues(Protocol):
    """What an adapter of series that go on may offer: an evening judges rows without labels by forecasts.

    `own_labels` are those that the adapter gives rows itself, such as seasons by their dates: rows without
    others count as not labelled.
    """

    own_labels: Collection[str]


@runtime_checkable
class Suggests(Protocol):
    """What the class of an adapter may offer: whether a source looks like its kind of data."""

    def suggest(self, source: Path) -> Suggestion | None:
        """How it would read a file or folder; None where it would not. A class method."""
        ...


@runtime_checkable
class NamesEndings(Protocol):
    """What an adapter may offer beside `ModalityAdapter`: how the names of files end that it reads."""

    endings: Sequence[str]


@runtime_checkable
class ReadsBeside(Protocol):
    """What an adapter may offer beside `ModalityAdapter`: which files it reads outside of a source."""

    def beside(self, source: Path) -> Iterable[Path]:
        """Files whose change changes the rows of a source, such as those that a list names.

        Some need not be there: that one appears is a change, too.
        """
        ...


@runtime_checkable
class HasPicture(Protocol):
    """What an adapter may offer beside `ModalityAdapter`: a picture of a sample."""

    def picture(self, sample: Sample) -> Float[np.ndarray, "t bins"]:
        """A sample as people want to see it, where its channels do not show that."""
        ...
