"""Where the header of a text table is: the line above the rows that are alike."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from modalities.reading.quantities import unit_of

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)*|[.,]\d+)([eE][+-]?\d+)?")
TIME = re.compile(r"\d{1,4}[-/.:]\d{1,2}\D.*|\d{1,2}:\d\d.*|\d{1,2}[- ][A-Za-z]{3}.*|\d{8}T\d.*")
# 1,219 or 1.219,5: the mark between groups of three digits, the groups after the first, the rest
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([.,])(\d{3}(?:\1\d{3})*)((?!\1)[.,]\d+)?")
NOTHING = {"", "na", "n/a", "nan", "null", "none", "-", "--", "m", "?", "nodata", "missing"}
# What a line of units may hold, beside units that are known; one of its cells has to be surely one.
UNIT = re.compile(
    r"[\[(].*[\])]|-|ts|rn|[°º]?[a-zµμ%‰]{1,4}\d?([/ .*^]-?[a-z0-9²³^-]{1,4}){0,3}|degrees?( \w+)?|unitless|"
    r"celsius|kelvin|fahrenheit|percent|fraction|counts?",
    re.IGNORECASE,
)
SURE = re.compile(
    r"[\[(].*[\])]|[ymdhs]{1,4}([-/:. t]+[ymdhs]{1,4})+(z| ?utc)?|avg|smp|tot|std|iso ?8601", re.IGNORECASE
)


class Line(NamedTuple):
    """A line that is not empty, as cells."""

    number: int  # from 0
    cells: list[str]


def kind_of(cell: str) -> str:
    """What a cell looks like: "number", "time", "text", or "" for nothing."""
    cell = cell.strip().strip('"').strip()
    if cell.lower() in NOTHING:
        return ""
    if NUMBER.fullmatch(cell) and (cell.count(".") < 2 or GROUPED.fullmatch(cell)):
        return "number"
    return "time" if TIME.fullmatch(cell) else "text"


def unquoted(cell: str) -> str:
    """A name without the quotes and blanks around it."""
    cell = cell.strip()
    inside = len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'"
    return cell[1:-1].strip() if inside else cell


def first_data(rows: Sequence[Line]) -> tuple[int, int]:
    """The place of the first row that is like those below it, and their number of cells."""
    count, kinds = _below(rows)
    telling = [place for place, kind in enumerate(kinds) if kind in ("number", "time")]
    top = next((place for place, row in enumerate(rows) if len(row.cells) == count), 0)
    header = _names_times(rows[top].cells, kinds)

    def like(row: Line) -> bool:
        if len(row.cells) != count:
            return False
        same = sum(kind_of(row.cells[place]) in ("", kinds[place]) for place in telling)
        full = any(kind_of(row.cells[place]) for place in telling)
        return same > 0.5 * len(telling) and full

    if not telling:  # nothing but text: the first line is the header
        return next((place for place, row in enumerate(rows) if len(row.cells) == count), 0) + 1, count
    found = [place for place, row in enumerate(rows) if like(row) and not (header and place == top)]
    # A row that is like the data by chance, above lines that are not, belongs to what comes before the table
    first = next(
        (
            place
            for place in found
            if sum(like(row) for row in rows[place : place + 20]) >= 0.6 * len(rows[place : place + 20])
        ),
        found[0] if found else len(rows),
    )
    # A row with one odd cell (10.0 s) right above is a row, no header
    while header + top < first < len(rows) and _has_data(rows[first - 1], kinds, count):
        first -= 1
    return first, count


def _below(rows: Sequence[Line]) -> tuple[int, list[str]]:
    """How many cells most of the later rows have, and what kind of cell stands in each of their columns."""
    later = rows[len(rows) // 2 :]
    counts = Counter(len(row.cells) for row in later)
    count = max(counts, key=lambda count: (counts[count], count == len(rows[0].cells), count))
    body = [row for row in later if len(row.cells) == count]
    usual = [
        Counter(filter(None, (kind_of(row.cells[place]) for row in body))).most_common(1)
        for place in range(count)
    ]
    return count, [found[0][0] if found else "" for found in usual]


def _names_times(cells: Sequence[str], kinds: Sequence[str]) -> bool:
    """Whether all cells of a row differ, and a text stands above times: date,0,1,2 is a header."""
    names = {unquoted(cell) for cell in cells}
    above = any(kind == "time" and kind_of(cell) == "text" for cell, kind in zip(cells, kinds, strict=False))
    return above and len(names) == len(cells) and "" not in names


def _has_data(row: Line, kinds: Sequence[str], count: int) -> bool:
    """Whether any cell of a row is a time or a number where the rows below have the same."""
    cells = zip(row.cells, kinds, strict=False)
    return len(row.cells) == count and any(
        kind in ("time", "number") and kind_of(cell) == kind for cell, kind in cells
    )


def after_header(rows: Sequence[Line]) -> tuple[int, int]:
    """As `first_data`, where the user has said where the table begins: at its header, or its first row."""
    cells = rows[0].cells
    numbers = sum(kind_of(cell) in ("number", "time") for cell in cells)
    start = 0 if numbers > 0.5 * len(cells) and not _names_times(cells, _below(rows)[1]) else 1
    count = len(rows[min(start, len(rows) - 1)].cells)
    if len(rows) > start + 1 and start and are_units(rows[1].cells, cells):
        start, count = 2, len(rows[2].cells)
    return start, count


def are_units(cells: Sequence[str], above: Sequence[str]) -> bool:
    """Whether a line says the units of the names above it."""
    full = [cell.strip().strip('"') for cell in cells if cell.strip().strip('"')]
    if len(cells) != len(above) or not full or any(kind_of(cell) == "number" for cell in full):
        return False
    names = {cell.strip().lower() for cell in above}
    sure = any(SURE.fullmatch(cell) or (unit_of(cell) and len(cell) > 1) or cell in "%°" for cell in full)
    looks = all(UNIT.fullmatch(cell) or SURE.fullmatch(cell) or unit_of(cell) for cell in full)
    return (
        sure and looks and len(names) == len(above) and all(kind_of(cell) in ("text", "") for cell in above)
    )


def named(names: list[str], body: Sequence[Sequence[str]], count: int, said: list[str]) -> list[str]:
    """A name for each cell of a row, none of them twice."""
    if len(names) == count - 1 and body:
        full = [cells for cells in body if len(cells) == count]
        if all(not cells[-1].strip() for cells in full):
            names = [*names, ""]  # a separator behind the last cell
        elif [cells[0].strip().strip('"') for cells in full[:3]] in (["1", "2", "3"], ["0", "1", "2"]):
            names = ["row_name", *names]
            said.append("the first column has no name and numbers the rows")
        else:
            raise ValueError(
                f"not readable as a table: the rows have {count} fields, the header names {len(names)}: "
                "add a name"
            )
    names = [*names, *[""] * (count - len(names))]
    seen: Counter[str] = Counter()
    different = []
    for place, name in enumerate(names):
        name = name or f"unnamed_{place + 1}"
        different.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return different


def example_names(rows: Sequence[Line], last: Sequence[str]) -> list[str]:
    """Names that would do for rows without a header: the time, the last ones as given, a text, a number."""
    count = len(rows[0].cells) if rows else 1
    names = [f"c{place + 1}" for place in range(count)]
    kinds = [kind_of(cell) for cell in rows[0].cells] if rows else [""]
    numeric = [place for place, kind in enumerate(kinds) if kind == "number"]
    times = [place for place, kind in enumerate(kinds) if kind == "time"]
    times = times or [place for place in numeric[: len(numeric) - len(last)] if _increases(rows, place)]
    if times:
        names[times[0]] = "time"
        numeric = [place for place in numeric if place > times[0]]
        numeric = numeric[: len(last)]  # the sensor's columns follow the time
    for place, name in zip(
        numeric[len(numeric) - len(last) :] if len(numeric) >= len(last) else [], last, strict=False
    ):
        names[place] = name
    return names


def _increases(rows: Sequence[Line], place: int) -> bool:
    try:
        values = [float(row.cells[place]) for row in rows if len(row.cells) > place]
    except ValueError:
        return False
    return len(values) > 1 and all(a < b for a, b in pairwise(values))
