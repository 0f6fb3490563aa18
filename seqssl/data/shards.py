"""Parquet shards: a writer whose files appear only when whole, and memory-mapped reading by row number."""

import copy
import errno
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqssl.config.values import Value
from seqssl.data.adapters import Row
from seqssl.data.files import unlinked
from seqssl.errors import UserError

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
ROW_GROUP_BYTES = 2**20  # what one random access reads
MAX_LENGTH = 2**40  # input steps
CACHED_GROUPS = 256  # per process: some 256 MiB
INDEX_COLUMNS = ("key", "group", "label", "split", "length")
WEIGHT = "weight"  # a column that a modality may add

T = TypeVar("T")


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
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["schema_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}): remove {folder} and prepare again.") from error
        if version != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {version}, this is {SCHEMA_VERSION}: prepare again.")
        try:
            values["splits"] = {name: Split(**split) for name, split in values["splits"].items()}
            values["shards"] = [Shard(**shard) for shard in values["shards"]]
            manifest = cls(**values)
            counts = [
                number for split in manifest.splits.values() for number in (split.num_rows, split.length)
            ]
            counts += [number for shard in manifest.shards for number in (shard.num_rows, shard.num_bytes)]
            if not all(isinstance(number, int) and number >= 0 for number in counts):
                raise ValueError("a count of rows, steps or bytes is no whole number from 0 on")
            if not all(Path(shard.name).name == shard.name for shard in manifest.shards):
                raise ValueError("a shard's name leads out of the folder")
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise UserError(f"{path} is damaged ({error}): remove {folder} and prepare again.") from error
        return manifest

    @property
    def content_hash(self) -> str:
        """Digest of the shards' digests."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()


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
        self._files: Recent[pq.ParquetFile] = Recent(32)
        self._groups: Recent[pa.Table] = Recent(CACHED_GROUPS)
        for shard in self.manifest.shards:
            path = self.folder / shard.name
            if not path.is_file() or path.stat().st_size != shard.num_bytes:
                raise UserError(f"{path} is missing or cut short: remove {self.folder} and prepare again.")

    def __len__(self) -> int:
        return sum(shard.num_rows for shard in self.manifest.shards)

    def __getstate__(self) -> dict[str, object]:
        """Everything but open files and the columns; a worker reads these again when it needs them."""
        state = {**vars(self), "_files": Recent(32), "_groups": Recent(CACHED_GROUPS)}
        state.pop("_index", None)
        return state

    def assigned(self, splits: np.ndarray) -> "Corpus":
        """The same rows in other splits; a row with the split "" is in none."""
        other = copy.copy(self)
        other._splits = np.asarray(splits, dtype=object)
        return other

    def relabelled(self, labels: Sequence[str]) -> "Corpus":
        """The same rows with other labels, one each."""
        other = copy.copy(self)
        other._labels = np.array(labels, dtype=object)
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
        return self._index["length"]

    @property
    def weights(self) -> np.ndarray | None:
        """How often training draws each row relative to others; None where all count alike."""
        return self._index.get(WEIGHT)

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, ascending."""
        return np.flatnonzero(self.splits == split)

    def row(self, number: int) -> Row:
        """All columns of one row; lists come as numpy arrays."""
        group = int(np.searchsorted(self._group_starts, number, side="right")) - 1
        shard, index = self._group_places[group]
        table = self._groups.get((shard, index), lambda: self._read_group(shard, index))
        offset = number - int(self._group_starts[group])
        row = {name: _from_arrow(table.column(name).chunk(0), offset) for name in table.column_names}
        return row if self._labels is None else {**row, "label": self._labels[number]}

    def _file(self, shard: int) -> pq.ParquetFile:
        return self._files.get(shard, lambda: self._open(shard))

    def _open(self, shard: int) -> pq.ParquetFile:
        """The Parquet file of a shard, memory-mapped; UserError where it is damaged."""
        path = self.folder / self.manifest.shards[shard].name
        try:
            return pq.ParquetFile(path, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise _unreadable(path, error) from error

    def _read_group(self, shard: int, group: int) -> pa.Table:
        try:
            return self._file(shard).read_row_group(group, use_threads=False).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self.folder / self.manifest.shards[shard].name, error) from error

    @cached_property
    def _index(self) -> dict[str, np.ndarray]:
        """The small columns of all rows, by name; with weights, where the shards have them."""
        if not self.manifest.shards:
            raise UserError(f"{self.folder} holds no shards: prepare again into an empty folder.")
        names = [*INDEX_COLUMNS, *([WEIGHT] if WEIGHT in self._file(0).schema_arrow.names else [])]
        try:
            shards = range(len(self.manifest.shards))  # one by one: not all of so many may be open
            table = pa.concat_tables([self._file(shard).read(names) for shard in shards])
            index = {name: table.column(name).to_numpy() for name in names}
        except (OSError, KeyError, pa.ArrowException) as error:
            raise _unreadable(self.folder, error) from error
        lengths = index["length"]
        if not (lengths.dtype.kind in "iu" and (lengths > 0).all() and (lengths < MAX_LENGTH).all()):
            raise UserError(
                f"{self.folder}: a row has an impossible length: prepare again into an empty folder."
            )
        return index

    @cached_property
    def _group_places(self) -> list[tuple[int, int]]:
        files = range(len(self.manifest.shards))
        return [(shard, group) for shard in files for group in range(self._file(shard).num_row_groups)]

    @cached_property
    def _group_starts(self) -> np.ndarray:
        sizes = [self._file(shard).metadata.row_group(group).num_rows for shard, group in self._group_places]
        return np.cumsum([0, *sizes[:-1]])


class Recent(Generic[T]):
    """A cache of the values used last."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made if it is not in the cache."""
        if key not in self._values:
            self._values[key] = make()
            if len(self._values) > self.capacity:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]


def _unreadable(path: Path, error: Exception) -> UserError:
    """What to say where a shard cannot be read: too many open files are no damage."""
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return UserError(f"{path}: too many files are open; allow more, as by `ulimit -n 4096`.")
    return UserError(f"{path} is damaged ({error}): prepare again into an empty folder.")


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
