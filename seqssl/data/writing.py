"""Rows to shards, in order and restartable: a finished shard knows which records it stands for."""

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqssl.data.adapters import ModalityAdapter, Record, Row, Rows
from seqssl.data.files import Progress, sha256_file, sha256_json
from seqssl.data.fingerprint import Witness
from seqssl.data.index import WEIGHT
from seqssl.data.parts import Stretch
from seqssl.data.problems import problem_of
from seqssl.data.shards import Shard, ShardWriter
from seqssl.data.statistics import Sums
from seqssl.data.wording import printable, reason_of, shortened, storable
from seqssl.data.workers import map_ordered
from seqssl.errors import UserError

Columns = dict[str, Any]  # of a row that is being made
SHARD_BYTES = 64 * 2**20
SAID = ("readings", "notices")  # sentences for people, of `Rows`
FOOTER = "seqssl"  # key in a shard's Parquet metadata


class _Task(NamedTuple):
    """A record to read: the columns that are known of it, and the function that reads the others."""

    columns: dict[str, str]
    read: Callable[[], Row | Rows]


class _Result(NamedTuple):
    """What became of one record."""

    rows: list[Columns]
    rejected: list[tuple[str, str]]  # key, reason
    quality: list[Columns]  # one entry, or none
    sums: Sums  # over the observed values of its rows


@dataclass(frozen=True)
class Reading:
    """How records are read; nothing of it changes what is written."""

    num_workers: int | None  # see `map_ordered`
    executor: str | Executor
    progress: Progress
    witness: Witness  # that workers see the source


def _read_seen(adapter: ModalityAdapter, witness: Witness, task: _Task) -> _Result:
    """All rows of a record of a source that is seen here; UserError where it is not."""
    _check_once(witness)
    result = _read_record(adapter, task)
    if result.rejected:  # it may have gone in the meantime
        witness.check()
    return result


@cache
def _check_once(witness: Witness) -> None:
    """UserError where this process does not see the source, which may be another one under the same path."""
    witness.check()


def _read_record(adapter: ModalityAdapter, task: _Task) -> _Result:
    """All rows of a record; where none can be used, one reason."""
    key, sums = task.columns["key"], Sums()
    try:
        found = task.read()
        return _rows_of(adapter, task, found, sums)
    except UserError:
        raise
    except Exception as error:  # a library may raise anything for a damaged file
        return _Result([], [(key, shortened(reason_of(error)))], [], sums)


def _rows_of(adapter: ModalityAdapter, task: _Task, found: Row | Rows, sums: Sums) -> _Result:
    """The rows of what was read, each checked; where none can be used, one reason."""
    key, many = task.columns["key"], isinstance(found, Rows)
    rows: dict[str, Columns] = {}
    rejected = []
    for number, columns in enumerate(found.rows if isinstance(found, Rows) else [found]):
        values = dict(columns)
        part = printable(str(values.pop("part", number if many else "")))
        row = {**task.columns, "key": f"{key}#{part}" if part else key}
        problem = "its name is that of an earlier row" if row["key"] in rows else ""
        problem = problem or _checked(adapter, row, values, sums)
        if problem:
            rejected.append((row["key"], problem))
        else:
            rows[row["key"]] = row
    if not rows:
        rejected = [(key, rejected[0][1] if rejected else "nothing in it is usable")]
    return _Result([*rows.values()], rejected, _noticed(key, found), sums)


def _storable(value: Any) -> Any:
    """A value of a row, with texts that UTF-8 can hold."""
    if isinstance(value, dict):
        return {name: _storable(inner) for name, inner in value.items()}
    return storable(value) if isinstance(value, str) else value


def _noticed(key: str, found: Row | Rows) -> list[Columns]:
    """The line of quality.jsonl about a record, if there is anything to say."""
    if not isinstance(found, Rows):
        return []
    said = {name: [*map(shortened, getattr(found, name))] for name in SAID}
    line = {**{name: texts for name, texts in said.items() if texts}, **found.quality}
    return [{"path": key, **line}] if line else []


def _checked(adapter: ModalityAdapter, row: Columns, values: Columns, sums: Sums) -> str:
    """Add the values read to `row`, and its sums if it is good; what is wrong with it, "" for nothing."""
    empty = sorted(name for name, value in values.items() if value is None)
    if empty:
        return f"{', '.join(empty)} is None, which cannot be stored"
    try:
        row |= {"length": values.pop("length"), **{name: _storable(value) for name, value in values.items()}}
        row["group"] = printable(row["group"])
        sample = adapter.load(row, None)
    except UserError:
        raise
    except Exception as error:
        return shortened(reason_of(error))
    problem = problem_of(sample, adapter.spec, row["length"])
    weight = float(row.get(WEIGHT, 1.0))
    if WEIGHT in row:
        row[WEIGHT] = weight  # a column has one type, also where an adapter writes 1 for 1.0
    if not problem and not 0 <= weight < math.inf:
        problem = f"the weight is {weight}; it must be finite and not negative"
    if not problem:
        sums.add(sample)
    return problem


@dataclass(frozen=True)
class _Footer:
    """What a shard stores about the run that made it, so that the run can go on after it."""

    plan: str
    first: int  # records [first, last) are in it or were rejected
    last: int
    rejected: list[tuple[str, str]]
    quality: list[Columns]
    sums: list[list[float]]  # of the rows in "train"


class Written(NamedTuple):
    """All shards of a folder, and what their records gave apart from rows."""

    shards: list[Shard]
    rejected: list[tuple[str, str]]  # (key, reason)
    quality: Sequence[Row]
    sums: Sums  # of each channel over the rows in "train"
    sizes: dict[str, tuple[int, int]]  # of each split: rows and input steps


def write_shards(
    adapter: ModalityAdapter,
    out: Path,
    plan: str,
    records: Sequence[Record],
    splits: Sequence[str],
    *,
    reading: Reading,
    stretch: Stretch | None = None,
) -> Written:
    """Write what is missing of all records, or of a stretch; the shards of an interrupted run are kept."""
    plan, stretch = digest_of(plan, records, splits), stretch or Stretch(0, len(records))
    shards, footers = _resume(out, plan, stretch)
    done = footers[-1].last if footers else stretch.first
    tasks = [
        _Task({"key": record.key, "group": record.group, "label": record.label, "split": split}, record.read)
        for record, split in zip(records[done : stretch.last], splits[done : stretch.last], strict=True)
    ]
    results = map_ordered(
        partial(_read_seen, adapter, reading.witness),
        tasks,
        num_workers=reading.num_workers,
        preload=type(adapter).__module__,
        executor=reading.executor,
    )
    first, gathered = done, _Result([], [], [], Sums())
    writer = ShardWriter(out / f"{stretch.shards}{len(shards):05d}.parquet")
    try:
        for last, result in enumerate(results, start=done + 1):
            for row in result.rows:
                writer.add(row)
            gathered.rejected.extend(result.rejected)
            gathered.quality.extend(result.quality)
            if splits[last - 1] == "train":
                gathered.sums.merge(result.sums)
            if last == stretch.last or writer.num_bytes >= SHARD_BYTES:
                footer = _Footer(
                    plan, first, last, gathered.rejected, gathered.quality, gathered.sums.tolist()
                )
                footers.append(footer)
                if writer.num_rows:
                    writer.close({FOOTER: json.dumps(asdict(footer))})
                    shards.append(_measure(writer.path))
                first, gathered = last, _Result([], [], [], Sums())
                writer = ShardWriter(out / f"{stretch.shards}{len(shards):05d}.parquet")
            reading.progress(last - stretch.first, stretch.last - stretch.first, "reading")
    finally:
        writer.discard()
    sums = Sums()
    for footer in footers:
        sums.merge(Sums(*map(np.array, footer.sums)))
    return Written(
        shards,
        [(key, reason) for footer in footers for key, reason in footer.rejected],
        [entry for footer in footers for entry in footer.quality],
        sums,
        _split_sizes(out, shards),
    )


def digest_of(plan: str, records: Sequence[Record], splits: Sequence[str]) -> str:
    """A digest of the settings, of all records, and of their splits: what shards of one folder share."""
    return sha256_json([plan, [record.key for record in records], list(splits)])


def _split_sizes(out: Path, shards: Sequence[Shard]) -> dict[str, tuple[int, int]]:
    """Rows and input steps of each split, by name, read from the shards."""
    tables = [pq.read_table(out / shard.name, columns=["split", "length"]) for shard in shards]
    if not tables:
        return {}
    sums = pa.concat_tables(tables).group_by("split").aggregate([("length", "sum"), ("length", "count")])
    return {
        row["split"]: (row["length_count"], row["length_sum"]) for row in sums.sort_by("split").to_pylist()
    }


def _resume(out: Path, plan: str, stretch: Stretch) -> tuple[list[Shard], list[_Footer]]:
    """Finished shards of the same plan; anything else that a run has left is removed."""
    shards: list[Shard] = []
    footers: list[_Footer] = []
    for path in sorted(out.glob(f"{stretch.shards}?????.*")):
        footer = _read_footer(path)
        expected = footers[-1].last if footers else stretch.first
        if footer is not None and (footer.plan, footer.first) == (plan, expected):
            shards.append(_measure(path))
            footers.append(footer)
        else:
            path.unlink()
    return shards, footers


def _read_footer(path: Path) -> _Footer | None:
    """The footer of a shard; None where the file is damaged, or not of this kind."""
    try:
        return _Footer(**json.loads((pq.read_metadata(path).metadata or {})[FOOTER.encode()]))
    except (pa.ArrowInvalid, OSError, KeyError, TypeError):
        return None


def _measure(path: Path) -> Shard:
    num_rows = pq.read_metadata(path).num_rows
    return Shard(path.name, num_rows=num_rows, num_bytes=path.stat().st_size, sha256=sha256_file(path))
