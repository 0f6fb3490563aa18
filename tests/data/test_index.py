import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbers_adapter import Numbers, write_numbers

from seqssl.data import index
from seqssl.data.index import INDEX, LENGTH, TEXTS, WEIGHT, Index, write_index
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.errors import UserError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def write_shards(folder, rows, per_shard, columns=(*TEXTS, LENGTH, WEIGHT)) -> list[str]:
    names = []
    for first in range(0, len(rows), per_shard):
        part = [
            dict(zip((*TEXTS, LENGTH, WEIGHT), row, strict=True)) for row in rows[first : first + per_shard]
        ]
        names.append(f"shard-{first:05d}.parquet")
        table = {name: [row[name] for row in part] for name in columns}
        pq.write_table(pa.table({**table, "audio": [b"x"] * len(part)}), folder / names[-1])
    return names


@given(
    st.lists(st.tuples(texts, texts, texts, texts, st.integers(1, 2**40 - 1), st.floats(0, 9)), min_size=1),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_columns_are_those_of_the_shards(tmp_path_factory, rows, per_shard, at_a_time):
    folder = tmp_path_factory.mktemp("index")
    shards = write_shards(folder, rows, per_shard)
    long_way = Index(folder, shards, "these")
    wanted = {
        name: [*column]
        for name, column in zip((*TEXTS, LENGTH, WEIGHT), zip(*rows, strict=True), strict=True)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "ROWS_AT_A_TIME", at_a_time)
        write_index(folder, shards, "these")
    short_way = Index(folder, [], "these")  # it has no other place to read
    for each in (long_way, short_way, pickle.loads(pickle.dumps(short_way))):
        assert WEIGHT in each
        for name, values in wanted.items():
            assert each[name].tolist() == values
            assert each[name].dtype == {LENGTH: np.int64, WEIGHT: np.float64}.get(name, object)


@pytest.fixture
def rows() -> list[tuple[object, ...]]:
    return [(f"key{n}", "somebody", "", "train", n + 1, 1.0) for n in range(9)]


@pytest.mark.parametrize("with_index", [False, True])
def test_a_text_that_comes_again_is_one_object(tmp_path, rows, with_index):
    """Twelve million names of speakers would take a gigabyte."""
    shards = write_shards(tmp_path, rows, per_shard=2)
    if with_index:
        write_index(tmp_path, shards, "these")
    found = Index(tmp_path, shards, "these")
    for name in ("group", "split"):
        assert len({id(text) for text in found[name]}) == 1


def test_there_may_be_no_weights(tmp_path, rows):
    shards = write_shards(tmp_path, rows, per_shard=5, columns=(*TEXTS, LENGTH))
    assert WEIGHT not in Index(tmp_path, shards, "these")
    write_index(tmp_path, shards, "these")
    assert WEIGHT not in Index(tmp_path, [], "these")


def test_an_index_of_other_shards_is_left_alone(tmp_path, rows):
    write_index(tmp_path, write_shards(tmp_path, rows[:3], per_shard=3), "others")
    shards = write_shards(tmp_path, rows, per_shard=5)
    assert len(Index(tmp_path, shards, "these")[LENGTH]) == len(rows)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"PAR1"), lambda path: path.unlink()])
def test_without_a_whole_index_the_shards_are_read(tmp_path, rows, damage):
    shards = write_shards(tmp_path, rows, per_shard=5)
    write_index(tmp_path, shards, "these")
    damage(tmp_path / INDEX)
    assert Index(tmp_path, shards, "these")["key"].tolist() == [row[0] for row in rows]


@pytest.mark.parametrize("columns", [("key", LENGTH), TEXTS])
def test_shards_without_a_column_are_damaged(tmp_path, rows, columns):
    shards = write_shards(tmp_path, rows, per_shard=5, columns=columns)
    with pytest.raises(UserError, match="is damaged"):
        Index(tmp_path, shards, "these")["key"]


def test_shards_that_differ_in_a_type_are_damaged(tmp_path, rows):
    shards = write_shards(tmp_path, rows, per_shard=5)
    table = pq.read_table(tmp_path / shards[1])
    place = table.column_names.index(LENGTH)
    pq.write_table(table.set_column(place, LENGTH, pa.array(["long"] * len(table))), tmp_path / shards[1])
    with pytest.raises(UserError, match="is damaged"):
        Index(tmp_path, shards, "these")[LENGTH]


@pytest.mark.parametrize("length", [0, -1, 2**40])
def test_an_impossible_length_is_refused(tmp_path, rows, length):
    rows[4] = (*rows[4][:4], length, 1.0)
    shards = write_shards(tmp_path, rows, per_shard=5)
    with pytest.raises(UserError, match="impossible length"):
        Index(tmp_path, shards, "these")[LENGTH]


def test_prepare_leaves_an_index(tmp_path):
    write_numbers(tmp_path / "raw", num_groups=3, num_rows=4)
    prepare(Numbers(), tmp_path / "raw", tmp_path / "out", modality="numbers", num_workers=1)
    with_index = Corpus(tmp_path / "out")
    kept = {
        name: getattr(with_index, name).tolist() for name in ("keys", "groups", "labels", "splits", "lengths")
    }
    rows = [with_index.row(number) for number in range(len(with_index))]
    (tmp_path / "out" / INDEX).unlink()
    without = Corpus(tmp_path / "out")
    assert kept == {name: getattr(without, name).tolist() for name in kept}
    assert [row["key"] for row in rows] == kept["keys"]
    assert without.content_hash == with_index.content_hash
