"""Time: settings and columns to seconds since 1970 in UTC, and what a calendar says of them."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

EPOCH_UNITS = ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6), (np.inf, 1e-9))  # s, ms, us, ns: told by size
OFFSET = re.compile(r"[T:].*(Z|[+-]\d\d(:?\d\d)?)$")  # at the end of an ISO 8601 text
ISO = "ISO8601"
CALENDAR = ("hour_sin", "hour_cos", "year_sin", "year_cos")
DAY_S, YEAR_S = 86_400.0, 365.2425 * 86_400.0
SEASONS = ("DJF", "MAM", "JJA", "SON")  # by initials of months, so that both hemispheres read them right
LONGEST_SEASON_S = 92 * DAY_S


def step_seconds(freq: str) -> float:
    """`10min`, `1h` or `20ms` as seconds. Raises ValueError for what is no positive duration."""
    try:
        seconds = pd.Timedelta(re.sub("d$", "D", freq)).total_seconds()
    except ValueError as error:
        raise ValueError(f"freq={freq!r} is no duration such as 10min, 1h or 1D") from error
    if not seconds > 0:
        raise ValueError(f"freq={freq!r} must be longer than nothing")
    return seconds


@dataclass(frozen=True)
class Cut:
    """Where what is held out begins in each series: at a date, or after a share of its steps."""

    date_s: float | None
    share: float

    @classmethod
    def of(cls, text: str, timezone: str) -> "Cut":
        """From a date in `timezone`, or from `80%`. Raises ValueError."""
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if not 0 < share < 1:
                    raise ValueError
                return cls(None, share)
            date = pd.Timestamp(text)
        except ValueError as error:
            raise ValueError(
                f"valid_from={text!r} is no date such as 2017-07-01, nor a share such as 80%"
            ) from error
        return cls(float((date if date.tzinfo else date.tz_localize(timezone)).timestamp()), 0.0)

    def seconds(self, times_s: np.ndarray) -> float:
        """The first moment held out of a series with these times."""
        return float(times_s[int(len(times_s) * self.share)]) if self.date_s is None else self.date_s


def check_timezone(name: str) -> None:
    """Raises ValueError for a zone that is not known."""
    try:
        pd.Timestamp(0, tz=name)
    except (KeyError, OSError) as error:
        raise ValueError(f"timezone={name!r} is not known; give a name such as Europe/Paris") from error


def to_seconds(column: Any, time_format: str, timezone: str) -> tuple[np.ndarray, float]:
    """A column of times as seconds since 1970 in UTC, and local standard time's offset from UTC in seconds.

    Numbers are seconds, milliseconds, microseconds or nanoseconds, by their size. Text is ISO 8601 or has
    `time_format`; where it names no offset it is in `timezone`. What cannot be read is NaN; raises ValueError
    when that is most of it.
    """
    if pd.api.types.is_numeric_dtype(column):
        if not time_format:
            numbers: np.ndarray = column.to_numpy(np.float64, na_value=np.nan)
            largest = np.nanmax(np.abs(numbers), initial=0.0)
            return numbers * next(unit for limit, unit in EPOCH_UNITS if largest < limit), 0.0
        column = column.astype("Int64")  # 2020010100, with gaps
    dated = pd.api.types.is_datetime64_any_dtype(column)
    texts = column if dated else column.astype("string").str.strip()
    times = pd.to_datetime(texts, format=time_format or ISO, errors="coerce", utc=True)
    unreadable = times.isna() & column.notna()
    if unreadable.sum() > len(column) / 2:
        raise ValueError(
            f"{unreadable.sum()} of {len(column)} times cannot be read as {time_format or 'ISO 8601'}, for "
            f"example {str(column[unreadable].iloc[0])!r}: set modality.time_format, in a shell as "
            """modality.time_format='"%d.%m.%Y %H:%M"'"""
        )
    readable = texts[times.notna()]
    if len(readable) == 0:
        return np.full(len(column), np.nan), 0.0
    offset_s = _own_offset(readable.iloc[0], time_format)
    if offset_s is None:
        # Local time that the change to or from summer time makes ambiguous or impossible is not guessed
        times = times.dt.tz_localize(None).dt.tz_localize(timezone, ambiguous="NaT", nonexistent="NaT")
        first = (times[times.notna()].iloc[:1].tolist() or [pd.Timestamp(0, tz=timezone)])[0]
        offset_s = (first.utcoffset() - (first.dst() or pd.Timedelta(0))).total_seconds()
    # Microseconds, in which dates like 9999-12-31 have a place
    moments = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6), offset_s


def _own_offset(time: Any, time_format: str) -> float | None:
    """The offset from UTC that a time names itself."""
    if isinstance(time, str):
        if not ("%z" in time_format or (not time_format and OFFSET.search(time))):
            return None
        time = pd.to_datetime(time, format=time_format or ISO)
    return None if time.tzinfo is None else float(time.utcoffset().total_seconds())


def calendar(local_s: np.ndarray) -> np.ndarray:
    """Sine and cosine of the hour of the day and of the day of the year, (t, 4) float32."""
    angles = 2 * np.pi * np.stack([local_s / DAY_S, local_s / YEAR_S], axis=1)
    pairs = np.stack([np.sin(angles), np.cos(angles)], axis=2)
    flat: np.ndarray = pairs.reshape(len(local_s), len(CALENDAR)).astype(np.float32)
    return flat


def season(start_s: float, end_s: float) -> str:
    """The months around the middle of a stretch of local time; "" for a stretch longer than a season."""
    if end_s - start_s > LONGEST_SEASON_S:
        return ""
    month = int(np.datetime64(int((start_s + end_s) / 2), "s").astype("datetime64[M]").astype(int)) % 12 + 1
    return SEASONS[month % 12 // 3]


def stamp(time_s: float) -> str:
    """A moment in UTC as text that sorts, with milliseconds where there are some."""
    text = str(np.datetime64(round(time_s * 1000), "ms"))
    return text.removesuffix(".000")
