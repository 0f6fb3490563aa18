import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbers_adapter import Numbers, write_numbers

from seqssl import Record, UserError
from seqssl.config.schema import DataConfig
from seqssl.data import prepare as preparing
from seqssl.data import writing
from seqssl.data.prepare import fixed_split, open_or_prepare, prepare
from seqssl.data.shards import Corpus, ShardWriter
from seqssl.data.splits import assign_splits


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "raw"
    write_numbers(folder)
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 600)


def run(source, out, **options):
    return prepare(Numbers(), source, out, **{"modality": "numbers", "num_workers": 1, **options})


def test_rows_manifest_and_rejected(source, tmp_path):
    (source / "group0" / "broken.num").write_text("1 2 three")
    (source / "group0" / "holes.num").write_text("1 nan 3")
    (source / "group0" / "empty.num").write_text("")
    (source / "group1" / "unwanted.num").write_text("1")
    manifest = run(source, tmp_path / "out")
    corpus = Corpus(tmp_path / "out")
    assert len(corpus) == 24 == sum(split.num_rows for split in manifest.splits.values())
    row = corpus.row(3)
    assert list(row) == ["key", "group", "label", "split", "length", "values", "table"]
    assert (row["key"], row["group"], row["label"]) == ("group0/row3.num", "group0", "row3")
    np.testing.assert_array_equal(row["values"], np.arange(301, 307, dtype=np.float32))
    assert manifest.splits["train"].hours == round(manifest.splits["train"].length / 36_000, 4)
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert {line["path"].split("/")[1].split(".")[0] for line in lines} == {
        "broken",
        "holes",
        "empty",
        "unwanted",
    }
    assert manifest.num_rejected == 4
    assert any("not-a-number" in line["reason"] for line in lines)


def test_a_group_is_in_one_split(source, tmp_path):
    run(source, tmp_path / "out", split_by="group", valid_share=0.3)
    corpus = Corpus(tmp_path / "out")
    splits = {group: set(corpus.splits[corpus.groups == group]) for group in set(corpus.groups)}
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "valid"} == set().union(*splits.values())


def test_the_same_again_is_immediate_and_other_settings_are_told(source, tmp_path):
    first = run(source, tmp_path / "out")
    assert run(source, tmp_path / "out") == first
    with pytest.raises(UserError, match="another prepared corpus"):
        run(source, tmp_path / "out", seed=1)


def test_interrupted_at_any_row_goes_on(source, tmp_path, small_shards, monkeypatch):
    (source / "group1" / "broken.num").write_text("x")
    whole = run(source, tmp_path / "whole")
    assert len(whole.shards) > 3
    reads = []

    def counted(adapter, task):
        reads.append(task.columns["key"])
        if stop_at and len(reads) == stop_at:
            raise KeyboardInterrupt
        return read_row(adapter, task)

    read_row = writing._read_record
    monkeypatch.setattr(writing, "_read_record", counted)
    for stop_at in (1, 9, 17, 25):
        out = tmp_path / f"out{stop_at}"
        reads.clear()
        with pytest.raises(KeyboardInterrupt):
            run(source, out)
        assert not (out / "manifest.json").exists()
        done = {path.name for path in out.glob("*.parquet")}
        assert not list(out.glob("*.tmp"))
        stop_at = 0
        reads.clear()
        again = run(source, out)
        assert again == whole
        assert len(reads) == 25 - (
            sum(s.num_rows for s in whole.shards if s.name in done) + _rejected(out, done)
        )


def _rejected(out, names):
    return sum(len(writing._read_footer(out / name).rejected) for name in names)


def test_a_half_written_or_foreign_shard_is_made_again(source, tmp_path, small_shards):
    whole = run(source, tmp_path / "whole")
    out = tmp_path / "out"
    run(source, out)
    (out / "manifest.json").unlink()
    (out / "shard-00001.parquet").write_bytes(b"half")
    (out / "shard-00004.tmp").write_bytes(b"rest")
    assert run(source, out) == whole


def test_changed_data_is_read_again_after_an_interruption(source, tmp_path, small_shards):
    out = tmp_path / "out"
    run(source, out)
    (out / "manifest.json").unlink()
    (source / "group0" / "row0.num").write_text("7 7 7 7 7 7 7")
    run(source, out)
    np.testing.assert_array_equal(Corpus(out).row(0)["values"], np.full(7, 7, np.float32))


def test_of_files_changed_in_place_no_shard_is_kept(source, tmp_path, small_shards, monkeypatch):
    """A file of the same size is another one, where it was written since."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("seqssl.data.making.Manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(source, out)
    path = source / "group0" / "row0.num"
    before = path.read_text()
    path.write_text(before.translate(str.maketrans("0123456789", "1234567890")))
    os.utime(path, ns=(1, 1))
    assert len(path.read_text()) == len(before)
    assert run(source, out).content_hash == run(source, tmp_path / "whole").content_hash
    assert not (out / "plan.txt").exists()


def interrupt(**_: object) -> None:
    raise KeyboardInterrupt


def test_workers_change_nothing(source, tmp_path, monkeypatch):
    alone = run(source, tmp_path / "alone")
    monkeypatch.setattr("seqssl.data.workers.PATIENCE_S", 0.0)
    assert run(source, tmp_path / "pool", num_workers=2) == alone


def test_shards_do_not_depend_on_file_times(source, tmp_path):
    first = run(source, tmp_path / "first")
    for path in source.rglob("*.num"):
        path.touch()
    assert run(source, tmp_path / "second").content_hash == first.content_hash


def test_when_all_held_out_rows_are_bad_others_are_held_out(tmp_path):
    source = tmp_path / "raw"
    write_numbers(source, num_groups=1, num_rows=5)
    records = [record for record in Numbers().records(source, "all") if isinstance(record, Record)]
    splits = assign_splits(records, split_by="record", valid_share=0.1, seed=0)
    for record, split in zip(records, splits, strict=True):
        if split == "valid":
            (source / record.key).write_text("broken")
    manifest = run(source, tmp_path / "out", split_by="record")
    assert manifest.splits["valid"].num_rows >= 1
    assert manifest.num_rejected == splits.count("valid")
    assert run(source, tmp_path / "out", split_by="record") == manifest


def test_missing_empty_and_unusable_sources_are_told(tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="Nothing in"):
        run(tmp_path / "raw", tmp_path / "out")
    for number in range(3):
        (tmp_path / "raw" / f"{number}.num").write_text("nan")
    with pytest.raises(UserError, match="3 x not-a-number"):
        run(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(UserError, match="inside the raw data"):
        run(tmp_path / "raw", tmp_path / "raw" / "out")
    with pytest.raises(UserError, match="split_by"):
        run(tmp_path / "raw", tmp_path / "out", split_by="speaker")


def test_a_full_disk_keeps_finished_shards(source, tmp_path, small_shards, monkeypatch):
    whole = run(source, tmp_path / "whole")
    out = tmp_path / "out"
    close = ShardWriter.close

    def close_on_full_disk(self, metadata):
        if self.path.name == "shard-00002.parquet":
            raise OSError(errno.ENOSPC, "No space left on device")
        close(self, metadata)

    monkeypatch.setattr(ShardWriter, "close", close_on_full_disk)
    with pytest.raises(UserError, match="is full"):
        run(source, out)
    assert sorted(path.name for path in out.glob("shard*")) == ["shard-00000.parquet", "shard-00001.parquet"]
    monkeypatch.setattr(ShardWriter, "close", close)
    assert run(source, out) == whole


def test_a_folder_that_cannot_be_written_is_told(source, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", "out")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(UserError, match="No permission for out"):
        run(source, tmp_path / "out")


def test_keys_are_unique(source, tmp_path, monkeypatch):
    adapter = Numbers()
    found = list(adapter.records(source, "all"))
    monkeypatch.setattr(adapter, "records", lambda source, split: iter([*found, found[0]]), raising=False)
    manifest = prepare(adapter, source, tmp_path / "out", modality="numbers", num_workers=1)
    assert manifest.num_rejected == 1


def test_values_that_break_the_spec_are_rejected(source, tmp_path):
    adapter = Numbers()
    adapter.spec = replace(adapter.spec, channels=3)
    with pytest.raises(UserError, match=r"24 x a step is float32\[\] where the spec says float32\[3\]"):
        prepare(adapter, source, tmp_path / "out", modality="numbers", num_workers=1)


def _records(units):
    return [
        Record(f"{group}/{number}", dict, group=group) for group, count in units for number in range(count)
    ]


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 4), min_size=1, max_size=8), st.data())
def test_splits_are_stable_and_never_empty(groups, data):
    records = _records(sorted(groups.items()))
    split_by = data.draw(st.sampled_from(["group", "record"]))
    share = data.draw(st.floats(0.01, 0.99))
    splits = assign_splits(records, split_by=split_by, valid_share=share, seed=0)
    if len(records) > 1:
        assert set(splits) == {"train", "valid"}
    order = data.draw(st.permutations(range(len(records))))
    shuffled = assign_splits([records[i] for i in order], split_by=split_by, valid_share=share, seed=0)
    assert shuffled == [splits[i] for i in order]


@given(st.lists(st.floats(0.1, 1e6), min_size=2, max_size=30), st.floats(0.01, 0.99), st.integers(0, 9))
def test_the_held_out_share_is_one_of_the_amount(amounts, share, seed):
    records = [Record(f"g{n}/0", dict, group=f"g{n}", amount=amount) for n, amount in enumerate(amounts)]
    splits = assign_splits(records, split_by="group", valid_share=share, seed=seed)
    held = sum(amount for amount, split in zip(amounts, splits, strict=True) if split == "valid")
    assert 0 < held < sum(amounts)
    if 2 <= splits.count("valid") <= len(amounts) - 2:  # one that is not held out would not bring it nearer
        left = [amount for amount, split in zip(amounts, splits, strict=True) if split != "valid"]
        assert abs(held - share * sum(amounts)) <= 0.5 * max(max(left), max(amounts)) + 1e-6


def test_one_loud_subject_among_sixteen_does_not_make_the_share():
    amounts = [900, *([10] * 15)]
    records = [Record(f"g{n}", dict, group=f"g{n}", amount=amount) for n, amount in enumerate(amounts)]
    for seed in range(20):
        splits = assign_splits(records, split_by="group", valid_share=0.3, seed=seed)
        held = sum(amount for amount, split in zip(amounts, splits, strict=True) if split == "valid")
        assert held == 150  # of 1,050: all but the loud one, as with it the share would be 0.86


def test_a_source_without_a_valid_split_has_its_held_out_rows_drawn_from_training():
    records = [
        Record(f"{s}{n}", dict, group=f"{s}{n}", split=s) for s in ("train", "test") for n in range(10)
    ]
    splits = assign_splits(records, split_by="group", valid_share=0.2, seed=0)
    assert splits.count("valid") == 2 and splits[10:] == ["test"] * 10


def test_splits_of_the_source_stand():
    records = [Record(str(n), dict, split=split) for n, split in enumerate(["train", "valid", "test", ""])]
    splits = assign_splits(records, split_by="record", valid_share=0.5, seed=0)
    assert splits == ["train", "valid", "test", "train"]


class TestOpenOrPrepare:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))

    def test_a_raw_folder_is_prepared_once(self, source):
        said = []
        config = DataConfig(source=str(source))
        corpus = open_or_prepare(
            Numbers(), config, modality="numbers", progress=lambda *now: said.append(now)
        )
        assert said[0][2].startswith(f"preparing {source}")
        assert str(corpus.folder) in said[0][2]
        said.clear()
        again = open_or_prepare(Numbers(), config, modality="numbers", progress=lambda *now: said.append(now))
        assert again.folder == corpus.folder
        assert not said

    def test_other_files_settings_or_code_are_another_corpus(self, source, monkeypatch):
        config = DataConfig(source=str(source))
        folders = {open_or_prepare(Numbers(), config, modality="numbers").folder}
        folders.add(open_or_prepare(Numbers(scale=2.0), config, modality="numbers").folder)
        with monkeypatch.context() as patch:
            patch.setattr(preparing, "code_of", lambda adapter: "a later version")
            folders.add(open_or_prepare(Numbers(), config, modality="numbers").folder)
        folders.add(open_or_prepare(Numbers(), replace(config, split_by="record"), modality="numbers").folder)
        (source / "group0" / "new.num").write_text("1 2 3")
        folders.add(open_or_prepare(Numbers(), config, modality="numbers").folder)
        assert len(folders) == 5

    def test_a_prepared_folder_is_opened(self, source, tmp_path):
        run(source, tmp_path / "out")
        config = DataConfig(source=str(tmp_path / "out"))
        assert len(open_or_prepare(Numbers(), config, modality="numbers")) == 24
        with pytest.raises(UserError, match="channels=None, the modality wants channels=2"):
            open_or_prepare(Numbers(wide=True), config, modality="numbers")
        with pytest.raises(UserError, match=r"group1: .* is prepared already, with held-out rows of its own"):
            open_or_prepare(Numbers(), replace(config, valid_groups=["group1"]), modality="numbers")

    def test_the_demo_corpus_is_brought(self, source, monkeypatch):
        monkeypatch.setattr("seqssl.data.prepare.get", lambda name, progress: source)
        ways = {"speech": "record", "speech-voices": "group"}
        for name, split_by in ways.items():
            corpus = open_or_prepare(Numbers(), DataConfig(demo=name), modality="numbers")
            asked = DataConfig(source=str(source), split_by=split_by)
            assert corpus.folder == open_or_prepare(Numbers(), asked, modality="numbers").folder

    def test_nothing_to_open_is_told(self, tmp_path):
        with pytest.raises(UserError, match="set data"):
            open_or_prepare(Numbers(), DataConfig(), modality="numbers")
        with pytest.raises(UserError, match="no file or folder"):
            open_or_prepare(Numbers(), DataConfig(source=str(tmp_path / "nowhere")), modality="numbers")


def test_a_foreign_folder_is_left_alone(tmp_path):
    write_numbers(tmp_path / "raw")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"holds something else \(thesis.txt\)"):
        run(tmp_path / "raw", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_missing_shard_is_noticed(tmp_path):
    write_numbers(tmp_path / "raw")
    run(tmp_path / "raw", tmp_path / "out")
    next((tmp_path / "out").glob("shard-*")).unlink()
    with pytest.raises(UserError, match="missing or cut short"):
        run(tmp_path / "raw", tmp_path / "out")


def test_a_demo_corpus_says_what_it_holds_out_and_your_data_does_not_hear_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbers(tmp_path / "raw")
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    entry = SimpleNamespace(split_by="group", valid_groups=("group1",))
    monkeypatch.setattr("seqssl.data.prepare.find_corpus", lambda name: entry)
    monkeypatch.setattr("seqssl.data.prepare.get", lambda name, progress: tmp_path / "raw")
    demo = open_or_prepare(Numbers(), DataConfig(demo="toy"), modality="numbers")
    assert set(demo.groups[demo.rows("valid")]) == {"group1"}
    other = open_or_prepare(Numbers(), DataConfig(demo="toy", valid_groups=["group2"]), modality="numbers")
    assert set(other.groups[other.rows("valid")]) == {"group2"}
    (tmp_path / "raw" / "group1").rename(tmp_path / "raw" / "group7")
    own = DataConfig(demo="toy", source=str(tmp_path / "raw"))
    assert len(open_or_prepare(Numbers(), own, modality="numbers").rows("valid")) > 0


def test_prepared_folders_and_some_demos_say_themselves_what_is_held_out(tmp_path: Path) -> None:
    raw, out = str(tmp_path / "raw"), str(tmp_path / "out")
    write_numbers(Path(raw))
    run(Path(raw), Path(out))
    assert fixed_split(DataConfig(source=raw)) == ""
    assert fixed_split(DataConfig(source=out)) == f"{out} is prepared already, with held-out rows of its own"
    assert fixed_split(DataConfig(demo="dna")) == "the demo corpus dna itself holds out chr3R"
    for other in (DataConfig(demo="dna", valid_groups=["chr2L"]), DataConfig(demo="speech"), DataConfig()):
        assert fixed_split(other) == ""
