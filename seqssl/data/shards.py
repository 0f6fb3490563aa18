"""Parquet shards: a writer whose files appear only when whole, and memory-mapped reading by row number."""

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqssl.config.values import Value
from seqssl.data.adapters import Row
from seqssl.data.files import sha256_json, unlinked
from seqssl.data.index import LENGTH, WEIGHT, Index, opened, unreadable
from seqssl.data.recent import Recent
from seqssl.errors import UserError

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
ROW_GROUP_BYTES = 2**20  # what one random access reads
CACHED_BYTES = 2**28  # of row groups, per process; the last one stays, however long its rows are
OPEN_FILES = 32


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a prepared folder."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """How much a split holds; `hours` only where the spec has a rate."""

    num_rows: int
    length: int  # input steps
    hours: float | None


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds."""

    modality: str
    spec: dict[str, Value]  # a SampleSpec
    source: str
    plan: str  # digest of everything that decides the content
    splits: dict[str, Split]
    shards: list[Shard]
    num_rejected: int
    statistics: dict[str, list[float]] | None = None  # mean and std of each channel over "train"; not for ids
    readings: dict[str, int] = field(default_factory=dict)  # how files were understood, and how many were so
    notices: dict[str, int] = field(default_factory=dict)  # what was odd or dropped, and in how many files
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a prepared folder; `UserError` when it is damaged or of another version."""
        path = folder / MANIFEST
        try:
            return cls.parse(path.read_text(encoding="utf-8"), str(folder))
        except (OSError, UnicodeError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): if seqssl prepared {folder}, remove it and prepare again."
            ) from error

    @classmethod
    def parse(cls, text: str, folder: str) -> "Manifest":
        """The manifest with this text, of a folder; `UserError` as for `read`."""
        path = f"{folder}/{MANIFEST}"
        try:
            values = json.loads(text)
            version = values["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): if seqssl prepared {folder}, remove it and prepare again."
            ) from error
        if version != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {version}, this is {SCHEMA_VERSION}: prepare again.")
        try:
            return cls.restore(values)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise UserError(
                f"{path} is damaged ({error}): if seqssl prepared {folder}, remove it and prepare again."
            ) from error

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> "Manifest":
        """A manifest from what JSON made of it; any of the errors of a damaged one."""
        splits = {name: Split(**split) for name, split in values["splits"].items()}
        manifest = cls(
            **{**values, "splits": splits, "shards": [Shard(**shard) for shard in values["shards"]]}
        )
        counts = [number for split in manifest.splits.values() for number in (split.num_rows, split.length)]
        counts += [number for shard in manifest.shards for number in (shard.num_rows, shard.num_bytes)]
        if not all(isinstance(number, int) and number >= 0 for number in counts):
            raise ValueError("a count of rows, steps or bytes is no whole number from 0 on")
        if not all(Path(shard.name).name == shard.name for shard in manifest.shards):
            raise ValueError("a shard's name leads out of the folder")
        return manifest

    @property
    def content_hash(self) -> str:
        """Digest of the shards' digests."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    @property
    def shards_hash(self) -> str:
        """Digest of all that is said of the shards: what an index is of."""
        return sha256_json([asdict(shard) for shard in self.shards])


@dataclass
class ShardWriter:
    """Writes rows to one Parquet file, uncompressed, in row groups of about 1 MiB.

    Every row has the same columns; values are str, int, float, bytes, dicts of these, or numpy
    arrays of one or two dimensions. The file gets its name in `close`, complete with `metadata`.
    """

    path: Path
    num_bytes: int = 0  # of the rows added so far
    num_rows: int = 0
    _rows: list[Row] = field(default_factory=list)
    _buffered: int = 0
    _writer: pq.ParquetWriter | None = None

    @property
    def _temporary(self) -> Path:
        return self.path.with_suffix(".tmp")

    def add(self, row: Row) -> None:
        """Append one row."""
        size = _num_bytes(row)
        self._rows.append(row)
        self.num_rows += 1
        self.num_bytes += size
        self._buffered += size
        if self._buffered >= ROW_GROUP_BYTES:
            self._flush()

    def close(self, metadata: Mapping[str, str]) -> None:
        """Finish the file and give it its name."""
        self._flush()
        if self._writer is None:
            return
        self._writer.add_key_value_metadata(dict(metadata))
        self._writer.close()
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        """Write the rows that are buffered as one row group."""
        if not self._rows:
            return
        names = list(self._rows[0])
        table = pa.table({name: _to_arrow([row[name] for row in self._rows]) for name in names})
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                unlinked(self._temporary),
                table.schema,
                compression="none",
                use_dictionary=["group", "label", "split"],
            )
        self._writer.write_table(table.cast(self._writer.schema))
        self._rows, self._buffered = [], 0


class Corpus:
    """A prepared folder, read by row number through memory maps; cheap to pickle into loader workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        self._splits: np.ndarray | None = None  # None = those stored
        self._labels: np.ndarray | None = None
        self._files, self._groups = _caches()
        self._index = Index(self.folder, [s.name for s in self.manifest.shards], self.manifest.shards_hash)
        for shard in self.manifest.shards:
            path = self.folder / shard.name
            if not path.is_file() or path.stat().st_size != shard.num_bytes:
                raise UserError(f"{path} is missing or cut short: remove {self.folder} and prepare again.")

    def __len__(self) -> int:
        return sum(shard.num_rows for shard in self.manifest.shards)

    def __getstate__(self) -> dict[str, object]:
        """Everything but open files; a worker opens them again when it needs them."""
        files, groups = _caches()
        return {**vars(self), "_files": files, "_groups": groups}

    def assigned(self, splits: np.ndarray) -> "Corpus":
        """The same rows in other splits; a row with the split "" is in none."""
        other = self._copy()
        other._splits = np.asarray(splits, dtype=object)
        return other

    def relabelled(self, labels: Sequence[str]) -> "Corpus":
        """The same rows with other labels, one each."""
        other = self._copy()
        other._labels = np.array(labels, dtype=object)
        return other

    def _copy(self) -> "Corpus":
        """The same rows, with the same open files and cache: many copies take the memory of one."""
        other = copy.copy(self)
        other._files, other._groups = self._files, self._groups
        return other

    @property
    def content_hash(self) -> str:
        """Digest of all shards."""
        return self.manifest.content_hash

    @property
    def keys(self) -> np.ndarray:
        """Key of each row."""
        return self._index["key"]

    @property
    def groups(self) -> np.ndarray:
        """Group of each row (speaker, subject, station)."""
        return self._index["group"]

    @property
    def labels(self) -> np.ndarray:
        """Label of each row, "" where there is none."""
        return self._index["label"] if self._labels is None else self._labels

    @property
    def splits(self) -> np.ndarray:
        """Split of each row."""
        return self._index["split"] if self._splits is None else self._splits

    @property
    def lengths(self) -> np.ndarray:
        """Input steps of each row."""
        return self._index[LENGTH]

    @property
    def weights(self) -> np.ndarray | None:
        """How often training draws each row relative to others; None where all count alike."""
        return self._index[WEIGHT] if WEIGHT in self._index else None

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, ascending."""
        return np.flatnonzero(self.splits == split)

    def row(self, number: int) -> Row:
        """All columns of one row; lists come as numpy arrays."""
        shard = int(np.searchsorted(self._shard_starts, number, side="right")) - 1
        inside = number - int(self._shard_starts[shard])
        starts = self._open(shard).starts
        group = int(np.searchsorted(starts, inside, side="right")) - 1
        table = self._groups.get((shard, group), lambda: self._read_group(shard, group))
        offset = inside - int(starts[group])
        row = {name: _from_arrow(table.column(name).chunk(0), offset) for name in table.column_names}
        return row if self._labels is None else {**row, "label": self._labels[number]}

    def _open(self, shard: int) -> "_Opened":
        path = self.folder / self.manifest.shards[shard].name
        return self._files.get(shard, lambda: _Opened.of(path))

    def _read_group(self, shard: int, group: int) -> pa.Table:
        try:
            return self._open(shard).file.read_row_group(group, use_threads=False).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.folder / self.manifest.shards[shard].name, error) from error

    @cached_property
    def _shard_starts(self) -> np.ndarray:
        """The number of the first row of each shard."""
        return np.cumsum([0, *(shard.num_rows for shard in self.manifest.shards)])


class _Opened(NamedTuple):
    """An open shard."""

    file: pq.ParquetFile
    starts: np.ndarray  # first row of each row group

    @classmethod
    def of(cls, path: Path) -> "_Opened":
        """The shard of a path; UserError where it is damaged."""
        file = opened(path)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        return cls(file, np.cumsum([0, *sizes]))


def _caches() -> tuple[Recent[_Opened], Recent[pa.Table]]:
    """Open files and row groups of a corpus that has read nothing yet."""
    return Recent(OPEN_FILES), Recent(CACHED_BYTES, _table_bytes)


def _table_bytes(table: pa.Table) -> int:
    """What a row group takes in memory."""
    return int(table.nbytes)


def _num_bytes(value: object) -> int:
    """About how many bytes a row, or a value of one, takes in a shard."""
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(value) if isinstance(value, bytes | str) else 8


def _to_arrow(values: list[Any]) -> pa.Array:
    """Values as a column; arrays (t) become list<x>, arrays (t, c) list<fixed_size_list<x>[c]>."""
    if not isinstance(values[0], np.ndarray):
        return pa.array(values)
    flat = pa.array(np.concatenate([value.reshape(-1) for value in values]))
    if values[0].ndim == 2:
        flat = pa.FixedSizeListArray.from_arrays(flat, values[0].shape[1])
    offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def _from_arrow(column: pa.Array, offset: int) -> Any:
    """The value at a place of a column; lists come as numpy arrays (t) or (t, c)."""
    if not pa.types.is_list(column.type):
        return column[offset].as_py()
    values = column[offset].values
    if not pa.types.is_fixed_size_list(values.type):
        return values.to_numpy(zero_copy_only=False)
    return values.flatten().to_numpy(zero_copy_only=False).reshape(-1, values.type.list_size)
