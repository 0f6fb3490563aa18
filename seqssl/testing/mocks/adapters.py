"""A tiny adapter for text files of numbers, and versions of it with one mistake each."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from seqssl.model.features import Conv1dStack
from seqssl.model.types import Record, Rejected, Sample, SampleSpec


def read_numbers(path: Path) -> dict[str, object]:
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

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
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


def read_objects(path: Path) -> dict[str, object]:
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
        "feature_encoder_reads_samples",
    }

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """With objects."""
        for path in sorted(source.glob("[0-9]*.txt")):
            yield Record(path.name, partial(read_objects, path))


def read_one_too_many(path: Path) -> dict[str, object]:
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

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """numpy's default type."""
        return Sample(np.array(row["values"], dtype=np.float64))


class MissingIsNan(NumberFiles):
    """What is missing becomes NaN."""

    fails: ClassVar = {"load_gives_what_the_spec_says", "feature_encoder_reads_samples"}

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """Small values count as missing."""
        values = row["values"]
        return Sample(np.where(values < values.mean(), np.float32("nan"), values), label="nan")


class ScalesInPlace(NumberFiles):
    """Augmentation works on the row itself."""

    fails: ClassVar = {
        "load_never_changes_the_row",
        "load_gives_what_the_spec_says",
        "load_draws_only_from_its_rng",
    }

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """Louder each epoch."""
        values = row["values"]
        if rng is not None:
            values *= np.float32(2)
        return Sample(values)


class GlobalAugmentation(NumberFiles):
    """Augmentation draws from numpy's global state."""

    fails: ClassVar = {"load_draws_only_from_its_rng"}

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """`rng` only says whether."""
        values = row["values"]
        return Sample(values if rng is None else values * np.float32(np.random.rand()))


class AugmentsEvaluation(NumberFiles):
    """Noise without an rng."""

    fails: ClassVar = {"load_without_rng_is_deterministic"}

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """Makes a generator of its own."""
        rng = rng or np.random.default_rng()
        return Sample(row["values"] + rng.standard_normal(row["length"]).astype(np.float32))


class ReadsChannels(NumberFiles):
    """A feature encoder for other samples."""

    fails: ClassVar = {"feature_encoder_reads_samples"}

    def feature_encoder(self, dim: int) -> nn.Module:
        """Two channels."""
        return Conv1dStack(2, dim=dim, kernels=(4, 3), strides=(2, 2))
