"""Rows to shards, in order and restartable: a finished shard knows which records it stands for."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqssl.data.files import Progress, sha256_file, sha256_json
from seqssl.data.shards import Shard, ShardWriter
from seqssl.data.workers import map_ordered
from seqssl.model.protocols import ModalityAdapter
from seqssl.model.types import Record, Sample, SampleSpec

SHARD_BYTES = 64 * 2**20
FOOTER = "seqssl"  # key in a shard's Parquet metadata


class _Task(NamedTuple):
    columns: dict[str, str]
    read: Callable[[], Mapping[str, object]]


def _read_row(adapter: ModalityAdapter, task: _Task) -> dict[str, Any] | str:
    """The whole row, or the reason why it cannot be used."""
    try:
        columns = dict(task.read())
        row = {**task.columns, "length": columns.pop("length"), **columns}
        problem = _problem(adapter.load(row, None), adapter.spec, row["length"])
    except (ValueError, OSError) as error:
        return str(error) or type(error).__name__
    return problem or row


def _problem(sample: Sample, spec: SampleSpec, length: Any) -> str:
    values = sample.values
    if len(values) != length or len(values) == 0:
        return f"{len(values)} input steps where the row says {length}"
    axes = (spec.channels,) if spec.channels else ()
    if str(values.dtype) != spec.dtype or values.shape[1:] != axes:
        found = f"{values.dtype}{list(values.shape[1:])}"
        return f"a step is {found} where the spec says {spec.dtype}{list(axes)}"
    if not np.isfinite(values).all():
        return "not-a-number or infinite values"
    if spec.vocab_size is not None and not 0 <= int(values.min()) <= int(values.max()) < spec.vocab_size:
        return f"ids outside [0, {spec.vocab_size})"
    return ""


@dataclass(frozen=True)
class _Footer:
    """What a shard knows about the run that made it, so that the run can go on after it."""

    plan: str
    first: int  # records [first, last) are in it or were rejected
    last: int
    rejected: list[tuple[str, str]]


def write_shards(
    adapter: ModalityAdapter,
    out: Path,
    plan: str,
    records: Sequence[Record],
    splits: Sequence[str],
    *,
    num_workers: int | None,
    progress: Progress,
) -> tuple[list[Shard], list[tuple[str, str]]]:
    """All shards, those of an interrupted run included, and the (key, reason) of what was rejected."""
    plan = sha256_json([plan, [record.key for record in records], list(splits)])
    shards, footers = _resume(out, plan)
    done = footers[-1].last if footers else 0
    rejected = [(key, reason) for footer in footers for key, reason in footer.rejected]
    tasks = [
        _Task({"key": record.key, "group": record.group, "label": record.label, "split": split}, record.read)
        for record, split in zip(records, splits, strict=True)
    ]
    rows = map_ordered(
        partial(_read_row, adapter), tasks[done:], num_workers=num_workers, preload=type(adapter).__module__
    )
    first, since = done, len(rejected)
    writer = ShardWriter(out / f"shard-{len(shards):05d}.parquet")
    try:
        for last, row in enumerate(rows, start=done + 1):
            if isinstance(row, str):
                rejected.append((records[last - 1].key, row))
            else:
                writer.add(row)
            if writer.num_rows and (writer.num_bytes >= SHARD_BYTES or last == len(records)):
                footer = _Footer(plan, first, last, rejected[since:])
                writer.close({FOOTER: json.dumps(asdict(footer))})
                shards.append(_measure(writer.path))
                first, since = last, len(rejected)
                writer = ShardWriter(out / f"shard-{len(shards):05d}.parquet")
            progress(last, len(records), "reading")
    finally:
        writer.discard()
    return shards, rejected


def _resume(out: Path, plan: str) -> tuple[list[Shard], list[_Footer]]:
    """Finished shards of the same plan; anything else that a run has left is removed."""
    shards: list[Shard] = []
    footers: list[_Footer] = []
    for path in sorted(out.glob("shard-?????.*")):
        footer = _read_footer(path)
        expected = footers[-1].last if footers else 0
        if footer is not None and (footer.plan, footer.first) == (plan, expected):
            shards.append(_measure(path))
            footers.append(footer)
        else:
            path.unlink()
    return shards, footers


def _read_footer(path: Path) -> _Footer | None:
    try:
        return _Footer(**json.loads((pq.read_metadata(path).metadata or {})[FOOTER.encode()]))
    except (pa.ArrowInvalid, OSError, KeyError):
        return None


def _measure(path: Path) -> Shard:
    num_rows = pq.read_metadata(path).num_rows
    return Shard(path.name, num_rows=num_rows, num_bytes=path.stat().st_size, sha256=sha256_file(path))
