"""Where the header of a text table is: the line above the rows that are alike."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from modalities.reading.axes import likely_axes
from modalities.reading.parts import EITHER, PARTS, WORDS
from modalities.reading.quantities import unit_of

MINUS = "\u2212"  # a typographer's minus sign
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
TYPE = re.compile(r"\d+[sdn]")  # of a column of USGS: 5s, 14n
MOMENTS = {*PARTS["year"], "time", "date", "datetime", "timestamp"}  # no units, as min and mm are
TIMES = {*WORDS, *MOMENTS}  # names in a header
BASES = re.compile(r"[acgtunrywskmbdhv]{20,}", re.IGNORECASE)  # in no name
MOST_CHANNELS = 60  # columns of numbers; of more without a time, each row may be a series
MOST_NAMED = 12  # in an example: what is longer is cut where it is shown


class Line(NamedTuple):
    """A line that is not empty, as cells."""

    number: int  # from 0
    cells: list[str]


@lru_cache(maxsize=2**14)  # a cell is looked at with each separator, for the header, and for its marks
def kind_of(cell: str) -> str:
    """What a cell looks like: "number", "time", "text", or "" for nothing."""
    cell = cell.strip().strip('"').strip().replace(MINUS, "-")
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

    if not telling:  # nothing but text: the first line is the header, unless it holds a sequence
        return top + (not has_bases(rows[top].cells)), count
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
    data = has_bases(cells) or numbers > 0.5 * len(cells)
    start = 0 if data and not _names_times(cells, _below(rows)[1]) else 1
    count = len(rows[min(start, len(rows) - 1)].cells)
    if len(rows) > start + 1 and start and below_names(rows[1].cells, cells) in ("units", "types"):
        start, count = 2, len(rows[2].cells)
    return start, count


def below_all(lines: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[str]]:
    """The units in lines below that of the names, and what each of these lines holds, from the data up."""
    units: tuple[str, ...] = ()
    found: list[str] = []
    for cells, above in pairwise(lines):
        what = below_names(cells, above)
        if not what:
            break
        units = tuple(cell.strip() for cell in cells) if what == "units" else units
        found.append(what)
    return units, found


def has_bases(cells: Sequence[str]) -> bool:
    """Whether a cell of a line is a sequence of nucleotides, so that the line is no header."""
    return any(BASES.fullmatch(unquoted(cell)) for cell in cells)


def below_names(cells: Sequence[str], above: Sequence[str]) -> str:
    """What a line below that of the names holds; "" where it may be the line of the names itself.

    That is units or types; or cells some of which are the same, below texts of which none are.
    """
    low = {unquoted(cell).lower() for cell in cells}
    times, theirs = low & TIMES, {unquoted(cell).lower() for cell in above} & TIMES
    if len(times) > 1 and times & MOMENTS and not theirs:  # it is the one that names times
        return ""
    if are_units(cells, above):
        return "units"
    full, names = ([*map(unquoted, line)] for line in (cells, above))
    if len(full) != len(names) or not _differ(names) or {*map(kind_of, names)} != {"text"}:
        return ""
    if all(map(TYPE.fullmatch, full)):
        return "types"
    return "" if times or _differ(full) else "no names, as some are the same"


def _differ(names: Sequence[str]) -> bool:
    """Whether names all differ; months and minutes may both be MM."""
    known = [name.strip() for name in names if name.strip().lower() != EITHER]
    return len({*known}) == len(known)


def are_units(cells: Sequence[str], above: Sequence[str]) -> bool:
    """Whether a line says the units of the names above it."""
    full = [cell.strip().strip('"') for cell in cells if cell.strip().strip('"')]
    if len(cells) != len(above) or not full or any(kind_of(cell) == "number" for cell in full):
        return False
    sure = any(SURE.fullmatch(cell) or (unit_of(cell) and len(cell) > 1) or cell in "%°" for cell in full)
    looks = all(UNIT.fullmatch(cell) or SURE.fullmatch(cell) or unit_of(cell) for cell in full)
    return sure and looks and _differ(above) and all(kind_of(cell) in ("text", "") for cell in above)


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
    """Names that would do for rows without a header: the time, `last` for the sensor's axes, others by place.

    ValueError, with what to do, where so many names would hide which columns are meant, or each row is no
    moment.
    """
    cells = rows[0].cells if rows else [""]
    count, kinds = len(cells), [kind_of(cell) for cell in cells]
    names = ["sequence" if has_bases([cell]) else f"c{place}" for place, cell in enumerate(cells, start=1)]
    numeric = [place for place, kind in enumerate(kinds) if kind == "number"]
    times = [place for place, kind in enumerate(kinds) if kind == "time"]
    times = times or [place for place in numeric[: len(numeric) - len(last)] if _increases(rows, place)]
    if not times and len(numeric) > MOST_CHANNELS:
        raise ValueError(
            f"no header line: {len(numeric)} columns of numbers and no time: each row seems to be a series "
            "or a window: transpose, or make an array X.npy (n, t, c); else name all in modality.csv_columns"
        )
    if times:
        names[times[0]] = "time"
        numeric = [place for place in numeric if place > times[0]]  # the sensor's columns follow the time
    axes = numeric if len(numeric) == len(last) else []
    if last and len(numeric) > len(last):
        axes = likely_axes([row.cells for row in rows], numeric)
        if not axes or count > MOST_NAMED:
            likely = f" (columns {axes[0] + 1} to {axes[-1] + 1} look like it)" if axes else ""
            raise ValueError(
                f"no header line: {count} columns. Name all of them in modality.csv_columns, the "
                f"accelerometer's {', '.join(last)}{likely}"
            )
    for place, name in zip(axes, last, strict=False):
        names[place] = name
    return names if count <= MOST_NAMED or axes else [*names[: MOST_NAMED // 2], "...", names[-1]]


def _increases(rows: Sequence[Line], place: int) -> bool:
    try:
        values = [float(row.cells[place]) for row in rows if len(row.cells) > place]
    except ValueError:
        return False
    return len(values) > 1 and all(a < b for a, b in pairwise(values))
