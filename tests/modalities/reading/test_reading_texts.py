"""Which texts are looked at, and how much of them is read."""

import numpy as np
import pytest

from modalities.reading import texts

LINES = "".join(f"2020-01-01T{n // 60 % 24:02d}:{n % 60:02d},{n}.5,7\n" for n in range(20_000))


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """The numbers of bytes of each look at a file."""
    sizes = []

    def head_of(path, size=texts.HEAD_BYTES):
        sizes.append(size)
        return path.read_bytes()[:size]

    monkeypatch.setattr(texts, "head_of", head_of)
    return sizes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_table_is_looked_at_once(tmp_path, sizes, encoding):
    path = tmp_path / "x.txt"
    path.write_text("time,a,b\n" + LINES, encoding=encoding)
    assert texts.reads_as_table(path) and texts.reads_as_table(path)
    assert sizes == [texts.FIRST_BYTES, texts.HEAD_BYTES]


def test_a_file_that_changes_is_looked_at_again(tmp_path):
    path = tmp_path / "x.dat"
    path.write_text("words of a person\n" * 20)
    assert not texts.reads_as_table(path)
    path.write_text(LINES)
    assert texts.reads_as_table(path)


def test_of_what_is_no_text_only_the_beginning_is_read(tmp_path, sizes):
    for number, data in enumerate((np.random.default_rng(0).bytes(2**19), bytes(2**19), b"\x02" * 2**19)):
        (tmp_path / f"{number}.dat").write_bytes(data)
        assert not texts.reads_as_table(tmp_path / f"{number}.dat")
    assert sizes == [texts.FIRST_BYTES] * 3


def test_texts_count_where_no_file_is_named_as_data(tmp_path):
    for name in ("a.txt", "b.dat", "c.csv"):
        (tmp_path / name).write_text(LINES)
    (tmp_path / "README.txt").write_text("words\n")
    paths = sorted(tmp_path.iterdir())
    assert texts.readable(paths, texts.is_table) == ([tmp_path / "c.csv"], tmp_path / "a.txt")
    words = [path for path in paths if path.name in ("README.txt", "c.csv")]
    assert texts.readable(words, texts.is_table) == ([tmp_path / "c.csv"], None)
    others = [path for path in paths if path.suffix != ".csv"]
    assert texts.readable(others, texts.is_table) == ([tmp_path / "a.txt", tmp_path / "b.dat"], None)
    assert len(texts.readable(others, texts.is_table, asked=True)[0]) == 3
