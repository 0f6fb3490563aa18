import sys
from fractions import Fraction

import numpy as np
import pytest
from music_files import FORMATS, TUNE, expected, kern, midi, music_xml, read_one, scale, triples

from modalities.music.pieces import Bar
from modalities.music.scores import read_piece


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
        piece = read_piece(path, "")
        assert sorted(triples(piece)) == sorted(expected(wanted))
        assert {int(row[3]) for row in piece.notes if row[2] >= 72} == {0}  # the higher part comes first
        assert {int(row[3]) for row in piece.notes if row[2] < 72} == {1}

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

    @pytest.mark.parametrize("name, package", [("tune.mid", "symusic"), ("tune.krn", "music21")])
    def test_a_missing_package_names_the_extra(self, name, package, tmp_path, monkeypatch):
        for module in [package, *(known for known in sys.modules if known.startswith(f"{package}."))]:
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=rf"need the package {package}: pip install 'seqssl\[music\]'"):
            read_one(tmp_path / name, FORMATS[name.split(".")[1]])
