"""What a score says: notes and bars, in quarters from its beginning."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

MAX_QUARTERS = 100_000.0  # a day of music; beyond it the file's times are wrong
CLOSE = 1e-6  # quarters; times of thirds and fifths are rounded


class Bar(NamedTuple):
    """A bar as far as it is written; `origin` is where it would begin were it whole (a pickup is not)."""

    start: float
    origin: float
    metre: str  # "3/4"; "" where the file does not say


class Note(NamedTuple):
    """A note as it is written."""

    onset: float
    duration: float
    pitch: int  # MIDI number
    part: int  # in the order of the file
    tied: bool = False  # it continues the note before


@dataclass(frozen=True)
class Piece:
    """A score as it is written: repeats are not unfolded, tempo and loudness are not read."""

    notes: Float[np.ndarray, "n 4"]  # onset, duration, pitch, part (0 is the highest on average)
    bars: Sequence[Bar]  # ascending, up to the end of the last note
    composer: str
    mode: str
    left_out: dict[str, int]  # what was no note, and how often
    complaints: tuple[str, ...] = ()  # of the reading package


def end_of(notes: Sequence[Note]) -> float:
    """Where the last note ends; `ValueError` where times are absurd."""
    first = min((note.onset for note in notes), default=0.0)
    last = max((note.onset + note.duration for note in notes), default=0.0)
    if first < 0 or last > MAX_QUARTERS:
        raise ValueError(f"it goes from quarter {first:.0f} to {last:.0f}: are its times right?")
    return last


def table(notes: Sequence[Note]) -> Float[np.ndarray, "n 4"]:
    """Notes by onset; parts are numbered from the highest down, as formats list them in different orders."""
    pitches: dict[int, list[int]] = {}
    for note in notes:
        pitches.setdefault(note.part, []).append(note.pitch)
    means = {part: sum(found) / len(found) for part, found in pitches.items()}
    rank = {part: number for number, part in enumerate(sorted(means, key=lambda part: (-means[part], part)))}
    rows = [(note.onset, note.duration, note.pitch, rank[note.part]) for note in sorted(notes)]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def regular_bars(metres: Sequence[tuple[float, str, float]], end: float) -> list[Bar]:
    """Equal bars from each (start, metre, quarters in a bar) to the next; 4/4 before the first."""
    if not metres or metres[0][0] > CLOSE:
        metres = [(0.0, "", 4.0), *metres]
    stops = [*(start for start, _, _ in metres[1:]), end]
    return [
        Bar(float(start), float(start), metre)
        for (first, metre, quarters), stop in zip(metres, stops, strict=True)
        for start in np.arange(first, stop, quarters)
    ]


def joined(notes: Iterable[Note]) -> list[Note]:
    """Tied notes as one, each with the note of its pitch and part that ends where it begins."""
    joined: list[Note] = []
    last: dict[tuple[int, int], int] = {}
    for note in sorted(notes):
        voice = (note.part, note.pitch)
        before = joined[last[voice]] if voice in last else None
        if note.tied and before and abs(before.onset + before.duration - note.onset) < CLOSE:
            joined[last[voice]] = before._replace(duration=before.duration + note.duration)
        else:
            last[voice] = len(joined)
            joined.append(note)
    return joined


def written_bars(
    starts: Sequence[float], metres: Sequence[tuple[float, str, float]], end: float
) -> list[Bar]:
    """Bars that begin at these times, with the metre (start, name, quarters in a bar) that holds there."""
    changes = [start for start, _, _ in metres]
    bars: list[Bar] = []
    for start, stop in zip(starts, [*starts[1:], max(end, starts[-1])], strict=True):
        current = bisect_right(changes, start + CLOSE) - 1
        _, metre, whole = metres[current] if current >= 0 else (0.0, "", stop - start)
        missing = whole - (stop - start)
        origin = start
        if missing > CLOSE and not bars:
            origin = start - missing  # a pickup
        elif missing > CLOSE and stop - bars[-1].origin < whole + CLOSE:
            origin = bars[-1].origin  # the second half of a bar that a repeat sign divides
        bars.append(Bar(start, origin, metre))
    return bars
