"""Folders and tables of collections of scores: composers, pieces, splits."""

import pytest
from music_files import kern, midi, prepared, scale, write

from modalities.music import Music
from modalities.music.folders import composer_of
from seqssl import Record

HASHES = [f"{number:x}" * 32 for number in (10, 11, 12, 13)]
ASAP = [f"{piece}/{name}.mid" for piece in ("Bach/Fugue/bwv_846", "Bach/Prelude/bwv_846", "Haydn/Sonatas/39")
        for name in ("midi_score", "Shi05M", "Lee02M")]  # fmt: skip


def found_in(folder, *names, **settings):
    for name in names:
        write(folder / name, midi(scale()))
    return {row.key: row for row in Music(**settings).records(folder, "all") if isinstance(row, Record)}


def said(records):
    """What is noticed in all of some records."""
    (notices,) = {tuple(record.read().notices) for record in records.values()}
    return notices


class TestPieces:
    @pytest.mark.parametrize("top", ["", "asap-dataset/"])
    def test_performances_beside_their_score(self, tmp_path, top):
        names = [top + name for name in ASAP]
        records = found_in(tmp_path, *names)
        assert {key: row.group for key, row in records.items()} == {
            name: name.rpartition("/")[0] for name in names
        }
        assert {row.label for row in records.values()} == {"Bach", "Haydn"}
        assert not said(records)

    def test_hashes_below_codes(self, tmp_path):
        """The matched part of Lakh: several files of a song."""
        songs = ["A/A/A/TRAAAGR128F425B14B", "A/B/C/TRABCDE128F9300000"]
        names = [f"{song}/{name}.mid" for song, name in zip(songs * 2, HASHES, strict=True)]
        records = found_in(tmp_path, *names)
        assert {row.group for row in records.values()} == {*songs}
        assert {row.label for row in records.values()} == {""}

    def test_tracks_of_a_mixture(self, tmp_path):
        """Slakh: Track00001/MIDI/S00.mid beside Track00001/all_src.mid."""
        names = [f"Track0000{n}/{name}.mid" for n in (1, 2) for name in ("all_src", "MIDI/S00", "MIDI/S01")]
        records = found_in(tmp_path, *names)
        assert {row.group for row in records.values()} == {"Track00001", "Track00002"}
        assert {row.label for row in records.values()} == {""}

    def test_what_is_not_sure_is_said(self, tmp_path):
        names = [f"Bach/bwv{n}/{who}.mid" for n, pair in ((1, "ab"), (2, "bc"), (3, "ca"), (4, "de"))
                 for who in (pair[0] * 3, pair[1] * 3)]  # fmt: skip
        records = found_in(tmp_path, *names)
        assert len({row.group for row in records.values()}) == 8
        (notice,) = said(records)
        assert "modality.group_pattern='(.+)/[^/]*$'" in notice and "aaa is in several folders" in notice
        told = found_in(tmp_path, group_pattern="(.+)/[^/]*$")
        assert {row.group for row in told.values()} == {f"Bach/bwv{n}" for n in range(1, 5)}
        assert not said(told)

    def test_counted_files_of_composers_are_pieces(self, tmp_path):
        names = [
            f"{who}/{what}{n}.mid" for who in ("Bach", "Haydn") for what in ("", "track") for n in (1, 2)
        ]
        records = found_in(tmp_path, *names)
        assert len({row.group for row in records.values()}) == 8 and not said(records)


class TestComposers:
    @pytest.mark.parametrize(
        "names, labels",
        [
            (["kern/a.mid", "kern/b.mid"], ["", ""]),
            (["midis/a.mid", "data_files/b.mid"], ["", ""]),
            (["scores/bach/a.mid", "scores/haydn/b.mid"], ["bach", "haydn"]),
            (["midi/bach/a.mid", "xml/haydn/b.mid"], ["bach", "haydn"]),
            (["A/ABBA/a.mid", "B/Blink 182/b.mid"], ["ABBA", "Blink 182"]),
            (["Bach/a.mid", "Bach/b.mid"], ["Bach", "Bach"]),
            (["x.mid", "Bach/b.mid", "Haydn/c.mid"], ["Bach", "Haydn", ""]),
            (["bach/chorales/1.mid", "bach/wtc/2.mid"], ["bach", "bach"]),
            (["asap-dataset/Bach/1.mid", "asap-dataset/Haydn/2.mid"], ["Bach", "Haydn"]),
        ],
    )
    def test_are_the_first_folders_that_vary(self, tmp_path, names, labels):
        assert [row.label for row in found_in(tmp_path, *names).values()] == labels

    def test_what_the_file_states_comes_first(self, tmp_path):
        notes = ["4c", "4d", "4e", "4f"] * 4
        for name, composer in {
            "kern/a": "Bach, J. S.",
            "bach/b": "J. S. Bach",
            "mass/c": "Palestrina",
        }.items():
            write(tmp_path / "in" / f"{name}.krn", kern(*notes, head=f"!!!COM: {composer}\n"))
        write(tmp_path / "in" / "joplin" / "d.krn", kern(*notes))
        rows, _, _ = prepared(tmp_path / "in", tmp_path / "out")
        assert {key.split("#")[0]: row["label"] for key, row in rows.items()} == {
            "kern/a.krn": "Bach, J. S.",
            "bach/b.krn": "bach",
            "mass/c.krn": "Palestrina",
            "joplin/d.krn": "joplin",
        }

    def test_nobody_is_no_composer(self):
        assert composer_of("Anon.", "folk") == composer_of("Traditional", "folk") == "folk"
        assert composer_of("Anon.", "") == "Anon."
        assert composer_of("", "folk") == "folk"

    @pytest.mark.parametrize("folder", ["Johann Sebastian Bach", "J.S. Bach", "Bach_Johann_S", "bach"])
    def test_one_composer_is_one_class_however_it_is_written(self, folder):
        assert composer_of("Bach, Johann Sebastian", folder) == folder
        assert composer_of("Dvořák, Antonín", "Dvorak") == "Dvorak"

    @pytest.mark.parametrize("folder", ["J.C. Bach", "Johann Christian Bach", "Offenbach", "J", ""])
    def test_others_with_a_part_of_the_name_are_others(self, folder):
        assert composer_of("Bach, Johann Sebastian", folder) == "Bach, Johann Sebastian"


MAESTRO = """canonical_composer,canonical_title,split,year,midi_filename,audio_filename
Franz Schubert,Sonata in B,train,2004,2004/a.midi,2004/a.wav
Franz Schubert,Sonata in B,train,2006,2006/b.midi,2006/b.wav
Frédéric Chopin,Sonata in B,validation,2006,2006/c.midi,2006/c.wav
Frédéric Chopin,Études,test,2008,2008/d.midi,2008/d.wav
"""
NAMES = ("2004/a.midi", "2006/b.midi", "2006/c.midi", "2008/d.midi")


class TestTables:
    def test_maestro(self, tmp_path):
        write(tmp_path / "maestro-v3.0.0.csv", MAESTRO)
        records = found_in(tmp_path, *NAMES)
        assert [(row.label, row.group, row.split) for row in records.values()] == [
            ("Franz Schubert", "Franz Schubert/Sonata in B", "train"),
            ("Franz Schubert", "Franz Schubert/Sonata in B", "train"),
            ("Frédéric Chopin", "Frédéric Chopin/Sonata in B", "valid"),
            ("Frédéric Chopin", "Frédéric Chopin/Études", "test"),
        ]
        assert not said(records)
        told = found_in(tmp_path, group_pattern=r"^(\d+)", label="mode")
        assert [(row.label, row.group) for row in told.values()][:2] == [("", "2004"), ("", "2006")]
        assert [row.key for row in Music().records(tmp_path, "valid")] == ["2006/c.midi"]

    def test_cells_may_be_empty(self, tmp_path):
        write(tmp_path / "words.csv", "composer,born\n,1685\n")
        write(tmp_path / "all.csv", "composer,title,note,file\nBach,,x,a.mid\n,Fugue,,b.mid\nBach,Fugue,,\n")
        records = found_in(tmp_path, "a.mid", "b.mid")
        assert [(row.label, row.group) for row in records.values()] == [("Bach", "a"), ("", "Fugue")]
        assert not said(records)

    def test_several_columns_may_name_files(self, tmp_path):
        lines = ["composer,title,midi_score,midi_performance"]
        lines += [f"Bach,Fugue,846/score.mid,846/{n}.mid" for n in (1, 2)]
        write(tmp_path / "in" / "metadata.csv", "\n".join(lines) + "\n")
        records = found_in(tmp_path / "in", "846/score.mid", "846/1.mid", "846/2.mid")
        assert {(row.label, row.group) for row in records.values()} == {("Bach", "Bach/Fugue")}

    @pytest.mark.parametrize("tables", [{"part.csv": 3}, {"a.csv": 5, "b.csv": 5}])
    def test_those_that_are_not_read_are_said(self, tmp_path, tables):
        for name, count in tables.items():
            write(tmp_path / name, "\n".join(MAESTRO.splitlines()[:count]) + "\n")
        records = found_in(tmp_path, *NAMES)
        assert {row.label for row in records.values()} == {row.split for row in records.values()} == {""}
        (notice,) = said(records)
        assert f"were not taken from {', '.join(tables)}: keep one table" in notice

    def test_tables_of_other_things_are_left_alone(self, tmp_path):
        write(tmp_path / "words.csv", "composer,born\nBach,1685\n")
        write(tmp_path / "broken.csv", b"\0\1\2")
        assert not said(found_in(tmp_path, *NAMES))
