"""Files in an object store of the tests, and on a disk."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from s3_server import Server

from seqssl.data.shards import Manifest


def put_all(store: Server, folder: Path, path: str) -> None:
    """Store the files of a folder."""
    bucket, _, key = path.partition("/")
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            store.put(bucket, f"{key}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(folder / shard.name) for shard in Manifest.read(folder).shards)


def command(source: object, out: object, *more: str) -> list[str]:
    own = ["modality=numbers_adapter:Numbers", f"source={source}", f"out={out}", "workers=1"]
    return ["prepare", *own, *more]


def sent(store: Server, folder: str) -> dict[str, bytes]:
    start = f"{folder}/"
    return {
        key.removeprefix(start): stored.content
        for key, stored in store.buckets["mine"].items()
        if key.startswith(start) and key != start
    }
