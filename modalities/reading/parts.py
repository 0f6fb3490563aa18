"""Columns that make a time together: years, months and so on, or a date and a time of day."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from modalities.reading.quantities import IN_NAME

PARTS = {  # of a time whose parts have a column each
    "year": ("year", "yyyy", "yr", "yy"),
    "month": ("month", "mo", "mnth", "mm"),
    "day": ("day", "dd", "dy"),
    "day of the year": ("doy", "jday", "yday"),
    "hour": ("hour", "hr", "hh"),
    "minute": ("minute", "min", "mi", "mn"),
    "second": ("second", "sec", "ss"),
}
WORDS = {word for words in PARTS.values() for word in words}
EITHER = "mm"  # of a month, and behind the hours of a minute
TWO_DIGITS = 69  # the first of years without their century that are of the twentieth, as strptime takes them


def plain(name: str) -> str:
    """A column's name in small letters without the unit in brackets behind it."""
    return (IN_NAME.sub("", name) or name).strip().lower()


def parts_of(names: Sequence[str]) -> dict[str, str]:
    """The column of each part of a time, by names in the order of a table.

    Where two are called mm (or MM), the first behind the hours holds minutes, and the other one months.
    """
    words = {name: _word(name) for name in names}
    known = {word: name for name, word in reversed(words.items())}
    found = {
        part: next((known[word] for word in usual if word in known), "") for part, usual in PARTS.items()
    }
    either = [name for name in names if words[name] == EITHER]
    hours = names.index(found["hour"]) if found["hour"] else len(names)
    behind = [name for name in either if names.index(name) > hours]
    if len(either) == 2 and behind and found["month"] in either and not found["minute"]:
        found["minute"] = behind[0]
        found["month"] = next(name for name in either if name != behind[0])
    return {part: name for part, name in found.items() if name}


def joined(columns: Sequence[Any]) -> Any:
    """Columns of parts of a time as one column of texts; years, months and so on by their names.

    What has another name is a date, then times of the day; behind hours without minutes, it may be these.
    """
    named = {str(column.name): column for column in columns}
    parts = {part: named[name] for part, name in parts_of([*named]).items()}
    others = [column for name, column in named.items() if _word(name) not in WORDS]
    if {"year", "hour"} <= {*parts} and "minute" not in parts and len(others) == 1 and are_minutes(others[0]):
        parts["minute"] = others.pop()
    if "year" not in parts:
        texts = [_as_clock(column.astype("string").str.strip()) for column in columns]
        whole = texts[0].str.replace(r"[T ]00:00(:00)?(\.0+)?$", "", regex=True)
        return _with_clocks(whole, texts[1:])
    whole = _years(parts["year"]).str.zfill(4)
    for part, width in (("day of the year", 3), ("month", 2), ("day", 2)):
        if part in parts:
            whole = whole + "-" + _whole(parts[part]).str.zfill(width)
    clock = [_whole(parts[part]).str.zfill(2) for part in ("hour", "minute", "second") if part in parts]
    for mark, text in zip((" ", ":", ":"), clock, strict=False):
        whole = whole + mark + text
    whole = whole + ":00" if len(clock) == 1 else whole
    return _with_clocks(whole, [_as_clock(column.astype("string").str.strip()) for column in others])


def _with_clocks(dates: Any, clocks: Sequence[Any]) -> Any:
    for clock in clocks:
        dates = dates + " " + clock
    return dates


def are_minutes(column: Any) -> bool:
    """Whether all cells of a column are whole numbers up to 60."""
    known = pd.to_numeric(column, errors="coerce")[column.notna()]
    return len(known) > 0 and bool(known.isin(range(61)).all())


def _word(name: str) -> str:
    """A column's plain name without the number that tells it from an earlier one, as in MM.1."""
    return re.sub(r"\.\d+$", "", plain(name))


def _years(column: Any) -> Any:
    """Years as texts; those of a column yy may be without their century."""
    years = pd.to_numeric(column, errors="coerce")
    if _word(str(column.name)) == "yy":
        years = years + (years < 100) * (1900 + 100 * (years < TWO_DIGITS))
    return _whole(years)


def _whole(column: Any) -> Any:
    return pd.to_numeric(column, errors="coerce").round().astype("Int64").astype("string")


def _as_clock(texts: Any) -> Any:
    """Hours (0 to 24) or times without a mark (30, 1230, 2400) as 05:00; other texts as they are."""
    known = texts.dropna()
    if not len(known) or not known.str.fullmatch(r"\d{1,4}").all():
        return texts
    if known.astype(int).max() <= 24:
        return texts.str.zfill(2) + ":00"
    return texts.str.zfill(4).str.replace(r"(\d\d)(\d\d)", r"\1:\2", regex=True)
