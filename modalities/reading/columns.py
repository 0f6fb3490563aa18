"""Which columns of a table hold the times."""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import pandas as pd

from modalities.reading.formats import ISO, formats_like
from modalities.reading.headers import kind_of
from modalities.reading.parts import are_minutes, parts_of, plain
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
    "hr",  # where it may be an hour: it is a humidity or a heart rate, too
)
MIDNIGHT = r"[T ]00:00(:00)?(\.0+)?$"  # that may stand behind a day


def time_columns(
    head: pd.DataFrame, wanted: str, usual_names: Sequence[str] = TIME_COLUMNS
) -> tuple[str, ...]:
    """The column of times, or the columns that make them together; () where there is none.

    `wanted` names one, or several as DATE+TIME. Else: the first with a usual name, with the column of the
    date where it holds times of the day; columns of years, months and so on, where they tell more times
    apart; the only one that holds times. A column of days has that of the times of day beside it.
    """
    names = [str(column) for column in head.columns]
    if wanted:
        return named_columns(wanted, names)
    parts, usual = part_columns(head), _usual(head, usual_names)
    if parts and not (usual and _tells_more(head, usual, parts)):
        return parts
    if usual:
        return usual
    looks = [name for name in names if _holds_times(head[name])]
    looks = [name for name in looks if not _is_clock(head[name])] or looks
    begins = [name for name in looks if re.search(r"start|begin|from", name, re.IGNORECASE)]
    return _with_clock(head, (begins or looks)[0]) if len(looks) == 1 or begins else ()


def named_columns(wanted: str, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that a setting names: one, or several as A+B."""
    return (wanted,) if wanted in names or "+" not in wanted else tuple(wanted.split("+"))


def may_hold_clock(days: Any, column: Any) -> bool:
    """Whether a column may hold the times of day that belong to one of days: 05:30, or whole hours to 24."""
    known = column.dropna()
    hours = pd.api.types.is_numeric_dtype(known) and known.nunique() > 2 and known.isin(range(25)).all()
    return (bool(hours) or _is_clock(column)) and _are_days(days, surely=True)


def may_hold_minutes(times: Sequence[str], column: Any) -> bool:
    """Whether a column may hold the minutes of times whose parts are years, months and so on to hours."""
    parts = parts_of(times)
    return "hour" in parts and "minute" not in parts and column.nunique() > 1 and are_minutes(column)


def part_columns(head: pd.DataFrame) -> tuple[str, ...]:
    """The columns of years, months and so on, with one of times of the day where there are no hours."""
    names = [str(name) for name in head.columns]
    found = parts_of([name for name in names if plain(name) != "hr" or _may_be_hours(head[name])])
    if "year" not in found or not {"month", "day of the year"} & {*found}:
        return ()
    if "minute" in found and not are_minutes(head[found["minute"]]):
        del found["minute"]
    month = "day" in found or "day of the year" not in found
    days = ("month", "day") if month else ("day of the year",)
    dates = [found[part] for part in ("year", *days) if part in found]
    # Without hours a column "min" holds no minutes: it is the least of the day.
    clock = [found[part] for part in takewhile(found.__contains__, ("hour", "minute", "second"))]
    if "hour" not in found and head[dates].duplicated().any():
        clock = _usual_clocks(head)[:1]
    return (*dates, *clock)


def _by_plain_name(head: pd.DataFrame) -> dict[str, str]:
    """The columns by their plain names, without an "hr" whose cells are no hours."""
    known = {plain(str(name)): str(name) for name in reversed(head.columns)}
    if "hr" in known and not _may_be_hours(head[known["hr"]]):
        del known["hr"]
    return known


def _may_be_hours(column: Any) -> bool:
    """Whether the cells of a column are whole numbers from 0 to 24, or times of the day."""
    known = column.dropna()
    return len(known) > 0 and (bool(known.isin(range(25)).all()) or _is_clock(known))


def _usual_clocks(head: pd.DataFrame, other: str = "") -> list[str]:
    """The columns with usual names that hold times of the day, the surest first; none of them is `other`."""
    known = _by_plain_name(head)
    named = [known[name] for name in CLOCK_COLUMNS if name in known and known[name] != other]
    # A heart rate that nobody took is 0 in all rows: as an hour it would say nothing
    telling = [name for name in named if plain(name) != "hr" or head[name].any()]
    return [name for name in telling if _is_clock(head[name], numbers=True)]


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
    return _with_clock(head, time)


def _with_clock(head: pd.DataFrame, time: str) -> tuple[str, ...]:
    """A column of days with that of the times of day, where several rows are of one day.

    Such a column has a usual name, or is the only one whose cells look like it and are the same on all days.
    """
    if not head[time].duplicated().any() or not _are_days(head[time]):
        return (time,)
    clocks = _usual_clocks(head, time)
    if clocks or not _are_days(head[time], surely=True):
        return (time, *clocks[:1])
    looks = [str(name) for name in head.columns if name != time and _is_clock(head[name])]
    every = [name for name in looks if _same_each_day(head, time, name)]
    return (time, *every) if len(every) == 1 else (time,)


def _same_each_day(head: pd.DataFrame, day: str, clock: str) -> bool:
    """Whether a column's cells differ within a day and come again on the next, as sunrises do not."""
    full = head[day].nunique() * head[clock].nunique()
    return full <= 2 * len(head) and float(head.duplicated([day, clock]).mean()) <= 0.01


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


def _are_days(column: Any, *, surely: bool = False) -> bool:
    """Whether no cell names a time of day but midnight; `surely`: all are days in a format that is known."""
    texts = column.dropna().astype("string").str.strip().str.replace(MIDNIGHT, "", regex=True)
    clocks = [_names_clock(str(text)) for text in texts.unique()[:30]]
    return all(clock is False or (clock is None and not surely) for clock in clocks)


def _names_clock(text: str) -> bool | None:
    """Whether a time has a time of day, by the formats that fit it; None where none does."""
    if text.isdecimal():
        return len(text) > 8 if len(text) >= 8 else None
    forms = [form for form in formats_like(text) if form != ISO]
    return any("%H" in form or "%I" in form for form in forms) if forms else None


def _is_clock(column: Any, *, numbers: bool = False) -> bool:
    """Whether the cells of a column are times of the day; `numbers`: also 0 to 24, or 0 to 2400."""
    known = column.dropna()
    if pd.api.types.is_numeric_dtype(known):
        return numbers and len(known) > 0 and bool(known.between(0, 2400).all())
    return len(known) > 0 and bool(known.astype(str).str.strip().str.fullmatch(OF_DAY.pattern).mean() > 0.9)
