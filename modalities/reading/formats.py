"""The formats that times have in people's tables, and which of them fits a whole column."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

ISO = "ISO8601"
YEARS = (1800, 2200)
MOST_SHAPES = 8  # ways of writing that are looked at in one column
DATES = (
    "%Y-%m-%d", "%d-%m-%Y", "%m-%d-%Y", "%Y-%d-%m", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%Y-%j",
    "%d-%b-%Y", "%d-%B-%Y", "%d-%b-%y", "%Y-%b-%d", "%b-%d-%Y",
)  # fmt: skip
MARKS = ("-", "/", ".", " ")  # that stand for the - of DATES
WORDS = (
    "%b %d, %Y",
    "%B %d, %Y",
    "%B %d %Y",
    "%d%b%Y",
    "%d. %B %Y",
    "%a %d %b %Y",
    "%a, %d %b %Y",
    "%Y%m%d",
    "%d%m%Y",
)
CLOCKS = (
    "%H:%M:%S", "%H:%M:%S.%f", "%H:%M", "%I:%M:%S %p", "%I:%M:%S.%f %p", "%I:%M %p", "%I %p", "%H.%M.%S",
    "%H.%M", "%H%M", "%H%M%S", "%H", "%Hh%M", "%Hh", "%I:%M:%S%p", "%I:%M%p",
)  # fmt: skip
BETWEEN = (" ", "T", ", ", "_", "-", ":")
ZONES = ("", "%z", " %z")
NAMED_ZONE = re.compile(r"\s*(UTC|GMT|Z)$")
NAMED_OFFSET = re.compile(r"(:\d\d(?:[.,]\d+)?\s*[+-]\d\d:?\d\d)\s+\(?[A-Z]{1,5}\)?$")  # +0000 UTC
COMMA_FRACTION = re.compile(r"(:\d\d),(\d+)")
COLON_FRACTION = re.compile(r"(?<![\d:])(\d{1,2}:\d\d:\d\d):(\d+)")
HALF_OF_DAY = re.compile(r"\b([ap])\.?\s?m\b\.?", re.IGNORECASE)
LATE = r"(?:^|[T ,_])24(?:[:.]?00)+(?:\D|$)|^\d{8}24(?:00)*$"  # an hour 24, whose minutes are 0
PARTS = {
    "%Y": r"\d{4}", "%y": r"\d{2}", "%m": r"\d{1,2}", "%d": r"\d{1,2}", "%j": r"\d{3}", "%b": "[A-Za-z]{3}",
    "%B": "[A-Za-z]{3,9}", "%a": "[A-Za-z]{3}", "%H": r"\d{1,2}", "%I": r"\d{1,2}", "%M": r"\d{2}",
    "%S": r"\d{2}", "%f": r"\d{1,9}", "%p": "[AP]M", "%z": r"[+-]\d\d:?\d\d",
}  # fmt: skip
# A date in front of a clock, and a mark between them
DAY_BEFORE = re.compile(r"((?=.*%[yY]).*?%[YymdjbB])(?:, |[ T,_:-])%[HI](?!.*%[YymdjbB]).*")
BRACKETED = re.compile(r"\s*\[[\w/+-]+\]$")


def shapes_of(texts: Any) -> list[str]:
    """One of the texts for each way in which they are written, the usual way first."""
    shapes = texts.str.replace(r"\d", "0", regex=True).str.replace(r"[^\W\d_]", "a", regex=True)
    usual = shapes.value_counts().index[:MOST_SHAPES]
    return [str(texts[shapes == shape].iloc[0]) for shape in usual]


def shortened(form: str) -> tuple[str, ...]:
    """The same format without a fraction, and without a time of the day (midnight), as some programs cut it.

    A day alone says nothing of a zone, so that it is no short form of a time with an offset.
    """
    short = [form.replace(f"{mark}%f", "") for mark in ".,:" if f"{mark}%f" in form]
    day = DAY_BEFORE.fullmatch(form)
    return (*short, *([day[1]] if day and "%z" not in form else []))


@lru_cache(maxsize=512)
def formats_like(text: str) -> tuple[str, ...]:
    """Formats that a time could have, ISO 8601 first."""
    plain = tidy_text(text)
    found = [ISO]
    for date in _dates():
        start = _pattern(date).match(plain)
        if start is None:
            continue
        rest = plain[start.end() :]
        found += [date] * (rest == "")
        for gap, clock, zone in product(BETWEEN, CLOCKS, ZONES):
            if rest.startswith(gap) and _pattern(clock + zone).fullmatch(rest[len(gap) :]):
                found.append(f"{date}{gap}{clock}{zone}")
    return tuple(found)


@lru_cache(maxsize=1)
def _dates() -> tuple[str, ...]:
    """Formats of dates with every mark between their parts."""
    marked = (date.replace("-", mark) for date, mark in product(DATES, MARKS))
    return tuple(dict.fromkeys([*marked, *WORDS]))


@lru_cache(maxsize=512)
def _pattern(form: str) -> re.Pattern[str]:
    """What texts of a format look like."""
    parts = re.split(r"(%[a-zA-Z])", form)
    return re.compile("".join(PARTS.get(part) or re.escape(part) for part in parts))


def tidy_text(text: str) -> str:
    """One time as strptime reads it."""
    return str(tidy(pd.Series([text], dtype="string"))[0].iloc[0])


def tidy(texts: Any) -> tuple[Any, Any]:
    """Texts as strptime reads them (no decimal commas, `a.m.`, `UTC`), and where a day is to be added."""
    sample = texts.dropna().iloc[:: max(1, len(texts) // 500)]

    def any_has(pattern: re.Pattern[str]) -> bool:
        return any(pattern.search(text) for text in sample)

    if any_has(BRACKETED):
        texts = texts.str.replace(BRACKETED, "", regex=True)
    if any_has(NAMED_OFFSET):
        texts = texts.str.replace(NAMED_OFFSET, r"\1", regex=True)
    if any_has(NAMED_ZONE):
        texts = texts.str.replace(NAMED_ZONE, "+00:00", regex=True)
    if any_has(COMMA_FRACTION):
        texts = texts.str.replace(COMMA_FRACTION, r"\1.\2", regex=True)
    if any_has(COLON_FRACTION):
        texts = texts.str.replace(COLON_FRACTION, r"\1.\2", regex=True)
    if any_has(HALF_OF_DAY):
        texts = texts.str.replace(HALF_OF_DAY, lambda found: f"{found[1].upper()}M", regex=True)
    late = texts.str.contains(LATE, regex=True).fillna(False)
    if not late.any():
        return texts, None
    moved = texts.str.replace(r"((?:^|[T ,_]))24(?=(?:[:.]?00)+(?:\D|$))", r"\g<1>00", regex=True)
    moved = moved.str.replace(r"(?<=^\d{8})24(?=(?:00)*$)", "00", regex=True)
    return texts.where(~late, moved), late


def moments_of(texts: Any, form: str) -> Any:
    """Texts as moments in UTC (or local time called so), NaT where a text has another form.

    Texts of the same form cut short (a day at midnight, whole seconds) are moments, too.
    """
    plain, late = tidy(texts)
    moments = pd.to_datetime(plain, format=form, errors="coerce", utc=True)
    for short in shortened(form):
        rest = moments.isna() & plain.notna()
        if rest.any():
            cut = pd.to_datetime(plain[rest], format=short, errors="coerce", utc=True)
            moments = moments.where(~rest, cut.reindex(moments.index))
    return moments if late is None else moments + pd.to_timedelta(late.astype(int), unit="D")


def fit(texts: Any, form: str) -> float:
    """The share of texts that have a form, and a plausible year."""
    known = texts[texts.notna() & (texts != "")]
    moments = moments_of(known, form)
    return float(moments.dt.year.between(*YEARS).mean()) if len(known) else 0.0


def more_regular(texts: Any, forms: Sequence[str]) -> list[str]:
    """Those of the forms by which time goes on in the fewest uneven steps, and never back."""
    uneven: dict[str, float] = {}
    seen: list[np.ndarray] = []
    kept = []
    for form in forms:
        seconds = seconds_of(moments_of(texts, form))
        if any(np.array_equal(seconds, other, equal_nan=True) for other in seen):
            continue  # the same reading in other words
        seen.append(seconds)
        kept.append(form)
        steps = np.diff(seconds[np.isfinite(seconds)])
        usual = float(np.median(steps)) if len(steps) else 0.0
        uneven[form] = float((np.abs(steps - usual) > 0.5 * abs(usual)).sum() + (steps < 0).sum())
    fewest = min(uneven.values())
    return [form for form in kept if uneven[form] == fewest]


def seconds_of(moments: Any) -> np.ndarray:
    """Moments as seconds since 1970; in microseconds, in which dates like 9999-12-31 have a place."""
    plain = moments.dt.tz_localize(None) if moments.dt.tz is not None else moments
    stamps = plain.to_numpy("datetime64[us]")
    seconds: np.ndarray = np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / 1e6)
    return seconds
