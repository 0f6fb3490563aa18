"""MusicXML and kern through music21; ABC by our own reader."""

import gc
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from modalities.music import counts
from modalities.music.abc import read_abc
from modalities.music.encodings import wide_encoding
from modalities.music.pieces import Bar, Note, Piece, end_of, joined, regular_bars, table, written_bars

KERN_MODE = re.compile(r"\*([A-Ga-g])[#-]*:([a-z]*)")
MODES = {"dor": "dorian", "phr": "phrygian", "lyd": "lydian", "mix": "mixolydian", "aeo": "aeolian"}
MODES |= {"ion": "ionian", "loc": "locrian"}  # as music21 spells them
METRE = re.compile(r"\*M(\d+)/")
MAX_BEATS = 128


def read_notation(path: Path, kind: str, tune: str) -> Piece:
    """The piece of a file of this kind (MusicXML, kern), or of the text of a tune (ABC).

    Raises whatever music21 does.
    """
    if kind == "ABC":
        return read_abc(tune)
    from music21.converter import subConverters

    converters: Any = subConverters
    with _complaints() as complaints, _uncollected():
        if kind == "MusicXML":
            xml = counts.xml_of(path)
            written, mode = counts.in_xml(xml), ""
            converter = converters.ConverterMusicXML()
            converter.parseData(xml)
        else:
            text = read_text(path)
            check_metre(text)
            written, mode = counts.in_kern(text), _kern_mode(text)
            converter = converters.ConverterHumdrum()
            converter.parseData(text)
        piece = _piece_of(converter.stream, written, mode)
    return replace(piece, complaints=tuple(complaints))


def check_metre(text: str) -> None:
    """`ValueError` for bars of kern so long that music21 would not come to an end."""
    beats = max(map(float, METRE.findall(text)), default=0.0)
    if beats > MAX_BEATS:
        raise ValueError(f"a metre of {beats:.6g} beats where {MAX_BEATS} are the most: correct it")


def tunes(text: str) -> list[str]:
    """The tunes of an ABC file, each with the fields of the file's header before it.

    A tune goes from its X: line to an empty line; text between tunes is free and no music (ABC 2.1, 2.2).
    """
    header, *found = re.split(r"^(?=X:)", text, flags=re.MULTILINE)
    header = "".join(line for line in header.splitlines(keepends=True) if re.match(r"[A-Z]:|%%", line))
    whole = [re.split(r"\n[ \t]*\n", tune)[0] + "\n" for tune in found]
    return [header + tune for tune in whole] or [text]


def read_text(path: Path) -> str:
    """A text file in UTF-8, UTF-16, or Latin-1 as older collections are; line ends are made one kind."""
    data = path.read_bytes()
    try:
        text = data.decode(wide_encoding(data) or "utf-8-sig").removeprefix("\ufeff")
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


def _kern_mode(text: str) -> str:
    found = KERN_MODE.search(text)
    if found is None:
        return ""
    tonic, mode = found.groups()
    return MODES.get(mode, mode) or ("major" if tonic.isupper() else "minor")


def _piece_of(score: Any, written: counts.Written, mode: str) -> Piece:
    """Notes and bars of a score that music21 has read; ValueError where some of what it writes is missing."""
    from music21 import instrument, key

    if any(found.transposition for found in score.recurse().getElementsByClass(instrument.Instrument)):
        score = score.toSoundingPitch()
    _begin_together(score.parts)
    left_out: Counter[str] = Counter()
    parts = [part.flatten() for part in score.parts or [score]]
    notes = [note for number, part in enumerate(parts) for note in _notes_of(part, number, left_out)]
    counts.check(written, len(notes), sum((note.duration for note in notes), 0.0))
    bars = _written_bars(next(iter(score.parts), score), end_of(joined(notes)))
    composer = score.metadata.composer if score.metadata else None
    declared = next(iter(score.recurse().getElementsByClass(key.Key)), None)
    mode = mode or (declared.mode if declared else "")
    return Piece(table(joined(notes)), bars, composer or "", mode, dict(left_out))


def _begin_together(parts: Any) -> None:
    """Move the bars of a score's parts, so that those of one number begin at one time.

    music21 puts a part's bars one after another: one that is written short in one part only (a pickup beside
    an empty bar, a rest left out) moves the rest of the part. A bar lasts as long as its longest; the first
    one as long as the longest that has notes, as it may be a pickup.
    """
    from music21 import stream

    bars = [list(part.getElementsByClass(stream.Measure)) for part in parts]
    starts = [[bar.offset for bar in found] for found in bars]
    longest = max(starts, key=len, default=[])
    if all(found == longest[: len(found)] for found in starts):
        return
    sizes = [[after - before for before, after in pairwise(found)] for found in starts]
    sounding = [size for size, found in zip(sizes, bars, strict=True) if found and found[0].recurse().notes]
    start: Any = longest[0]
    for number, together in enumerate(zip_longest(*bars)):
        for part, bar in zip(parts, together, strict=True):
            if bar is not None:
                part.setElementOffset(bar, start)
        counted = (number == 0 and sounding) or sizes
        start += max((size[number] for size in counted if number < len(size)), default=0.0)
    for part in parts:
        part.coreElementsChanged()


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
        elif element.style.noteSize == "cue":
            left_out["cue notes"] += 1
        else:
            for note in element.notes if isinstance(element, chord.Chord) else [element]:
                tied = note.tie is not None and note.tie.type in ("stop", "continue")
                yield Note(onset, duration, round(note.pitch.ps), number, tied)


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
    return written_bars([float(measure.offset) for measure in measures], metres, end)
