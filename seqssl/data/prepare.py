"""From raw files to a prepared folder: Parquet shards, manifest.json and rejected.jsonl."""

import errno
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seqssl.config.schema import DataConfig
from seqssl.data.adapters import ModalityAdapter, NamesEndings, Record, Rejected, Row, SampleSpec
from seqssl.data.catalog import find_corpus, get
from seqssl.data.files import (
    Progress,
    cache_root,
    endings_of,
    lies_inside,
    locked,
    refuse_linked_folders,
    sha256_json,
    silent,
    write_atomic,
)
from seqssl.data.fingerprint import code_of, describe, listing, plain
from seqssl.data.shards import MANIFEST, SCHEMA_VERSION, Corpus, Manifest, Shard, Split
from seqssl.data.splits import about_groups, assign_splits
from seqssl.data.wording import printable, reason_of, storable
from seqssl.data.workers import check_not_worker_import
from seqssl.data.writing import Written, write_shards
from seqssl.errors import UserError

REJECTED = "rejected.jsonl"
QUALITY = "quality.jsonl"
PAGE = "prepare.html"
PLANNED = "plan.txt"  # while it is being prepared: of which state of the source
SCANNED = 10_000  # records between two signs of progress
MAX_SAID = 30  # different sentences in a manifest


def prepare(
    adapter: ModalityAdapter,
    source: Path,
    out: Path,
    *,
    modality: str,
    split_by: str = "group",
    valid_share: float = 0.1,
    valid_groups: Sequence[str] = (),
    seed: int = 0,
    num_workers: int | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Read raw files into a prepared folder; what is already there is kept after an interruption.

    `valid_groups` names the groups to hold out, instead of drawing them. The result is a function of the
    source and the arguments, not of `num_workers`. Raises `UserError` when the source is missing, nothing in
    it is usable, the disk is full, or `out` holds something else.
    """
    check_not_worker_import()  # before the lock, which the script's first process holds
    _check_paths(source, out)
    _check_shares(split_by, valid_share)
    valid_groups = sorted(valid_groups)
    settings = [SCHEMA_VERSION, modality, describe(adapter), split_by, valid_share, valid_groups, seed]
    plan, shard_plan = _plans(adapter, source, settings)
    with _disk_errors(out), locked(out / ".lock"):
        refuse_linked_folders(out)
        if (out / MANIFEST).exists():
            return _finished(out, plan)
        _forget_other(out, plan)
        records, rejected = _scan(adapter, source, progress)
        assign = partial(
            assign_splits, split_by=split_by, valid_share=valid_share, valid_groups=valid_groups, seed=seed
        )
        write = partial(write_shards, adapter, out, shard_plan, num_workers=num_workers, progress=progress)
        written = _write(out, write, assign, records, rejected)
        rejected += [Rejected(path, reason) for path, reason in written.rejected]
        write_atomic(out / REJECTED, _lines([asdict(entry) for entry in rejected]))
        if not written.shards:
            raise UserError(_nothing_usable(adapter, source, rejected))
        if written.quality:
            write_atomic(out / QUALITY, _lines(written.quality))
        about = about_groups(records) if split_by == "group" and not valid_groups else ""
        manifest = Manifest(
            modality=modality,
            spec=plain(adapter.spec),
            source=str(source),
            plan=plan,
            splits=_split_sizes(out, written.shards, adapter.spec.rate_hz),
            shards=written.shards,
            num_rejected=len(rejected),
            statistics=written.statistics,
            readings=_counted(written.quality, "readings"),
            notices=({about: len(records)} if about else {}) | _counted(written.quality, "notices"),
        )
        write_atomic(out / MANIFEST, manifest.to_json())
        (out / PLANNED).unlink()
    return manifest


def _plans(adapter: ModalityAdapter, source: Path, settings: list[object]) -> tuple[str, str]:
    """What a prepared folder is made of, as a digest, and what its shards name of it.

    Shards do not name the files' times: the same data gives the same bytes everywhere. But they name the code
    that wrote them.
    """
    files = listing(adapter, source)
    shards = [settings, code_of(type(adapter)), [(name, size) for name, size, _ in files]]
    return sha256_json([settings, files]), sha256_json(shards)


def _forget_other(out: Path, plan: str) -> None:
    """Remove shards of an interrupted preparation of another state of the source."""
    mark = out / PLANNED
    if not (mark.is_file() and mark.read_text(encoding="utf-8") == plan):
        for path in out.glob("shard-?????.*"):
            path.unlink()
        write_atomic(mark, plan)


def _counted(quality: Sequence[Row], kind: str) -> dict[str, int]:
    """How many files each sentence was said of; those that differ in numbers only are one, the first."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for sentence in (sentence for line in quality for sentence in line.get(kind, ())):
        plain = re.sub(r"\d+", "0", sentence)
        counts[first.setdefault(plain, sentence)] += 1
    return dict(counts.most_common(MAX_SAID))


def _write(
    out: Path,
    write: Callable[[Sequence[Record], Sequence[str]], Written],
    assign: Callable[[Sequence[Record]], list[str]],
    records: Sequence[Record],
    rejected: list[Rejected],
) -> Written:
    """All shards; where everything held out proves unusable, splits are drawn again among the rest."""
    splits = assign(records)
    written = write(records, splits)
    if not written.rejected or "valid" not in splits or "valid" in _split_sizes(out, written.shards, None):
        return written
    unusable = dict(written.rejected)
    usable = [record for record in records if record.key not in unusable]
    rejected += [Rejected(r.key, unusable[r.key]) for r in records if r.key in unusable]
    return write(usable, assign(usable))


def open_or_prepare(
    adapter: ModalityAdapter, config: DataConfig, *, modality: str, progress: Progress = silent
) -> Corpus:
    """The corpus of a configuration: a prepared folder, raw data (prepared into the cache), or the demo."""
    if not (config.source or config.demo):
        raise UserError("data.source is not set and this recipe has no demo corpus: set data.source=PATH.")
    valid_groups = config.valid_groups
    if config.source:
        source, usual_split = Path(config.source).expanduser(), "group"
    else:
        entry = find_corpus(str(config.demo))
        source, usual_split = get(str(config.demo), progress), entry.split_by
        valid_groups = valid_groups or [*entry.valid_groups]
    split_by = config.split_by or usual_split
    if (source / MANIFEST).is_file():
        if config.valid_groups:
            raise UserError(
                f"data.valid_groups = {', '.join(config.valid_groups)}: {source} is prepared already, with "
                "held-out rows of its own. Prepare the raw data again with valid_groups=..."
            )
        corpus = Corpus(source)
        _check_spec(corpus, adapter.spec)
        return corpus
    _check_exists(source)
    held_out = [config.valid_share, sorted(valid_groups)]
    settings = [modality, describe(adapter), code_of(type(adapter)), split_by, held_out, SCHEMA_VERSION]
    digest = sha256_json([str(source.resolve()), settings, listing(adapter, source)])[:12]
    out = cache_root() / "prepared" / f"{source.stem}-{digest}"
    if not (out / MANIFEST).is_file():
        progress(0, 0, f"preparing {source} into {out}")
        manifest = prepare(
            adapter,
            source,
            out,
            modality=modality,
            split_by=split_by,
            valid_share=config.valid_share,
            valid_groups=valid_groups,
            progress=progress,
        )
        for title, said in (("read as", manifest.readings), ("notice", manifest.notices)):
            for sentence in said:
                progress(0, 0, f"{title}: {sentence}")
    return Corpus(out)


def fixed_split(config: DataConfig) -> str:
    """What of the data says itself what is held out, so that no setting of a share does; "" for nothing."""
    if config.source:
        is_prepared = (Path(config.source).expanduser() / MANIFEST).is_file()
        return f"{config.source} is prepared already, with held-out rows of its own" if is_prepared else ""
    groups = find_corpus(config.demo).valid_groups if config.demo and not config.valid_groups else ()
    return f"the demo corpus {config.demo} itself holds out {', '.join(groups)}" if groups else ""


def prepared_steps(config: DataConfig) -> int | None:
    """Input steps of the training rows where the source is a prepared folder; None where it is not."""
    folder = Path(config.source or "").expanduser()
    if not config.source or not (folder / MANIFEST).is_file():
        return None
    train = Manifest.read(folder).splits.get("train")
    return train.length if train else 0


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
                rejected.append(Rejected(key, "the key is used by an earlier row"))
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


def _split_sizes(out: Path, shards: Sequence[Shard], rate_hz: float | None) -> dict[str, Split]:
    """How much each split holds, read from the shards; with hours where there is a `rate_hz`."""
    tables = [pq.read_table(out / shard.name, columns=["split", "length"]) for shard in shards]
    if not tables:
        return {}
    sums = pa.concat_tables(tables).group_by("split").aggregate([("length", "sum"), ("length", "count")])
    return {
        row["split"]: Split(
            num_rows=row["length_count"],
            length=row["length_sum"],
            hours=round(row["length_sum"] / rate_hz / 3600, 4) if rate_hz else None,
        )
        for row in sums.sort_by("split").to_pylist()
    }


def _check_exists(source: Path) -> None:
    if not source.exists():
        raise UserError(f"There is no file or folder {source}.")
    if not (source.is_file() or source.is_dir()):
        raise UserError(
            f"{source} is neither a file nor a folder (a pipe or a device): copy it to a file first."
        )


def _check_paths(source: Path, out: Path) -> None:
    """UserError where the source is missing, or `out` lies in it or holds files of something else."""
    _check_exists(source)
    if source.is_dir() and lies_inside(out, source):
        raise UserError(f"The prepared folder {out} lies inside the raw data {source}: choose another.")
    ours = {MANIFEST, REJECTED, QUALITY, PAGE, PLANNED, ".lock"}
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    foreign = [name for name in names if name.removesuffix(".tmp") not in ours and name[:6] != "shard-"]
    if foreign:
        raise UserError(f"{out} holds something else ({foreign[0]}): choose an empty or new folder.")


def _check_shares(split_by: str, valid_share: float) -> None:
    """UserError for an unknown `split_by`, or a share outside of [0, 1)."""
    if split_by not in ("group", "record") or not 0 <= valid_share < 1:
        raise UserError(
            f"split_by must be group or record and valid_share in [0, 1), not {split_by} and {valid_share}."
        )


def _check_spec(corpus: Corpus, spec: SampleSpec) -> None:
    """UserError where a corpus was prepared for another spec."""
    first = ("channel_names", "channels")  # compared first: they say more than the units that follow
    wanted_spec = plain(spec)
    names = dict.fromkeys([*first, *wanted_spec, *corpus.manifest.spec])
    for name in names:
        wanted, found = wanted_spec.get(name), corpus.manifest.spec.get(name)
        if found != wanted:
            raise UserError(
                f"{corpus.folder} was prepared with {name}={found}, the modality wants {name}={wanted}: "
                f"prepare {corpus.manifest.source} again, or set modality.* as it was (recipes set some)."
            )


def _lines(entries: Sequence[Row]) -> str:
    """The entries as JSON lines."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def _finished(out: Path, plan: str) -> Manifest:
    """The manifest of a folder that is prepared already; UserError where it holds another corpus."""
    manifest = Manifest.read(out)
    if manifest.plan != plan:
        raise UserError(
            f"{out} holds another prepared corpus (source {manifest.source}, or other settings): "
            f"remove it or choose another folder."
        )
    Corpus(out)  # refuses a folder whose shards are missing or cut short
    return manifest


def _nothing_usable(adapter: ModalityAdapter, source: Path, rejected: Sequence[Rejected]) -> str:
    """The message for a source without usable rows, with the most frequent reasons."""
    if not rejected:
        read = (
            f"; {type(adapter).__name__} reads {' '.join(adapter.endings)}"
            if isinstance(adapter, NamesEndings)
            else ""
        )
        return f"Nothing in {source} looks like data of this modality: it holds {endings_of(source)}{read}."
    # Reasons that differ in a number only are one reason; the first of them is shown.
    counts = Counter(re.sub(r"\d+", "0", line.reason) for line in rejected).most_common(5)
    first = {re.sub(r"\d+", "0", line.reason): line.reason for line in reversed(rejected)}
    reasons = "".join(f"\n  - {count} x {first[reason]}" for reason, count in counts)
    return f"No usable rows in {source}; {len(rejected)} rejected:{reasons}"


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """A context that turns a full disk or a missing permission into a UserError."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"No permission for {error.filename}.") from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"The disk of {out} is full. Finished shards are kept: free some space and run this again."
        ) from error
