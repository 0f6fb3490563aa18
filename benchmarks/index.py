"""What an index of millions of rows costs: to open it, to plan an epoch, to go on within a later one.

    python benchmarks/index.py [rows=12000000] [shard_rows=100000] [group_rows=1000] [index=true] [at=FOLDER]

Makes a prepared folder whose rows have no sound, with the columns that an index is of: keys such as
`speaker/chapter/utt-000001.flac`, 7,000 speakers, lengths around 18 s (log-normal). A folder of real speech
has row groups of some two rows and shards of a hundred, here `shard_rows=100 group_rows=2`; `index=false`
leaves out the index that `seqssl prepare` writes. Each part is measured in a process of its own, with one
thread, on the batches of recipe=speech_w2vbert (at most 32 s a row, 512 s a batch).
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqssl import SampleSpec
from seqssl.data.batching import BatchLoader
from seqssl.data.fingerprint import plain
from seqssl.data.index import write_index
from seqssl.data.shards import MANIFEST, Corpus, Manifest, Shard, Split

RATE_HZ = 16_000
SPEAKERS, CHAPTER_ROWS = 7_000, 50
MEDIAN_S, SPREAD, SHORTEST_S, LONGEST_S = 16.0, 0.5, 1.0, 35.0  # their mean is 18 s
MAX_S, BATCH_S = 32, 512
VALID_SHARE = 0.01
SAMPLED = 20_000  # batches whose rows are looked up, at most
LATER = 3  # the epoch that a run goes on in
PARTS = ("columns", "batches", "resume")

T = TypeVar("T")


class Nothing:
    """An adapter of rows without sound."""

    spec = SampleSpec("float32", "amplitude", rate_hz=float(RATE_HZ))


def main() -> None:
    """Make the folder, unless it is there, and measure each part of the work."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    if "part" in words:
        {"columns": columns, "batches": batches, "resume": resume}[words["part"]](Path(words["at"]))
        return
    rows, shard_rows = int(words.get("rows", 12_000_000)), int(words.get("shard_rows", 100_000))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(words.get("at", temporary))
        if not (folder / MANIFEST).is_file():
            write(
                folder, rows, shard_rows, int(words.get("group_rows", 1_000)), words.get("index") != "false"
            )
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        print(f"{rows:,} rows in {len([*folder.glob('shard-*')]):,} shards, {size:,.0f} MiB")
        for part in PARTS:
            subprocess.run([sys.executable, __file__, f"part={part}", f"at={folder}"], check=True)


def write(folder: Path, num_rows: int, shard_rows: int, group_rows: int, with_index: bool) -> None:
    """A prepared folder, as `seqssl prepare` would leave it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    speakers = np.sort(rng.integers(0, SPEAKERS, num_rows))
    lengths = (MEDIAN_S * np.exp(SPREAD * rng.standard_normal(num_rows))).clip(SHORTEST_S, LONGEST_S)
    lengths = (lengths * RATE_HZ).astype(np.int64)
    held_out = speakers >= SPEAKERS * (1 - VALID_SHARE)
    shards = []
    for first in range(0, num_rows, shard_rows):
        numbers = range(first, min(first + shard_rows, num_rows))
        names = [f"speaker-{speaker:04d}" for speaker in speakers[numbers].tolist()]
        keys = [
            f"{name}/{number // CHAPTER_ROWS:06d}/utt-{number:06d}.flac"
            for name, number in zip(names, numbers, strict=True)
        ]
        table = {
            "key": keys,
            "group": names,
            "label": [""] * len(names),
            "split": np.where(held_out[numbers], "valid", "train"),
            "length": lengths[numbers],
            "audio": [b"none"] * len(names),
        }
        path = folder / f"shard-{len(shards):06d}.parquet"
        pq.write_table(
            pa.table(table), path, compression="none", row_group_size=group_rows,
            use_dictionary=["group", "label", "split"],
        )  # fmt: skip
        shards.append(Shard(path.name, len(numbers), path.stat().st_size, "0" * 64))
    splits = {
        name: Split(int(chosen.sum()), int(lengths[chosen].sum()), None)
        for name, chosen in (("train", ~held_out), ("valid", held_out))
    }
    manifest = Manifest("speech", plain(Nothing.spec), "made up", "plan", splits, shards, num_rejected=0)
    if with_index:
        timed(
            "the index is written",
            lambda: write_index(folder, [s.name for s in shards], manifest.content_hash),
        )
    (folder / MANIFEST).write_text(manifest.to_json())


def timed(what: str, work: Callable[[], T]) -> T:
    """Do the work; print its seconds, by the clock and of a core, and the most memory so far."""
    began, busy = time.perf_counter(), time.process_time()
    found = work()
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 2**10
    print(f"{what:32} {seconds:8.2f} s ({busy:7.2f} s of a core)   peak {peak:6,.0f} MiB", flush=True)
    return found


def columns(folder: Path) -> None:
    """Open the folder and read every column of its index, as no training does."""
    print("\nall columns")
    corpus = timed("Corpus(folder)", lambda: Corpus(folder))
    for name in ("lengths", "splits", "groups", "labels", "keys"):
        timed(name, lambda name=name: getattr(corpus, name))
    timed("rows of the split train", lambda: corpus.rows("train"))
    timed("the last row", lambda: corpus.row(len(corpus) - 1))


def loader_of(corpus: Corpus) -> BatchLoader:
    """The batches that a run trains on."""
    return BatchLoader(
        corpus, Nothing(), split="train", batch_length=BATCH_S * RATE_HZ, max_length=MAX_S * RATE_HZ
    )  # type: ignore[arg-type]


def batches(folder: Path) -> None:
    """From nothing to batches, as a run does."""
    print("\nbatches")
    corpus = timed("Corpus(folder)", lambda: Corpus(folder))
    loader = timed("the loader", lambda: loader_of(corpus))
    planned = loader.planned(count())
    timed("the rows of the first batch", lambda: next(planned))
    began, busy = time.perf_counter(), time.process_time()
    number = sum(len(items) for _, items in islice(planned, min(SAMPLED, len(loader.epoch(0)) - 1)))
    rates = [number / (time.perf_counter() - began), number / (time.process_time() - busy)]
    timed("a second epoch", lambda: loader.epoch(1))
    print(f"{len(loader.epoch(0)):,} batches; {rates[0]:,.0f} rows a second ({rates[1]:,.0f} of a core)")


def resume(folder: Path) -> None:
    """Go on in the middle of a later epoch, with the lengths of earlier ones known and without."""
    print(f"\na run goes on in epoch {LATER}")
    corpus = Corpus(folder)
    before = loader_of(corpus)
    cursor = next(
        number for number in count(0, len(before.epoch(0)) // 2) if before.epoch_of(number)[0] == LATER
    )
    counted = json.loads(json.dumps(before.order.counted))

    def first(known: bool) -> object:
        loader = loader_of(corpus)
        if known:
            loader.order.recall(counted)
        return next(loader.planned([cursor]))

    same = timed("with what its checkpoint knows", lambda: first(True)) == timed(
        "without", lambda: first(False)
    )
    print("the same rows" if same else "OTHER ROWS")


if __name__ == "__main__":
    main()
