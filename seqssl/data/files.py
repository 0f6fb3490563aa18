"""The cache, locks, hashes, and files that appear whole or not at all."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[int, int, str], None]  # done, total, what


def silent(done: int, total: int, what: str) -> None:
    """The progress callback that shows nothing."""


def cache_root() -> Path:
    """$SEQSSL_CACHE, or ~/.cache/seqssl."""
    return Path(os.environ.get("SEQSSL_CACHE") or Path.home() / ".cache" / "seqssl").expanduser()


def list_files(source: Path) -> list[Path]:
    """Every file of a folder and those below it, sorted; a file is a list of itself.

    Links are followed, to folders too, but for one that leads back to a folder above it.
    """

    def below(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
        real = os.path.realpath(folder)
        if real in above:
            return
        for path in folder.iterdir():
            if path.is_dir():
                yield from below(path, (*above, real))
            elif path.is_file():
                yield path

    return sorted(below(source, ())) if source.is_dir() else [source]


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """Hex digest of a value of plain types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write a text file that is never seen half-written."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on `path`: of several processes that need a folder, one makes it.

    The others wait, or with `wait` off get a BlockingIOError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks; the ranks of one machine start there by hand
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
