"""A long recording in pieces that a model can read at once, cut where it is quiet."""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int16

from modalities.speech.audio import is_silence, wav_bytes
from seqssl import Record, Rows

LEAST_WINDOW_S = 1.0
CLASS_COLUMNS = ("label", "event_label")
MOST_CLASS_WORDS = 10  # what is longer is a text, whatever its column is called
FRAME_S = 0.05  # of which the energy is measured around a moment
MARKS = re.compile(r"[\W_]+")
QUIET = {"<eps>", "<sil>", "[sil]", "[silence]", "sil", "sp", "pau", "h#", "#"}  # what labels call silence

Span = tuple[int, int, str]  # a labelled stretch: start, end, label, in steps


class Known(NamedTuple):
    """What is known of a recording before it is read, and its pieces inherit."""

    key: str
    group: str = ""
    label: str = ""
    label_column: str = ""  # what a table calls the label

    @property
    def text(self) -> str:
        """The label, where it is a text that is said in the course of the recording, and no class of it."""
        is_class = self.label_column in CLASS_COLUMNS and len(self.label.split()) <= MOST_CLASS_WORDS
        return "" if is_class else self.label

    def record(self, read: Callable[[], Rows], split: str, amount: float = 0.0) -> Record:
        """The recording as it is found."""
        return Record(self.key, read, group=self.group, label=self.label, split=split, amount=amount)


@dataclass(frozen=True)
class Windowing:
    """Which recordings are cut, and into how long pieces, in seconds; `window_s` None cuts none."""

    window_s: float | None = 30.0
    whole_s: float = 120.0

    def __post_init__(self) -> None:
        if self.window_s is not None and not LEAST_WINDOW_S <= self.window_s < float("inf"):
            raise ValueError(
                f"modality.window_s={self.window_s} must be at least {LEAST_WINDOW_S:g} s; "
                "null keeps all recordings whole"
            )
        if not 0 <= self.whole_s < float("inf"):
            raise ValueError(f"modality.whole_s={self.whole_s} must be a number of seconds, at least 0")

    def rows(
        self,
        pcm: Int16[np.ndarray, "t"],
        rate_hz: int,
        name: str,
        known: Known,
        spans: Sequence[Span] | None,
        notices: Sequence[str],
    ) -> Rows:
        """A recording as one row, or as the rows of its pieces; ValueError where all of it is silence.

        `spans`: its labelled stretches, by their starts; None where the source has none at all.
        """
        if self.window_s is None or len(pcm) <= max(self.window_s, self.whole_s) * rate_hz:
            return Rows([_row(pcm, rate_hz, name, spans)], notices=notices)
        loud = [span for span in spans or [] if not _is_quiet(span)]
        edges = cut(pcm, round(self.window_s * rate_hz), round(FRAME_S * rate_hz), loud)
        divided = _divided(spans or [], edges)
        texts = texts_of(known.text, loud, edges)
        rows = []
        for number, (start, end) in enumerate(pairwise(edges)):
            if is_silence(pcm[start:end], rate_hz):
                continue
            row = _row(pcm[start:end], rate_hz, name, None if spans is None else divided[number])
            row["part"] = f"{start / rate_hz:.12g}"
            if not known.group:  # so that pieces of one recording are never held out from one another
                row["group"] = known.key
            if known.text:
                row["label"] = texts[number] if texts else ""
            rows.append(row)
        num_pieces = len(edges) - 1
        if not rows:
            raise ValueError("digital silence")
        said = [*notices]
        if len(rows) < num_pieces:
            said.append(
                f"{num_pieces - len(rows)} of its {num_pieces} pieces are digital silence, and left out"
            )
        if known.text and texts is None:
            said.append(
                "its text is of all of it, and nothing says when which words are said: pieces have no text "
                "(modality.window_s=null keeps recordings whole)"
            )
        quality = {"seconds": len(pcm) / rate_hz, "pieces": num_pieces, "kept": len(rows)}
        return Rows(rows, quality, [self._reading], said)

    @property
    def _reading(self) -> str:
        longest = max(self.window_s or 0.0, self.whole_s)
        return (
            f"longer than {longest:g} s, so cut at quiet moments into pieces of at most {self.window_s:g} s "
            "(modality.whole_s, modality.window_s)"
        )


def cut(pcm: Int16[np.ndarray, "t"], longest: int, frame: int, spans: Sequence[Span] = ()) -> list[int]:
    """Where the pieces of a recording begin and end: from 0 to its length, ascending.

    No piece is longer than `longest` steps, none shorter than a third of that where the recording is longer.
    A piece ends in its last third, or sooner where too little would be left for the next. Of these moments
    those count that lie within no labelled stretch, if there are any. There it ends at the one around which
    the `frame` steps (no more than a third of `longest`) have the least energy, about their mean; of several,
    at the one in the middle.
    """
    third, edges = longest // 3, [0]
    firsts, lasts = _covered(spans)
    while (left := len(pcm) - edges[-1]) > longest:
        latest = min(longest, left - third)
        first, last = edges[-1] + latest - third, edges[-1] + latest
        energy = _energy(pcm[first - frame // 2 : last - frame // 2 + frame], frame)
        inside = np.zeros(len(energy), bool)
        near = slice(int(np.searchsorted(lasts, first, side="right")), int(np.searchsorted(firsts, last)))
        for begin, end in zip(firsts[near], lasts[near], strict=True):
            inside[max(begin + 1 - first, 0) : end - first] = True
        free = np.flatnonzero(inside if inside.all() else ~inside)
        least = free[energy[free] == energy[free].min()]
        edges.append(first + int(least[len(least) // 2]))
    return [*edges, len(pcm)]


def texts_of(text: str, spans: Sequence[Span], edges: Sequence[int]) -> list[str] | None:
    """The part of a text that is said in each piece, by labelled stretches that spell it; else None.

    They spell it where their words are its words, in order, whatever the marks and the case of letters.
    Where a cut divides a stretch, the pieces that it lies in have no text: its words may be in any.
    """
    said = [(span, word) for span in spans for word in span[2].split() if _bare(word)]
    words = text.split()
    if not said or [_bare(word) for _, word in said] != [bare for word in words if (bare := _bare(word))]:
        return None
    found: list[list[str]] = [[] for _ in pairwise(edges)]
    spoiled: set[int] = set()
    number = 0
    for word in words:
        pieces = _pieces(said[min(number, len(said) - 1)][0], edges)
        found[pieces[0]].append(word)
        spoiled |= {*pieces} if len(pieces) > 1 else set()
        number += bool(_bare(word))  # a mark by itself goes with the word behind it
    return ["" if piece in spoiled else " ".join(own) for piece, own in enumerate(found)]


def _is_quiet(span: Span) -> bool:
    return span[2].lower() in QUIET


def _bare(word: str) -> str:
    """A word without marks and capitals."""
    return MARKS.sub("", word).casefold()


def _row(
    pcm: Int16[np.ndarray, "t"], rate_hz: int, name: str, spans: Sequence[Span] | None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "part": "",
        "length": len(pcm),
        "audio": {"bytes": wav_bytes(pcm, rate_hz), "path": name},
    }
    return row if spans is None else {**row, "segments": json.dumps(spans, ensure_ascii=False)}


def _energy(pcm: Int16[np.ndarray, "t"], frame: int) -> Int[np.ndarray, "n"]:
    """The squared deviation from its mean of each `frame` steps, `frame` times: whole numbers, and exact."""
    x = pcm.astype(np.int64)
    sums, squares = (np.concatenate([[0], np.cumsum(each)]) for each in (x, x * x))
    energy: np.ndarray = frame * (squares[frame:] - squares[:-frame]) - (sums[frame:] - sums[:-frame]) ** 2
    return energy


def _covered(spans: Sequence[Span]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Where stretches, given by their starts, begin and end when those that overlap are one.

    Those that only touch stay two.
    """
    starts, ends = (np.array([span[side] for span in spans], dtype=np.int64) for side in (0, 1))
    reached = np.maximum.accumulate(ends)
    new = np.ones(len(starts), bool)
    new[1:] = starts[1:] >= reached[:-1]
    return starts[new], reached[np.append(new, True)[1:]]


def _divided(spans: Sequence[Span], edges: Sequence[int]) -> list[list[Span]]:
    """The stretches of each piece, counted from its start; one that a cut divides is in all that it meets."""
    found: list[list[Span]] = [[] for _ in pairwise(edges)]
    for start, end, label in spans:
        for piece in _pieces((start, end, label), edges):
            first, last = edges[piece], edges[piece + 1]
            found[piece].append((max(start, first) - first, min(end, last) - first, label))
    return found


def _pieces(span: Span, edges: Sequence[int]) -> range:
    """The pieces that a stretch lies in."""
    return range(bisect_right(edges, span[0]) - 1, bisect_left(edges, span[1]))
