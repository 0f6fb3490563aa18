"""When each sample of a table was taken: columns of times of any kind as seconds from the first."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from modalities.reading.columns import WHOLE_TIMES
from modalities.reading.parts import plain
from modalities.reading.quantities import IN_NAME
from modalities.reading.summertime import read_on
from modalities.reading.times import UNIT_NAMES, UNITS, Times, TimeSettings, read_times
from modalities.wearables.recordings import FileSettings

UNIT_WORDS = {
    **{word: "s" for word in ("s", "sec", "secs", "second", "seconds")},
    **{word: "ms" for word in ("ms", "msec", "millis", "millisecond", "milliseconds")},
    **{word: "us" for word in ("us", "µs", "μs", "usec", "micros", "microsecond", "microseconds")},
    **{word: "ns" for word in ("ns", "nsec", "nanos", "nanosecond", "nanoseconds")},
}
COUNTED = ("time", "timestamp", "elapsed", "t")  # names that may have a unit behind them
TIME_NAMES = (
    *WHOLE_TIMES, "t", "seconds", "elapsed", *(f"{name}_{unit}" for name in COUNTED for unit in UNITS),
    "seconds_elapsed", "date",
)  # fmt: skip
LIKELY_HZ = (5.0, 500.0)  # what a recorder of movement does, then what is possible
POSSIBLE_HZ = (0.9, 5000.0)
RECENT_S = (946_684_800.0, 4_102_444_800.0)  # 2000 to 2100


def read_clock(
    columns: "Sequence[pd.Series[Any]]", settings: FileSettings
) -> tuple[Float[np.ndarray, "t"], pd.Timestamp | None, str]:
    """Seconds since the first, its instant if the date is known, and how they were read.

    The instant is UTC where offsets or a `timezone` are given, else the file's own clock.
    """
    name = str(columns[0].name)
    unit = stated_unit(name) if settings.time_unit == "auto" else settings.time_unit
    numeric = len(columns) == 1 and not settings.time_format and _is_numeric(columns[0])
    if numeric and unit:
        found = Times(_numbers(columns[0]) * UNITS[unit], 0.0, False, UNIT_NAMES[unit])
    else:
        found = read_times(
            columns, TimeSettings(settings.time_format, settings.timezone or "UTC", dated=False)
        )
        if numeric:
            found = _counted(_numbers(columns[0]), name, found)
    known = found.seconds[np.isfinite(found.seconds)]
    if not len(known):
        raise ValueError(f"the times in column {name} are all missing")
    first = float(known[0])
    dated = found.dated or (numeric and 1e8 < first < 1e11)
    seconds = read_on(found.seconds) if dated else found.seconds
    reading = found.reading
    if seconds is not found.seconds:
        reading += ", which go back by an hour once (the end of summer time) and are read on from there"
    return seconds - first, pd.Timestamp(first, unit="s").round("us") if dated else None, reading


def stated_unit(name: str) -> str:
    """The unit of time that a column's name says: time (ms), time_ms, seconds_elapsed; "" for none."""
    bracket = IN_NAME.search(name)
    words = re.split(r"[\W_]+", plain(name))
    said = [bracket[1].strip().lower()] if bracket else []
    said += [words[-1], *(word for word in words if word.endswith("seconds"))]
    return next((UNIT_WORDS[word] for word in said if word in UNIT_WORDS), "")


def _is_numeric(column: "pd.Series[Any]") -> bool:
    """Whether most of a column are numbers; a text among them is a bad number, no date."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return False
    return bool(pd.to_numeric(column, errors="coerce").notna().sum() > column.notna().sum() / 2)


def _numbers(column: "pd.Series[Any]") -> Float[np.ndarray, "t"]:
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _counted(numbers: Float[np.ndarray, "t"], name: str, found: Times) -> Times:
    """Numbers whose unit is not said: as `found` where they are dates, else as a count at a possible rate.

    Size alone does not tell nanoseconds since a phone was started from microseconds since 1970: dates of
    long ago at a rate that no sensor has are none. ValueError where several units are possible.
    """
    if found.dated and (_are_possible(found.seconds) or _are_recent(found.seconds)):
        return found
    unit = _unit_of(numbers, name)
    if not unit:
        return found if found.dated else Times(numbers, 0.0, False, f"{UNIT_NAMES['s']} from the start")
    return Times(numbers * UNITS[unit], 0.0, False, f"{UNIT_NAMES[unit]} from the start")


def _step(counts: Float[np.ndarray, "t"]) -> float:
    """The usual step from sample to sample, which several of one time share; 0 where time never goes on."""
    steps = np.diff(counts[np.isfinite(counts)])
    later = steps > 0
    return float(np.median(steps[later]) * later.mean()) if later.any() else 0.0


def _are_possible(seconds: Float[np.ndarray, "t"]) -> bool:
    step = _step(seconds)
    return step == 0 or POSSIBLE_HZ[0] <= 1 / step <= POSSIBLE_HZ[1]


def _are_recent(seconds: Float[np.ndarray, "t"]) -> bool:
    """Whether times since 1970 are of years in which such data were recorded."""
    return bool(RECENT_S[0] <= np.nanmedian(seconds) <= RECENT_S[1])


def _unit_of(counts: Float[np.ndarray, "t"], name: str) -> str:
    """The unit of counts from a start, by the rate that they would mean; "" where none is possible."""
    step = _step(counts)
    for lowest, highest in (LIKELY_HZ, POSSIBLE_HZ) if step else ():
        rates = {unit: 1 / (step * seconds) for unit, seconds in UNITS.items()}
        found = [unit for unit, rate in rates.items() if lowest <= rate <= highest]
        if len(found) > 1:
            ways = (f"modality.time_unit={unit} for {rates[unit]:.4g} Hz" for unit in found)
            raise ValueError(
                f"column {name!r} goes up by {step:.4g} a sample, in no unit that is said: set "
                f"{' or '.join(ways)}; if it numbers the rows, modality.time_column=null and source_rate_hz"
            )
        if found:
            return found[0]
    return ""
