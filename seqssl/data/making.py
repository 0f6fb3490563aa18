"""How a prepared folder is made: a source is looked through, its records are read, a manifest comes last."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from seqssl.data.adapters import ModalityAdapter, Record, Rejected, Row
from seqssl.data.checks import PLANNED, QUALITY, check_plan, nothing_usable
from seqssl.data.files import Progress, write_atomic
from seqssl.data.fingerprint import plain
from seqssl.data.index import write_index
from seqssl.data.parts import Done, Part, gathered, tidy
from seqssl.data.rejections import REJECTED
from seqssl.data.shards import MANIFEST, Manifest, Split
from seqssl.data.splits import about_groups
from seqssl.data.statistics import Sums
from seqssl.data.wording import printable, reason_of, storable
from seqssl.data.writing import Reading, Written, digest_of, write_shards
from seqssl.errors import UserError

SCANNED = 10_000  # records between two signs of progress
MAX_SAID = 30  # different sentences in a manifest


@dataclass(frozen=True)
class Elsewhere:
    """What lies in an object store of a folder that is made here for it."""

    address: str  # of the folder
    sizes: Mapping[str, int]  # bytes of its files, by name


@dataclass(frozen=True)
class Work:
    """What a folder is made of, and how."""

    adapter: ModalityAdapter
    source: Path
    out: Path
    modality: str
    origin: str  # what the manifest says of the source
    plan: str  # digest of the settings and of the state of the source
    shard_plan: str  # of what shards depend on
    assign: Callable[[Sequence[Record]], list[str]]  # the split of each record
    by_group: bool  # whether groups were to be kept apart
    reading: Reading
    elsewhere: Elsewhere | None

    @property
    def name(self) -> str:
        """The folder in messages."""
        return self.elsewhere.address if self.elsewhere else str(self.out)

    def sizes(self) -> dict[str, int]:
        """The bytes of each file of the folder, by name."""
        here = {path.name: path.stat().st_size for path in self.out.iterdir()}
        return {**self.elsewhere.sizes, **here} if self.elsewhere else here

    def write(self, records: Sequence[Record], splits: Sequence[str], part: Part | None = None) -> Written:
        """The shards of all records, or of a part's; those of another state of the source are removed."""
        mark, shards = self.out / (part.mark if part else PLANNED), part.shards if part else "shard-"
        if not (mark.is_file() and mark.read_text(encoding="utf-8") == self.plan):
            for path in self.out.glob(f"{shards}?????.*"):
                path.unlink()
            write_atomic(mark, self.plan)
        return write_shards(
            self.adapter,
            self.out,
            self.shard_plan,
            records,
            splits,
            reading=self.reading,
            stretch=part.of(records) if part else None,
        )


def write_part(work: Work, part: Part) -> Manifest:
    """The shards of a part, and the file that says that it is done."""
    records, _ = _scan(work.adapter, work.source, work.reading.progress)
    splits = work.assign(records)
    digest, done = digest_of(work.shard_plan, records, splits), Done.read(work.out / part.file)
    if done is None or done.problem(work.plan, digest, work.sizes()):
        written = work.write(records, splits, part)
        sums = written.sums.tolist()
        done = Done(digest, _manifest(work, written), written.rejected, written.quality, sums)
        done.write(work.out, part)
    return done.manifest


def write_whole(work: Work, count: int) -> Manifest:
    """All shards, or those of `count` parts, and what is said about them, the manifest last."""
    out = work.out
    records, rejected = _scan(work.adapter, work.source, work.reading.progress)
    about = about_groups(records) if work.by_group else ""
    written = _usable(work, count, records, rejected)
    rejected += [Rejected(path, reason) for path, reason in written.rejected]
    write_atomic(out / REJECTED, _lines([asdict(entry) for entry in rejected]))
    if not written.shards:
        raise UserError(nothing_usable(work.adapter, work.source, rejected))
    if written.quality:
        write_atomic(out / QUALITY, _lines(written.quality))
    whole = _manifest(work, written)
    notices = ({about: len(records)} if about else {}) | whole.notices
    whole = replace(whole, num_rejected=len(rejected), notices=notices)
    names = [shard.name for shard in whole.shards]
    if all((out / name).is_file() for name in names):  # without it, shards are read where they are
        write_index(out, names, whole.shards_hash)
    write_atomic(out / MANIFEST, whole.to_json())
    (out / PLANNED).unlink(missing_ok=True)
    tidy(out, whole)
    return whole


def _usable(work: Work, count: int, records: Sequence[Record], rejected: list[Rejected]) -> Written:
    """All shards; where everything held out proves unusable, splits are drawn again among the rest."""
    splits = work.assign(records)
    written = _joined(work, count, records, splits) if count else work.write(records, splits)
    if not written.rejected or "valid" not in splits or "valid" in written.sizes:
        return written
    unusable = dict(written.rejected)
    usable = [record for record in records if record.key not in unusable]
    rejected += [Rejected(r.key, unusable[r.key]) for r in records if r.key in unusable]
    return work.write(usable, work.assign(usable))


def _joined(work: Work, count: int, records: Sequence[Record], splits: Sequence[str]) -> Written:
    """What `count` parts have written; UserError where some are missing."""
    digest = digest_of(work.shard_plan, records, splits)
    parts = gathered(work.out, work.name, count, digest, work.plan, work.sizes())
    sums, sizes = Sums(), dict[str, tuple[int, int]]()
    for part in parts:
        sums.merge(part.total)
        for name, split in part.manifest.splits.items():
            rows, length = sizes.get(name, (0, 0))
            sizes[name] = rows + split.num_rows, length + split.length
    return Written(
        [shard for part in parts for shard in part.manifest.shards],
        [line for part in parts for line in part.rejected],
        [line for part in parts for line in part.quality],
        sums,
        dict(sorted(sizes.items())),
    )


def _manifest(work: Work, written: Written) -> Manifest:
    """What is said of shards; rejections are those of their records."""
    spec = work.adapter.spec
    splits = {
        name: Split(rows, length, round(length / spec.rate_hz / 3600, 4) if spec.rate_hz else None)
        for name, (rows, length) in written.sizes.items()
    }
    return Manifest(
        modality=work.modality,
        spec=plain(spec),
        source=work.origin,
        plan=work.plan,
        splits=splits,
        shards=written.shards,
        num_rejected=len(written.rejected),
        statistics=written.sums.statistics() if spec.vocab_size is None else None,
        readings=_counted(written.quality, "readings"),
        notices=_counted(written.quality, "notices"),
    )


def _counted(quality: Sequence[Row], kind: str) -> dict[str, int]:
    """How many files each sentence was said of; those that differ in numbers only are one, the first."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for sentence in (sentence for line in quality for sentence in line.get(kind, ())):
        plain = re.sub(r"\d+", "0", sentence)
        counts[first.setdefault(plain, sentence)] += 1
    return dict(counts.most_common(MAX_SAID))


def _scan(adapter: ModalityAdapter, source: Path, progress: Progress) -> tuple[list[Record], list[Rejected]]:
    """The records that an adapter finds, each key once, and what is rejected."""
    records: dict[str, Record] = {}
    rejected: list[Rejected] = []
    try:
        for found in adapter.records(source, "all"):
            if (len(records) + len(rejected)) % SCANNED == SCANNED - 1:
                progress(len(records), 0, f"looking through {source}")
            if isinstance(found, Rejected):
                rejected.append(found)
                continue
            key = printable(found.key)
            if key in records:
                rejected.append(Rejected(key, "its name is that of an earlier row"))
            else:
                label, group = storable(found.label), printable(found.group)
                records[key] = replace(found, key=key, group=group, label=label)
    except UserError:
        raise
    except Exception as error:  # what follows in the scan is lost with it, so this is no matter of one file
        raise UserError(
            f"{type(adapter).__name__} failed on the scan of {source}: {reason_of(error)}"
        ) from error
    return list(records.values()), rejected


def _lines(entries: Sequence[Row]) -> str:
    """The entries as JSON lines."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def finished(work: Work) -> Manifest:
    """The manifest of a folder that is prepared already; UserError where it is another corpus, or damaged."""
    manifest, sizes = Manifest.read(work.out), work.sizes()
    check_plan(manifest, work.plan, work.name)
    for shard in manifest.shards:
        if sizes.get(shard.name) != shard.num_bytes:
            raise UserError(
                f"{work.name}: {shard.name} is missing or cut short: remove all of it and prepare again."
            )
    tidy(work.out, manifest)
    return manifest
