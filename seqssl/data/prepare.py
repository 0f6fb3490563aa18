"""From raw files to a prepared folder: Parquet shards, manifest.json and rejected.jsonl."""

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from seqssl.config.addresses import is_remote
from seqssl.config.schema import DataConfig
from seqssl.data.adapters import ModalityAdapter
from seqssl.data.catalog import find_corpus, get
from seqssl.data.checks import (
    PAGE,
    PLANNED,
    QUALITY,
    check_exists,
    check_paths,
    check_shares,
    check_spec,
    disk_errors,
    is_prepared,
)
from seqssl.data.executors import PROCESS, check_executor
from seqssl.data.files import Progress, cache_root, locked, refuse_linked_folders, sha256_json, silent
from seqssl.data.fingerprint import Witness, code_of, describe, listing
from seqssl.data.index import INDEX
from seqssl.data.making import Elsewhere, Work, finished, write_part, write_whole
from seqssl.data.mirrors import bring, manifest_at
from seqssl.data.parts import Part, count_in
from seqssl.data.shards import MANIFEST, SCHEMA_VERSION, Corpus, Manifest
from seqssl.data.splits import assign_splits
from seqssl.data.workers import check_not_worker_import
from seqssl.data.writing import Reading
from seqssl.errors import UserError


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
    executor: str | Executor = PROCESS,
    part: Part | None = None,
    origin: str = "",
    elsewhere: Elsewhere | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Read raw files into a prepared folder; what is already there is kept after an interruption.

    `valid_groups` names the groups to hold out, instead of drawing them. The result is a function of the
    source and the arguments, not of `num_workers` or `executor`: a name of `seqssl.data.executors`, or any
    executor, which stays open. With a `part`, only its shards are written, and the manifest is of them alone;
    a call without one joins all parts that the folder is divided among. `origin` and `elsewhere` are for what
    lies in an object store: the source's address, and what is there of the folder already (see
    `seqssl.data.staging`). Raises `UserError` when the source is missing, nothing in it is usable, a part is
    missing, the disk is full, or `out` holds something else.
    """
    check_not_worker_import()  # before the lock, which the script's first process holds
    check_executor(executor)
    check_paths(source, out)
    check_shares(split_by, valid_share)
    count = _division(out, part, elsewhere)
    valid_groups = sorted(valid_groups)
    settings = [SCHEMA_VERSION, modality, describe(adapter), split_by, valid_share, valid_groups, seed]
    files = listing(adapter, source)
    # Workers may be in another folder, so paths are whole for them.
    place = source if executor == PROCESS else source.absolute()
    work = Work(
        adapter,
        place,
        out,
        modality,
        origin or str(source),
        plan=sha256_json([settings, files]),
        # Shards do not name the files' times: the same data gives the same bytes everywhere. But they name
        # the code that wrote them.
        shard_plan=sha256_json([settings, code_of(type(adapter)), [(name, size) for name, size, _ in files]]),
        assign=partial(
            assign_splits, split_by=split_by, valid_share=valid_share, valid_groups=valid_groups, seed=seed
        ),
        by_group=split_by == "group" and not valid_groups,
        reading=Reading(num_workers, executor, progress, Witness.of(place, files)),
        elsewhere=elsewhere,
    )
    with disk_errors(out), locked(out / (part.lock if part else ".lock"), progress=progress):
        refuse_linked_folders(out)
        if _is_made(work):
            return finished(work)
        return write_part(work, part) if part else write_whole(work, count)


def _is_made(work: Work) -> bool:
    """Whether the folder is prepared already.

    A folder for a store is no more than a copy to send: where it is of something else, or not whole, and the
    store has no manifest, it is made anew.
    """
    out, elsewhere = work.out, work.elsewhere
    if elsewhere and MANIFEST not in elsewhere.sizes:
        if (out / MANIFEST).exists():
            manifest, sizes = Manifest.read(out), work.sizes()
            is_whole = all(sizes.get(shard.name) == shard.num_bytes for shard in manifest.shards)
            if manifest.plan != work.plan or not is_whole:
                (out / MANIFEST).unlink()
        if not (out / MANIFEST).exists():
            for name in (INDEX, QUALITY, PAGE):
                (out / name).unlink(missing_ok=True)
    return (out / MANIFEST).exists()


def _division(out: Path, part: Part | None, elsewhere: Elsewhere | None) -> int:
    """Among how many parts a folder is divided, 0 for none; UserError where `part` does not fit."""
    name = elsewhere.address if elsewhere else str(out)
    names = [*elsewhere.sizes] if elsewhere else []
    names += [path.name for path in out.iterdir()] if out.is_dir() else []
    count = count_in(names, name)
    if part and PLANNED in names and not count:
        raise UserError(
            f"{name} holds the beginning of a whole preparation: choose another folder for parts."
        )
    return count_in([*names, part.mark], name) if part else count


def open_or_prepare(
    adapter: ModalityAdapter, config: DataConfig, *, modality: str, progress: Progress = silent
) -> Corpus:
    """The corpus of a configuration: a prepared folder, raw data (prepared into the cache), or the demo."""
    if not (config.source or config.demo):
        raise UserError("data.source is not set and this recipe has no demo corpus: set data.source=PATH.")
    valid_groups = config.valid_groups
    if config.source:
        source, usual_split = bring(config.source, progress), "group"
    else:
        entry = find_corpus(str(config.demo))
        source, usual_split = get(str(config.demo), progress), entry.split_by
        valid_groups = valid_groups or [*entry.valid_groups]
    split_by = config.split_by or usual_split
    if is_prepared(source):
        if config.valid_groups:
            raise UserError(
                f"data.valid_groups = {', '.join(config.valid_groups)}: {source} is prepared already, with "
                "held-out rows of its own. Prepare the raw data again with valid_groups=..."
            )
        corpus = Corpus(source)
        check_spec(corpus, adapter.spec)
        return corpus
    check_exists(source)
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
            origin=config.source if config.source and is_remote(config.source) else "",
            progress=progress,
        )
        for title, said in (("read as", manifest.readings), ("notice", manifest.notices)):
            for sentence in said:
                progress(0, 0, f"{title}: {sentence}")
    return Corpus(out)


def fixed_split(config: DataConfig) -> str:
    """What of the data says itself what is held out, so that no setting of a share does; "" for nothing."""
    if config.source:
        is_prepared = manifest_at(config.source) is not None
        return f"{config.source} is prepared already, with held-out rows of its own" if is_prepared else ""
    groups = find_corpus(config.demo).valid_groups if config.demo and not config.valid_groups else ()
    return f"the demo corpus {config.demo} itself holds out {', '.join(groups)}" if groups else ""


def prepared_steps(config: DataConfig) -> int | None:
    """Input steps of the training rows where the source is a prepared folder; None where it is not."""
    manifest = manifest_at(config.source) if config.source else None
    if manifest is None:
        return None
    train = manifest.splits.get("train")
    return train.length if train else 0
