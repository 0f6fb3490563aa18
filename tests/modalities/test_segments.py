"""Labelled stretches that adapters give: open reading frames, CDS, roots, keys, voices, activities."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalities.dna import DNA
from modalities.dna.frames import FORWARD, REVERSE, open_frames
from modalities.music import Music
from modalities.music.labels import segments_of
from modalities.wearables import Wearables
from seqssl import Segment, UserError
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.testing import check_adapter

LETTERS = "ACGTN"
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def slow_frames(text: str, least: int) -> set[tuple[int, int, str]]:
    """By the words of the docstring, codon by codon."""
    found = set()
    for strand, letters in ((FORWARD, text), (REVERSE, text.translate(COMPLEMENT)[::-1])):
        for phase in range(3):
            begin: int | None = phase
            place = phase
            while place + 3 <= len(letters):
                codon = letters[place : place + 3]
                if codon in ("TAA", "TAG", "TGA") or "N" in codon:
                    if begin is not None and place > begin:
                        found.add((begin, place + (3 if "N" not in codon else 0), strand))
                    begin = None
                elif codon == "ATG" and begin is None:
                    begin = place
                place += 3
            if begin is not None and place > begin:
                found.add((begin, place, strand))
    size = len(text)
    turned = {(s, e, w) if w == FORWARD else (size - e, size - s, w) for s, e, w in found}
    return {part for part in turned if part[1] - part[0] >= least}


@given(st.text(LETTERS, max_size=60), st.sampled_from([3, 9, 21]))
def test_open_frames_are_those_of_the_rule(text: str, least: int) -> None:
    ids = np.array([LETTERS.index(letter) for letter in text], dtype=np.int64)
    found = open_frames(ids, least)
    assert {(s.start, s.end, s.label) for s in found} == slow_frames(text, least)
    assert len(found) == len({(s.start, s.end, s.label) for s in found})
    assert [s.start for s in found] == sorted(s.start for s in found)


GENBANK = """LOCUS       TEST1                     60 bp    DNA     linear   BCT 01-JAN-2000
DEFINITION  A test.
ACCESSION   TEST1
VERSION     TEST1.1
FEATURES             Location/Qualifiers
     source          1..60
                     /organism="none"
     gene            4..12
     CDS             4..12
                     /product="a"
     CDS             complement(31..45)
                     /product="b"
ORIGIN
        1 acgatgaaat aaccccaaaa ttttggggcc aaaattttgg ggccaaaatt ttggggccaa
//
"""


def test_coding_sequences_of_genbank(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.gb").write_text(GENBANK)
    adapter = DNA(segments="cds", length=40, min_length=10)
    prepare(adapter, tmp_path / "in", tmp_path / "out", modality="dna", valid_share=0.0)
    corpus = Corpus(tmp_path / "out")
    found = [adapter.load(corpus.row(n), None).segments for n in range(len(corpus))]
    assert found == [
        (Segment(3, 12, FORWARD), Segment(30, 40, REVERSE)),
        (Segment(0, 5, REVERSE),),
    ]
    rng = np.random.default_rng(0)
    flipped = {adapter.load(corpus.row(0), rng).segments for _ in range(12)}
    assert flipped == {found[0], (Segment(0, 10, FORWARD), Segment(28, 37, REVERSE))}


def test_unknown_kinds_of_segments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"min_orf=2: none, orf, cds; at least 3"):
        DNA(segments="orf", min_orf=2)
    with pytest.raises(UserError, match=r"modality.segments=voice: expected none, root or key"):
        Music(segments="voice")


def notes_of(*chords: tuple[int, ...], quarters: int = 1) -> np.ndarray:
    """A chord each so many quarters, on a grid of 12."""
    rows = [
        (12 * quarters * n, 12 * quarters, pitch, part, 0)
        for n, chord in enumerate(chords)
        for part, pitch in enumerate(sorted(chord, reverse=True))
    ]
    return np.array(rows, dtype=np.int64)


C, F_6, G_7, A_MINOR = (60, 64, 67), (57, 60, 65), (55, 59, 62, 65), (57, 60, 64)


def test_roots_are_those_of_the_chords_whatever_their_inversion() -> None:
    found = segments_of(notes_of(C, F_6, G_7, A_MINOR), 48, "root", 12, per_note=False)
    assert [(s.start, s.end, s.label) for s in found] == [
        (0, 12, "C"), (12, 24, "F"), (24, 36, "G"), (36, 48, "A")
    ]  # fmt: skip
    per_note = segments_of(notes_of(C, F_6, G_7, A_MINOR), 13, "root", 12, per_note=True)
    assert [(s.start, s.end, s.label) for s in per_note] == [
        (0, 3, "C"), (3, 6, "F"), (6, 10, "G"), (10, 13, "A")
    ]  # fmt: skip


@pytest.mark.parametrize("shift", range(12))
def test_keys_move_with_the_notes(shift: int) -> None:
    names = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
    notes = notes_of(C, F_6, G_7, C, C, F_6, G_7, C, quarters=2)
    notes[:, 2] += shift
    (found,) = segments_of(notes, 192, "key", 12, per_note=False)
    assert found == Segment(0, 192, f"{names[shift]} major")


def test_keys_are_those_of_music21() -> None:
    from music21 import note, stream

    rng = np.random.default_rng(0)
    for _ in range(10):
        pitches = rng.integers(48, 72, size=16)
        notes = np.array([(12 * n, 12, pitch, 0, 0) for n, pitch in enumerate(pitches)], dtype=np.int64)
        written = stream.Stream()
        for pitch in pitches.tolist():
            written.append(note.Note(pitch))
        wanted = written.analyze("key.krumhanslschmuckler")
        (found,) = segments_of(notes, 192, "key", 12, per_note=False)
        tonic, mode = str(found.label).split()
        names = {
            "C": 0,
            "C#": 1,
            "D": 2,
            "Eb": 3,
            "E": 4,
            "F": 5,
            "F#": 6,
            "G": 7,
            "Ab": 8,
            "A": 9,
            "Bb": 10,
            "B": 11,
        }
        assert (names[tonic], mode) == (wanted.tonic.pitchClass, wanted.mode)


def test_voices_are_parts() -> None:
    found = segments_of(notes_of(C, F_6), 6, "voice", 12, per_note=True)
    assert [s.label for s in found] == ["voice 0", "voice 1", "voice 2"] * 2
    assert [(s.start, s.end) for s in found] == [(n, n + 1) for n in range(6)]


@pytest.mark.parametrize(
    ("view", "kind"), [("roll", "root"), ("roll", "key"), ("notes", "root"), ("notes", "voice")]
)
def test_music_with_segments_keeps_the_contract(tmp_path: Path, view: str, kind: str) -> None:
    tunes = "".join(f"X:{n}\nM:4/4\nL:1/4\nK:C\n" + "CEGc|FAcf|GBdg|CEGc|\n" * 4 + "\n" for n in range(1, 5))
    (tmp_path / "tunes.abc").write_text(tunes)
    check_adapter(Music(view=view, segments=kind), tmp_path)  # type: ignore[arg-type]


def write_watch(folder: Path) -> Path:
    """A minute of rest, walking, and no label."""
    rng = np.random.default_rng(0)
    lines = ["time,x,y,z,activity"]
    for step in range(50 * 60):
        label = "rest" if step < 1000 else "walk" if step < 2500 else ""
        x, y, z = rng.normal(size=3) * (0.3 if label == "walk" else 0.05) + [0, 0, 1]
        lines.append(f"{step / 50:.3f},{x:.4f},{y:.4f},{z:.4f},{label}")
    folder.mkdir()
    (folder / "watch.csv").write_text("\n".join(lines))
    return folder


def test_activities_of_steps(tmp_path: Path) -> None:
    source = write_watch(tmp_path / "in")
    adapter = Wearables(segments=True, label_column="activity", rate_hz=30.0)
    prepare(adapter, source, tmp_path / "out", modality="wearables", valid_share=0.0)
    corpus = Corpus(tmp_path / "out")
    first, second = (list(adapter.load(corpus.row(n), None).segments or ()) for n in range(2))
    assert [s.label for s in first] == ["rest", "walk"]
    assert abs(first[0].end - 600) <= 1 and first[1].end == 900
    assert [s.label for s in second] == ["walk"]
    assert abs(second[0].end - 600) <= 1
    assert json.loads(corpus.row(0)["segments"])
    assert not hasattr(Wearables(), "segments"), "folders that were prepared before stay valid"


def test_descriptions_of_a_sound_and_of_a_tune(tmp_path: Path) -> None:
    from modalities.speech import Speech
    from seqssl import Sample
    from seqssl.data.adapters import HasDescriptors

    rng = np.random.default_rng(0)
    speech = Speech()
    assert isinstance(speech, HasDescriptors)
    quiet, loud = (
        speech.descriptors(Sample((size * rng.normal(size=8000)).astype(np.float32))) for size in (0.01, 0.1)
    )
    assert {name: len(x) for name, x in loud.items()} == {"cepstra": 78}
    assert loud["cepstra"][0] > quiet["cepstra"][0] and abs(loud["cepstra"][1] - quiet["cepstra"][1]) < 1
    (tmp_path / "tunes.abc").write_text("X:1\nM:4/4\nL:1/4\nK:C\n" + "CEGc|" * 8 + "\n")
    music = Music()
    (record,) = music.records(tmp_path, "all")
    (row,) = record.read().rows  # type: ignore[union-attr]
    found = music.descriptors(music.load({**row, "group": ""}, None))
    assert found["pitch"][:12].tolist() == [0.5, 0, 0, 0, 0.25, 0, 0, 0.25, 0, 0, 0, 0]
    assert found["rhythm"][12] == 1.0, "a quarter from each onset to the next"
    assert len(found["pitch and rhythm"]) == len(found["pitch"]) + len(found["rhythm"])
    steps, times = np.split(found["melody"], [15 * 15])
    pairs = {(i // 15 - 7, i % 15 - 7): round(30 * steps[i]) for i in np.flatnonzero(steps)}
    assert pairs == {(4, 3): 8, (3, 5): 8, (5, -7): 7, (-7, 4): 7}, "an octave down counts as a fifth"
    assert times[12 * 13 + 12] == 1.0
