import json
import re
import sys
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modalities.music import Music
from modalities.music.notation import tunes
from modalities.music.pieces import Bar, Piece, regular_bars
from modalities.music.scores import read_piece
from modalities.music.views import note_tokens, piano_roll
from modalities.music.windows import Grid, cut
from seqssl import UserError
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.testing import adapter_checks, feature_encoder_checks

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
    return read_piece(write(path, content), tune)


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


@pytest.fixture
def folder(tmp_path) -> Path:
    raw = tmp_path / "raw"
    write(raw / "bach" / "bwv1.1.musicxml", music_xml(SCALE[: len(SCALE) // 2], SCALE, beats=7))
    write(raw / "bach" / "bwv1.2.mid", midi(scale(20), scale(10, 48, 2.0), meta=[(0, metre(4, 2))]))
    write(
        raw / "folk" / "two.abc",
        f"% book\nM:2/4\n\n{ABC}{'CDEF GABc|' * 3}\n\nX:2\nL:1/8\nK:D\n{'DEFG|' * 9}\n",
    )
    for name in ("kyrie", "agnus"):
        write(
            raw / "mass" / f"{name}.krn", kern(*["4c", "4d", "4e", "4f"] * 4, head="!!!OPR: Missa brevis\n")
        )
    return raw


@pytest.mark.parametrize("view", ["roll", "notes"])
@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, view, folder):
    check(Music(view=view, positions_per_quarter=6, window_quarters=8, lowest=40, highest=90), folder)


@pytest.mark.parametrize("name, check", feature_encoder_checks())
def test_the_roll_encoder_keeps_its_contract(name, check):
    torch.manual_seed(0)
    adapter = Music(positions_per_quarter=4, lowest=60, highest=71, frames_per_quarter=2)
    check(adapter.feature_encoder(16), adapter.spec)


class TestReading:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_one_tune_in_every_format(self, suffix, tmp_path):
        piece = read_one(tmp_path / f"tune.{suffix}", FORMATS[suffix])
        assert triples(piece) == expected(TUNE)
        assert piece.complaints == ()
        assert piece.mode == {"mid": "", "musicxml": ""}.get(suffix, "major")
        assert piece.composer == ("" if suffix == "mid" else "Anon.")
        if suffix == "mid":  # a MIDI file cannot say that it begins with a pickup
            assert piece.bars == [Bar(0, 0, "3/4"), Bar(3, 3, "3/4"), Bar(6, 6, "3/4")]
        else:
            assert list(piece.bars)[:3] == [Bar(0, -2, "3/4"), Bar(1, 1, "3/4"), Bar(4, 4, "3/4")]

    @pytest.mark.parametrize("suffix", ["musicxml", "mxl", "mid"])
    def test_what_music21_writes(self, suffix, tmp_path):
        from music21 import chord, note, stream

        rng = np.random.default_rng(0)
        score, wanted = stream.Score(), []
        for low in (48, 72):
            part, onset = stream.Part(), Fraction(0)
            for _ in range(24):
                duration = Fraction(int(rng.integers(1, 9)), int(rng.choice([2, 4])))
                pitches = (low + rng.choice(12, size=int(rng.integers(0, 4)), replace=False)).tolist()
                event = chord.Chord(pitches) if pitches else note.Rest()
                event.quarterLength = duration
                part.append(event)
                wanted += [(onset, duration, pitch) for pitch in pitches]
                onset += duration
            score.insert(0, part)
        path = tmp_path / f"score.{suffix}"
        score.write(suffix, fp=path)
        piece = read_piece(path, 0)
        assert sorted(triples(piece)) == sorted(expected(wanted))
        assert {int(row[3]) for row in piece.notes if row[2] >= 72} == {0}  # the higher part comes first
        assert {int(row[3]) for row in piece.notes if row[2] < 72} == {1}

    def test_a_tie_joins_only_what_touches(self, tmp_path):
        piece = read_one(tmp_path / "ties.krn", kern("[4c", "4c_", "4c]", "4r", "4c]", "[4d", "4c", "4d]"))
        assert triples(piece) == expected([(0, 3, 60), (4, 1, 60), (5, 1, 62), (6, 1, 60), (7, 1, 62)])

    def test_several_kern_spines(self, tmp_path):
        lines = [
            "**kern\t**dynam\t**kern",
            "*M4/4\t*\t*M4/4",
            "=1\t=1\t=1",
            "2C\tf\t4c",
            ".\t.\t4d",
            "*^\t*\t*",  # the low spine splits
            "2D\t2F\t.\t2e 2g",
            "*v\t*v\t*\t*",
            "=2\t=2\t=2",
            "1r\t.\t1cc",
            "*-\t*-\t*-",
        ]
        piece = read_one(tmp_path / "two.krn", "\n".join(lines) + "\n")
        low = [(0, 2, 48), (2, 2, 50), (2, 2, 53)]
        high = [(0, 1, 60), (1, 1, 62), (2, 2, 64), (2, 2, 67), (4, 4, 72)]
        assert sorted(triples(piece)) == sorted(expected(low + high))
        assert {tuple(row[2:]) for row in piece.notes.tolist()} == {
            *((pitch, 1) for *_, pitch in low),
            *((pitch, 0) for *_, pitch in high),
        }

    def test_kern_in_latin_1(self, tmp_path):
        text = "!!!OTL: Pièce\r\n" + kern(*["4c"] * 8).replace("\n", "\r\n")
        assert len(read_one(tmp_path / "old.krn", text.encode("latin-1")).notes) == 8

    @pytest.mark.parametrize(
        "record, mode", [("*d:", "minor"), ("*E-:", "major"), ("*G:dor", "dorian"), ("*k[]", "")]
    )
    def test_the_mode_of_kern(self, record, mode, tmp_path):
        assert read_one(tmp_path / "mode.krn", kern(record, "4c")).mode == mode

    def test_abc_with_several_tunes(self, tmp_path):
        text = (
            "%%scale 1\nM:3/4\nL:1/4\nfree text, no music\n\nX:1\nK:C\nCDE|\n\nmore text\n\nX:1\nK:D\nFGA|c\n"
        )
        assert len(tunes(text)) == 2
        assert triples(read_one(tmp_path / "book.abc", text, tune=1)) == expected(
            [(0, 1, 60), (1, 1, 62), (2, 1, 64)]
        )
        second = read_one(tmp_path / "book.abc", text, tune=2)
        assert [pitch for *_, pitch in triples(second)] == [66, 67, 69, 73]
        assert second.bars[0].metre == "3/4"

    def test_abc_without_metre_and_note_length_has_eighths(self, tmp_path):
        piece = read_one(tmp_path / "free.abc", "X:1\nK:C\nCD|E2\n")
        assert triples(piece) == expected([(0, 0.5, 60), (0.5, 0.5, 62), (1, 1, 64)])

    def test_chord_names_and_grace_notes_are_no_notes(self, tmp_path):
        piece = read_one(tmp_path / "graces.abc", 'X:1\nM:2/4\nL:1/4\nK:C\n"Am"{d}CD|"G7"[EG]2|\n')
        assert triples(piece) == expected([(0, 1, 60), (1, 1, 62), (2, 2, 64), (2, 2, 67)])
        assert piece.left_out == {"grace notes": 1}

    def test_transposing_instruments_sound(self, tmp_path):
        clarinet = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
        whole = read_one(tmp_path / "concert.xml", music_xml(SCALE))
        transposed = read_one(tmp_path / "clarinet.xml", music_xml(SCALE, attributes=clarinet))
        np.testing.assert_array_equal(transposed.notes[:, 2], whole.notes[:, 2] - 2)

    def test_a_bar_that_a_repeat_sign_divides(self, tmp_path):
        piece = read_one(tmp_path / "reel.abc", "X:1\nM:3/4\nL:1/4\nK:C\nC|DEF|GA:|\n|:c|cBA|GF:|\n")
        assert [(bar.start, bar.origin) for bar in piece.bars] == [
            (0, -2),
            (1, 1),
            (4, 4),
            (6, 4),
            (7, 7),
            (10, 10),
        ]

    def test_parts_are_numbered_by_height_in_every_format(self, tmp_path):
        low, high = scale(8, 40), scale(8, 70)
        for content in (midi(low, high), midi(high, low)):
            piece = read_one(tmp_path / "parts.mid", content)
            assert {(row[2] < 60, row[3]) for row in piece.notes.tolist()} == {(True, 1), (False, 0)}


class TestBadInput:
    @pytest.mark.parametrize(
        "name, content, reason",
        [
            ("empty.mid", b"", "the file is empty"),
            ("none.mid", midi(), "no notes"),
            ("text.mid", b"This is no music. " * 9, "not readable as MIDI"),
            ("cut.mid", midi(TUNE)[:-9], "not readable as MIDI"),
            (
                "clock.mid",
                midi(TUNE)[:12] + b"\xe7\x28" + midi(TUNE)[14:],
                "not readable as MIDI: .*ticks per quarter",
            ),
            ("zero.mid", midi(TUNE)[:12] + b"\0\0" + midi(TUNE)[14:], "no ticks per quarter"),
            ("far.mid", midi([(0, 1, 60), (200_000, 1, 60)], tpq=96), "from quarter 0 to 200001"),
            ("drums.mid", midi([(0, 1, 36, 9), (1, 1, 38, 9)]), "no pitched notes .left out: 2 drum notes"),
            ("empty.musicxml", b"", "the file is empty"),
            ("hollow.musicxml", music_xml(""), "no notes"),
            ("other.xml", "<a/>", "not readable as MusicXML"),
            ("text.xml", "no markup", "not readable as MusicXML"),
            ("text.mxl", b"PK\3\4junk", "not readable as MusicXML"),
            ("text.krn", "no spines at all", "not readable as kern"),
            ("rests.krn", kern("4r", "4r"), "no notes"),
            ("head.abc", "X:1\nT:only a head\nK:C\n", "no notes"),
        ],
    )
    def test_a_file_alone_tells_why(self, name, content, reason, tmp_path):
        with pytest.raises(ValueError, match=reason) as error:
            read_one(tmp_path / name, content)
        assert "\n" not in str(error.value)

    def test_unpitched_percussion(self, tmp_path):
        drum = "<note><unpitched/><duration>6</duration><voice>1</voice></note>"
        with pytest.raises(ValueError, match=r"no pitched notes \(left out: 3 unpitched notes\)"):
            read_one(tmp_path / "drum.musicxml", music_xml(drum * 3))
        mixed = read_one(tmp_path / "mixed.musicxml", music_xml(drum + xml_note("C", 4, 6)))
        assert triples(mixed) == [(1, 1, 60)] and mixed.left_out == {"unpitched notes": 1}

    def test_prepare_lists_the_bad_and_keeps_the_good(self, folder, tmp_path):
        write(folder / "bach" / "bad.mid", b"nothing")
        write(folder / "bach" / "short.mid", midi(scale(5)))
        write(folder / "bach" / "drums.mid", midi([(0, 1, 36, 9)]))
        write(folder / "bach" / "notes.pdf", b"not looked at")
        write(folder / "bach" / "._hidden.mid", b"not looked at")
        rows, reasons, _ = prepared(folder, tmp_path / "out")
        assert set(reasons) == {"bach/bad.mid", "bach/short.mid", "bach/drums.mid"}
        assert reasons["bach/short.mid"] == "no window with 8 notes from 21 to 108"
        assert {key.split("#")[0] for key in rows} == {
            "bach/bwv1.1.musicxml",
            "bach/bwv1.2.mid",
            "folk/two.abc/1",
            "folk/two.abc/2",
            "mass/agnus.krn",
            "mass/kyrie.krn",
        }

    def test_tempo_does_not_matter_and_absurd_metres_are_none(self, tmp_path):
        tempo = bytes([0xFF, 0x51, 3])
        plain = read_one(tmp_path / "plain.mid", midi(TUNE))
        for meta in (
            [(0, tempo + bytes(3))],
            [(0, tempo + b"\xff\xff\xff")],
            [(0, metre(0, 2))],
            [(0, metre(3, 255))],
        ):
            piece = read_one(tmp_path / "odd.mid", midi(TUNE, meta=meta))
            np.testing.assert_array_equal(piece.notes, plain.notes)
            assert {bar.metre for bar in piece.bars} == {""}

    def test_zero_length_notes_are_left_out_and_counted(self, folder, tmp_path):
        write(folder / "zero.mid", midi([*scale(8), (2, 0, 90)]))
        rows, _, quality = prepared(folder, tmp_path / "out")
        assert 90 not in rows["zero.mid#0"]["notes"][:, 2]
        assert quality["zero.mid"]["left_out"] == {"zero-length notes": 1}

    def test_a_very_short_note_lasts_a_step(self, tmp_path):
        grid = Grid.of(
            read_one(tmp_path / "x.mid", midi([(0.01, 0.01, 60)])), positions=4, lowest=0, highest=127
        )
        assert grid.notes[0, :3].tolist() == [0, 1, 60]
        assert grid.changed == {"moved to the grid": 1}

    def test_overlapping_notes_of_one_pitch(self, folder, tmp_path):
        # MIDI ends the oldest of two held notes first: 0 to 2 and 1 to 3.
        write(folder / "twice.mid", midi([*scale(8), (8, 2, 60), (9, 2, 60), (12, 1, 60), (12, 1, 60)]))
        rows, _, quality = prepared(folder, tmp_path / "out", positions_per_quarter=1)
        notes = rows["twice.mid#0"]["notes"]
        assert [(onset, duration) for onset, duration, pitch, *_ in notes.tolist() if onset >= 8] == [
            (8, 1),
            (9, 2),
            (12, 1),
        ]
        assert quality["twice.mid"]["changed"] == {"doubled": 1, "struck while held": 1}

    def test_two_parts_may_hold_one_pitch(self, tmp_path):
        piece = read_one(tmp_path / "unison.mid", midi([(0, 4, 60)], [(1, 1, 60), (2, 1, 40)]))
        grid = Grid.of(piece, positions=1, lowest=0, highest=127)
        assert sorted(map(tuple, grid.notes[:, :3].tolist())) == [(0, 4, 60), (1, 1, 60), (2, 1, 40)]

    def test_a_note_that_never_ends_is_cut(self, folder, tmp_path):
        write(folder / "drone.mid", midi([*scale(16), (0, 5000, 40)]))
        rows, _, quality = prepared(folder, tmp_path / "out")
        assert quality["drone.mid"]["changed"] == {"too long": 1}
        assert [key for key in rows if key.startswith("drone")] == ["drone.mid#0"]
        notes = rows["drone.mid#0"]["notes"]
        assert notes[notes[:, 2] == 40, 1].tolist() == [64 * 12]

    def test_what_music21_could_not_read_is_in_the_report(self, folder, tmp_path, capfd):
        write(folder / "typo.krn", kern(*["4c"] * 9, "4?", "4d"))
        _, _, quality = prepared(folder, tmp_path / "out")
        assert quality["typo.krn"]["num_complaints"] == 1
        assert "4?" in quality["typo.krn"]["complaints"][0]
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("name, package", [("tune.mid", "symusic"), ("tune.krn", "music21")])
    def test_a_missing_package_names_the_extra(self, name, package, tmp_path, monkeypatch):
        for module in [package, *(known for known in sys.modules if known.startswith(f"{package}."))]:
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=rf"need the package {package}: pip install 'seqssl\[music\]'"):
            read_one(tmp_path / name, FORMATS[name.split(".")[1]])

    @pytest.mark.parametrize(
        "name, text, reason",
        [
            (
                "a.abc",
                "L:1/4\nK:C\nC99999999|C99999999|\n",
                "a note of 1e+08 quarters where 128 are the most",
            ),
            ("a.abc", "L:1/8\nK:C\n[CE]999|\n", "a note of 499.5 quarters"),
            ("a.abc", "L:1/8\nK:C\n^c,,999|\n", "a note of 499.5 quarters"),
            ("a.abc", "K:C\nC|[r:C99999]C|\n", "a note of 49999.5 quarters"),  # music21 takes it for notes
            ("a.abc", "K:C\nC|[L:99999/1]C|\n", "a note of 399996 quarters"),
            ("a.abc", f"K:C\nC{'9' * 5000}\n", "a note of inf quarters"),
            ("a.abc", "M:99999999/4\nK:C\nC|\n", "a metre of 1e+08 beats where 128 are the most"),
            ("a.krn", "**kern\n*M99999999/4\n4c\n*-\n", "a metre of 1e+08 beats where 128 are the most"),
        ],
    )
    def test_absurd_lengths_are_told_before_the_file_is_parsed(
        self, name, text, reason, tmp_path, monkeypatch
    ):
        def never(*_: object) -> None:
            raise AssertionError("it would not come to an end")

        monkeypatch.setattr("music21.converter.subConverters.ConverterABC.parseData", never)
        monkeypatch.setattr("music21.converter.subConverters.ConverterHumdrum.parseData", never)
        with pytest.raises(ValueError, match=re.escape(reason)):
            read_one(tmp_path / name, text if name.endswith("krn") else f"X:1\n{text}")

    def test_long_numbers_that_are_no_lengths(self, tmp_path):
        head = "X:12345678\nT:a99999\nM:4/4\nL:1/4\nQ:1/4=9999\nK:C\n"
        piece = read_one(tmp_path / "a.abc", head + '"C99999"C4|D4|% E99999\n')
        assert triples(piece) == [(0, 4, 60), (4, 4, 62)]

    def test_a_single_file_of_unknown_kind(self, tmp_path):
        with pytest.raises(UserError, match=r"song.txt is no score file: its name must end in one of .mid"):
            list(Music().records(write(tmp_path / "song.txt", "la la"), "all"))

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"positions_per_quarter": 4, "frames_per_quarter": 3}, "multiple of frames_per_quarter"),
            ({"lowest": 90, "highest": 60}, "lowest=90"),
            ({"window_quarters": 0}, r"modality.window_quarters=0 must lie in \[1, 4096\]"),
            ({"window_quarters": 10**9}, "modality.window_quarters=1000000000 must lie in"),
            ({"positions_per_quarter": 97}, r"modality.positions_per_quarter=97 must lie in \[1, 96\]"),
            ({"positions_per_quarter": 0}, "modality.positions_per_quarter=0 must lie in"),
            ({"frames_per_quarter": 0}, r"modality.frames_per_quarter=0 must lie in \[1, 96\]"),
            ({"pieces_per_folder": 0}, "at least 1"),
        ],
    )
    def test_impossible_settings(self, settings, message):
        with pytest.raises(UserError, match=message):
            Music(**settings)


class TestRecords:
    def test_labels_and_groups(self, folder):
        records = {record.key: record for record in Music().records(folder, "all")}
        assert {key: record.group for key, record in records.items()} == {
            "bach/bwv1.1.musicxml": "bach/bwv1",
            "bach/bwv1.2.mid": "bach/bwv1",
            "folk/two.abc/1": "folk/two.abc/1",
            "folk/two.abc/2": "folk/two.abc/2",
            "mass/agnus.krn": "mass/Missa brevis",
            "mass/kyrie.krn": "mass/Missa brevis",
        }
        assert {record.label for record in records.values()} == {"bach", "folk", "mass"}
        assert list(Music().records(folder, "valid")) == []

    def test_a_work_with_a_catalogue_number_stands_alone(self, tmp_path):
        head = "!!!OPR: Four-part Chorales\n!!!SCA: BWV 281\n"
        write(tmp_path / "bach" / "bwv281.krn", kern("4c", head=head))
        write(tmp_path / "bach" / "bwv281.musicxml", XML)
        assert {record.group for record in Music().records(tmp_path, "all")} == {"bach/bwv281"}

    def test_composer_metre_or_mode(self, folder, tmp_path):
        write(folder / "alone.abc", ABC + "CDEFGA|" * 3)
        found = {}
        for label in ("composer", "metre", "mode"):
            rows, _, _ = prepared(folder, tmp_path / label, label=label)
            found[label] = {key: row["label"] for key, row in rows.items()}
        assert [found[label]["alone.abc#0"] for label in found] == ["Anon.", "3/4", "major"]
        assert [found[label]["folk/two.abc/2#0"] for label in found] == ["folk", "2/4", "major"]
        assert [found[label]["bach/bwv1.2.mid#0"] for label in found] == ["bach", "4/4", ""]

    def test_movements_of_a_work_are_held_out_together(self, folder, tmp_path):
        for seed in range(4):
            prepare(
                Music(),
                folder,
                tmp_path / str(seed),
                modality="music",
                seed=seed,
                valid_share=0.5,
                num_workers=1,
            )
            corpus = Corpus(tmp_path / str(seed))
            by_group: dict[str, set] = {}
            for group, split in zip(corpus.groups, corpus.splits, strict=True):
                by_group.setdefault(group, set()).add(split)
            assert all(len(splits) == 1 for splits in by_group.values())
            assert {split for splits in by_group.values() for split in splits} == {"train", "valid"}

    def test_so_many_pieces_of_each_folder(self, tmp_path):
        for number in range(10):
            write(tmp_path / "many" / f"{number}.mid", midi(scale()))
        write(tmp_path / "few" / "0.mid", midi(scale()))
        keys = [record.key for record in Music(pieces_per_folder=4).records(tmp_path, "all")]
        assert keys == ["few/0.mid", "many/0.mid", "many/2.mid", "many/5.mid", "many/7.mid"]

    def test_settings_of_the_feature_encoder_share_one_prepared_folder(self, folder, tmp_path):
        options = {"modality": "music", "num_workers": 1}
        manifest = prepare(Music(), folder, tmp_path / "out", **options)
        assert (
            prepare(Music(frames_per_quarter=4, transpose=False), folder, tmp_path / "out", **options)
            == manifest
        )
        for settings in (
            {"window_quarters": 32},
            {"label": "mode"},
            {"min_notes": 9},
            {"pieces_per_folder": 2},
        ):
            with pytest.raises(UserError, match="another prepared corpus"):
                prepare(Music(**settings), folder, tmp_path / "out", **options)


def pieces() -> st.SearchStrategy[Piece]:
    """Pieces on a grid of 1/4 quarter, with bars of changing length."""

    @st.composite
    def draw(data) -> Piece:
        sizes = data(
            st.lists(st.sampled_from([(2.0, "2/4"), (3.0, "3/4"), (1.5, "3/8")]), min_size=1, max_size=9)
        )
        starts = np.cumsum([0.0, *(quarters for quarters, _ in sizes)])
        bars = [
            Bar(float(start), float(start), name) for start, (_, name) in zip(starts, sizes, strict=False)
        ]
        end = int(starts[-1] * 4)
        note = st.tuples(st.integers(0, end - 1), st.integers(1, 12), st.integers(58, 64), st.integers(0, 2))
        found = data(st.lists(note, min_size=1, max_size=30))
        rows = [(onset / 4, duration / 4, pitch, part) for onset, duration, pitch, part in sorted(found)]
        return Piece(np.array(rows, dtype=np.float64).reshape(-1, 4), bars, "", "", {})

    return draw()


class TestWindows:
    @given(pieces(), st.integers(1, 40))
    def test_they_tile_the_piece(self, piece, size):
        grid = Grid.of(piece, positions=4, lowest=0, highest=127)
        windows = list(grid.windows(size))
        onsets, ends = grid.notes[:, 0], grid.notes[:, 0] + grid.notes[:, 1]
        assert windows[0].start <= onsets.min() and windows[-1].stop == ends.max()
        assert windows[0].start in grid.bars
        for before, after in pairwise(windows):
            assert before.stop == after.start
            nearby = [line for line in grid.bars if before.start < line <= before.start + size]
            assert before.stop in grid.bars or not nearby
        assert all(0 < window.stop - window.start <= size for window in windows)
        assert sum(window.num_onsets for window in windows) == len(grid.notes)
        for window in windows:
            sounding = {
                (onset - window.start, duration, pitch, part)
                for onset, duration, pitch, part, _ in grid.notes.tolist()
                if onset < window.stop and onset + duration > window.start
            }
            assert {tuple(note[:4]) for note in window.notes.tolist()} == sounding

    @given(pieces())
    def test_sound_is_kept_by_the_grid(self, piece):
        """Which part sounds which pitch when is not changed by cutting notes that are struck again."""
        grid = Grid.of(piece, positions=4, lowest=0, highest=127)

        def sounding(rows) -> set:
            return {
                (part, pitch, step)
                for onset, duration, pitch, part in rows
                for step in range(int(onset), int(onset + duration))
            }

        written = [(onset * 4, duration * 4, pitch, part) for onset, duration, pitch, part in piece.notes]
        assert sounding(grid.notes[:, :4].tolist()) == sounding(written)
        starts = {(onset * 4, pitch, part) for onset, _, pitch, part in piece.notes.tolist()}
        assert {(onset, pitch, part) for onset, _, pitch, part, _ in grid.notes.tolist()} == starts

    @given(
        st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 9)), min_size=1, max_size=20), st.integers(1, 24)
    )
    def test_onsets_and_ends_go_to_the_nearest_step(self, times, positions):
        rows = [(onset, duration, 60, part) for part, (onset, duration) in enumerate(sorted(times))]
        piece = Piece(np.array(rows, dtype=np.float64), [Bar(0, 0, "")], "", "", {})
        grid = Grid.of(piece, positions=positions, lowest=0, highest=127)
        assert len(grid.notes) == len(rows)
        for onset, duration, _, part, _ in grid.notes.tolist():
            assert abs(onset - rows[part][0] * positions) <= 0.5
            end = (rows[part][0] + rows[part][1]) * positions
            assert abs(onset + duration - end) <= 0.5 or (duration == 1 and end - onset < 0.5)

    @given(st.integers(1, 400), st.integers(1, 50))
    def test_much_of_a_size(self, end, size):
        """Without a tiny rest at the end: with a line at every step no window is shorter than half."""
        edges = cut(np.arange(end), 0, end, size)
        sizes = np.diff(edges)
        assert len(sizes) == -(-end // size) and sizes.max() - sizes.min() <= 1

    def test_metre_and_position_follow_changes(self, tmp_path):
        meta = [(0, metre(3, 2)), (12, metre(6, 3))]
        content = midi(scale(24), meta=meta)
        piece = read_one(tmp_path / "change.mid", content)
        grid = Grid.of(piece, positions=2, lowest=0, highest=127)
        windows = list(grid.windows(18))
        assert [(window.start, window.metre) for window in windows] == [(0, "3/4"), (18, "3/4"), (30, "6/8")]
        assert grid.notes[:, 4].tolist() == [0, 2, 4] * 8
        later = midi(scale(24), meta=[(0, metre(3, 2)), (6, metre(6, 3))])  # most of a window's steps decide
        grid = Grid.of(read_one(tmp_path / "later.mid", later), positions=2, lowest=0, highest=127)
        assert [window.metre for window in grid.windows(1000)] == ["6/8"]

    def test_position_in_a_pickup_counts_to_the_bar(self, tmp_path):
        grid = Grid.of(read_one(tmp_path / "pickup.krn", KERN), positions=12, lowest=0, highest=127)
        assert grid.notes[:, 4].tolist() == [24, 0, 12, 16, 20, 24, 6, 12, 24]

    def test_without_a_metre_the_position_is_unknown(self, tmp_path):
        grid = Grid.of(read_one(tmp_path / "none.mid", midi(TUNE)), positions=12, lowest=0, highest=127)
        assert set(grid.notes[:, 4]) == {-1}
        assert set(note_tokens(grid.notes)[:, 3]) == {0}

    def test_bars_of_several_metres(self):
        assert [bar.start for bar in regular_bars([(1.0, "3/4", 3.0), (5.0, "1/4", 1.0)], 7.0)] == [
            0,
            1,
            4,
            5,
            6,
        ]

    def test_long_rests_give_no_rows(self, folder, tmp_path):
        write(
            folder / "rests.mid", midi([(onset + start, 1, 60) for start in (40, 4000) for onset in range(8)])
        )
        rows, _, quality = prepared(folder, tmp_path / "out", window_quarters=16)
        kept = [key for key in rows if key.startswith("rests")]
        assert len(kept) == 2
        assert quality["rests.mid"]["windows"] - quality["rests.mid"]["windows_with_few_notes"] == 2
        assert kept[0] == "rests.mid#40"

    def test_pitches_out_of_range_are_counted(self, folder, tmp_path):
        rows, _, quality = prepared(folder, tmp_path / "out", lowest=55, highest=72, min_notes=4)
        assert quality["bach/bwv1.2.mid"]["changed"] == {"out of range": 7}
        assert all(55 <= row["notes"][:, 2].min() and row["notes"][:, 2].max() <= 72 for row in rows.values())


def window_notes(length: int = 24) -> st.SearchStrategy[np.ndarray]:
    note = st.tuples(
        st.integers(-8, length - 1),
        st.integers(9, 40),
        st.integers(60, 66),
        st.integers(0, 3),
        st.integers(-1, 20),
    )
    return st.lists(note, min_size=1, max_size=20).map(lambda notes: np.array(sorted(notes), dtype=np.int32))


class TestViews:
    @given(window_notes())
    def test_roll_agrees_with_a_slow_one(self, notes):
        roll, observed = piano_roll(notes, 24, lowest=58, highest=70)
        wanted = np.zeros((24, 2, 13), dtype=np.float32)
        for onset, duration, pitch, *_ in notes.tolist():
            if onset >= 0:
                wanted[onset, 0, pitch - 58] = 1
            for step in range(max(0, onset), min(24, onset + duration)):
                wanted[step, 1, pitch - 58] = 1
        np.testing.assert_array_equal(roll.reshape(24, 2, 13), wanted)
        np.testing.assert_array_equal(observed.all(axis=1), wanted[:, 1].any(axis=1))
        np.testing.assert_array_equal(observed.any(axis=1), observed.all(axis=1))

    @given(window_notes())
    def test_tokens_agree_with_slow_ones(self, notes):
        wanted, before = [], 0
        for onset, duration, pitch, part, position in notes.tolist():
            if onset >= 0:
                wanted.append([pitch + 1, duration + 1, onset - before + 1, position + 1, part + 1])
                before = onset
        assert note_tokens(notes).tolist() == wanted

    def test_tokens_are_clipped_to_the_vocabulary(self):
        assert note_tokens(np.array([[5000, 900, 127, 300, 400]])).tolist() == [[128, 128, 128, 128, 128]]

    @given(window_notes(), st.integers(0, 1000))
    def test_transposition_shifts_the_roll(self, notes, seed):
        adapter = Music(positions_per_quarter=1, lowest=58, highest=70)
        row = {"notes": notes, "length": 24, "label": "", "group": ""}
        plain = adapter.load(row, None).values.reshape(24, 2, 13)
        moved = adapter.load(row, np.random.default_rng(seed)).values.reshape(24, 2, 13)
        shifts = [shift for shift in range(-5, 7) if np.array_equal(np.roll(plain, shift, axis=2), moved)]
        assert shifts
        assert moved.sum() == plain.sum()  # no note was lost at the edge

    def test_every_shift_comes_and_none_in_evaluation(self):
        row = {"notes": np.array([[0, 1, 64, 0, 0]]), "length": 1, "label": "", "group": ""}
        adapter, still = Music(view="notes"), Music(view="notes", transpose=False)
        rng = np.random.default_rng(0)
        shifts = {int(adapter.load(row, rng).values[0, 0]) - 65 for _ in range(300)}
        assert shifts == set(range(-5, 7))
        assert int(adapter.load(row, None).values[0, 0]) == int(still.load(row, rng).values[0, 0]) == 65

    @pytest.mark.parametrize("frames_per_quarter", [1, 2, 4])
    def test_a_frame_is_a_beat_or_a_fraction_of_it(self, frames_per_quarter):
        torch.manual_seed(0)
        adapter = Music(
            positions_per_quarter=12, lowest=60, highest=62, frames_per_quarter=frames_per_quarter
        )
        encoder = adapter.feature_encoder(8).eval()
        inputs = torch.rand(1, 12 * 6, 6)
        changed = inputs.clone()
        changed[:, 24:36] += 1.0  # the third quarter
        lengths = torch.tensor([72])
        difference = (encoder(inputs, lengths).x - encoder(changed, lengths).x).abs().sum(-1)[0]
        frames = torch.arange(6 * frames_per_quarter) // frames_per_quarter
        assert torch.equal(difference > 0, frames == 2)

    def test_the_whole_way_from_a_file_to_a_roll(self, folder, tmp_path):
        rows, _, _ = prepared(
            folder, tmp_path / "out", window_quarters=4, positions_per_quarter=12, min_notes=3
        )
        adapter = Music(window_quarters=4, lowest=21, highest=108)
        parts = [row for key, row in rows.items() if key.startswith("bach/bwv1.2.mid#")]
        assert [row["key"].split("#")[1] for row in parts] == ["0", "4", "8", "12", "16"]
        names = adapter.spec.channel_names
        assert names is not None and len(names) == 176
        sample = adapter.load(parts[1], None)
        assert sample.values.shape == (48, 176) and sample.label == "bach" and sample.group == "bach/bwv1"
        begins = {(step, names[channel]) for step, channel in np.argwhere(sample.values[:, :88]).tolist()}
        assert begins == {
            (0, "onset E4"),
            (12, "onset F4"),
            (24, "onset F#4"),
            (36, "onset G4"),
            (0, "onset D3"),
            (24, "onset D#3"),
        }
        assert sample.values[:, 88:].sum() == 2 * 48
        picture = adapter.feature_encoder(8).picture(
            torch.from_numpy(sample.values)[None], torch.tensor([48])
        )
        assert picture.shape == (1, 48, 88)
        low, high = (names.index(f"onset {pitch}") for pitch in ("D3", "G4"))
        assert picture[0, 0, low] == 1 and picture[0, 1, low] == pytest.approx(0.6)
        assert picture[0, 36, high] == 1 and picture[0, 35, high] == 0
