"""MIDI through symusic."""

from collections import Counter
from pathlib import Path
from typing import Any

from modalities.music import counts
from modalities.music.pieces import Note, Piece, end_of, regular_bars, table

MAX_UNIT = 64  # of a metre; damaged files hold any


def read_midi(path: Path) -> Piece:
    """Notes of all tracks that are no drums; bars are those of the metres, as MIDI knows no others."""
    import symusic

    data = path.read_bytes()
    begun = counts.in_midi(data)
    score: Any = symusic.Score.from_midi(data)
    if score.tpq <= 0:
        raise ValueError("it has no ticks per quarter")
    left_out: Counter[str] = Counter()
    notes = []
    for number, track in enumerate(score.tracks):
        if track.is_drum:
            left_out["drum notes"] += len(track.notes)
            continue
        for note in track.notes:
            if note.duration > 0:
                notes.append(Note(note.time / score.tpq, note.duration / score.tpq, note.pitch, number))
            else:
                left_out["zero-length notes"] += 1
    if begun > len(notes) + left_out["zero-length notes"]:
        left_out["notes that never end"] = begun - len(notes) - left_out["zero-length notes"]
    metres = {  # the last of those at one time
        found.time / score.tpq: (f"{found.numerator}/{found.denominator}", found.numerator, found.denominator)
        for found in score.time_signatures
        if found.numerator > 0 and 0 < found.denominator <= MAX_UNIT
    }
    changes = [(start, metre, 4.0 * beats / unit) for start, (metre, beats, unit) in sorted(metres.items())]
    modes = [("major", "minor")[found.tonality] for found in score.key_signatures if found.tonality in (0, 1)]
    bars = regular_bars(changes, end_of(notes))
    return Piece(table(notes), bars, "", modes[0] if modes else "", dict(+left_out))
