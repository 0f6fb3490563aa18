"""Public demo corpora, downloaded from the user's own package index or mirror and verified by SHA-256."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import OmegaConf

from seqssl.data.files import Progress, cache_root, locked, sha256_file, sha256_json, silent
from seqssl.errors import UserError


@dataclass(frozen=True)
class CatalogFile:
    """One package or archive."""

    name: str  # a package, or a URL
    sha256: str
    version: str = ""


@dataclass(frozen=True)
class CatalogSource:
    """One way to get a corpus."""

    kind: str  # apt | pip | url
    files: tuple[CatalogFile, ...]
    keep: dict[str, str]  # path inside the packages -> path in the raw corpus


@dataclass(frozen=True)
class CorpusEntry:
    """One demo corpus of catalog.yaml."""

    name: str
    description: str
    license: str
    size: str
    modality: str
    split_by: str
    valid_groups: tuple[str, ...]  # held out; () = drawn
    sources: tuple[CatalogSource, ...]

    @property
    def folder(self) -> Path:
        """Where the raw files are once `get` is done; the name changes with the content of the entry."""
        versions = [file.sha256 for source in self.sources for file in source.files]
        keeps = [source.keep for source in self.sources]
        return cache_root() / "raw" / f"{self.name}-{sha256_json([versions, keeps])[:8]}"


def list_corpora() -> list[CorpusEntry]:
    """All entries of the catalog, by name."""
    return [_entry(name, values) for name, values in sorted(_catalog().items())]


def find_corpus(name: str) -> CorpusEntry:
    """The entry called `name`; UserError where there is none."""
    if name not in _catalog():
        raise UserError(f"There is no demo corpus '{name}'. There is: {', '.join(sorted(_catalog()))}.")
    return _entry(name, _catalog()[name])


def get(name: str, progress: Progress = silent) -> Path:
    """Raw files of a demo corpus in the cache, downloaded if need be; a second call is immediate.

    Finished downloads survive an interruption; the folder appears only when it is whole.
    """
    entry = find_corpus(name)
    failures = []
    with locked(cache_root() / "locks" / f"raw-{name}", progress=progress):
        if entry.folder.is_dir():
            return entry.folder
        for source in entry.sources:
            try:
                _bring(entry.folder, source, progress)
                return entry.folder
            except (_Unavailable, OSError) as error:
                failures.append(f"{source.kind}: {error}")
    raise UserError("\n  - ".join([f"The demo corpus '{name}' could not be brought. Tried:", *failures]))


class _Unavailable(Exception):
    """Raised by a source that does not work on this machine."""


def _bring(folder: Path, source: CatalogSource, progress: Progress) -> None:
    """Download a source and move what the catalog keeps of it to `folder`, which appears only when whole."""
    downloads = cache_root() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fetched = []
    for done, file in enumerate(source.files):
        progress(done, len(source.files), file.name)
        fetched.append(_verified(downloads, source.kind, file))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        unpacked, kept = Path(scratch, "unpacked"), Path(scratch, "kept")
        for path in fetched:
            _unpack(path, unpacked)
        for inside, destination in source.keep.items():
            _move(unpacked / inside, kept / destination)
        os.replace(kept, folder)
    progress(len(source.files), len(source.files), folder.name)
    for path in fetched:
        path.unlink()


def _verified(downloads: Path, kind: str, file: CatalogFile) -> Path:
    """A downloaded file, in the cache or new; _Unavailable where its checksum is not that of the catalog."""
    for present in downloads.glob(f"{file.sha256[:16]}-*"):
        if sha256_file(present) == file.sha256:
            return present
    with tempfile.TemporaryDirectory(dir=downloads) as scratch:
        path = _FETCHERS[kind](file, Path(scratch))
        found = sha256_file(path)
        if found != file.sha256:
            raise _Unavailable(f"{path.name} has SHA-256 {found}, the catalog says {file.sha256}")
        target = downloads / f"{file.sha256[:16]}-{path.name}"
        os.replace(path, target)
    return target


def _fetch_apt(file: CatalogFile, folder: Path) -> Path:
    """Download a Debian package into a folder; _Unavailable where apt is missing or fails."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise _Unavailable("this system has no apt-get and dpkg-deb")
    command = ["apt-get", "download", f"{file.name}={file.version}"]
    return _run(command, folder, "if apt has no package lists yet, run `apt-get update` once as root")


def _fetch_pip(file: CatalogFile, folder: Path) -> Path:
    """Download a wheel into a folder; _Unavailable where pip fails."""
    wanted = f"{file.name}=={file.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", wanted]
    return _run(command, folder, "check the network and pip's index settings")


def _fetch_sdist(file: CatalogFile, folder: Path) -> Path:
    """Download a source archive into a folder; _Unavailable where pip fails.

    Pip builds the metadata of a source archive, which runs code of it: so pip checks the checksum before.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{file.name}=={file.version} --hash=sha256:{file.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", file.name]
        command += ["--require-hashes", "-r", str(wanted)]
        return _run(command, folder, "check the network and pip's index settings")


def _run(command: list[str], folder: Path, hint: str) -> Path:
    """Run a downloader in an empty folder; returns the one file that it leaves there, else _Unavailable."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode or not any(folder.iterdir()):
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise _Unavailable(f"`{' '.join(command)}` failed: {lines[-1]} ({hint})")
    return next(folder.iterdir())


def _fetch_url(file: CatalogFile, folder: Path) -> Path:
    """Download a file from its URL into a folder; OSError where that fails."""
    path = folder / PurePosixPath(file.name).name
    with urllib.request.urlopen(file.name, timeout=60) as response, path.open("wb") as target:
        shutil.copyfileobj(response, target)
    return path


_FETCHERS: dict[str, Callable[[CatalogFile, Path], Path]] = {
    "apt": _fetch_apt,
    "pip": _fetch_pip,
    "sdist": _fetch_sdist,
    "url": _fetch_url,
}


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a package or archive into a folder; any other file is copied, without its checksum prefix."""
    folder.mkdir(exist_ok=True)
    if path.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", path, folder], check=True)
    elif zipfile.is_zipfile(path):  # a wheel is one
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    else:
        shutil.copy(path, folder / path.name.partition("-")[2])


def _move(source: Path, destination: Path) -> None:
    """Move a file, or the content of a folder, into place; _Unavailable where it is missing."""
    if not source.exists():
        raise _Unavailable(f"the package holds no {source.name}")
    if source.is_file():
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, destination)
        return
    destination.mkdir(parents=True, exist_ok=True)
    for child in sorted(source.iterdir()):
        os.replace(child, destination / child.name)


@cache
def _catalog() -> dict[str, Any]:
    """The content of catalog.yaml: the values of each corpus by its name."""
    values = OmegaConf.to_container(OmegaConf.load(Path(__file__).with_name("catalog.yaml")))
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def _entry(name: str, values: dict[str, Any]) -> CorpusEntry:
    """A corpus of the catalog, from its values in catalog.yaml."""
    sources = tuple(
        CatalogSource(
            kind=source["kind"],
            files=tuple(CatalogFile(**file) for file in source["files"]),
            keep=source["keep"],
        )
        for source in values["sources"]
    )
    held_out = tuple(values.get("valid_groups", ()))
    return CorpusEntry(name=name, **{**values, "sources": sources, "valid_groups": held_out})
