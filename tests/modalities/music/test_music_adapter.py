import pytest
from music_files import ABC, XML, kern, midi, prepared, scale, write

from modalities.music import Music
from seqssl import Rejected, UserError, load_recipe
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.testing import adapter_checks


@pytest.mark.parametrize("view", ["roll", "notes"])
@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, view, folder):
    check(Music(view=view, positions_per_quarter=6, window_quarters=8, lowest=40, highest=90), folder)


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

    def test_versions_of_a_piece_are_one_group(self, tmp_path):
        """Lakh's clean MIDI, POP909, MAESTRO, and Lakh by hashes."""
        wanted = {
            "ABBA/Dancing Queen.mid": ("ABBA/Dancing Queen", "ABBA"),
            "ABBA/Dancing Queen.1.mid": ("ABBA/Dancing Queen", "ABBA"),
            "ABBA/Mr. Blue.mid": ("ABBA/Mr. Blue", "ABBA"),
            "Chopin/Prelude No.1.mid": ("Chopin/Prelude No.1", "Chopin"),
            "Chopin/Prelude No.24.mid": ("Chopin/Prelude No.24", "Chopin"),
            "001/001.mid": ("001", ""),
            "001/versions/001-v1.mid": ("001", ""),
            "2004/2004_R1.midi": ("2004/2004_R1", ""),
            "0/0a1b.mid": ("0/0a1b", ""),
            "a/a12.mid": ("a/a12", ""),
        }
        for name in wanted:
            write(tmp_path / name, midi(scale()))
        records = [*Music().records(tmp_path, "all")]
        assert {record.key: (record.group, record.label) for record in records} == wanted

    def test_a_pattern_finds_the_group_in_the_path(self, tmp_path):
        for name in ("x/anna_1.mid", "x/anna_2.mid", "x/ben_1.mid", "x/other.mid"):
            write(tmp_path / name, midi(scale()))
        records = [*Music(group_pattern=r"([a-z]+)_").records(tmp_path, "all")]
        assert [record.path for record in records if isinstance(record, Rejected)] == ["x/other.mid"]
        assert [record.group for record in records[1:]] == ["anna", "anna", "ben"]
        assert not hasattr(Music(), "group_pattern")
        with pytest.raises(ValueError, match="group_pattern"):
            Music(group_pattern="anna")

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
        records = [*Music(pieces_per_folder=4).records(tmp_path, "all")]
        keys = [record.key for record in records]
        assert keys == ["few/0.mid", "many/0.mid", "many/2.mid", "many/5.mid", "many/7.mid"]
        said = [[one for one in record.read().notices if "4 of 10 pieces" in one] for record in records]
        assert [*map(len, said)] == [0, 1, 1, 1, 1]

    def test_the_recipe_leaves_pieces_out_of_its_demo_alone(self, tmp_path):
        for number in range(401):
            write(tmp_path / f"{number}.mid", b"")
        config = load_recipe("music_w2vbert", "size=tiny", f"data={tmp_path}")
        adapter = Music(**{key: value for key, value in config.modality.items() if key != "target"})
        assert len([*adapter.records(tmp_path, "all")]) == 401
        assert load_recipe("music_w2vbert", "size=tiny").modality["pieces_per_folder"] == 400

    def test_folders_that_name_splits_are_no_composers(self, tmp_path):
        """JSB, Nottingham and MuseData come in three folders; others put composers below or above them."""
        for place in ("train/0.mid", "valid/0.mid", "Test/0.mid", "train/bach/1.mid", "haydn/dev/1.mid"):
            write(tmp_path / place, midi(scale()))
        write(tmp_path / "test" / "two.abc", f"{ABC}\nX:2\nK:D\nDEFG|\n")
        records = {record.key: record for record in Music().records(tmp_path, "all")}
        assert {key: (record.split, record.label) for key, record in records.items()} == {
            "train/0.mid": ("train", ""),
            "valid/0.mid": ("valid", ""),
            "Test/0.mid": ("test", ""),
            "train/bach/1.mid": ("train", "bach"),
            "haydn/dev/1.mid": ("valid", "haydn"),
            "test/two.abc/1": ("test", ""),
            "test/two.abc/2": ("test", ""),
        }
        assert len({record.group for record in records.values()}) == len(records)
        assert [record.key for record in Music().records(tmp_path, "valid")] == [
            "haydn/dev/1.mid",
            "valid/0.mid",
        ]
        keys = {record.key for record in Music(pieces_per_folder=1).records(tmp_path, "all")}
        assert keys == {*records} - {"test/two.abc/1", "test/two.abc/2"}

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


class TestBadInput:
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
