"""A folder that is prepared for an object store: made on this machine, then sent, its manifest last."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seqssl.config.addresses import inside, is_remote, name_of
from seqssl.data.checks import PAGE, PLANNED, QUALITY, check_ours, is_manifest, json_object
from seqssl.data.files import Progress, cache_root, locked, sha256_file, silent, write_atomic
from seqssl.data.index import INDEX
from seqssl.data.making import Elsewhere
from seqssl.data.parts import Part, is_done_mark, stray
from seqssl.data.remote import Remote, place_of
from seqssl.data.shards import MANIFEST, Manifest
from seqssl.errors import UserError

KNOWN = "known.json"  # beside the folder: the SHA-256 of each file that lies in the store, as far as known


@dataclass(frozen=True)
class Stage:
    """Where a folder is made."""

    folder: Path
    elsewhere: Elsewhere | None = None


@contextmanager
def staged(out: str, part: Part | None = None, progress: Progress = silent) -> Iterator[Stage]:
    """The folder to make in place of `out`, which may be an address; where nothing fails it is sent.

    It lies in the cache until all of it is sent, so the same command goes on after an interruption. Of what
    the store has there already, only the words about parts and shards come here, not the shards. Raises
    UserError where the store holds something else, or lets nothing be written: before any work is done.
    """
    if not is_remote(out):
        yield Stage(Path(out).expanduser())
        return
    remote = Remote.of(out)
    remote.make()
    place = cache_root() / "outgoing" / f"{place_of(out)}-{part.name if part else 'whole'}"
    with locked(cache_root() / "locks" / place.name, progress=progress):
        there = {entry.name: entry.num_bytes for entry in remote.listing()}
        check_ours([*there], out)
        folder, known = place / name_of(out), _known(place)
        folder.mkdir(parents=True, exist_ok=True)
        for name in [name for name in there if name == MANIFEST or is_done_mark(name)]:
            content = remote.content(name) or b""
            is_whole = is_manifest(content) if name == MANIFEST else bool(json_object(content))
            if is_whole:
                write_atomic(folder / name, content.decode("utf-8"))
                known[name] = sha256_file(folder / name)
            elif name == MANIFEST:
                _check_cut(content, folder / name, out)
                del there[name]  # it is written again
        yield Stage(folder, Elsewhere(out, there))
        if (folder / MANIFEST).is_file() and MANIFEST not in there:
            for name in {INDEX, QUALITY, PAGE} & there.keys():  # of something else that was sent in part
                if not (folder / name).is_file():
                    remote.remove(name)
        _send(remote, folder, known, progress)
        if (folder / MANIFEST).is_file():
            for name in stray(there, Manifest.read(folder)):
                remote.remove(name)
        shutil.rmtree(place)


def _check_cut(content: bytes, path: Path, out: str) -> None:
    """UserError for a manifest in the store that is not the beginning of the one to send."""
    if content and not (path.is_file() and path.read_bytes().startswith(content)):
        raise UserError(
            f"{inside(out, MANIFEST)} is none that seqssl has written, or cut short: choose another folder. "
            "If a preparation was interrupted, run the same command again on the machine where that was."
        )


def _known(place: Path) -> dict[str, str]:
    """The SHA-256 of what an interrupted command has sent, by name."""
    try:
        known: dict[str, str] = json.loads((place / KNOWN).read_text(encoding="utf-8"))
        return known
    except (OSError, ValueError):
        return {}


def _send(remote: Remote, folder: Path, known: dict[str, str], progress: Progress) -> None:
    """Send the files that the store has not; what says that others are there comes last."""
    there = {entry.name: entry.num_bytes for entry in remote.listing()}
    names = [path.name for path in folder.iterdir() if path.is_file()]
    names = [name for name in names if name != PLANNED and name[:5] != "plan-" and name[:1] != "."]
    names.sort(key=lambda name: (name == MANIFEST, is_done_mark(name), name))
    for done, name in enumerate(names):
        progress(done, len(names), f"sending to {remote.address}")
        digest, size = sha256_file(folder / name), (folder / name).stat().st_size
        if there.get(name) != size or known.get(name) != digest:
            remote.upload(folder / name, name)
            known[name] = digest
            write_atomic(folder.parent / KNOWN, json.dumps(known))
    progress(len(names), len(names), f"sending to {remote.address}")
