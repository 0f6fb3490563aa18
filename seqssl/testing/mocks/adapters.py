"""A tiny adapter for text files of numbers, and versions of it with one mistake each."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import nn

from seqssl.data.adapters import Record, Rejected, Row, Rows, Sample, SampleSpec
from seqssl.model.features import Conv1dStack


def read_numbers(path: Path) -> Row:
    """One number a line; `ValueError` where a line is something else."""
    values = np.array(path.read_text().split(), dtype=np.float32)
    return {"length": len(values), "values": values}


class NumberFiles:
    """Every `*.txt` file is a row, one number a line; by itself nothing is wrong with it."""

    fails: ClassVar[set[str]] = set()
    spec = SampleSpec(dtype="float32", units="whatever was written down", rate_hz=1.0)

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """Files in the order of their names; an empty one is rejected."""
        for path in sorted(source.glob("*.txt")):
            if path.stat().st_size:
                yield Record(path.name, partial(read_numbers, path))
            else:
                yield Rejected(path.name, "the file is empty")

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """The numbers; in training with a sign drawn at random."""
        sign = np.float32(1 if rng is None else rng.choice([-1, 1]))
        return Sample(row["values"] * sign)

    def feature_encoder(self, dim: int) -> nn.Module:
        """Two small convolutions."""
        return Conv1dStack(1, dim=dim, kernels=(4, 3), strides=(2, 2))


class NoUnits(NumberFiles):
    """Nobody knows what a value means."""

    fails: ClassVar = {"spec_is_complete"}
    spec = SampleSpec(dtype="float32", units="")


class HoldsALambda(NumberFiles):
    """Cannot travel to a loader worker."""

    fails: ClassVar = {"adapter_is_picklable"}

    def __init__(self) -> None:
        self.transform = lambda values: values


class ReadsByLambda(NumberFiles):
    """Records cannot travel to a reader."""

    fails: ClassVar = {"records_are_picklable"}

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """A closure over the path."""
        for path in sorted(source.glob("[0-9]*.txt")):
            yield Record(path.name, lambda path=path: read_numbers(path))  # type: ignore[misc]


class AsListed(NumberFiles):
    """Files in the order of the file system."""

    fails: ClassVar = {"records_come_in_one_order"}

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """No sort."""
        for name in os.listdir(source):
            yield Record(name, partial(read_numbers, source / name))


class SameKey(NumberFiles):
    """All rows have one key."""

    fails: ClassVar = {"keys_are_unique"}

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """The folder is not a key."""
        for path in sorted(source.glob("[0-9]*.txt")):
            yield Record(source.name, partial(read_numbers, path))


def read_objects(path: Path) -> Row:
    """A column that no file can hold."""
    return {**read_numbers(path), "path": object()}


class StoresObjects(NumberFiles):
    """A column that cannot be stored."""

    fails: ClassVar = {
        "read_gives_a_length_and_storable_columns",
        "read_is_deterministic",
        "load_gives_what_the_spec_says",
        "load_agrees_with_the_length",
        "load_without_rng_is_deterministic",
        "load_draws_only_from_its_rng",
        "load_never_changes_the_row",
        "observed_and_times_are_given_always_or_never",
        "codes_fit_the_spec",
        "segments_lie_in_the_row",
        "codes_and_segments_are_given_always_or_never",
        "feature_encoder_reads_samples",
    }

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """With objects."""
        for path in sorted(source.glob("[0-9]*.txt")):
            yield Record(path.name, partial(read_objects, path))


def read_one_too_many(path: Path) -> Row:
    """The length of the text, not of the numbers."""
    return {**read_numbers(path), "length": len(path.read_text())}


class WrongLength(NumberFiles):
    """`length` counts something else."""

    fails: ClassVar = {"load_agrees_with_the_length"}

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """With a wrong length."""
        for path in sorted(source.glob("[0-9]*.txt")):
            yield Record(path.name, partial(read_one_too_many, path))


class DoublePrecision(NumberFiles):
    """float64 where the spec says float32."""

    fails: ClassVar = {"load_gives_what_the_spec_says", "feature_encoder_reads_samples"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """numpy's default type."""
        return Sample(np.array(row["values"], dtype=np.float64))


class MissingIsNan(NumberFiles):
    """What is missing becomes NaN."""

    fails: ClassVar = {"load_gives_what_the_spec_says", "feature_encoder_reads_samples"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """Small values count as missing."""
        values = row["values"]
        return Sample(np.where(values < values.mean(), np.float32("nan"), values), label="nan")


class ScalesInPlace(NumberFiles):
    """Augmentation works on the row itself."""

    fails: ClassVar = {
        "load_never_changes_the_row",
        "load_gives_what_the_spec_says",
        "load_draws_only_from_its_rng",
        "codes_fit_the_spec",
        "segments_lie_in_the_row",
    }

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """Louder each epoch."""
        values = row["values"]
        if rng is not None:
            values *= np.float32(2)
        return Sample(values)


class GlobalAugmentation(NumberFiles):
    """Augmentation draws from numpy's global state."""

    fails: ClassVar = {"load_draws_only_from_its_rng"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """`rng` only says whether."""
        values = row["values"]
        return Sample(values if rng is None else values * np.float32(np.random.rand()))


class AugmentsEvaluation(NumberFiles):
    """Noise without an rng."""

    fails: ClassVar = {"load_without_rng_is_deterministic"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """Makes a generator of its own."""
        rng = rng or np.random.default_rng()
        return Sample(row["values"] + rng.standard_normal(row["length"], np.float32))


class ReadsChannels(NumberFiles):
    """A feature encoder for other samples."""

    fails: ClassVar = {"feature_encoder_reads_samples"}

    def feature_encoder(self, dim: int) -> nn.Module:
        """Two channels."""
        return Conv1dStack(2, dim=dim, kernels=(4, 3), strides=(2, 2))


def read_parts(path: Path, mistake: str) -> Rows:
    """Two halves of a file, with one mistake."""
    columns = read_numbers(path)
    values = columns["values"]
    assert isinstance(values, np.ndarray)
    middle = max(1, len(values) // 2)
    mistakes: dict[str, Row] = {"twice": {"part": "same"}, "weight": {"weight": -1.0}}
    mistaken = mistakes.get(mistake, {})
    rows = [
        {"length": len(half), "values": half, "part": place, **mistaken}
        for half, place in ((values[:middle], "first"), (values[middle:], "second"))
        if len(half)
    ]
    quality: dict[str, float] = {"num_values": len(values)}
    if mistake == "quality":
        quality["mean"] = float("nan")
    elif mistake == "column":
        rows[0]["loud"] = 1
    return Rows(rows, quality)


class InParts(NumberFiles):
    """Files of many rows; which mistake they have is for subclasses to say."""

    mistake: ClassVar[str] = ""

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """Halves of files."""
        for path in sorted(source.glob("[0-9]*.txt")):
            yield Record(path.name, partial(read_parts, path, self.mistake))


class SamePart(InParts):
    """Two rows of a file have one name."""

    fails: ClassVar = {"parts_and_quality_can_be_stored"}
    mistake = "twice"


class NegativeWeight(InParts):
    """Rows that count less than not at all."""

    fails: ClassVar = {"parts_and_quality_can_be_stored"}
    mistake = "weight"


class QualityOfNan(InParts):
    """A figure that JSON cannot hold."""

    fails: ClassVar = {"parts_and_quality_can_be_stored"}
    mistake = "quality"


class ColumnOfSomeRows(InParts):
    """A column that only some rows have."""

    fails: ClassVar = {"rows_have_the_same_columns"}
    mistake = "column"


class ObservedSometimes(NumberFiles):
    """Says what is observed where something is missing, and is silent elsewhere."""

    fails: ClassVar = {"observed_and_times_are_given_always_or_never"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """Rows with a negative number have gaps."""
        values = row["values"]
        present = values > np.min(values)
        return Sample(values * present, observed=present) if len(values) > 20 else Sample(values)


class GapsKeepTheirValues(NumberFiles):
    """Marks what is missing, and leaves a sentinel in its place."""

    fails: ClassVar = {"observed_and_times_are_given_always_or_never"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """-999 where the number is the smallest of several."""
        values = row["values"]
        present = (values > np.min(values)) | (len(values) == 1)
        return Sample(np.where(present, values, np.float32(-999)).astype(np.float32), observed=present)
