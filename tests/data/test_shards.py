import itertools
import json
import os
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbers_adapter import Numbers, write_numbers

from seqssl.data.prepare import prepare
from seqssl.data.recent import Recent
from seqssl.data.shards import Corpus, Manifest, Shard, ShardWriter, Split
from seqssl.errors import UserError


def make_row(number: int) -> dict[str, object]:
    return {
        "key": f"k{number}",
        "group": f"g{number % 2}",
        "label": "",
        "split": "train" if number % 3 else "valid",
        "length": number + 1,
        "vector": np.arange(number + 1, dtype=np.float32),
        "matrix": np.arange(6 * (number + 1), dtype=np.int64).reshape(-1, 6),
        "flags": np.array([True, False] * (number + 1)).reshape(-1, 2),
        "file": {"bytes": bytes([number % 256]) * 1000, "path": f"{number}.bin"},
        "weight": number / 7,
    }


def write_corpus(folder, num_shards=2, rows_per_shard=5) -> Corpus:
    shards = []
    for index in range(num_shards):
        writer = ShardWriter(folder / f"shard-{index:05d}.parquet")
        for number in range(index * rows_per_shard, (index + 1) * rows_per_shard):
            writer.add(make_row(number))
        writer.close({"note": "x"})
        shards.append(Shard(writer.path.name, rows_per_shard, writer.path.stat().st_size, f"{index}" * 64))
    manifest = Manifest("numbers", {}, "here", "plan", {"train": Split(1, 1, None)}, shards, num_rejected=0)
    (folder / "manifest.json").write_text(manifest.to_json())
    return Corpus(folder)


def assert_same(row, expected):
    assert list(row) == list(expected)
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert row[name].dtype == value.dtype
            np.testing.assert_array_equal(row[name], value)
        else:
            assert row[name] == value


@pytest.fixture
def small_groups(monkeypatch):
    """Several row groups in a shard of a few rows."""
    monkeypatch.setattr("seqssl.data.shards.ROW_GROUP_BYTES", 2500)


def test_rows_come_back_as_they_were(tmp_path, small_groups):
    corpus = write_corpus(tmp_path)
    assert pq.ParquetFile(tmp_path / "shard-00000.parquet").num_row_groups > 1
    assert len(corpus) == 10
    for number in (9, 0, 4, 5, 3, 3):
        assert_same(corpus.row(number), make_row(number))
    assert corpus.lengths.tolist() == list(range(1, 11))
    assert corpus.keys[7] == "k7"
    assert corpus.groups[3] == "g1"
    assert corpus.rows("valid").tolist() == [0, 3, 6, 9]


def test_many_row_groups_do_not_stay_in_memory(tmp_path, small_groups, monkeypatch):
    """By their bytes: a row of an hour is a group of 115 MB, and 256 of these were kept."""
    monkeypatch.setattr("seqssl.data.shards.CACHED_BYTES", 50_000)
    corpus = write_corpus(tmp_path, num_shards=40, rows_per_shard=2)
    held = []
    for number in range(len(corpus)):
        assert corpus.row(number)["length"] == number + 1
        assert corpus._groups.size <= 50_000
        held.append(len(corpus._groups))
    assert held[-1] < max(held) < 40, "rows become longer, so fewer groups are kept"
    assert len(corpus._files) <= 32


def test_a_row_group_that_is_larger_than_the_cache_stays_until_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("seqssl.data.shards.CACHED_BYTES", 1)
    corpus = write_corpus(tmp_path)
    for number in (0, 4, 5, 0):
        assert_same(corpus.row(number), make_row(number))
        assert len(corpus._groups) == 1
    group = corpus._groups.get((0, 0), pytest.fail)
    assert corpus._groups.size == group.nbytes


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=40))
def test_recent_keeps_what_was_used_last_as_far_as_it_fits(capacity, uses):
    recent, kept, sizes = Recent(capacity, len), [], {}
    for key, size in uses:
        size = sizes.setdefault(key, size)
        value = recent.get(key, lambda size=size: [0] * size)
        assert len(value) == size
        kept = [*(each for each in kept if each != key), key]
        while len(kept) > 1 and sum(sizes[each] for each in kept) > capacity:
            del sizes[kept.pop(0)]
        assert (len(recent), recent.size) == (len(kept), sum(sizes[each] for each in kept))
        for each in kept:  # none is made again, in an order that leaves theirs
            recent.get(each, lambda: pytest.fail("it was dropped"))


def test_recent_drops_what_was_used_longest_ago():
    recent, made = Recent(2), []

    def get(key):
        return recent.get(key, lambda: made.append(key) or key)

    for key in "abacab":
        assert get(key) == key
    assert made == ["a", "b", "c", "b"]


def test_a_pickled_corpus_is_small_and_reads_on(tmp_path):
    corpus = write_corpus(tmp_path)
    corpus.row(3)
    data = pickle.dumps(corpus)
    assert len(data) < 3000
    assert_same(pickle.loads(data).row(8), make_row(8))


def test_content_hash_is_a_function_of_the_shards(tmp_path):
    corpus = write_corpus(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["shards"][0]["sha256"] = "f" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert Corpus(tmp_path).content_hash != corpus.content_hash


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "shard-00001.parquet").unlink(), "missing or cut short"),
        (lambda folder: (folder / "shard-00001.parquet").write_bytes(b"PAR1"), "missing or cut short"),
    ],
)
def test_damaged_folders_are_told(tmp_path, damage, message):
    write_corpus(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        Corpus(tmp_path)


def test_a_damaged_shard_of_the_right_size_is_told(tmp_path):
    corpus = write_corpus(tmp_path)
    path = tmp_path / "shard-00001.parquet"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(UserError, match="damaged"):
        _ = corpus.lengths


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.fixture
def few_files(monkeypatch):
    """Allows so many files beside those that are open."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(number: int) -> None:
        # The limit is on the number of a new file; the numbers in use may have gaps, from earlier tests.
        free = (at for at in itertools.count() if not is_open(at))
        resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, number, None)), before[1]))

    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_corpus_may_have_more_shards_than_a_process_open_files(tmp_path, few_files):
    """Before, all were open at once, and above 1,024 of them they were said to be damaged."""
    corpus = write_corpus(tmp_path, num_shards=80, rows_per_shard=1)
    few_files(50)
    assert len(corpus.lengths) == 80
    assert [corpus.row(number)["length"] for number in (0, 79, 1)] == [1, 80, 2]


def test_too_many_open_files_are_no_damage(tmp_path, few_files):
    corpus = write_corpus(tmp_path)
    few_files(0)
    with pytest.raises(UserError, match="too many files are open"):
        _ = corpus.lengths


def test_another_schema_version_is_told(tmp_path):
    write_corpus(tmp_path)
    text = (tmp_path / "manifest.json").read_text().replace('"schema_version": 2', '"schema_version": 3')
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="version 3"):
        Corpus(tmp_path)


def test_a_shard_has_no_name_before_it_is_whole(tmp_path, small_groups):
    writer = ShardWriter(tmp_path / "shard-00000.parquet")
    for number in range(5):
        writer.add(make_row(number))
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_copies_of_a_corpus_read_a_row_group_once(tmp_path, monkeypatch):
    write_numbers(tmp_path / "raw", num_groups=3, num_rows=4)
    prepare(Numbers(), tmp_path / "raw", tmp_path / "out", modality="numbers", num_workers=1)
    corpus, read = Corpus(tmp_path / "out"), []
    whole = Corpus._read_group
    monkeypatch.setattr(Corpus, "_read_group", lambda self, *place: read.append(place) or whole(self, *place))
    for number in range(5):
        other = corpus.assigned(np.array(["train"] * len(corpus), dtype=object)).relabelled(
            [str(number)] * len(corpus)
        )
        assert other.row(0)["label"] == str(number)
    assert len(read) == 1
