"""MusicXML, kern and ABC through music21."""

import gc
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from modalities.music.pieces import CLOSE, Bar, Note, Piece, end_of, regular_bars, table

KERN_MODE = re.compile(r"\*([A-Ga-g])[#-]*:([a-z]*)")
MODES = {"dor": "dorian", "phr": "phrygian", "lyd": "lydian", "mix": "mixolydian", "aeo": "aeolian"}
MODES |= {"ion": "ionian", "loc": "locrian"}  # as music21 spells them
ABC_UNIT = re.compile(r"^L:[ \t]*(\d+)(?:/(\d+))?|\[L:[ \t]*(\d+)(?:/(\d+))?", re.MULTILINE)
ABC_NO_NOTES = re.compile(r'^[A-Za-z]:.*|%.*|"[^"\n]*"|![^!\n]*!', re.MULTILINE)
ABC_LENGTH = re.compile(r"[A-Ga-gxyzXZ][,']*(\d+)|\](\d+)")
METRE = re.compile(r"(?:^M:[ \t]*|\[M:[ \t]*|\*M)(\d+)/", re.MULTILINE)  # in ABC and in kern
MAX_BEATS = 128
MAX_ABC_QUARTERS = 128  # music21 takes the square of a note's length in time: seconds here, hours at 10,000


def read_notation(path: Path, kind: str, tune: int) -> Piece:
    """The piece of a file of this kind (MusicXML, kern, ABC); raises whatever music21 does."""
    from music21.converter import subConverters

    converters: Any = subConverters
    text = "" if kind == "MusicXML" else read_text(path)
    with _complaints() as complaints, _uncollected():
        if kind == "MusicXML":  # may be packed, and XML names its own encoding
            converter = converters.ConverterMusicXML()
            converter.parseFile(path)
        elif kind == "kern":
            check_lengths(text, kind)
            converter = converters.ConverterHumdrum()
            converter.parseData(text)
        else:
            written = tunes(text)[max(0, tune - 1)]
            check_lengths(written, kind)
            converter = converters.ConverterABC()
            converter.parseData(_standard_abc(written))
        piece = _piece_of(converter.stream, mode=_kern_mode(text) if kind == "kern" else "")
    return replace(piece, complaints=tuple(complaints))


def check_lengths(text: str, kind: str) -> None:
    """`ValueError` for notes (ABC) or bars (ABC, kern) so long that music21 would not come to an end."""
    beats = max(map(float, METRE.findall(text)), default=0.0)
    if beats > MAX_BEATS:
        raise ValueError(f"a metre of {beats:.6g} beats where {MAX_BEATS} are the most: correct it")
    if kind != "ABC":
        return
    units = [match.groups() for match in ABC_UNIT.finditer(text)]
    quarters = max((4 * float(a or c) / max(1.0, float(b or d or 1)) for a, b, c, d in units), default=0.5)
    notes = ABC_LENGTH.findall(ABC_NO_NOTES.sub("", text))
    longest = max((quarters * float(length or of_chord) for length, of_chord in notes), default=quarters)
    if longest > MAX_ABC_QUARTERS:
        raise ValueError(
            f"a note of {longest:.6g} quarters where {MAX_ABC_QUARTERS} are the most: correct the number "
            "behind it, or the unit in L:"
        )


def tunes(text: str) -> list[str]:
    """The tunes of an ABC file, each with the fields of the file's header before it.

    A tune goes from its X: line to an empty line; text between tunes is free and no music (ABC 2.1, 2.2).
    """
    header, *found = re.split(r"^(?=X:)", text, flags=re.MULTILINE)
    header = "".join(line for line in header.splitlines(keepends=True) if re.match(r"[A-Z]:|%%", line))
    whole = [re.split(r"\n[ \t]*\n", tune)[0] + "\n" for tune in found]
    return [header + tune for tune in whole] or [text]


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in Latin-1 as older collections are; line ends are made one kind."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What music21 would write to the terminal: of a symbol it cannot read, which then is no note."""
    from music21.environment import Environment

    told: list[str] = []

    def tell(_: object, message: object, header: object = None) -> None:
        told.append(" ".join(map(str, message)) if isinstance(message, list | tuple) else str(message))

    environment: Any = Environment
    usual = environment.warn
    environment.warn = tell
    try:
        yield told
    finally:
        environment.warn = usual


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage: a third of the time otherwise, as music21's objects are many and all in use."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _standard_abc(tune: str) -> str:
    """A tune with what is standard in ABC and not in music21.

    Accidentals hold to the end of the bar, which music21 does in files that name a version from 2.0; notes
    are eighths where there is neither metre nor note length.
    """
    if not re.search(r"^[LM]:", tune, re.MULTILINE):
        tune = re.sub(r"^K:", "L:1/8\nK:", tune, count=1, flags=re.MULTILINE)
    return f"%abc-2.1\n{tune}"


def _kern_mode(text: str) -> str:
    found = KERN_MODE.search(text)
    if found is None:
        return ""
    tonic, mode = found.groups()
    return MODES.get(mode, mode) or ("major" if tonic.isupper() else "minor")


def _piece_of(score: Any, mode: str) -> Piece:
    from music21 import instrument, key

    if any(found.transposition for found in score.recurse().getElementsByClass(instrument.Instrument)):
        score = score.toSoundingPitch()
    left_out: Counter[str] = Counter()
    parts = [part.flatten() for part in score.parts or [score]]
    written = [note for number, part in enumerate(parts) for note in _notes_of(part, number, left_out)]
    notes = _joined(written)
    bars = _written_bars(next(iter(score.parts), score), end_of(notes))
    composer = score.metadata.composer if score.metadata else None
    declared = next(iter(score.recurse().getElementsByClass(key.Key)), None)
    mode = mode or (declared.mode if declared else "")
    return Piece(table(notes), bars, composer or "", mode, dict(left_out))


def _notes_of(part: Any, number: int, left_out: Counter[str]) -> Iterator[Note]:
    from music21 import chord, harmony
    from music21.note import Unpitched
    from music21.percussion import PercussionChord

    for element in part.notes:
        if isinstance(element, harmony.Harmony):
            continue  # a chord's name over the staff
        onset, duration = float(element.offset), float(element.quarterLength)
        if isinstance(element, Unpitched | PercussionChord):
            left_out["unpitched notes"] += 1
        elif duration == 0:
            left_out["grace notes"] += 1
        else:
            for note in element.notes if isinstance(element, chord.Chord) else [element]:
                tied = note.tie is not None and note.tie.type in ("stop", "continue")
                yield Note(onset, duration, round(note.pitch.ps), number, tied)


def _joined(notes: Iterable[Note]) -> list[Note]:
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


def _written_bars(part: Any, end: float) -> list[Bar]:
    """The bars of a part; without any, those that its metres would make."""
    from music21 import meter, stream

    measures = list(part.getElementsByClass(stream.Measure))
    metres = [
        (float(found.offset), found.ratioString, float(found.barDuration.quarterLength))
        for found in part.flatten().getElementsByClass(meter.TimeSignature)
    ]
    if not measures:
        return regular_bars(metres, end)
    changes = [start for start, _, _ in metres]
    starts = [float(measure.offset) for measure in measures]
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
