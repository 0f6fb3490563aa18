"""Time: settings in seconds, and what a calendar says of a moment."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

CALENDAR = ("hour_sin", "hour_cos", "year_sin", "year_cos")
DAY_S, YEAR_S = 86_400.0, 365.2425 * 86_400.0
SEASONS = ("DJF", "MAM", "JJA", "SON")  # by initials of months, so that both hemispheres read them right
LONGEST_SEASON_S = 92 * DAY_S
MONTH_S = YEAR_S / 12
MEAN = {"M": MONTH_S, "Y": YEAR_S}  # months and years, which are of unequal length
UNITS = (  # seconds, name, and by which share a whole number of them may be missed
    (YEAR_S, "Y", 1e-9), (MONTH_S, "M", 1e-9), (DAY_S, "D", 1e-3), (3600.0, "h", 1e-3), (60.0, "min", 1e-3),
    (1.0, "s", 1e-3), (1e-3, "ms", 1e-3),
)  # fmt: skip
UNEVEN_S = 5 * DAY_S  # so far the months of a calendar may be from as many mean ones


def step_seconds(freq: str) -> float:
    """`10min`, `1h` or `20ms` as seconds; `1M` and `1Y` are months and years of mean length.

    Raises ValueError for what is no positive duration.
    """
    months = re.fullmatch(r"(\d*)([MY])", freq)
    try:
        seconds = (
            int(months[1] or 1) * MEAN[months[2]]
            if months
            else pd.Timedelta(re.sub("d$", "D", freq)).total_seconds()
        )
    except ValueError as error:
        raise ValueError(f"freq={freq!r} is no duration such as 10min, 1h, 1D or 1M (a month)") from error
    if not seconds > 0:
        raise ValueError(f"freq={freq!r} must be longer than nothing")
    return seconds


def freq_of(step_s: float) -> str:
    """A step as `freq` has it: 10min, 36h, 7D, 1M; in the longest unit of which it is a whole number."""
    for size, name, missed in UNITS:
        count = round(step_s / size)
        if count and abs(step_s - count * size) <= missed * step_s:
            return f"{count}{name}"
    return f"{max(1, round(step_s * 1e6))}us"


def usual_step(times_s: np.ndarray) -> float:
    """The median step between different times, 0 for a lone one; that of a calendar's months is a mean one.

    So no two months share a step, whatever the length of the usual one. Steps of four weeks, or of 30 days
    each, are no months.
    """
    times_s = np.unique(times_s[np.isfinite(times_s)])
    if len(times_s) < 2:
        return 0.0
    usual_s = float(np.median(np.diff(times_s)))
    month_s = round(usual_s / MONTH_S) * MONTH_S
    if not month_s or len(times_s) < 4:
        return usual_s
    since = times_s - times_s[0]
    counts = np.rint(since / month_s)
    near = np.abs(since - counts * month_s) <= UNEVEN_S
    lengths = np.diff(times_s)[np.diff(counts) == 1]
    uneven = len(lengths) > 0 and float(np.ptp(lengths)) > 0.9 * DAY_S
    return month_s if near.mean() > 0.9 and uneven and (np.diff(counts) > 0).all() else usual_s


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
