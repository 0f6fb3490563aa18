"""E: no note is lost silently: ABC by its standard, other notations by counts, or a rejection with the numbers."""

import re
import sys
import zipfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import symusic
from field import Prepared, prepare
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "modalities" / "music"))

from music_files import kern, midi, music_xml, scale, xml_note

from modalities.music import counts
from modalities.music.abc import read_abc

HEAD = "X:1\nT:t\nM:4/4\nL:1/4\n"
SCALE = [60, 62, 64, 65, 67, 69, 71, 72]
Notes = list[list[tuple[float, float, int]]]


def read(text: str) -> Notes:
    """Onset, duration and pitch of each part, from the highest down."""
    piece = read_abc(text)
    found: dict[int, list[tuple[float, float, int]]] = {}
    for onset, duration, pitch, part in piece.notes.tolist():
        found.setdefault(int(part), []).append((round(onset, 4), round(duration, 4), int(pitch)))
    return [sorted(found[part]) for part in sorted(found)]


def pitches(text: str) -> list[int]:
    return [pitch for part in read(text) for _, _, pitch in part]


def line(pitches: list[int], start: float = 0, each: float = 1) -> list[tuple[float, float, int]]:
    return [(start + n * each, each, pitch) for n, pitch in enumerate(pitches)]


LOW = [48, 50, 52, 53, 55, 57, 59, 60]


@pytest.mark.parametrize(
    "body",
    [
        "K:C\nV:1\nCDEF|\nV:2\nC,D,E,F,|\nV:1\nGABc|\nV:2\nG,A,B,C|\n",
        "V:S name=Sop\nV:A\nK:C\n[V:S] CDEF|GABc|\n[V:A] C,D,E,F,|G,A,B,C|\n",
        "%%score (S A)\nK:C\nV:S\nCDEF|\nGABc|\nV:A\nC,D,E,F,|\nG,A,B,C|\n",
        "K:C\n[V:1] CDEF|\n[V:2] C,D,E,F,|\n[V:1] GABc|\n[V:2] G,A,B,C|\n",
        "V:1 clef=treble\nV:2 clef=bass octave=-1\nK:C\nV:1\nCDEF|GABc|\nV:2\nCDEF|GABc|\n",
        "K:C\nV:1\nCDEF|GABc|\nV:2 clef=treble-8\nCDEF|GABc|\n",
        "K:C\nV:1\nCDEF|GABc|\nw: la la la la la\nV:2\nC,D,E,F,|G,A,B,C|\n% a remark\n",
    ],
)
def test_voices_sound_together(body: str) -> None:
    assert read(HEAD + body) == [line(SCALE), line(LOW)]


def test_an_overlay_fills_its_bar_again() -> None:
    (part,) = read(HEAD + "K:C\nCDEF & C,2E,2|GABc & G,4|\n")
    upper, lower = line(SCALE), [(0, 2, 48), (2, 2, 52), (4, 4, 55)]
    assert Counter(part) == Counter([*upper, *lower])


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("K:C\nCDEF|[K:D]CDEF|\n", [60, 62, 64, 65, 61, 62, 64, 66]),
        ("K:C\nCDEF|\nK:Bb\nCDEB|\n", [60, 62, 64, 65, 60, 62, 63, 70]),
        ("K:D Phr ^f\nCDEF|GABc|\n", [60, 62, 63, 66, 67, 69, 70, 72]),
        ("K:D exp ^f _b\nCDEF|GABc|\n", [60, 62, 64, 66, 67, 69, 70, 72]),
        ("K:Amix\nFGAc|\n", [66, 67, 69, 73]), ("K:F#m\nFGAc|\n", [66, 68, 69, 73]), ("K:Ebdor\nDEGA|\n", [61, 63, 66, 68]),
        ("K:HP\nFCGA|\n", [66, 61, 67, 69]), ("K:none\nFCGA|\n", [65, 60, 67, 69]), ("K:G lydian\nCFGA|\n", [61, 66, 67, 69]),
        ("K:C octave=-1\nCDEF|\n", [48, 50, 52, 53]), ("K:C clef=treble+8\nCDEF|\n", [72, 74, 76, 77]),
        ("K:C transpose=-2\nCDEF|\n", [58, 60, 62, 63]), ("K:C treble-15\nCDEF|\n", [36, 38, 40, 41]),
        ("K:C\n^CC=Cc|C4|\n", [61, 61, 60, 72, 60]), ("K:C\n^Cc_dD|\n", [61, 73, 73, 61]),
        ("K:C\n%%propagate-accidentals octave\n^Ccc'C|\n", [61, 72, 84, 61]), ("K:C\n__B^^F_/B=F|\n", [69, 67, 70, 65]),
        ("K:C\nCD[r:note the D]EF|\n", [60, 62, 64, 65]), ("K:C\nCD % C D E\nEF|\n", [60, 62, 64, 65]),
        ('K:C\n"Am7"C!trill!D+fermata+E"^above"F|\n', [60, 62, 64, 65]), ("K:C\nuCvD.E~F TG|\n", [60, 62, 64, 65, 67]),
        ("K:C\n(CD)(EF)|(3GAB c|\n", [60, 62, 64, 65, 67, 69, 71, 72]), ("K:C\nC{d}D{/ef}EF|\n", [60, 62, 64, 65]),
        ("K:C\n%%begintext\nABC words DEF\n%%endtext\nCDEF|\n", [60, 62, 64, 65]),
        ("K:C\n|:CDEF:|[1 G4:|[2 A4|]\n", [60, 62, 64, 65, 67, 69]), ("K:C\nCD\\\nEF|\n", [60, 62, 64, 65]),
        ("K:C\nC`D$E*F!\nG4|\n", [60, 62, 64, 65, 67]),
    ],
)  # fmt: skip
def test_pitches(body: str, right: list[int]) -> None:
    assert [
        pitch for _, _, pitch in sorted((o, d, p) for part in read(HEAD + body) for o, d, p in part)
    ] == right


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("K:C\n[CE]-[CE] GA|\n", [(0, 2, 60), (0, 2, 64), (2, 1, 67), (3, 1, 69)]),
        ("K:C\n[C-E][CF] GA|\n", [(0, 2, 60), (0, 1, 64), (1, 1, 65), (2, 1, 67), (3, 1, 69)]),
        ("K:C\n^F2-F2-|F2 F2|\n", [(0, 6, 66), (6, 2, 65)]),
        ("K:C\nC>{d}E F<G|\n", [(0, 1.5, 60), (1.5, 0.5, 64), (2, 0.5, 65), (2.5, 1.5, 67)]),
        ("K:C\nC>>E|\n", [(0, 1.75, 60), (1.75, 0.25, 64)]),
        ("K:C\nz2C2|Z|C4|x2 C2|\n", [(2, 2, 60), (8, 4, 60), (14, 2, 60)]),
        ("K:C\nC/D/E//F//G3/2A|\n", [(0, 0.5, 60), (0.5, 0.5, 62), (1, 0.25, 64), (1.25, 0.25, 65), (1.5, 1.5, 67), (3, 1, 69)]),
        ("K:C\n(3CDE (5:4:5C/D/E/F/G/ A2|\n", None),
        ("K:C\nCDEF|[L:1/8]CDEF|\n", [*line([60, 62, 64, 65]), *line([60, 62, 64, 65], 4, 0.5)]),
        ("K:C\nL:1/2\nCD|\n", line([60, 62], 0, 2)), ("K:C\n[C2E2]2 y4 C4|\n", [(0, 4, 60), (0, 4, 64), (4, 4, 60)]),
        ("K:C\n[M:3/4]CDE|Z2|C3|\n", [*line([60, 62, 64]), (9, 3, 60)]),
    ],
)  # fmt: skip
def test_lengths(body: str, right: list[tuple[float, float, int]] | None) -> None:
    (part,) = read(HEAD + body)
    if right is None:
        right = [*line([60, 62, 64], 0, 2 / 3), *line([60, 62, 64, 65, 67], 2, 0.4), (4, 2, 69)]
        right = [(round(o, 4), round(d, 4), p) for o, d, p in right]
    assert part == sorted(right)


KEYS = st.sampled_from(["C", "G", "Dm", "Bb", "Amix", "F#m", "Ebdor", "E lyd", "Bphr"])
# abc2midi knows no octave marks against the case of a letter, as in c, or C'
PITCH = st.one_of(
    st.builds("{}{}".format, st.sampled_from([*"CDEFGAB"]), st.sampled_from(["", "", ",", ",,"])),
    st.builds("{}{}".format, st.sampled_from([*"cdefgab"]), st.sampled_from(["", "", "'"])),
)
NOTE = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "", "", "^", "_", "="]),
    PITCH,
    st.sampled_from(["", "2", "/", "3", "3/2", "/4"]),
)
EVENT = st.one_of(NOTE, NOTE, NOTE, st.sampled_from(["z", "z2", "[CEG]2", "[DF]", "(3CDE"]))


@given(
    KEYS,
    st.lists(st.lists(EVENT, min_size=1, max_size=8), min_size=1, max_size=4),
    st.sampled_from(["1/4", "1/8"]),
)
def test_tunes_are_read_as_abc2midi_reads_them(key: str, bars: list[list[str]], unit: str) -> None:
    """Somebody else's implementation of the standard; each bar is a line of music with bar lines around it."""
    bars = [["C"], *bars]  # abc2midi fails on a tune of rests
    text = f"X:1\nT:t\nM:4/4\nL:{unit}\nK:{key}\n" + " | ".join(" ".join(bar) for bar in bars) + " |]\n"
    theirs = symusic.Score.from_abc(text)
    wanted = sorted(
        (Fraction(note.time, theirs.tpq), note.pitch) for track in theirs.tracks for note in track.notes
    )
    mine = sorted((onset, int(pitch)) for onset, _, pitch, _ in read_abc(text).notes.tolist())
    assert [pitch for _, pitch in mine] == [pitch for _, pitch in wanted], text
    # The notes of its chords begin a tick after one another
    assert all(abs(float(a) - b) < 0.05 for (a, _), (b, _) in zip(wanted, mine, strict=True)), text


def scores(folder: Path) -> Prepared:
    return prepare("music", folder, "modality.view=notes", "modality.min_notes=1")


def test_a_packed_score_among_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    xml = music_xml(scale_xml())
    with zipfile.ZipFile(folder / "mac.mxl", "w") as archive:
        archive.writestr("__MACOSX/._score.xml", b"\0\5\26\7resource fork")
        archive.writestr(
            "META-INF/container.xml",
            '<container><rootfiles><rootfile full-path="score.xml"/></rootfiles></container>',
        )
        archive.writestr("score.xml", xml)
    with zipfile.ZipFile(folder / "bare.mxl", "w") as archive:
        archive.writestr("._score.xml", b"junk")
        archive.writestr("score.xml", xml)
    found = scores(folder)
    assert {row["key"].partition("#")[0] for row in found.rows} == {"mac.mxl", "bare.mxl"}, found.rejected


def scale_xml() -> str:
    return "".join(xml_note(letter, 4, 6) for letter in "CDEF")


def test_small_notes_are_counted_and_not_played(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    cue = re.sub(r"<note>", "<note><cue/>", xml_note("A", 5, 6))
    (folder / "cue.musicxml").write_text(music_xml(scale_xml() + cue))
    found = scores(folder)
    if found.rows:
        assert sum(len(row["notes"]) for row in found.rows) == 4
    else:
        assert "notes are written in it" in found.message


def test_counts_that_differ_reject_the_piece_with_the_numbers() -> None:
    counts.check(counts.Written(10, 20.0), 10, 20.01)
    with pytest.raises(ValueError, match="12 notes are written in it and 10 were read"):
        counts.check(counts.Written(12, 20.0), 10, 20.0)
    with pytest.raises(ValueError, match=r"fill 24.0 quarters and those that were read 20.0"):
        counts.check(counts.Written(10, 24.0), 10, 20.0)


@pytest.mark.parametrize(
    ("text", "notes", "quarters"),
    [
        (kern("4c", "8d", "8e", "4.f", "8r", "2g"), 5, 5.5),
        (kern("4c 4e 4g", "qd", "[2c", "2c]"), 5, 7.0),
        ("**kern\t**text\n4c\tla\n*^\t*\n4d\t4e\tA\n*v\t*v\t*\n4f\tC\n*-\t*-\n", 4, 4.0),
        ("**kern\t**kern\n*M4/4\t*M4/4\n4c\t2CC\n4d\t.\n=\t=\n0c\t1E\n*-\t*-\n", 5, 16.0),
        ("**kern\n12c\n12d\n12e\n3%2g\n*-\n", 4, 1 + 8 / 3),
    ],
)
def test_notes_of_kern_are_counted(text: str, notes: int, quarters: float) -> None:
    found = counts.in_kern(text)
    assert (found.notes, round(found.quarters, 4)) == (notes, round(quarters, 4))


def test_notes_of_midi_are_counted(tmp_path: Path) -> None:
    tune = midi(scale(20))
    assert counts.in_midi(tune) == 20
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.mid").write_bytes(tune)
    (folder / "two.mid").write_bytes(tune[:8] + b"\0\2" + tune[10:])
    found = scores(folder)
    assert "MIDI of type 2" in found.rejected["two.mid"] and found.rows
