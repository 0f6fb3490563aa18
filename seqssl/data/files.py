"""The cache, locks, hashes, and files that appear whole or not at all."""

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from seqssl.errors import UserError

Progress = Callable[[int, int, str], None]  # done, total, what
MOST_ENDINGS = 6  # that a message counts
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # of shared disks that are mounted without


def silent(done: int, total: int, what: str) -> None:
    """The progress callback that shows nothing."""


def cache_root() -> Path:
    """$SEQSSL_CACHE, or ~/.cache/seqssl."""
    return Path(os.environ.get("SEQSSL_CACHE") or Path.home() / ".cache" / "seqssl").expanduser()


def list_files(source: Path) -> list[Path]:
    """Every file of a folder and those below it, sorted; a file is a list of itself.

    Links are followed. Each folder counts once, under its own name where it has one in the source. What
    programs keep for themselves is left out: names that begin with a dot, and macOS's folder `__MACOSX`.
    """
    return sorted(_walk(source, everything=False)[0]) if source.is_dir() else [source]


def endings_of(source: Path) -> str:
    """How many files of a folder have which ending, the most frequent first: `12 .pdf, 3 .docx`."""
    counts = Counter(path.suffix.lower() or "without an ending" for path in list_files(source)).most_common()
    others = sum(count for _, count in counts[MOST_ENDINGS:])
    shown = ", ".join(f"{count} {ending}" for ending, count in counts[:MOST_ENDINGS]) or "no files"
    return f"{shown} and {others} others" if others else shown


def lies_inside(path: Path, source: Path) -> bool:
    """Whether a path, which need not exist, is in a folder of the source or of one linked there."""
    real = Path(os.path.realpath(path))
    folders = _walk(source, everything=True)[1]
    return any(_identity(folder) in folders for folder in (real, *real.parents) if folder.is_dir())


def _walk(source: Path, *, everything: bool) -> tuple[list[Path], set[tuple[int, int]]]:
    """All files in a folder and below it, and which folders they are in; `everything`: hidden ones, too."""
    files: list[Path] = []
    folders: set[tuple[int, int]] = set()
    links = [source]  # followed last, so that a folder counts under its name in the source
    while links:
        waiting = [links.pop(0)]
        while waiting:  # no recursion: folders may be nested by the thousand
            folder = waiting.pop()
            identity = _identity(folder)
            if identity in folders:
                continue
            folders.add(identity)
            inner: list[Path] = []
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if not everything and (entry.name.startswith(".") or entry.name == "__MACOSX"):
                    continue
                if entry.is_dir():
                    (links if entry.is_symlink() else inner).append(Path(entry.path))
                elif entry.is_file():  # no pipe, which would be waited for
                    files.append(Path(entry.path))
            waiting += reversed(inner)
    return files, folders


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder is, by whatever path: its device and number there."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """Hex digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write a text file that nobody ever sees half-written."""
    temporary = unlinked(path.with_name(path.name + ".tmp"))
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def unlinked(path: Path) -> Path:
    """The same path, without the link that stands there: what is written to it stays in its folder.

    A folder that somebody else has packed may hold links to any file of the one who unpacks it.
    """
    if path.is_symlink():
        path.unlink()
    return path


def refuse_linked_folders(folder: Path) -> None:
    """UserError where a folder inside of this one is a link: what is written there would land elsewhere."""
    for root, names, _ in os.walk(folder):
        for path in (Path(root, name) for name in sorted(names)):
            if path.is_symlink():
                raise UserError(
                    f"{path} is a link to {os.path.realpath(path)}, and nothing is written through links: "
                    "remove it, or choose another folder."
                )


@contextmanager
def locked(path: Path, *, wait: bool = True, progress: Progress = silent) -> Iterator[None]:
    """Hold an exclusive lock on `path`, so that one of several processes makes what all of them need.

    The others wait, and `progress` is told so; with `wait` off, they get a BlockingIOError. On a disk without
    locks nobody waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with unlinked(path).open("a") as file:
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks; the ranks of one machine start there by hand
            yield
            return
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                progress(0, 0, f"waiting for another process, which holds {path}")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
