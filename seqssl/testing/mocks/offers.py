"""Versions of the adapter of numbers with one mistake each in what an adapter need not offer."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from seqssl.data.adapters import Sample
from seqssl.testing.mocks.adapters import NumberFiles

Ways = Mapping[str, Callable[[Sample, np.random.Generator], Sample]]


class Offering(NumberFiles):
    """By itself it offers nothing more."""


class ShorterView(Offering):
    """A view that loses a step."""

    fails: ClassVar = {"views_are_samples_too"}

    def views(self, sample: Sample) -> list[Sample]:
        """Differences."""
        return [sample, Sample(np.diff(sample.values))]


class LosesTimes(Offering):
    """A change that gives something which other samples lack."""

    fails: ClassVar = {"augmentations_keep_the_contract"}

    @property
    def augmentations(self) -> Ways:
        """Numbers its steps."""
        return {"numbered": lambda sample, rng: replace(sample, times=np.arange(len(sample.values)))}


class ChangesInPlace(Offering):
    """A change of the very sample that was given."""

    fails: ClassVar = {"augmentations_keep_the_contract"}

    @property
    def augmentations(self) -> Ways:
        """Turns the sign."""
        return {"sign": lambda sample, rng: replace(sample, values=np.negative(sample.values, sample.values))}


class ChangesByItself(Offering):
    """A change that draws from numpy's global state."""

    fails: ClassVar = {"augmentations_keep_the_contract"}

    @property
    def augmentations(self) -> Ways:
        """Louder or softer."""
        return {"gain": lambda s, rng: replace(s, values=s.values * np.float32(np.random.rand()))}


class ForeignView(Offering):
    """The sample itself is not among its views."""

    fails: ClassVar = {"views_are_samples_too"}

    def views(self, sample: Sample) -> list[Sample]:
        """Only the other one."""
        return [Sample(sample.values + 1)]


class DescribesByLength(Offering):
    """A description as long as the row."""

    fails: ClassVar = {"descriptors_are_vectors_of_one_length"}

    def descriptors(self, sample: Sample) -> dict[str, np.ndarray]:
        """The row itself."""
        return {"values": sample.values}


class DescribesSometimes(Offering):
    """A description that only long rows have."""

    fails: ClassVar = {"descriptors_are_vectors_of_one_length"}

    def descriptors(self, sample: Sample) -> dict[str, np.ndarray]:
        """The mean, and for long rows the deviation."""
        found = {"mean": sample.values[:1] * 0 + sample.values.mean()}
        return {**found, "deviation": found["mean"]} if len(sample.values) > 20 else found
