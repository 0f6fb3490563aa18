"""An adapter that gives codes and segments rightly, and versions of it with one mistake each."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from seqssl.data.adapters import Row, Sample, SampleSpec
from seqssl.model.types import Segment
from seqssl.testing.mocks.adapters import NumberFiles

STRIDE, SIZES = 2, (3, 2)


class AnnotatedNumbers(NumberFiles):
    """Each row is one segment, and has two codes for every two steps; nothing is wrong with it."""

    spec = SampleSpec(dtype="float32", units="numbers", rate_hz=1.0, code_stride=STRIDE, codebook_sizes=SIZES)

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """The codes count up, each modulo the size of its codebook."""
        sample = super().load(row, rng)
        frames = np.arange(-(-len(sample.values) // STRIDE))
        codes = np.stack([frames % size for size in SIZES], axis=1)
        return replace(sample, codes=codes, segments=(Segment(0, len(sample.values), "row"),))


class CodesOutOfRange(AnnotatedNumbers):
    """A code that its codebook does not have."""

    fails: ClassVar = {"codes_fit_the_spec"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """One more than there are."""
        sample = super().load(row, rng)
        return replace(sample, codes=np.full_like(sample.codes, SIZES[0]))


class CodesAtAnotherRate(AnnotatedNumbers):
    """A code for each step, where the spec says one for every two."""

    fails: ClassVar = {"codes_fit_the_spec"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """Twice as many codes, and one more."""
        sample = super().load(row, rng)
        return replace(sample, codes=np.zeros((len(sample.values) + 1, len(SIZES)), int))


class CodesUnannounced(AnnotatedNumbers):
    """The spec says nothing of codes."""

    fails: ClassVar = {"codes_fit_the_spec"}
    spec = NumberFiles.spec


class CodesNowAndThen(AnnotatedNumbers):
    """Long rows have codes, others have none."""

    fails: ClassVar = {"codes_and_segments_are_given_always_or_never"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """None below 20 steps."""
        sample = super().load(row, rng)
        return sample if len(sample.values) > 20 else replace(sample, codes=None)


class SegmentsBeyondTheEnd(AnnotatedNumbers):
    """A segment ends after its row."""

    fails: ClassVar = {"segments_lie_in_the_row"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """One step too late."""
        sample = super().load(row, rng)
        return replace(sample, segments=(Segment(0, len(sample.values) + 1, "row"),))


class EmptySegments(AnnotatedNumbers):
    """A segment without a step."""

    fails: ClassVar = {"segments_lie_in_the_row"}

    def load(self, row: Row, rng: np.random.Generator | None) -> Sample:
        """Its end is its start."""
        return replace(super().load(row, rng), segments=(Segment(0, 0, "nothing"),))
