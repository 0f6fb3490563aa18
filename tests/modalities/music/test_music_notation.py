import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from music_files import (
    ABC,
    KERN,
    SCALE,
    TUNE,
    XML,
    expected,
    kern,
    music_xml,
    prepared,
    read_one,
    triples,
    write,
    xml_note,
)

from modalities.music.notation import tunes


class TestReading:
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

    def test_an_accidental_of_abc_holds_out_of_a_chord_and_along_a_tie(self, tmp_path):
        piece = read_one(tmp_path / "held.abc", "X:1\nM:4/4\nL:1/4\nK:C\n[^CE]C ^F-|F F|\n")
        assert [pitch for *_, pitch in triples(piece)] == [61, 64, 61, 66, 65]

    def test_chord_names_and_grace_notes_are_no_notes(self, tmp_path):
        piece = read_one(tmp_path / "graces.abc", 'X:1\nM:2/4\nL:1/4\nK:C\n"Am"{d}CD|"G7"[EG]2|\n')
        assert triples(piece) == expected([(0, 1, 60), (1, 1, 62), (2, 2, 64), (2, 2, 67)])
        assert piece.left_out == {"grace notes": 1}

    def test_transposing_instruments_sound(self, tmp_path):
        clarinet = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
        whole = read_one(tmp_path / "concert.xml", music_xml(SCALE))
        transposed = read_one(tmp_path / "clarinet.xml", music_xml(SCALE, attributes=clarinet))
        np.testing.assert_array_equal(transposed.notes[:, 2], whole.notes[:, 2] - 2)

    @pytest.mark.parametrize(
        "first, second, onsets",
        [
            ([6, 18, 18], [0, 18, 18], [0, 1, 1, 4, 4]),  # a pickup beside an empty bar
            ([18, 6, 18], [18, 18, 18], [0, 0, 3, 3, 6, 6]),  # a rest that is not written
            ([18, 24, 18], [18, 18, 18], [0, 0, 3, 3, 7, 7]),  # a bar that is too long
        ],
    )
    def test_bars_of_all_parts_begin_together(self, first, second, onsets, tmp_path):
        def bars(sizes: list[int], octave: int) -> list[str]:
            return [xml_note("C", octave, size) if size else "" for size in sizes]

        one, two = (
            music_xml(*bars(sizes, octave)) for sizes, octave in ((first, 5), (second, 3))
        )  # the part of the second score becomes one of the first
        part = two[two.index('<part id="P1">') : two.index("</score-partwise>")].replace("P1", "P2")
        one = one.replace(
            "</part-list>", '<score-part id="P2"><part-name>y</part-name></score-part></part-list>'
        )
        piece = read_one(
            tmp_path / "two.musicxml", one.replace("</score-partwise>", f"{part}</score-partwise>")
        )
        assert piece.notes[:, 0].tolist() == onsets
        assert [bar.start for bar in piece.bars] == sorted({*onsets})

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


def xml_in(encoding: str, declared: str, composer: str = "Fauré", text: str = XML) -> bytes:
    """The tune, or another text, in an encoding, with a first line that names one."""
    first = (
        f'<?xml version="1.0" encoding="{declared}" standalone="no"?>'
        if declared
        else '<?xml version="1.0"?>'
    )
    return text.replace('<?xml version="1.0"?>', first).replace("Anon.", composer).encode(encoding)


class TestEncodings:
    @pytest.mark.parametrize("ending", [".musicxml", ".xml", ".mxl"])
    @pytest.mark.parametrize(
        "encoding, declared, composer",
        [
            ("utf-16", "UTF-16", "Dvořák"),
            ("utf-16", "", "Dvořák"),  # the byte order mark says it
            ("utf-16-le", "UTF-16", "Dvořák"),
            ("utf-16-be", "utf-16", "Dvořák"),
            ("utf-8-sig", "UTF-8", "Dvořák"),
            ("utf-8", "utf-8", "Dvořák"),
            ("utf-8", "", "Dvořák"),
            ("iso-8859-1", "ISO-8859-1", "Fauré"),
            ("cp1252", "windows-1252", "Fauré"),
            ("shift_jis", "Shift_JIS", "武満徹"),
            ("ascii", "us-ascii", "Anon."),
        ],
    )
    def test_of_music_xml(self, ending, encoding, declared, composer, tmp_path):
        path, data = tmp_path / f"tune{ending}", xml_in(encoding, declared, composer)
        if ending == ".mxl":
            data = packed(tmp_path / "packed", data)
        piece = read_one(path, data)
        assert triples(piece) == expected(TUNE) and piece.composer == composer

    @pytest.mark.parametrize(
        "data, reason",
        [
            (xml_in("iso-8859-1", ""), "it has letters that are not in UTF-8, which its first line names or"),
            (
                xml_in("iso-8859-1", "UTF-8"),
                "it has letters that are not in UTF-8, which its first line names",
            ),
            (
                xml_in("utf-8", "utf-16"),
                "its first line says that it is in 'utf-16', which it is not or which",
            ),
            (xml_in("utf-8", "latin-99"), "its first line says that it is in 'latin-99', which it is not or"),
            (xml_in("utf-8", "rot13"), "its first line says that it is in 'rot13', which it is not or"),
            (xml_in("utf-16", "UTF-16")[:-1], "it has letters that are not in UTF-16"),
        ],
    )
    def test_of_music_xml_that_are_not_what_it_says(self, data, reason, tmp_path):
        with pytest.raises(ValueError, match=re.escape(reason)):
            read_one(tmp_path / "tune.xml", data)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
    def test_what_is_refused_in_one_is_refused_in_all(self, encoding, tmp_path):
        text = XML.replace("<beats>3</beats>", "<beats>99999999</beats>")
        with pytest.raises(ValueError, match="a metre of more than 128 beats"):
            read_one(tmp_path / "tune.xml", xml_in(encoding, encoding, text=text))

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1"])
    def test_of_kern_and_abc(self, encoding, tmp_path):
        for name, text in (("tune.krn", KERN), ("tune.abc", ABC)):
            data = text.replace("Anon.", "Fauré").replace("\n", "\r\n").encode(encoding)
            piece = read_one(tmp_path / name, data)
            assert triples(piece) == expected(TUNE) and piece.composer == "Fauré"


def packed(path: Path, score: bytes) -> bytes:
    """An .mxl file of one score."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("score.xml", score)
    return path.read_bytes()


class TestBadInput:
    def test_unpitched_percussion(self, tmp_path):
        drum = "<note><unpitched/><duration>6</duration><voice>1</voice></note>"
        with pytest.raises(ValueError, match=r"no pitched notes \(left out: 3 unpitched notes\)"):
            read_one(tmp_path / "drum.musicxml", music_xml(drum * 3))
        mixed = read_one(tmp_path / "mixed.musicxml", music_xml(drum + xml_note("C", 4, 6)))
        assert triples(mixed) == [(1, 1, 60)] and mixed.left_out == {"unpitched notes": 1}

    def test_what_music21_could_not_read_is_in_the_report(self, folder, tmp_path, capfd):
        write(folder / "typo.krn", kern(*["4c"] * 9, "4?", "4d"))
        _, _, quality = prepared(folder, tmp_path / "out")
        assert quality["typo.krn"]["num_complaints"] == 1
        assert "4?" in quality["typo.krn"]["complaints"][0]
        assert capfd.readouterr().err == ""

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
            ("a.abc", "K:C\nC|[L:99999/1]C|\n", "a note of 399996 quarters"),
            ("a.abc", f"K:C\nC{'9' * 5000}\n", "too many digits"),
            ("a.abc", "M:99999999/4\nK:C\nC|\n", "a metre of 1e+08 beats where 128 are the most"),
            ("a.krn", "**kern\n*M99999999/4\n4c\n*-\n", "a metre of 1e+08 beats where 128 are the most"),
        ],
    )
    def test_absurd_lengths_are_told_before_the_file_is_parsed(
        self, name, text, reason, tmp_path, monkeypatch
    ):
        def never(*_: object) -> None:
            raise AssertionError("it would not come to an end")

        monkeypatch.setattr("music21.converter.subConverters.ConverterHumdrum.parseData", never)
        with pytest.raises(ValueError, match=re.escape(reason)):
            read_one(tmp_path / name, text if name.endswith("krn") else f"X:1\n{text}")

    def test_long_numbers_that_are_no_lengths(self, tmp_path):
        head = "X:12345678\nT:a99999\nM:4/4\nL:1/4\nQ:1/4=9999\nK:C\n"
        piece = read_one(tmp_path / "a.abc", head + '"C99999"C4|D4|% E99999\n')
        assert triples(piece) == [(0, 4, 60), (4, 4, 62)]
