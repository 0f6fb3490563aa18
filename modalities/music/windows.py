"""A piece on the grid, cut into windows at its bar lines."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from modalities.music.pieces import Piece

ONSET, DURATION, PITCH, PART, POSITION = range(5)  # columns of a window's notes
MAX_NOTE_QUARTERS = 64  # a longer note was never ended


@dataclass(frozen=True)
class Window:
    """Steps [start, stop) of a piece; onsets count from `start` and are negative for notes held into it."""

    start: int
    stop: int
    notes: Int[np.ndarray, "n 5"]  # onset, duration, pitch, part, position in the bar (-1: unknown)
    metre: str  # that of most of its steps

    @property
    def num_onsets(self) -> int:
        """Notes that begin in it."""
        return int((self.notes[:, ONSET] >= 0).sum())


@dataclass(frozen=True)
class Grid:
    """A piece in steps of a quarter / `positions`."""

    notes: Int[np.ndarray, "n 5"]  # as in a window, but from the beginning of the piece; by onset and pitch
    bars: Int[np.ndarray, "m"]  # where they start
    metres: Sequence[str]  # of the bars
    changed: dict[str, int]  # what was done to notes, and how often

    @classmethod
    def of(cls, piece: Piece, *, positions: int, lowest: int, highest: int) -> "Grid":
        """Round onsets and ends to steps; a note is at least a step long. Other pitches are dropped."""
        pitch = piece.notes[:, 2]
        times = piece.notes[(lowest <= pitch) & (pitch <= highest)]
        onsets, ends = times[:, 0] * positions, (times[:, 0] + times[:, 1]) * positions
        first = np.rint(onsets).astype(np.int64)
        duration = np.maximum(np.rint(ends).astype(np.int64) - first, 1)
        bars = np.rint([bar.start * positions for bar in piece.bars]).astype(np.int64)
        origins = np.rint([bar.origin * positions for bar in piece.bars]).astype(np.int64)
        current = (np.searchsorted(bars, first, side="right") - 1).clip(min=0)
        known = np.array([bool(bar.metre) for bar in piece.bars])[current]
        position = np.where(known, first - origins[current], -1)
        notes = np.stack([first, duration, times[:, 2], times[:, 3], position], axis=1).astype(np.int64)
        changed = {
            "out of range": len(piece.notes) - len(notes),
            "moved to the grid": int((np.abs(onsets - first) > 1e-3).sum()),
            "too long": int((duration > MAX_NOTE_QUARTERS * positions).sum()),
        }
        notes[:, DURATION] = notes[:, DURATION].clip(max=MAX_NOTE_QUARTERS * positions)
        notes, struck_again = _struck(notes)
        changed |= struck_again
        metres = [bar.metre for bar in piece.bars]
        return cls(notes, bars, metres, {what: count for what, count in changed.items() if count})

    def windows(self, size: int) -> Iterator[Window]:
        """Windows of at most `size` steps that tile the piece, from the bar of its first note to its end."""
        if not len(self.notes):
            return
        onsets, ends = self.notes[:, ONSET], self.notes[:, ONSET] + self.notes[:, DURATION]
        bar = max(0, int(np.searchsorted(self.bars, onsets.min(), side="right")) - 1)
        first = int(min(self.bars[bar], onsets.min()))
        edges = cut(self.bars, first, int(ends.max()), size)
        for start, stop in pairwise(edges):
            notes = self.notes[(onsets < stop) & (ends > start)]
            notes[:, ONSET] -= start
            yield Window(start, stop, notes, self._metre(start, stop))

    def _metre(self, start: int, stop: int) -> str:
        first = max(0, int(np.searchsorted(self.bars, start, side="right")) - 1)
        last = int(np.searchsorted(self.bars, stop))
        edges = [start, *self.bars[first + 1 : last].tolist(), stop]
        steps: Counter[str] = Counter()
        for metre, size in zip(self.metres[first:last], np.diff(edges), strict=True):
            steps[metre] += int(size)
        return steps.most_common(1)[0][0]


def cut(bars: Int[np.ndarray, "m"], first: int, end: int, size: int) -> list[int]:
    """Edges of windows of at most `size` steps and of much the same size, on bar lines if there are any."""
    edges = [first]
    while end - edges[-1] > size:
        start, left = edges[-1], end - edges[-1]
        ideal = start + left / -(-left // size)
        lines = bars[np.searchsorted(bars, start, "right") : np.searchsorted(bars, start + size, "right")]
        edges.append(int(lines[np.abs(lines - ideal).argmin()]) if len(lines) else start + size)
    return [*edges, end]


def _struck(notes: Int[np.ndarray, "n 5"]) -> tuple[Int[np.ndarray, "k 5"], dict[str, int]]:
    """One note at a time for each pitch of a part: striking it again ends the note before, not the sound."""
    order = np.lexsort((-notes[:, DURATION], notes[:, ONSET], notes[:, PITCH], notes[:, PART]))
    notes = notes[order]
    same = (np.diff(notes[:, [PART, PITCH, ONSET]], axis=0) == 0).all(axis=1)
    doubled = np.append(False, same)[: len(notes)]
    notes = notes[~doubled]
    onset, voice = notes[:, ONSET], notes[:, PART] * 128 + notes[:, PITCH]
    far = 1 + int((onset + notes[:, DURATION]).max(initial=0))  # keeps the voices apart
    end = np.maximum.accumulate(voice * far + onset + notes[:, DURATION]) - voice * far
    following = np.append(np.where(np.diff(voice) == 0, onset[1:], far), far)[: len(notes)]
    notes[:, DURATION] = np.minimum(end, following) - onset
    by_time = np.lexsort((notes[:, PART], notes[:, PITCH], onset))
    counts = {"doubled": int(doubled.sum()), "struck while held": int((end > following).sum())}
    return notes[by_time], counts
