"""Which columns of a table hold the times."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from modalities.reading.headers import kind_of
from modalities.reading.parts import PARTS, plain
from modalities.reading.times import OF_DAY, TimeSettings, is_compact, read_times

WHOLE_TIMES = ("time", "timestamp", "datetime", "date_time")
TIME_COLUMNS = (*WHOLE_TIMES, "date", "valid_time", "ds")  # in any case
DATE_COLUMNS = ("date", "day", "datum", "fecha", "data", "dt", "yyyymmdd", "observation_date")
CLOCK_COLUMNS = (
    "time",
    "hour",
    "hh",
    "hhmm",
    "uhrzeit",
    "hora",
    "heure",
    "clock",
    "time_of_day",
    "tod",
    "ora",
)


def time_columns(
    head: pd.DataFrame, wanted: str, usual_names: Sequence[str] = TIME_COLUMNS
) -> tuple[str, ...]:
    """The column of times, or the columns that make them together; () where there is none.

    `wanted` names one, or several as DATE+TIME. Else: the first with a usual name, with the column of the
    date where it holds times of the day; columns of years, months and so on, where they tell more times
    apart; the only one that holds times.
    """
    names = [str(column) for column in head.columns]
    if wanted:
        return (wanted,) if wanted in names or "+" not in wanted else tuple(wanted.split("+"))
    parts, usual = part_columns(head), _usual(head, usual_names)
    if parts and not (usual and _tells_more(head, usual, parts)):
        return parts
    if usual:
        return usual
    looks = [name for name in names if _holds_times(head[name])]
    begins = [name for name in looks if re.search(r"start|begin|from", name, re.IGNORECASE)]
    return tuple((begins or looks)[:1]) if len(looks) == 1 or begins else ()


def part_columns(head: pd.DataFrame) -> tuple[str, ...]:
    """The columns of years, months and so on, with one of times of the day where there are no hours."""
    known = _by_plain_name(head)
    found = {part: next((known[name] for name in PARTS[part] if name in known), "") for part in PARTS}
    if not found["year"] or not (found["month"] or found["day of the year"]):
        return ()
    month = found["day"] or not found["day of the year"]
    days = ("month", "day") if month else ("day of the year",)
    dates = [found[part] for part in ("year", *days) if found[part]]
    clock = [found[part] for part in ("hour", "minute", "second") if found[part]]
    if not found["hour"] and head[dates].duplicated().any():
        clocks = [known[name] for name in CLOCK_COLUMNS if name in known]
        clock = [name for name in clocks if _is_clock(head[name], numbers=True)][:1] or clock
    return (*dates, *clock)


def _by_plain_name(head: pd.DataFrame) -> dict[str, str]:
    return {plain(str(name)): str(name) for name in reversed(head.columns)}


def _usual(head: pd.DataFrame, usual_names: Sequence[str]) -> tuple[str, ...]:
    """The column with a usual name, with that of the date or of the time of day that belongs to it."""
    known = _by_plain_name(head)
    usual = [known[name] for name in usual_names if name in known]
    if not usual:
        return ()
    time = usual[0]
    dates = [known[name] for name in DATE_COLUMNS if name in known and known[name] != time]
    if _is_clock(head[time], numbers=bool(dates)):
        return (dates[0], time) if dates else (time,)
    clocks = [known[name] for name in CLOCK_COLUMNS if name in known and known[name] != time]
    if clocks and head[time].duplicated().any() and _is_clock(head[clocks[0]], numbers=True):
        return time, clocks[0]
    return (time,)


def _tells_more(head: pd.DataFrame, usual: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether columns with usual names hold more different times than columns of parts.

    As many do where they are dates by name and by content: they may have an offset, which parts have not.
    """
    ours, theirs = (len(head[[*names]].drop_duplicates()) for names in (usual, parts))
    named = plain(usual[-1]) in WHOLE_TIMES
    dated = any(_is_dated(head[name]) for name in usual)
    return (ours > theirs and (named or dated)) or (ours == theirs and named and dated)


def _is_dated(column: Any) -> bool:
    """Whether the cells of a column are dates, by what they look like, or by trying to read them."""
    if _is_clock(column):
        return False
    if _holds_times(column):
        return True
    try:
        read_times([column], TimeSettings())
    except ValueError:
        return False
    return True


def _holds_times(column: Any) -> bool:
    """Whether the cells of a column are dates, by what they look like."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    known = column.dropna()
    if pd.api.types.is_numeric_dtype(column):
        named = re.search(r"time|date|zeit|datum|stamp|fecha|yyyy", str(column.name), re.IGNORECASE)
        return bool(named) and len(known) > 0 and is_compact(known.to_numpy(float))
    known = known.astype(str)
    return len(known) > 0 and bool((known.map(kind_of) == "time").mean() > 0.9)


def _is_clock(column: Any, *, numbers: bool = False) -> bool:
    """Whether the cells of a column are times of the day; `numbers`: also 0 to 24, or 0 to 2400."""
    known = column.dropna()
    if pd.api.types.is_numeric_dtype(known):
        return numbers and len(known) > 0 and bool(known.between(0, 2400).all())
    return len(known) > 0 and bool(known.astype(str).str.strip().str.fullmatch(OF_DAY.pattern).mean() > 0.9)
