"""Samples cropped and joined in time: whatever belongs to a step moves with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from seqssl.data.adapters import Sample
from seqssl.model.types import Segment

T = TypeVar("T")
U = TypeVar("U")


def crop(sample: Sample, start: int, length: int, code_stride: int | None = None) -> Sample:
    """`length` steps from `start` on; where samples have codes, `start` is a multiple of their stride.

    The label stays. A segment that crosses an end is cut there.
    """
    steps = slice(start, start + length)
    codes = sample.codes
    if codes is not None:
        stride = code_stride or 1
        codes = codes[start // stride : -(-(start + length) // stride)]
    return replace(
        sample,
        values=sample.values[steps],
        observed=None if sample.observed is None else sample.observed[steps],
        times=None if sample.times is None else sample.times[steps],
        codes=codes,
        segments=None if sample.segments is None else _within(sample.segments, start, start + length),
    )


def join(samples: Sequence[Sample], code_stride: int | None = None) -> Sample:
    """Samples of one group, one after the other.

    The label is the tuple of their labels, as a text of several parts may say one thing twice; `shared_label`
    gives the one that is true of the whole. Where none has a label, neither has the whole.
    """
    if len(samples) == 1:
        return samples[0]
    lengths = [len(sample.values) for sample in samples]
    starts = np.cumsum([0, *lengths[:-1]])
    labels = [sample.label for sample in samples]
    segments = all_or_none([sample.segments for sample in samples])
    codes = all_or_none([sample.codes for sample in samples])
    observed = all_or_none([sample.observed for sample in samples])
    times = all_or_none([sample.times for sample in samples])
    return Sample(
        values=np.concatenate([sample.values for sample in samples]),
        label=tuple(labels) if any(label not in ("", None) for label in labels) else labels[0],
        group=samples[0].group,
        observed=None if observed is None else np.concatenate(observed),
        times=None if times is None else _joined_times(times),
        codes=None if codes is None else _joined_codes(codes, lengths, code_stride or 1),
        segments=None
        if segments is None
        else tuple(
            replace(segment, start=segment.start + start, end=segment.end + start)
            for own, start in zip(segments, starts.tolist(), strict=True)
            for segment in own
        ),
    )


def shared_label(label: object) -> object:
    """The label of a sample, or the one that all samples share that were joined to it; else ""."""
    if not isinstance(label, tuple):
        return label
    return label[0] if all(each == label[0] for each in label) else ""


def all_or_none(parts: Sequence[T | None]) -> list[T] | None:
    """The parts, if all of them are there; else None, because an adapter gives a thing always or never."""
    known = [part for part in parts if part is not None]
    return known if len(known) == len(parts) else None


def where_given(combine: Callable[[Sequence[T]], U], parts: Sequence[T | None]) -> U | None:
    """The parts combined, if all of them are there; else None."""
    known = all_or_none(parts)
    return None if known is None else combine(known)


def _within(segments: Sequence[Segment], start: int, end: int) -> tuple[Segment, ...]:
    """The parts of segments in [start, end), counted from `start`."""
    return tuple(
        replace(segment, start=max(segment.start, start) - start, end=min(segment.end, end) - start)
        for segment in segments
        if segment.start < end and segment.end > start
    )


def _joined_times(parts: Sequence[Float[np.ndarray, "t"]]) -> Float[np.ndarray, "t"]:
    """Times one after the other; a part begins one of its own steps after the end of the part before."""
    joined = [parts[0]]
    for part in parts[1:]:
        step = part[1] - part[0] if len(part) > 1 else 1.0
        joined.append(part - part[0] + joined[-1][-1] + step)
    return np.concatenate(joined)


def _joined_codes(
    parts: Sequence[Int[np.ndarray, "s g"]], lengths: Sequence[int], stride: int
) -> Int[np.ndarray, "s g"]:
    """The codes of the joined steps: a frame has the code of the step in its middle.

    Frames of the whole begin at multiples of the stride, wherever the parts begin:

        steps   0         10   14        24
        parts   [first row     ][second row
        codes   [  a     ][  b ][  c     ][...     stride 10; b stands for 4 steps
        frames  [  0     ][  1     ][  2           the middle of frame 1 is step 15, in c
    """
    starts = np.cumsum([0, *lengths])
    middles = np.arange(0, starts[-1], stride) + stride // 2
    middles = np.minimum(middles, starts[-1] - 1)
    part = np.searchsorted(starts, middles, side="right") - 1
    own = (middles - starts[part]) // stride
    firsts = np.cumsum([0, *map(len, parts)])[:-1]
    own = np.minimum(own, np.array([len(codes) for codes in parts])[part] - 1)
    joined: Int[np.ndarray, "s g"] = np.concatenate(parts)[firsts[part] + own]
    return joined
