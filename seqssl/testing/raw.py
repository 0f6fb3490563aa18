"""Raw data as an adapter reads it, for the checks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from seqssl.data.adapters import ModalityAdapter, Record, Rejected, Row, Rows, Sample
from seqssl.testing.harness import require

NUM_READ = 8  # records that are read; all are scanned


class _Reversed:
    """What `os.scandir` returns, back to front."""

    def __init__(self, entries: Iterator[os.DirEntry[str]]) -> None:
        self.entries = iter([*entries][::-1])

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return self.entries

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return self.entries

    def __next__(self) -> os.DirEntry[str]:
        return next(self.entries)

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def reversed_listings() -> Iterator[None]:
    """Folders are listed back to front, as another file system might."""
    scandir, listdir = os.scandir, os.listdir
    with (
        mock.patch("os.scandir", lambda *path: _Reversed(scandir(*path))),
        mock.patch("os.listdir", lambda *path: sorted(listdir(*path), reverse=True)),
    ):
        yield


def scan(adapter: ModalityAdapter, source: Path) -> list[Record | Rejected]:
    """Everything that the adapter finds."""
    return [*adapter.records(source, "all")]


def records_of(adapter: ModalityAdapter, source: Path) -> list[Record]:
    """What is not rejected."""
    return [item for item in scan(adapter, source) if isinstance(item, Record)]


def rows_of(adapter: ModalityAdapter, source: Path) -> list[Row]:
    """Columns of the first records; one that raises ValueError is bad data, which is allowed."""
    return [columns for _, parts in read_records(adapter, source) for columns in parts]


def found_in(adapter: ModalityAdapter, source: Path) -> Iterator[tuple[Record, Row | Rows]]:
    """The first records with what `read` returns; one that raises ValueError is bad data: allowed."""
    for record in records_of(adapter, source)[:NUM_READ]:
        with suppress(ValueError):
            found = record.read()
            yield record, found


def read_records(adapter: ModalityAdapter, source: Path) -> Iterator[tuple[Record, Sequence[Row]]]:
    """The first records, each with its rows."""
    for record in records_of(adapter, source)[:NUM_READ]:
        with suppress(ValueError):
            found = record.read()
            yield record, found.rows[:NUM_READ] if isinstance(found, Rows) else [found]


def stored_rows(adapter: ModalityAdapter, source: Path) -> list[Row]:
    """Rows as they come back from a shard."""
    rows: list[Row] = []
    for record, parts in read_records(adapter, source):
        own = {"key": record.key, "group": record.group, "label": record.label}
        for columns in parts:
            named = {name: value for name, value in columns.items() if name != "part"}
            rows.append({name: stored(value) for name, value in (own | named).items()})
    require(rows, f"no readable record in {source}")
    return rows


def stored(value: Any) -> Any:
    """A value after storage: arrays, of one or two dimensions, are memory maps and not to be written to."""
    import pyarrow as pa

    if not isinstance(value, np.ndarray | list):
        return pa.array([value])[0].as_py()
    array = np.array(value)
    require(array.ndim in (1, 2), f"an array has {array.ndim} dimensions; 1 or 2 can be stored")
    pa.array(array.reshape(-1))
    array.flags.writeable = False
    return array


def loads(adapter: ModalityAdapter, row: Row) -> Iterator[Sample]:
    """A row in evaluation and in training."""
    yield adapter.load(row, None)
    yield adapter.load(row, np.random.default_rng(7))


def equal(a: object, b: object) -> bool:
    """Equality that looks into arrays, mappings and samples."""
    if isinstance(a, Sample) and isinstance(b, Sample):
        return equal(vars(a), vars(b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        x, y = np.asarray(a), np.asarray(b)
        return np.array_equal(x, y, equal_nan=x.dtype.kind == y.dtype.kind == "f")
    return bool(a == b)
