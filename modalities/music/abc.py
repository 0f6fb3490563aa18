"""ABC notation, read by its standard (2.1): what is written becomes notes, and none is lost without a word.

music21 reads a part of the standard only: it plays voices one after another, and leaves out inline fields,
accidentals of keys, overlays and octaves of clefs. Repeats are not unfolded here, as nowhere in this package.
"""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from modalities.music.keys import Key, key_of, shift_of
from modalities.music.pieces import Note, Piece, end_of, joined, regular_bars, table, written_bars
from modalities.music.tokens import (
    GRACE,
    LETTERS,
    MEMBER,
    METRE,
    PROPAGATION,
    SHIFTS,
    TOKEN,
    UNIT,
    length_of,
)
from modalities.music.voices import Event, Voice

MAX_QUARTERS = 128  # of one note: beyond it the file is damaged
MAX_BEATS = 128
MAX_NOTES = 200_000
TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # so many in the time of; 5, 7 and 9 depend on the metre


class Reader:
    """The state of a tune that is being read line by line."""

    def __init__(self) -> None:
        self.voices: dict[str, Voice] = {}
        self.notes: list[Note] = []
        self.staffs: list[str] = []  # the letter and octave of each note
        self.left_out: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.metre: tuple[str, Fraction] | None = ("4/4", Fraction(4))
        self.metres: dict[Fraction, tuple[str, Fraction]] = {}
        self.unit: Fraction | None = None
        self.key = Key()
        self.shift = 0
        self.voice_shifts: dict[str, int] = {}
        self.composer = ""
        self.mode = ""
        self.in_body = False
        self.current = ""
        self.propagation = "pitch"
        self.metre_given = False
        self.is_text = False

    @property
    def voice(self) -> Voice:
        """The voice that is being written; a new one begins at the tune's beginning."""
        if self.current not in self.voices:
            shift = self.voice_shifts.get(self.current, self.shift)
            voice = Voice(self.key, self.unit_now(), shift)
            voice.bars.append(Fraction(0))
            self.voices[self.current] = voice
        return self.voices[self.current]

    def unit_now(self) -> Fraction:
        """The length of a note in quarters: as L says, else by the metre."""
        if self.unit is not None:
            return self.unit
        short = self.metre_given and self.metre is not None and self.metre[1] < 3
        return Fraction(1, 4) if short else Fraction(1, 2)

    def line(self, line: str) -> None:
        """Read a line of the tune: a field, or music."""
        if re.match(r"%%\s*(begin|end)(text|ps|svg|ml)?", line):
            self.is_text = "begin" in line[:10]  # a block of other things, whose letters are no notes
        if self.is_text:
            return
        if line.startswith("%%") or line.startswith("I:"):
            found = PROPAGATION.search(line)
            self.propagation = found[1] if found else self.propagation
            return
        line = re.sub(r"(?<!\\)%.*", "", line)
        if re.match(r"[A-Za-z+]:(?![|:])", line):
            self.field(line[0], line[2:].strip())
        elif self.in_body:
            self.music(line)

    def field(self, name: str, value: str) -> None:
        """Read a field, in a line of its own or in brackets."""
        if name == "M":
            self.set_metre(value)
        elif name == "L":
            self.set_unit(value)
        elif name == "K":
            self.set_key(value)
        elif name == "V":
            self.set_voice(value)
        elif name == "m":
            self.unknown[f"m:{value}, a macro"] += 1
        elif name == "C" and not self.composer:
            self.composer = value

    def set_metre(self, value: str) -> None:
        """M: a fraction, C, C| or none."""
        value = value.strip()
        found = METRE.match(value)
        if value in ("C", "C|"):
            self.metre = ("4/4", Fraction(4)) if value == "C" else ("2/2", Fraction(4))
        elif found:
            beats = sum(map(int, found[1].split("+")))
            if beats > MAX_BEATS:
                raise ValueError(f"a metre of {beats:.6g} beats where {MAX_BEATS} are the most: correct it")
            unit = max(1, int(found[2]))
            self.metre = (f"{beats}/{unit}", Fraction(4 * beats, unit))
        else:
            self.metre = None
        self.metre_given = True
        if self.in_body:
            self.metres[self.voice.time] = self.metre or ("", Fraction(4))

    def set_unit(self, value: str) -> None:
        """L: the length of a note, for the current voice or, in the header, for all."""
        found = UNIT.match(value)
        if not found:
            return
        unit = Fraction(4 * int(found[1]), max(1, int(found[2] or 1)))
        if self.in_body:
            self.voice.unit = unit
        else:
            self.unit = unit
        _check(unit)

    def set_key(self, value: str) -> None:
        """K: the key, and the octave of a clef; it ends the header."""
        key, mode = key_of(value)
        shift = shift_of(value)
        if not self.in_body:
            self.key, self.mode, self.shift = key or Key(), mode, shift or 0
            self.in_body = True
            self.metres[Fraction(0)] = self.metre or ("", Fraction(4))
            return
        if key is not None:
            self.voice.key = key
        if shift is not None:
            self.voice.shift = shift

    def set_voice(self, value: str) -> None:
        """V: the voice that what follows belongs to, and its clef."""
        name, _, properties = value.strip().partition(" ")
        shift = shift_of(properties)
        if shift is not None:
            self.voice_shifts[name] = shift
        if self.in_body:
            self.current = name
            if shift is not None:
                self.voice.shift = shift
        elif not self.current:
            self.current = name  # music before the first V: in the tune is of the first voice

    def music(self, line: str) -> None:
        """Read a line of notes."""
        for token in TOKEN.finditer(line):
            kind = str(token.lastgroup)
            if kind in ("field", "skip", "mark"):
                if kind == "field":
                    self.field(token[0][1], token[0][3:-1].strip())
            elif kind == "grace":
                self.left_out["grace notes"] += len(GRACE.findall(token[0]))
            elif kind == "bar":
                self.bar()
            elif kind == "unknown":
                self.unknown[token[0]] += 1
            else:
                self.sound(token, kind)

    def sound(self, token: "re.Match[str]", kind: str) -> None:
        """Read what takes time, or changes it."""
        voice = self.voice
        if token["note"]:
            self.add([(token, False)], length_of(token["length"]))
        elif token["chord"]:
            members = [
                (member, bool(member["tie"])) for member in MEMBER.finditer(token["inner"]) if member["note"]
            ]
            if members:
                self.add(members, length_of(members[0][0]["length"]) * length_of(token["chord_length"]))
            else:  # a chord of rests, or brackets around something else
                self.unknown[token["chord"][:12]] += 1
        elif token["rest"]:
            self.add([], length_of(token["rest_length"]))
        elif token["bars_rest"]:
            bar = (self.metre or ("", Fraction(4)))[1]
            for _ in range(min(int(token["count"][:4] or 1), 1000)):
                voice.time += bar
                self.bar()
        elif token["tuplet"]:
            self.tuplet(int(token["p"]), token["q"], token["r"])
        elif token["tie"]:
            if voice.event:
                self.tie(voice, range(voice.event.first, voice.event.last))
        elif token["broken"]:
            self.broken(voice, len(token["broken"]), longer_first=token["broken"][0] == ">")
        elif token["overlay"]:
            voice.reach = max(voice.reach, voice.time)
            voice.time, voice.event, voice.factor = voice.bar_start, None, Fraction(1)
            voice.accidentals = {}

    def add(self, members: "Sequence[tuple[re.Match[str], bool]]", length: Fraction) -> None:
        """A note, the notes of a chord, or a rest, of so many units."""
        voice = self.voice
        duration = voice.unit * length * voice.factor
        if voice.tuplet_left:
            duration *= voice.tuplet
            voice.tuplet_left -= 1
        _check(duration)
        first, going_on = len(self.notes), voice.ties
        voice.ties = {}
        base = length_of(members[0][0]["length"]) if members else Fraction(1)
        tied_inside = []
        for member, tied in members:
            staff, place, pitch, is_tied = self.pitch(voice, member, going_on)
            self.staffs.append(staff)
            share = length_of(member["length"]) / base if base else Fraction(1)
            if tied:
                tied_inside.append(len(self.notes))
            self.notes.append(Note(float(voice.time), float(duration * share), pitch, self.number(), is_tied))
            if member["accidental"]:
                voice.accidentals[place] = SHIFTS[member["accidental"]]
        if len(self.notes) > MAX_NOTES:
            raise ValueError(f"more than {MAX_NOTES:,} notes in one tune")
        voice.event = Event(voice.time, duration, first, len(self.notes))
        voice.time += duration
        voice.factor = Fraction(1)
        self.tie(voice, tied_inside)

    def pitch(
        self, voice: Voice, member: "re.Match[str]", going_on: dict[int, str]
    ) -> tuple[str, str, int, bool]:
        """A note's staff position, what its accidental holds for, its MIDI number, and whether it is tied."""
        letter, octave = member["letter"].upper(), 5 + member["letter"].islower()
        octave += member["octave"].count("'") - member["octave"].count(",")
        natural = 12 * octave + LETTERS[letter]
        place = self.place(letter, octave)
        staff = f"{letter}{octave}"
        if not member["accidental"]:
            tied = [pitch for pitch, where in going_on.items() if where == staff]
            if tied:  # a tie carries its accidental over the bar line
                return staff, place, tied[0], True
        change = voice.accidentals.get(place, voice.key.change(letter))
        if member["accidental"]:
            change = SHIFTS[member["accidental"]]
        pitch = natural + change + voice.shift
        if not 0 <= pitch <= 127:
            raise ValueError(f"the note {member['note']!r} has the MIDI number {pitch}, which is no pitch")
        return staff, place, pitch, pitch in going_on

    def place(self, letter: str, octave: int) -> str:
        """What an accidental holds for, up to the end of the bar."""
        return {"pitch": letter, "octave": f"{letter}{octave}", "not": f"{letter}{len(self.notes)}"}[
            self.propagation
        ]

    def tie(self, voice: Voice, indices: Sequence[int] | range) -> None:
        """Remember notes that go on in the next event."""
        for index in indices:
            voice.ties[self.notes[index].pitch] = self.staffs[index]

    def tuplet(self, count: int, in_time_of: str | None, notes: str | None) -> None:
        """(p:q:r, p notes in the time of q for the next r."""
        if count < 2:
            return
        compound = self.metre is not None and self.metre[0] in (
            "6/8",
            "9/8",
            "12/8",
            "6/4",
            "9/4",
            "12/4",
            "3/8",
        )
        time = int(in_time_of) if in_time_of else TUPLETS.get(count, 3 if compound else 2)
        self.voice.tuplet = Fraction(time or 1, count)
        self.voice.tuplet_left = min(int(notes) if notes else count, 64)

    def broken(self, voice: Voice, strength: int, *, longer_first: bool) -> None:
        """> and <: one of two events lends time to the other."""
        if voice.event is None or strength > 4:
            return
        short = Fraction(1, 2**strength)
        mine, next_one = (2 - short, short) if longer_first else (short, 2 - short)
        event = voice.event
        event.duration *= mine
        for index in range(event.first, event.last):
            note = self.notes[index]
            self.notes[index] = note._replace(duration=note.duration * float(mine))
        voice.time = event.start + event.duration
        voice.factor = next_one

    def bar(self) -> None:
        """A bar line: accidentals end, and overlays have to meet."""
        voice = self.voice
        voice.time = max(voice.time, voice.reach)
        if voice.time > voice.bar_start:
            voice.bars.append(voice.time)
        voice.bar_start = voice.reach = voice.time
        voice.accidentals = {}
        voice.tuplet_left = 0

    def number(self) -> int:
        """The current voice's place among the voices."""
        return list(self.voices).index(self.current)

    def piece(self) -> Piece:
        """All voices together."""
        notes = joined(self.notes)
        end = end_of(notes)
        metres = [(float(at), name, float(length)) for at, (name, length) in sorted(self.metres.items())]
        lines = max((voice.bars for voice in self.voices.values()), key=len, default=[])
        starts = [float(start) for start in lines if float(start) < end]
        bars = written_bars(starts, metres, end) if len(lines) > 1 else regular_bars(metres, end)
        odd = [f"no music: {text!r}, {count} times" for text, count in sorted(self.unknown.items())]
        return Piece(table(notes), bars, self.composer, self.mode, dict(self.left_out), tuple(odd))


def read_abc(tune: str) -> Piece:
    """The piece in the text of a tune, with the fields of its file's header before it. ValueError."""
    reader = Reader()
    for line in tune.split("\n"):
        reader.line(line)
    return reader.piece()


def _check(quarters: Fraction) -> None:
    """`ValueError` for a note so long that its file is damaged."""
    if quarters > MAX_QUARTERS:
        raise ValueError(
            f"a note of {float(quarters):.6g} quarters where {MAX_QUARTERS} are the most: correct the "
            "number behind it, "
            "or the unit in L:"
        )
