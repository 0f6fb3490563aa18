"""Stretches of a sequence with their strand: open reading frames by rule, and what a window shows of any."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from modalities.dna import alphabet
from seqssl import Sample, Segment

STOPS = ((3, 0, 0), (3, 0, 2), (3, 2, 0))  # TAA, TAG, TGA as ids A C G T
START = (0, 3, 2)  # ATG
FORWARD, REVERSE = "forward", "reverse"
TURNED = {FORWARD: REVERSE, REVERSE: FORWARD}


def open_frames(ids: Int[np.ndarray, "t"], least: int) -> list[Segment]:
    """The open reading frames of at least `least` bases, in order of their start; they may overlap.

    One begins at the first ATG behind a stop, or at the first codon of the row, and ends with a stop, or with
    the last codon of the row: a row is a window, which genes cross. On the other strand the same holds for
    the reverse complement. `ids` are 0 to 3 for A C G T; anything else ends a frame.
    """
    found = [Segment(start, end, FORWARD) for start, end in _frames(ids)]
    size, other = len(ids), np.where(ids < 4, 3 - ids, 4)[::-1]
    found += [Segment(size - end, size - start, REVERSE) for start, end in _frames(other)]
    kept = [segment for segment in found if segment.end - segment.start >= least]
    return sorted(kept, key=lambda segment: (segment.start, segment.end))


def stretches_within(
    stretches: Sequence[tuple[int, int, str]], start: int, stop: int, *, reverse: bool = False
) -> tuple[tuple[int, int, str], ...]:
    """What lies in the bases [start, stop) of stretches (start, end, strand), counted from there.

    With `reverse` it is that of the other strand of these bases, counted in its direction.
    """
    found = [
        (max(first - start, 0), min(last, stop) - start, strand)
        for first, last, strand in stretches
        if first < stop and last > start
    ]
    if reverse:
        size = stop - start
        found = sorted((size - last, size - first, TURNED[strand]) for first, last, strand in found)
    return tuple(found)


def _frames(ids: Int[np.ndarray, "t"]) -> Iterator[tuple[int, int]]:
    """Start and end of each open frame of one strand, in all three phases."""
    for phase in range(3):
        codons = ids[phase : phase + (len(ids) - phase) // 3 * 3].reshape(-1, 3)
        is_stop = np.zeros(len(codons), bool)
        for stop in STOPS:
            is_stop |= (codons == stop).all(1)
        broken = (codons > 3).any(1)
        is_start = (codons == START).all(1)
        begin: int | None = 0
        for place in np.flatnonzero(is_stop | broken | is_start).tolist():
            if is_start[place]:
                begin = place if begin is None else begin
                continue
            if begin is not None and place > begin:
                yield phase + 3 * begin, phase + 3 * (place + int(is_stop[place]))
            begin = None
        if begin is not None and begin < len(codons):
            yield phase + 3 * begin, phase + 3 * len(codons)


def other_strand(sample: Sample) -> Sample:
    """A sample of the other strand; copies, since torch takes no arrays that run backwards."""
    observed = None if sample.observed is None else sample.observed[::-1].copy()
    size = len(sample.values)
    segments = None
    if sample.segments is not None:
        segments = tuple(
            Segment(size - s.end, size - s.start, TURNED.get(str(s.label), s.label))
            for s in reversed(sample.segments)
        )
    values = alphabet.COMPLEMENT_IDS[sample.values][::-1].copy()
    return replace(sample, values=values, observed=observed, segments=segments)
