"""Columns that make a time together: years, months and so on, or a date and a time of day."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from modalities.reading.quantities import IN_NAME

PARTS = {  # of a time whose parts have a column each
    "year": ("year", "yyyy", "yr"),
    "month": ("month", "mo", "mm"),
    "day": ("day", "dd", "dy"),
    "day of the year": ("doy", "jday", "yday"),
    "hour": ("hour", "hr", "hh"),
    "minute": ("minute", "min", "mi"),
    "second": ("second", "sec", "ss"),
}


def plain(name: str) -> str:
    """A column's name in small letters without the unit in brackets behind it."""
    return (IN_NAME.sub("", name) or name).strip().lower()


def joined(columns: Sequence[Any]) -> Any:
    """Columns of parts of a time as one column of texts; years, months and so on by their names.

    What has another name is a date, then times of the day.
    """
    parts: dict[str, Any] = {}
    others = []
    for column in columns:
        part = next((part for part, names in PARTS.items() if plain(str(column.name)) in names), "")
        if part:
            parts[part] = column
        else:
            others.append(column)
    if "year" not in parts:
        texts = [_as_clock(column.astype("string").str.strip()) for column in columns]
        whole = texts[0].str.replace(r"[T ]00:00(:00)?(\.0+)?$", "", regex=True)
        return _with_clocks(whole, texts[1:])
    whole = _whole(parts["year"]).str.zfill(4)
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
