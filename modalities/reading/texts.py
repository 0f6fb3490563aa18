"""Which texts are tables: .txt and the like may hold anything, so their lines decide."""

import re
from pathlib import Path

from modalities.reading.dialects import COMMENTS, HEAD_BYTES, encoding_of, head_of
from modalities.reading.headers import kind_of
from modalities.reading.tables import TEXT_SUFFIXES, is_table

LEAST_LINES = 10
LOOKED_AT = 50  # lines at the end of what is read, behind any header
USUAL = 0.8  # of these have to be data
MARKS = re.compile(r"[,;|\s]+")  # between cells, whatever the separator is


def reads_as_table(path: Path) -> bool:
    """Whether a file is a table by its name, or a text most of whose lines are numbers and times.

    One that cannot be read counts as a table, so that whoever opens it says why.
    """
    if not path.name.lower().endswith(TEXT_SUFFIXES):
        return is_table(path)
    try:
        data = head_of(path)
    except (OSError, ValueError):
        return True
    lines = data.decode(encoding_of(data), "replace").splitlines()
    if len(data) >= HEAD_BYTES:
        lines = lines[:-1]  # the last one may be cut
    full = [line for line in map(str.strip, lines) if line and not line.startswith(COMMENTS)][-LOOKED_AT:]
    return len(full) >= LEAST_LINES and sum(map(_is_data, full)) > USUAL * len(full)


def _is_data(line: str) -> bool:
    """Whether a line has several cells, most of them numbers or times; missing ones count as either."""
    kinds = [kind_of(cell) for cell in MARKS.split(line.strip(",;| "))]
    known = sum(kind != "text" for kind in kinds)
    return known > max(1, len(kinds) / 2) and any(kinds)
