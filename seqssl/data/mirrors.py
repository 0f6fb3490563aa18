"""What lies in an object store as a path of this machine: sources and prepared folders in the cache.

Adapters read files, so files are brought: only those that the store lists, once, and again where they have
changed there. Each keeps the time that it has in the store; so names, sizes and times tell states of a source
apart as they do on a disk.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from seqssl.config.addresses import inside, is_remote, name_of, stem_of
from seqssl.data.checks import QUALITY, check_no_shards, disk_errors, is_manifest, is_prepared
from seqssl.data.files import Progress, cache_root, locked, sha256_json, silent, write_atomic
from seqssl.data.index import INDEX, write_index
from seqssl.data.rejections import REJECTED
from seqssl.data.remote import NO_PERMISSION, Entry, Remote, download_all, place_of, size_in_words
from seqssl.data.shards import MANIFEST, Manifest
from seqssl.data.wording import printable
from seqssl.errors import UserError

SPARE_BYTES = 10**9  # that a disk keeps free
MAX_NAME_BYTES = 255  # of a file or folder on a disk
ROUNDED_NS = 2 * 10**9  # to which some disks round times
IS_WINDOWS = os.name == "nt"


def bring(source: str | Path, progress: Progress = silent) -> Path:
    """The path of a source; what lies in an object store is brought into the cache before.

    Of a prepared folder come its shards, checked by their SHA-256; of any other folder all files. Raises
    UserError where there is nothing, something may not be read, or the disk of the cache has no room.
    """
    if not is_remote(str(source)):
        return Path(source).expanduser()
    remote = Remote.of(str(source))
    text = _manifest_text(remote)
    return _mirrored(remote, progress) if text is None else _corpus(remote, text, progress)


def manifest_at(source: str | Path) -> Manifest | None:
    """The manifest of a prepared folder, also of one in an object store; None where a source is none."""
    if is_remote(str(source)):
        text = _manifest_text(Remote.of(str(source)))
        return None if text is None else _parsed(text, str(source))
    folder = Path(source).expanduser()
    return Manifest.read(folder) if is_prepared(folder) else None


def _manifest_text(remote: Remote) -> str | None:
    """The text of a prepared folder's manifest; None where there is none, as far as this may be asked.

    A manifest.json that `prepare` did not write is a file like any other.
    """
    try:
        content = remote.content(MANIFEST)
    except UserError as error:
        if NO_PERMISSION in str(error):  # who may not list a bucket is not told that a file is not there
            return None
        raise
    if content is None:
        return None
    if is_manifest(content):
        return content.decode("utf-8")
    check_no_shards([entry.name for entry in remote.listing()], remote.address)
    return None


def _parsed(text: str, address: str) -> Manifest:
    """The manifest with this text; a message about it names the folder without the options of its address."""
    return Manifest.parse(text, inside(address, MANIFEST).removesuffix(f"/{MANIFEST}"))


def _corpus(remote: Remote, text: str, progress: Progress) -> Path:
    """A prepared folder in the cache, named by its content; it has its manifest when all else is there."""
    manifest = _parsed(text, remote.address)
    folder = cache_root() / "prepared" / f"{stem_of(remote.address)}-{sha256_json(text)[:12]}"
    with locked(_lock(folder), progress=progress):
        if (folder / MANIFEST).is_file():
            return folder
        there = {entry.name: entry for entry in remote.listing()}
        files = [(there[name], folder / name) for name in (INDEX, REJECTED, QUALITY) if name in there]
        for shard in manifest.shards:
            entry = there.get(shard.name)
            if entry is None or entry.num_bytes != shard.num_bytes:
                raise UserError(f"{remote.address}: {shard.name} is missing or cut short: prepare again.")
            files.append((entry._replace(sha256=shard.sha256), folder / shard.name))
        _bring_all(remote, files, folder, progress)
        if INDEX not in there:
            write_index(folder, [shard.name for shard in manifest.shards], manifest.shards_hash)
        write_atomic(folder / MANIFEST, text)
    return folder


def _mirrored(remote: Remote, progress: Progress) -> Path:
    """A file, or a folder with all files that a listing of it has, in the cache."""
    place = cache_root() / "remote" / place_of(remote.address)
    root = place / name_of(remote.address)
    with locked(_lock(place), progress=progress):
        entries = remote.listing()
        # The folder of locks is `locks`: a disk where it has this name, too, does not tell the two apart.
        one_case = (cache_root() / "LOCKS").is_dir()
        left_out = _left_out([entry.name for entry in entries], one_case=one_case)
        for name, why in left_out.items():
            progress(0, 0, f"left out: {printable(name)}, {why}")
        kept = [entry for entry in entries if entry.name not in left_out and not _is_hidden(entry.name)]
        if not kept:
            raise UserError(f"{remote.address}: there is no file in it.")
        files = [(entry, root / entry.name if entry.name else root) for entry in kept]
        _remove_others(place, {path for _, path in files})
        _bring_all(remote, files, place, progress)
    return root


def _bring_all(remote: Remote, files: Sequence[tuple[Entry, Path]], place: Path, progress: Progress) -> None:
    """Bring the files that are not here as they are there; UserError where the disk has no room."""
    missing = [(entry, path) for entry, path in files if not _is_same(entry, path)]
    if not missing:
        return
    place.mkdir(parents=True, exist_ok=True)
    size, free = sum(entry.num_bytes for entry, _ in missing), shutil.disk_usage(place).free
    said = f"{len(missing):,} of {len(files):,} files ({size_in_words(size)}) of {remote.address}"
    if size + SPARE_BYTES > free:
        raise UserError(
            f"{said} do not fit on the disk of the cache, {cache_root()}, of which {size_in_words(free)} are "
            "free: set SEQSSL_CACHE to a folder of a larger one, or name a smaller folder."
        )
    progress(0, 0, f"downloading {said} to {place}")
    with disk_errors(place):
        download_all(remote, missing, progress)


def _is_same(entry: Entry, path: Path) -> bool:
    """Whether a file is here with the size and about the time that it has in the store."""
    if not path.is_file():
        return False
    stat = path.stat()
    return stat.st_size == entry.num_bytes and abs(stat.st_mtime_ns - entry.time_ns) <= ROUNDED_NS


def _is_hidden(name: str) -> bool:
    """Whether a file is one that programs keep for themselves: `list_files` leaves the same ones out."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _left_out(names: Sequence[str], *, one_case: bool = False) -> dict[str, str]:
    """Names of a store that cannot be files below a folder of a disk, and why.

    `one_case`: the disk takes names that differ in capital letters alone for the same.
    """

    def on_disk(name: str) -> str:
        return name.casefold() if one_case else name

    folders = {on_disk(name[:place]) for name in names for place, sign in enumerate(name) if sign == "/"}
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in filter(None, names):
        if why := next(filter(None, map(_problem_of, name.split("/"))), ""):
            found[name] = why
        elif on_disk(name) in folders:
            found[name] = "a folder has the same name"
        elif on_disk(name) in first:
            found[name] = f"the disk of the cache takes it for {printable(first[on_disk(name)])}"
        else:
            first[on_disk(name)] = name
    return found


def _problem_of(part: str) -> str:
    """Why a disk cannot have a file or folder of this name; "" where it can."""
    try:
        size = len(os.fsencode(part))
    except UnicodeEncodeError:
        size = 0
    if not size or part in (".", "..") or "\0" in part or (IS_WINDOWS and {*part} & {*'\\:<>"|?*'}):
        return "its name is none that a disk can have"
    return f"its name is longer than {MAX_NAME_BYTES} bytes" if size > MAX_NAME_BYTES else ""


def _remove_others(place: Path, wanted: set[Path]) -> None:
    """Remove what an earlier state of a source has left below a folder of the cache."""
    for root, folders, names in os.walk(place, topdown=False):
        for name in names:
            if Path(root, name) not in wanted:
                Path(root, name).unlink()
        for name in folders:
            path = Path(root, name)
            if not any(path.iterdir()):
                path.rmdir()


def _lock(folder: Path) -> Path:
    """The lock of a folder of the cache."""
    return cache_root() / "locks" / folder.name
