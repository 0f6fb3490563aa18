"""Labels of stretches of a piece: the root of the chord that sounds, the key, the voice of a note."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int

from modalities.music.windows import DURATION, ONSET, PART, PITCH
from seqssl import Segment

KINDS = ("none", "root", "key", "voice")
NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEY_QUARTERS = 16  # over which a key is told


def segments_of(
    notes: Int[np.ndarray, "n 5"], length: int, kind: str, positions: int, *, per_note: bool
) -> tuple[Segment, ...]:
    """The labelled stretches of a window: in notes where `per_note`, else in steps of the grid.

    root: of the notes that sound in each quarter, as music21's `Chord.root` finds it. key: of each
    `KEY_QUARTERS` quarters by their pitches (Krumhansl and Schmuckler, with music21's weights). voice: the
    part of each note, from the highest; only for notes.
    """
    if kind == "voice":
        begun = notes[notes[:, ONSET] >= 0]
        return tuple(Segment(n, n + 1, f"voice {part}") for n, part in enumerate(begun[:, PART].tolist()))
    size = positions if kind == "root" else positions * KEY_QUARTERS
    last = length if not per_note else int(notes[:, ONSET].max(initial=0)) + 1
    parts = [(start, min(start + size, last), _label(notes, start, start + size, kind))
             for start in range(0, last, size)]  # fmt: skip
    known = [(start, end, label) for start, end, label in parts if label]
    return tuple(_in_notes(notes, known)) if per_note else tuple(Segment(*part) for part in known)


def _in_notes(notes: Int[np.ndarray, "n 5"], parts: list[tuple[int, int, str]]) -> Iterator[Segment]:
    """Stretches of steps as stretches of the notes that begin in them."""
    onsets = notes[notes[:, ONSET] >= 0][:, ONSET]
    for start, end, label in parts:
        first, last = np.searchsorted(onsets, [start, end]).tolist()
        if last > first:
            yield Segment(first, last, label)


def _label(notes: Int[np.ndarray, "n 5"], start: int, end: int, kind: str) -> str:
    """The label of the steps [start, end); "" where nothing sounds."""
    sounding = notes[(notes[:, ONSET] < end) & (notes[:, ONSET] + notes[:, DURATION] > start)]
    if not len(sounding):
        return ""
    if kind == "root":
        return _root(tuple(sorted({int(pitch) for pitch in sounding[:, PITCH]})))
    ends = np.minimum(sounding[:, ONSET] + sounding[:, DURATION], end)
    weights = np.bincount(sounding[:, PITCH] % 12, ends - np.maximum(sounding[:, ONSET], start), 12)
    return _key(weights)


@lru_cache(maxsize=4096)
def _root(pitches: tuple[int, ...]) -> str:
    """The root of a chord of MIDI pitches."""
    from music21.chord import Chord

    return NAMES[int(Chord(list(pitches)).root().pitchClass)]


@lru_cache(maxsize=1)
def _profiles() -> tuple[np.ndarray, np.ndarray]:
    """How well each pitch class fits a major and a minor key, from its tonic up."""
    from music21.analysis.discrete import KrumhanslSchmuckler

    analysis: Any = KrumhanslSchmuckler()  # type: ignore[no-untyped-call]
    return np.array(analysis.getWeights("major")), np.array(analysis.getWeights("minor"))


def _key(weights: np.ndarray) -> str:
    """The key whose profile correlates most with the time that each pitch class sounds."""
    best, name = -2.0, ""
    for mode, profile in zip(("major", "minor"), _profiles(), strict=True):
        for tonic in range(12):
            turned = np.roll(profile, tonic)
            spread = weights.std() * turned.std()
            score = float(((weights - weights.mean()) * (turned - turned.mean())).mean() / max(spread, 1e-12))
            if score > best + 1e-12:
                best, name = score, f"{NAMES[tonic]} {mode}"
    return name
