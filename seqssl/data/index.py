"""The index of a prepared folder: the small columns of all rows, kept together and read one by one."""

import errno
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqssl.data.files import unlinked
from seqssl.errors import UserError

INDEX = "rows.index"  # Parquet, but `*.parquet` has to name the shards alone
TEXTS = ("key", "group", "label", "split")
LENGTH, WEIGHT = "length", "weight"  # weights are a column that a modality may add
CONTENT = "content"  # of the metadata: which shards the index is of
MAX_LENGTH = 2**40  # input steps
ROWS_AT_A_TIME = 2**20  # of a row group


class Index:
    """The small columns of all rows, each read when it is first asked for.

    They come from the folder's index, where it has one of these very shards, else from the shards. Of 60,000
    hours there are a hundred thousand shards, which take minutes to open.
    """

    def __init__(self, folder: Path, shards: Sequence[str], content_hash: str) -> None:
        self.folder, self._shards, self._content = folder, shards, content_hash
        self._columns: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, object]:
        """Everything but what was read."""
        state = {**vars(self), "_columns": {}}
        state.pop("_source", None)
        return state

    def __contains__(self, name: str) -> bool:
        source = self._source
        return name in (source.column_names if isinstance(source, pa.Table) else source.schema_arrow.names)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column; where a text comes again, it is the same object."""
        if name not in self._columns:
            self._columns[name] = self._read(name)
        return self._columns[name]

    def _read(self, name: str) -> np.ndarray:
        """A column; that of an index part by part, so that no text is there twice for long."""
        source = self._source
        if isinstance(source, pa.Table):
            return self._values(name, source.column(name))
        if name in TEXTS[1:]:
            return self._values(name, source.read([name]).column(name))
        parts = range(source.num_row_groups)
        return np.concatenate(
            [self._values(name, source.read_row_group(part, [name]).column(name)) for part in parts]
        )

    @cached_property
    def _source(self) -> pq.ParquetFile | pa.Table:
        """The file of the index, if it is of these very shards; else what they say."""
        try:
            file = pq.ParquetFile(self.folder / INDEX, read_dictionary=TEXTS[1:])
            if (file.metadata.metadata or {}).get(CONTENT.encode()) == self._content.encode():
                return file
        except (OSError, pa.ArrowException):
            pass
        try:
            return pa.concat_tables([*_tables(self.folder, self._shards)])
        except pa.ArrowException as error:  # columns of several types
            raise unreadable(self.folder, error) from error

    def _values(self, name: str, column: pa.ChunkedArray) -> np.ndarray:
        """A column as an array; UserError for a length that cannot be."""
        if name in ("group", "split") and not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
            names = np.array(column.chunk(0).dictionary.to_pylist(), dtype=object)
            places = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
            texts: np.ndarray = names[places]
            return texts
        values: np.ndarray = column.to_numpy()
        if name == LENGTH and not (
            values.dtype.kind in "iu" and (values > 0).all() and (values < MAX_LENGTH).all()
        ):
            raise UserError(
                f"{self.folder}: a row has an impossible length: prepare again into an empty folder."
            )
        return values


def write_index(folder: Path, shards: Sequence[str], content_hash: str) -> None:
    """Write the index of these shards; it appears when it is whole."""
    path, writer = unlinked(folder / f"{INDEX}.tmp"), None
    for table in _gathered(_tables(folder, shards)):
        if writer is None:
            schema = table.schema.with_metadata({CONTENT: content_hash})
            # Each key is another text, which a dictionary would only lengthen.
            writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=TEXTS[1:])
        writer.write_table(table.cast(writer.schema))
    if writer is not None:
        writer.close()
        os.replace(path, folder / INDEX)


def opened(path: Path) -> pq.ParquetFile:
    """The Parquet file of a shard, memory-mapped; UserError where it is damaged."""
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """What to say where a shard cannot be read: too many open files are no damage."""
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return UserError(f"{path}: too many files are open; allow more, as by `ulimit -n 4096`.")
    return UserError(f"{path} is damaged ({error}): prepare again into an empty folder.")


def _tables(folder: Path, shards: Sequence[str]) -> Iterator[pa.Table]:
    """The small columns of one shard after the other: not all of so many may be open."""
    if not shards:
        raise UserError(f"{folder} holds no shards: prepare again into an empty folder.")
    names = [*TEXTS, LENGTH]
    names += [WEIGHT] if WEIGHT in opened(folder / shards[0]).schema_arrow.names else []
    for shard in shards:
        try:
            yield opened(folder / shard).read(names).select(names)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise unreadable(folder, error) from error


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows of small tables in large ones."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROWS_AT_A_TIME:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
