"""Which columns of a table hold the times."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from modalities.reading.headers import kind_of
from modalities.reading.quantities import IN_NAME
from modalities.reading.times import OF_DAY, is_compact

TIME_COLUMNS = ("time", "timestamp", "datetime", "date_time", "date", "valid_time", "ds")  # in any case
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
PARTS = (  # of a time whose parts have a column each
    ("year", "yyyy", "yr"), ("month", "mo", "mm"), ("day", "dd", "dy"), ("doy", "jday", "yday"),
    ("hour", "hr", "hh"), ("minute", "min", "mi"), ("second", "sec", "ss"),
)  # fmt: skip


def time_columns(
    head: pd.DataFrame, wanted: str, usual_names: Sequence[str] = TIME_COLUMNS
) -> tuple[str, ...]:
    """The column of times, or the columns that make them together; () where there is none.

    `wanted` names one, or several as DATE+TIME. Else: columns of years, months and so on; the first with a
    usual name, with the column of the date where it holds times of the day; the only one that holds times.
    """
    names = [str(column) for column in head.columns]
    if wanted:
        return (wanted,) if wanted in names or "+" not in wanted else tuple(wanted.split("+"))
    known = {plain(name): name for name in reversed(names)}
    parts = [next((known[name] for name in part if name in known), "") for part in PARTS]
    if parts[0] and (parts[1] or parts[3]) and not set(TIME_COLUMNS[:4]) & set(known):
        day = (parts[3],) if parts[3] and not parts[2] else (parts[1], parts[2])
        return tuple(filter(None, (parts[0], *day, *parts[4:])))
    usual = [known[name] for name in usual_names if name in known]
    if not usual:
        looks = [name for name in names if _holds_times(head[name])]
        begins = [name for name in looks if re.search(r"start|begin|from", name, re.IGNORECASE)]
        return tuple((begins or looks)[:1]) if len(looks) == 1 or begins else ()
    time = usual[0]
    dates = [known[name] for name in DATE_COLUMNS if name in known and known[name] != time]
    if _is_clock(head[time], numbers=bool(dates)):
        return (dates[0], time) if dates else (time,)
    clocks = [known[name] for name in CLOCK_COLUMNS if name in known and known[name] != time]
    if clocks and head[time].duplicated().any() and _is_clock(head[clocks[0]], numbers=True):
        return time, clocks[0]
    return (time,)


def plain(name: str) -> str:
    """A column's name in small letters without the unit in brackets behind it."""
    return (IN_NAME.sub("", name) or name).strip().lower()


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
