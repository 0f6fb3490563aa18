"""Scores to test with: one tune in four formats, builders of each format, and what comes out of them."""

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from modalities.music import Music
from modalities.music.notation import read_text, tunes
from modalities.music.pieces import Piece
from modalities.music.scores import read_piece
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus

# One tune in four formats: a pickup, a triplet, a tie over the bar line, accidentals.
TUNE = [
    (0, 1, 67),
    (1, 1, 60),
    (2, Fraction(1, 3), 62),
    (Fraction(7, 3), Fraction(1, 3), 64),
    (Fraction(8, 3), Fraction(1, 3), 66),
    (3, Fraction(3, 2), 66),
    (Fraction(9, 2), Fraction(1, 2), 72),
    (5, 1, 71),
    (6, 1, 65),
]
ABC = """X: 7
T: Test
C: Anon.
M: 3/4
L: 1/8
K: C
G2 | C2 (3DE^F F2- | FC' c>B F2 |
"""
ABC = ABC.replace("F2- | FC' c>B F2", "F2- | ^Fc B2 =F2")
KERN = """!!!COM: Anon.
**kern
*clefG2
*k[]
*C:
*M3/4
4g
=1
4c
12d
12e
12f#
[4f#
=2
8f#]
8cc
4b
4f
=3
*-
"""


def varied(number: int) -> bytes:
    """Bytes of a MIDI quantity of variable length."""
    digits = [number & 127]
    while number := number >> 7:
        digits.append(number & 127 | 128)
    return bytes(reversed(digits))


def midi(*tracks: Iterable[tuple], tpq: int = 480, meta: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """A MIDI file; a track holds notes (onset, duration, pitch[, channel]) in quarters."""
    chunks = []
    for number, notes in enumerate(tracks or [[]]):
        events = [(round(time * tpq), -1, data) for time, data in meta] if number == 0 else []
        for onset, duration, pitch, *channel in notes:
            status = channel[0] if channel else number
            start, stop = round(onset * tpq), round((onset + duration) * tpq)
            events.append((start, 2, bytes([0x90 | status, pitch, 64])))
            events.append((stop, 1 if duration else 3, bytes([0x80 | status, pitch, 0])))
        body, now = b"", 0
        for time, _, data in sorted(events, key=lambda event: event[:2]):
            body += varied(time - now) + data
            now = time
        body += b"\x00\xff\x2f\x00"
        chunks.append(b"MTrk" + len(body).to_bytes(4, "big") + body)
    header = b"MThd\x00\x00\x00\x06\x00\x01" + len(chunks).to_bytes(2, "big") + tpq.to_bytes(2, "big")
    return header + b"".join(chunks)


def metre(beats: int, power: int) -> bytes:
    return bytes([0xFF, 0x58, 4, beats, power, 24, 8])


def music_xml(*measures: str, divisions: int = 6, beats: int = 3, unit: int = 4, attributes: str = "") -> str:
    """A MusicXML score of one part."""
    time = f"<time><beats>{beats}</beats><beat-type>{unit}</beat-type></time>"
    first = f"<attributes><divisions>{divisions}</divisions>{time}{attributes}</attributes>"
    bars = "".join(
        f'<measure number="{number}">{first if number == 0 else ""}{measure}</measure>'
        for number, measure in enumerate(measures)
    )
    return (
        '<?xml version="1.0"?><score-partwise version="3.1"><identification><creator type="composer">Anon.'
        '</creator></identification><part-list><score-part id="P1"><part-name>x</part-name></score-part>'
        f'</part-list><part id="P1">{bars}</part></score-partwise>'
    )


def xml_note(step: str, octave: int, duration: int, alter: int = 0, inside: str = "") -> str:
    tied = "".join(f'<tie type="{kind}"/>' for kind in ("stop", "start") if kind in inside)
    return (
        f"<note><pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch>"
        f"<duration>{duration}</duration>{tied}<voice>1</voice></note>"
    )


XML = music_xml(
    xml_note("G", 4, 6),
    xml_note("C", 4, 6)
    + xml_note("D", 4, 2)
    + xml_note("E", 4, 2)
    + xml_note("F", 4, 2, 1)
    + xml_note("F", 4, 6, 1, inside="start"),
    xml_note("F", 4, 3, 1, inside="stop") + xml_note("C", 5, 3) + xml_note("B", 4, 6) + xml_note("F", 4, 6),
)
SCALE = "".join(xml_note(step, 4, 6) for step in "CDEFGAB" + "CDEFGAB")
FORMATS = {"abc": ABC, "krn": KERN, "musicxml": XML, "mid": midi(TUNE, meta=[(0, metre(3, 2))], tpq=960)}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def scale(num_notes: int = 16, first: int = 60, duration: float = 1.0) -> list[tuple]:
    return [(number * duration, duration, first + number % 12) for number in range(num_notes)]


def kern(*lines: str, head: str = "", num_spines: int = 1) -> str:
    def row(cell: str) -> str:
        return "\t".join([cell] * num_spines) + "\n"

    body = "".join(line + "\n" for line in lines)
    return f"{head}{row('**kern')}{row('*M4/4')}{body}{row('*-')}"


def triples(piece: Piece) -> list[tuple[float, float, int]]:
    return [(round(onset, 6), round(duration, 6), int(pitch)) for onset, duration, pitch, _ in piece.notes]


def expected(notes: Iterable[tuple]) -> list[tuple[float, float, int]]:
    return [(round(float(onset), 6), round(float(duration), 6), pitch) for onset, duration, pitch in notes]


def read_one(path: Path, content: str | bytes, tune: int = 0) -> Piece:
    file = write(path, content)
    text = tunes(read_text(file))[max(0, tune - 1)] if path.suffix == ".abc" else ""
    return read_piece(file, text)


def prepared(source: Path, out: Path, **settings) -> tuple[dict[str, dict], dict[str, str], dict[str, dict]]:
    """Rows by key, reasons by path, quality by path."""
    prepare(Music(**settings), source, out, modality="music", num_workers=1)
    corpus = Corpus(out)
    rows = {row["key"]: row for row in map(corpus.row, range(len(corpus)))}
    reasons, quality = (
        [json.loads(line) for line in (out / name).read_text().splitlines()]
        for name in ("rejected.jsonl", "quality.jsonl")
    )
    return rows, {line["path"]: line["reason"] for line in reasons}, {line["path"]: line for line in quality}
