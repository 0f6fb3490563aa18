"""The state of a voice of ABC notation while it is being read."""

from dataclasses import dataclass, field
from fractions import Fraction

from modalities.music.keys import Key


@dataclass
class Event:
    """A note, chord or rest that has just been read: what a broken rhythm or a tie behind it changes."""

    start: Fraction
    duration: Fraction
    first: int  # its notes are those from here to
    last: int
    ties: set[int] = field(default_factory=set)  # pitches that go on


@dataclass
class Voice:
    """One voice: it has its own time, key and length of notes."""

    key: Key
    unit: Fraction  # in quarters
    shift: int = 0  # semitones, of a clef or a transposition
    time: Fraction = Fraction(0)
    bar_start: Fraction = Fraction(0)
    reach: Fraction = Fraction(0)  # the end of the longest overlay of this bar
    accidentals: dict[str, int] = field(default_factory=dict)  # of this bar
    ties: dict[int, str] = field(default_factory=dict)  # pitch -> place of a note that goes on
    event: Event | None = None
    factor: Fraction = Fraction(1)  # of the next event, by a broken rhythm
    tuplet: Fraction = Fraction(1)
    tuplet_left: int = 0
    bars: list[Fraction] = field(default_factory=list)
