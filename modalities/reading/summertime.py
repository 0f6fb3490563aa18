"""The hour that clocks show twice at the end of summer time, in samples in the order of a file."""

from typing import Any

import numpy as np
import pandas as pd

HOUR_S = 3600.0
MOST_OFF_S = 1.0  # from an hour
MONTHS = (3, 4, 9, 10, 11)  # in which summer time ends somewhere, on a Sunday
FIRST_HOURS = (0, 1, 2)  # of that day, to which clocks are set back
SUNDAY = 6


def set_back(seconds: np.ndarray) -> list[int]:
    """The samples before which a regular clock was set back by exactly an hour.

    There are none where it goes back in any other way, too.
    """
    places = np.flatnonzero(np.isfinite(seconds))
    steps = np.diff(seconds[places])
    back, forward = np.flatnonzero(steps < 0), steps[steps > 0]
    if not len(back) or not len(forward):
        return []
    usual = float(np.median(forward))
    off = np.abs(steps[back] + HOUR_S - usual)
    exact = bool((off <= min(1.5 * usual, MOST_OFF_S)).all())
    return [int(place) for place in places[back + 1]] if exact else []


def read_on(seconds: np.ndarray) -> np.ndarray:
    """Dated times that go on an hour later from where summer time ends once, else as they are.

    Only in the small hours of a Sunday, just after a full hour: other clocks that go back are of two devices.
    """
    places = set_back(seconds)
    if len(places) != 1:
        return seconds
    moment = pd.Timestamp(float(seconds[places[0]]), unit="s")
    night = moment.weekday() == SUNDAY and moment.hour in FIRST_HOURS and moment.month in MONTHS
    if not night or moment.minute or moment.second > MOST_OFF_S:
        return seconds
    later = seconds.astype(np.float64)
    later[places[0] :] += HOUR_S
    return later


def localized(moments: Any, zone: str) -> Any:
    """Moments on the wall in a time zone, NaT where its changes make them ambiguous or impossible.

    They are not ambiguous where a regular clock was set back by an hour between them.
    """
    times = moments.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    doubtful = (times.isna() & moments.notna()).to_numpy()
    if not doubtful.any():
        return times
    since = (moments - pd.Timestamp(0)) / pd.Timedelta(seconds=1)
    seconds: np.ndarray = since.to_numpy(np.float64)
    for place in set_back(seconds):
        summer = np.arange(len(seconds)) < place
        read = moments.dt.tz_localize(zone, ambiguous=summer, nonexistent="NaT")
        near = np.abs(seconds - seconds[place]) <= HOUR_S
        times = times.where(~(doubtful & near), read)
    return times
