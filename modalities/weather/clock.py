"""Time: settings in seconds, and what a calendar says of a moment."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

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
