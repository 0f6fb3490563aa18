"""Which texts are tables: .txt and the like may hold anything, so their lines decide."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from modalities.reading.dialects import COMMENTS, HEAD_BYTES, encoding_of, head_of
from modalities.reading.headers import kind_of
from modalities.reading.tables import TEXT_SUFFIXES, is_table

FIRST_BYTES = 2**12  # tell most files that are no texts
ENCODED_BYTES = 2**16  # tell the encoding
LEAST_LINES = 10
LOOKED_AT = 50  # lines at the end of what is read, behind any header
USUAL = 0.8  # of these have to be data
MARKS = re.compile(r"[,;|\s]+")  # between cells, whatever the separator is
CONTROL = re.compile(r"[\0-\x08\x0e-\x19\x1b-\x1f]")  # in no text; \x1a ends some of DOS


def readable(
    paths: Iterable[Path], is_named: Callable[[Path], bool], *, asked: bool = False
) -> tuple[list[Path], Path | None]:
    """The files of a kind that their names say; where there are none, the texts that are tables.

    Beside files of such names a text is the same data again, or says something of them: the first one that
    is left alone comes second, None where there is none. `asked`: texts count whatever they hold.
    """
    paths = [*paths]
    named = [path for path in paths if is_named(path)]
    texts = (path for path in paths if is_text(path) and (asked or reads_as_table(path)))
    return (named, next(texts, None)) if named else ([*texts], None)


def left_alone(text: Path | None) -> str:
    """What to say of the texts that `readable` leaves alone; "" where there are none."""
    if text is None:
        return ""
    return (
        f"texts of numbers such as {text.name} are left alone, as there are files of data beside them: "
        "make a folder of texts alone the source if they are to be read"
    )


def is_text(path: Path) -> bool:
    """Whether a file is called as texts are that may hold a table, in any case of letters."""
    return path.name.lower().endswith(TEXT_SUFFIXES)


def reads_as_table(path: Path) -> bool:
    """Whether a file is a table by its name, or a text most of whose lines are numbers and times.

    One that cannot be read counts as a table, so that whoever opens it says why.
    """
    if not is_text(path):
        return is_table(path)
    try:
        now = path.stat()
    except OSError:
        return True
    return _holds_table(path, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=2**16)  # several adapters ask, before and while they read
def _holds_table(path: Path, _changed_ns: int, _size: int) -> bool:
    try:
        first = head_of(path, FIRST_BYTES)
        if CONTROL.search(first.decode(encoding_of(first), "replace")):
            return False
        data = first if len(first) < FIRST_BYTES else head_of(path)
    except (OSError, ValueError):
        return True
    lines = data.decode(encoding_of(data[:ENCODED_BYTES]), "replace").splitlines()
    if len(data) >= HEAD_BYTES:
        lines = lines[:-1]  # the last one may be cut
    full = [line for line in map(str.strip, lines) if line and not line.startswith(COMMENTS)][-LOOKED_AT:]
    return len(full) >= LEAST_LINES and sum(map(_is_data, full)) > USUAL * len(full)


def _is_data(line: str) -> bool:
    """Whether a line has several cells, most of them numbers or times; missing ones count as either."""
    kinds = [kind_of(cell) for cell in MARKS.split(line.strip(",;| "))]
    known = sum(kind != "text" for kind in kinds)
    return known > max(1, len(kinds) / 2) and any(kinds)
