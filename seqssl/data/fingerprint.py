"""What a prepared corpus depends on: the adapter and its settings, its code, and the files of the source."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter, ReadsBeside, SampleSpec
from seqssl.data.files import list_files, sha256_file, sha256_json
from seqssl.errors import UserError

YOUNGER = ("code_stride", "codebook_sizes")  # fields of a spec that were added within schema version 2


def describe(adapter: ModalityAdapter) -> dict[str, Value]:
    """The adapter's class and spec, and the settings that shape its rows: its plain public attributes."""
    settings = {
        name: value
        for name, value in vars(adapter).items()
        if isinstance(value, int | float | str | list | tuple | None) and not name.startswith("_")
    }
    return {"class": type(adapter).__qualname__, "spec": plain(adapter.spec), **settings}


@cache
def code_of(adapter: type) -> str:
    """A digest of the code that an adapter reads by: the Python files of its package, else its module's."""
    package = sys.modules[adapter.__module__.partition(".")[0]]
    folders = [Path(place) for place in getattr(package, "__path__", [])]
    own = getattr(sys.modules[adapter.__module__], "__file__", None)
    files = sorted(path for folder in folders for path in folder.rglob("*.py")) or [*filter(None, [own])]
    return sha256_json([sha256_file(Path(path)) for path in files])


def listing(adapter: ModalityAdapter, source: Path) -> list[tuple[str, int, int]]:
    """Name, size and change time of every file that is read; with another listing, it is another corpus."""
    stats = [(path.relative_to(source).as_posix(), path.stat()) for path in list_files(source)]
    beside = sorted({*adapter.beside(source)}) if isinstance(adapter, ReadsBeside) else []
    stats += [(os.path.relpath(path, source.parent), path.stat()) for path in beside if path.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


@dataclass(frozen=True)
class Witness:
    """Some files of a source, by which a worker can tell whether it sees the same one.

    A worker of another machine may have nothing under the source's path, or something else; and a disk may go
    while it is read. Every file would then be rejected, or wrong, and nobody would know why.
    """

    files: tuple[tuple[str, int], ...]  # path, bytes

    @classmethod
    def of(cls, source: Path, listed: Sequence[tuple[str, int, int]]) -> "Witness":
        """The first, middle and last file of a source's listing."""
        places = sorted({0, len(listed) // 2, len(listed) - 1}) if listed else []
        chosen = [(source / listed[place][0], listed[place][1]) for place in places]
        return cls(tuple((str(path), size) for path, size in chosen if path.is_file()))

    def check(self) -> None:
        """UserError where none of the files is here, of its size; one may be changed in the meantime."""
        if self.files and not any(_size(path) == size for path, size in self.files):
            raise UserError(
                f"{platform.node()} does not see {self.files[0][0]} as it was when the source was looked "
                "through. A source must stay as it is while it is read, and workers on other machines need "
                "it under the same path, on a disk that all of them share."
            )


def _size(path: str) -> int | None:
    """The size of a file in bytes; None where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def plain(spec: SampleSpec) -> dict[str, Value]:
    """A spec as JSON gives it back; younger fields that are None are left out, as old folders lack them."""
    values: dict[str, Value] = json.loads(json.dumps(asdict(spec)))
    return {name: value for name, value in values.items() if value is not None or name not in YOUNGER}
