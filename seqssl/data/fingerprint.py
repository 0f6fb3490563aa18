"""What a prepared corpus depends on: the adapter and its settings, its code, and the files of the source."""

import json
import os
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter, ReadsBeside, SampleSpec
from seqssl.data.files import list_files, sha256_file, sha256_json

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


def plain(spec: SampleSpec) -> dict[str, Value]:
    """A spec as JSON gives it back; younger fields that are None are left out, as old folders lack them."""
    values: dict[str, Value] = json.loads(json.dumps(asdict(spec)))
    return {name: value for name, value in values.items() if value is not None or name not in YOUNGER}
