"""What is refused before or while a folder is prepared, each in one message."""

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from seqssl.config.addresses import inside
from seqssl.data.adapters import ModalityAdapter, NamesEndings, Rejected, SampleSpec
from seqssl.data.files import endings_of, lies_inside
from seqssl.data.fingerprint import plain
from seqssl.data.index import INDEX
from seqssl.data.parts import is_of_part
from seqssl.data.rejections import REJECTED, most_frequent
from seqssl.data.shards import MANIFEST, Corpus, Manifest
from seqssl.errors import UserError

QUALITY = "quality.jsonl"
PAGE = "prepare.html"
PLANNED = "plan.txt"  # while a folder is prepared: of which state of the source


def check_exists(source: Path) -> None:
    """UserError where there is nothing to read."""
    if not source.exists():
        raise UserError(f"There is no file or folder {source}.")
    if not (source.is_file() or source.is_dir()):
        raise UserError(
            f"{source} is neither a file nor a folder (a pipe or a device): copy it to a file first."
        )


def check_paths(source: Path, out: Path) -> None:
    """UserError where the source is missing, or `out` lies in it or holds files of something else."""
    check_exists(source)
    if source.is_dir() and lies_inside(out, source):
        raise UserError(f"The prepared folder {out} lies inside the raw data {source}: choose another.")
    check_ours([path.name for path in out.iterdir()] if out.is_dir() else [], str(out))
    if (out / MANIFEST).is_file() and not is_prepared(out):
        raise UserError(f"{out} holds something else ({MANIFEST}): choose an empty or new folder.")


def check_ours(names: Sequence[str], out: str) -> None:
    """UserError where a folder holds files that `prepare` did not write."""
    ours = {MANIFEST, INDEX, REJECTED, QUALITY, PAGE, PLANNED, ".lock"}
    for name in names:
        if name.removesuffix(".tmp") not in ours and name[:6] != "shard-" and not is_of_part(name):
            raise UserError(f"{out} holds something else ({name}): choose an empty or new folder.")


def is_prepared(folder: Path) -> bool:
    """Whether a folder has a manifest that `prepare` wrote; UserError where it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check who may read it.") from error
    if is_manifest(content):
        return True
    check_no_shards([entry.name for entry in folder.iterdir()], str(folder))
    return False


def is_manifest(content: bytes) -> bool:
    """Whether a manifest.json is one of `prepare`, of whatever version: other programs write some, too."""
    return {"schema_version", "shards"} <= json_object(content).keys()


def json_object(content: bytes) -> dict[str, object]:
    """The JSON object that a file holds; an empty one where it holds anything else."""
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_no_shards(names: Sequence[str], folder: str) -> None:
    """UserError where shards lie beside a manifest.json that is none of ours, or is damaged."""
    if any(name.startswith("shard-") and name.endswith(".parquet") for name in names):
        raise UserError(
            f"{inside(folder, MANIFEST)} cannot be read, and shards lie beside it: it is damaged, or another "
            "program wrote it. Prepare the raw data again, into a new folder."
        )


def check_shares(split_by: str, valid_share: float) -> None:
    """UserError for an unknown `split_by`, or a share outside of [0, 1)."""
    if split_by not in ("group", "record") or not 0 <= valid_share < 1:
        raise UserError(
            f"split_by must be group or record and valid_share in [0, 1), not {split_by} and {valid_share}."
        )


def check_spec(corpus: Corpus, spec: SampleSpec) -> None:
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


def check_plan(manifest: Manifest, plan: str, out: str) -> None:
    """UserError where a folder is prepared already, with another corpus."""
    if manifest.plan != plan:
        raise UserError(
            f"{out} holds another prepared corpus (source {manifest.source}, or other settings): "
            f"remove it or choose another folder."
        )


def nothing_usable(adapter: ModalityAdapter, source: Path, rejected: Sequence[Rejected]) -> str:
    """The message for a source without usable rows, with the most frequent reasons."""
    if not rejected:
        read = (
            f"; {type(adapter).__name__} reads {' '.join(adapter.endings)}"
            if isinstance(adapter, NamesEndings)
            else ""
        )
        return f"Nothing in {source} looks like data of this modality: it holds {endings_of(source)}{read}."
    reasons = "".join(f"\n  - {count} x {line.reason}" for count, line in most_frequent(rejected, 5))
    return f"No usable rows in {source}; {len(rejected)} rejected:{reasons}"


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """A context that turns a full or broken disk, or a missing permission, into a UserError."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"No permission for {error.filename}.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk of {out} is full, or your share of it. What is finished is kept: free some space "
                "and run this again."
            ) from error
        if error.errno in (errno.EIO, errno.EROFS):
            raise UserError(
                f"{error.filename or out}: {error.strerror}. Check the path and its disk, or choose another "
                "folder."
            ) from error
        raise
