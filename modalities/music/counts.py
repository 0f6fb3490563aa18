"""How many notes a file writes and how much time they fill, counted without the library that reads them.

The light reading knows no pitches and no places. What it counts has to agree with what was read: a library
that skips a voice, or reads one twice, does so without a word.
"""

import math
import re
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from modalities.music.encodings import xml_in_utf8

MAX_XML_BYTES = 2**26  # 64 MiB: a symphony has 20
MAX_ELEMENTS = 3_000_000  # music21 holds all of them
MAX_BEATS = 128
BEATS = re.compile(rb"<beats>([^<]*)</beats>")
RECIP = re.compile(r"(\d+)(?:%(\d+))?(\.*)")
TONE = re.compile(r"[A-Ga-g]")
TOLERANCE = 0.005  # of the time: thirds and fifths are rounded


class Written(NamedTuple):
    """What a file writes: notes with a pitch and a length, the quarters that these fill, and small notes."""

    notes: int
    quarters: float
    cues: int = 0


def check(written: Written, notes: int, quarters: float) -> None:
    """`ValueError` with the numbers where what was read is not what is written."""
    if notes != written.notes:
        raise ValueError(f"{written.notes} notes are written in it and {notes} were read: it is left out")
    if abs(quarters - written.quarters) > TOLERANCE * max(1.0, written.quarters):
        raise ValueError(
            f"its notes fill {written.quarters:.1f} quarters and those that were read {quarters:.1f}: it "
            "is left out"
        )


def xml_of(path: Path) -> bytes:
    """The text of a MusicXML file in UTF-8, unpacked where it is a .mxl.

    `ValueError` for one that is too large or damaged, or not in the encoding that it says.
    """
    if path.suffix.lower() != ".mxl":
        if path.stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes of MusicXML, more than {MAX_XML_BYTES:,}")
        return xml_in_utf8(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        name = _root_file(archive, sizes)
        if sizes[name] > MAX_XML_BYTES:
            raise ValueError(f"unpacked it has {sizes[name]:,} bytes, more than {MAX_XML_BYTES:,}")
        return xml_in_utf8(archive.read(name))


def in_xml(text: bytes) -> Written:
    """Notes of MusicXML; grace notes have no length, cues are printed small and not played."""
    for found in BEATS.findall(text):
        parts = re.findall(rb"\d+", found)[:64]
        if len(found) > 64 or sum(min(int(part[:9]), 10**9) for part in parts) > MAX_BEATS:
            raise ValueError(f"a metre of more than {MAX_BEATS} beats: correct it")
    reader = _XmlNotes()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"its XML is damaged ({error})") from error
    return Written(reader.notes, reader.quarters, reader.cues)


class _XmlNotes:
    """Counts notes as a parser goes by, so that no tree has to be held."""

    def __init__(self) -> None:
        self.notes = self.cues = self.elements = 0
        self.quarters, self._divisions = 0.0, 1.0
        self._inside: dict[str, str] | None = None  # of a note: what it holds
        self._tag, self._letters = "", ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        self._tag, self._letters = tag.rpartition("}")[2], ""
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise ValueError(f"more than {MAX_ELEMENTS:,} elements of XML")
        if self._tag == "note":
            self._inside = {}
        elif self._inside is not None:
            self._inside.setdefault(self._tag, "")

    def text(self, letters: str) -> None:
        """Letters in an element."""
        if len(self._letters) < 40:
            self._letters += letters

    def end(self, tag: str) -> None:
        """An element ends."""
        name = tag.rpartition("}")[2]
        if name == "divisions":
            self._divisions = max(1e-9, _number(self._letters))
        elif name == "note" and self._inside is not None:
            self._count(self._inside)
            self._inside = None
        elif self._inside is not None and name == self._tag:
            self._inside[name] = self._letters
        self._letters = ""

    def _count(self, inside: dict[str, str]) -> None:
        if "pitch" not in inside or "grace" in inside:
            return
        self.cues += "cue" in inside
        if "cue" not in inside:
            self.notes += 1
            self.quarters += _number(inside.get("duration", "0")) / self._divisions


def _number(text: str) -> float:
    """A number in XML; 0 for what is none."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def in_kern(text: str) -> Written:
    """Notes of all **kern spines, through splits and joins."""
    kinds: list[str] = []
    notes, quarters = 0, Fraction(0)
    for line in text.split("\n"):
        cells = line.split("\t")
        if not line or line.startswith("!"):
            continue
        if line.startswith("*"):
            kinds = _spines(kinds, cells)
            continue
        if line.startswith("="):
            continue
        for kind, cell in zip(kinds, cells, strict=False):
            if kind != "**kern" or cell == ".":
                continue
            length = Fraction(0)
            for token in cell.split(" "):
                recip = RECIP.search(token)
                length = _quarters(recip) if recip else length
                if "r" not in token and "q" not in token and "Q" not in token and TONE.search(token):
                    notes += 1
                    quarters += length
    return Written(notes, float(quarters))


def in_midi(data: bytes) -> int:
    """How many notes begin in a MIDI file, drums left out; ValueError for a file of several sequences."""
    if data[:4] == b"MThd" and data[8:10] == b"\0\2":
        raise ValueError(
            "MIDI of type 2: a collection of sequences in one file; save each as a file of type 0 or 1"
        )
    count, position = 0, 8 + int.from_bytes(data[4:8], "big")
    while data[position : position + 4] == b"MTrk":
        size = int.from_bytes(data[position + 4 : position + 8], "big")
        count += _note_ons(data[position + 8 : position + 8 + size])
        position += 8 + size
    return count


def _root_file(archive: zipfile.ZipFile, sizes: dict[str, int]) -> str:
    """The score in a packed file, as its container says, or the only one there is."""
    named = ""
    if sizes.get("META-INF/container.xml", MAX_XML_BYTES) < 2**16:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        roots = (
            element.get("full-path", "") for element in container.iter() if element.tag.endswith("rootfile")
        )
        named = next((root for root in roots if root in sizes), "")
    scores = [name for name in sizes if name.lower().endswith((".xml", ".musicxml"))]
    hidden = ("META-INF/", "__MACOSX/")
    scores = [name for name in scores if not name.startswith(hidden) and not Path(name).name.startswith(".")]
    if not named and not scores:
        raise ValueError("there is no score in it")
    return named or scores[0]


def _spines(kinds: list[str], cells: list[str]) -> list[str]:
    """The kinds of the spines after a line of interpretations."""
    if not kinds or (any(cell.startswith("**") for cell in cells) and len(cells) != len(kinds)):
        return list(cells)
    after: list[str] = []
    joining = False
    for kind, cell in zip(kinds, cells, strict=False):
        if cell == "*v":
            after += [] if joining else [kind]
            joining = True
            continue
        joining = False
        if cell == "*^":
            after += [kind, kind]
        elif cell == "*+":
            after += [kind, "*+"]
        elif cell != "*-":
            after.append(cell if cell.startswith("**") else kind)
    return after


def _quarters(recip: "re.Match[str]") -> Fraction:
    """The length that a recip says: 4 a quarter, 4. with half of it more, 0 a breve."""
    digits, below, dots = recip.groups()
    number = int(digits[:6])
    whole = Fraction(4, number) if number else Fraction(4 * 2 ** len(digits))
    length = whole * int((below or "1")[:6])
    return length * (2 - Fraction(1, 2 ** min(len(dots), 8)))


def _note_ons(track: bytes) -> int:
    """Note-on events of a track whose channel is not that of drums."""
    count = position = status = 0
    size = len(track)
    while position < size:
        while position < size and track[position] & 0x80:  # a delta time
            position += 1
        position += 1
        if position >= size:
            break
        if track[position] & 0x80:
            status = track[position]
            position += 1
        if status in (0xF0, 0xF7, 0xFF):
            position += status == 0xFF
            length = 0
            while position < size:
                length = (length << 7) | (track[position] & 0x7F)
                position += 1
                if not track[position - 1] & 0x80:
                    break
            position += length
            continue
        kind = status >> 4
        if kind == 9 and position + 1 < size and track[position + 1] and status & 0x0F != 9:
            count += 1
        position += 1 if kind in (0xC, 0xD) else 2
    return count
