"""CSV and Parquet: which column means what, and when each sample was taken."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from modalities.reading.columns import TIME_COLUMNS, time_columns
from modalities.reading.dialects import TableSettings, encoding_of, head_of
from modalities.reading.quantities import IN_NAME, unit_in, unit_of
from modalities.reading.tables import TABLE_SUFFIXES, Table, shown
from modalities.reading.times import UNIT_NAMES, UNITS, Times, TimeSettings, read_times
from modalities.wearables.recordings import AXES, FileSettings, Recording, text, usual_name

__all__ = ["TABLE_SUFFIXES", "forget", "layout", "read_table", "subjects"]

TIME_NAMES = (*TIME_COLUMNS[:4], "t", "seconds", "time_s", "timestamp_ms", "time_ms", "elapsed", "date")
UNIT_WORDS = {"s": "s", "sec": "s", "seconds": "s", "ms": "ms", "us": "us", "µs": "us", "ns": "ns"}
LABEL_NAMES = ("label", "activity", "annotation", "class")
GROUP_NAMES = ("subject", "subject_id", "pid", "participant", "participant_id", "person", "user", "group")
LIKELY_HZ = (5.0, 500.0)  # what a recorder of movement does, then what is possible
POSSIBLE_HZ = (0.9, 5000.0)
MAX_SUBJECTS = 1000  # in one table; a column with more is a measurement
ACTIGRAPH_LINES = 10  # of header, in ActiGraph's own CSV
EMPATICA_SCALE = 1 / 64


@dataclass(frozen=True)
class Layout:
    """A table, and what its first lines say beside the names."""

    table: Table
    rate_hz: float | None = None
    start: pd.Timestamp | None = None
    scale: float | None = None  # to g
    said: str = ""  # the format, for people

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return self.table.names


def layout(path: Path, settings: FileSettings) -> Layout:
    """Read the header; ValueError where there is none and `csv_columns` does not stand in."""
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    if path.suffix.lower() != ".parquet":
        data = head_of(path)[:8192]
        lines = data.decode(encoding_of(data), "replace").splitlines()
        if lines and "ActiGraph" in lines[0] and len(lines) > ACTIGRAPH_LINES:
            return _actigraph(path, lines, settings)
        if found := _empatica(lines):
            table = Table.open(path, TableSettings(skip_lines=2, csv_columns=AXES))
            said = "Empatica's format: a start, a rate, samples in 1/64 g"
            return Layout(table, found[1], found[0], EMPATICA_SCALE, said)
    return Layout(Table.open(path, settings.table, example=AXES))


def subjects(path: Path, settings: FileSettings) -> list[str] | None:
    """The subjects of a table that has a column of them, by name; "" where rows have none."""
    found = layout(path, settings)
    settings.sensors(found.names)  # a table of something else is told before anything is read
    name = usual_name(found.names, settings.group_column, GROUP_NAMES, "group_column")
    if name is None:
        return None
    different = sorted({*_names(_frame(path, settings, (name,))[name])})
    if len(different) > MAX_SUBJECTS:
        raise ValueError(
            f"column {name} has {len(different):,} different values, more than {MAX_SUBJECTS:,} subjects: "
            "name that of the subject in modality.group_column, or set it to null"
        )
    if not different:
        raise ValueError("it has a header and no samples")
    return different


def read_table(path: Path, settings: FileSettings, subject: str | None) -> Recording:
    """A table as a recording: all of it, or the rows of one subject."""
    found = layout(path, settings)
    names = found.names
    sensors = settings.sensors(names)
    times = _time_columns(found, settings)
    label = usual_name(names, settings.label_column, LABEL_NAMES, "label_column")
    group = usual_name(names, settings.group_column, GROUP_NAMES, "group_column") if subject else None
    columns = tuple(dict.fromkeys([*sensors, *times, *filter(None, (label, group))]))
    frame = _frame(path, settings, columns)
    if group:
        frame = frame.iloc[_places(path, settings, columns, group).get(subject or "", [])]
    if not len(frame):
        raise ValueError("it has a header and no samples")
    readings = [*found.table.reading, *filter(None, [found.said])]
    if times:
        seconds, start, reading = _times([frame[name] for name in times], settings)
        readings.append(f"times in {' and '.join(map(repr, times))}: {reading}")
    else:
        seconds, start = _regular(len(frame), found, settings), found.start
        readings.append(
            f"the rate from {'the header' if found.rate_hz else 'modality.source_rate_hz'}: no times"
        )
    units = {unit_of(found.table.units.get(name, "")) or unit_in(name) for name in sensors[:3]}
    return Recording.of(
        _numbers(frame, sensors),
        seconds,
        labels=_names(frame[label]) if label else None,
        start=start,
        scale=found.scale,
        units=units.pop() if len(units) == 1 else "",
        readings=tuple(readings),
    )


def _time_columns(found: Layout, settings: FileSettings) -> tuple[str, ...]:
    """The columns of times, which beat a rate in the header; () where there are none, or none are wanted."""
    wanted = settings.time_column
    if wanted is None:
        return ()
    times = time_columns(found.table.head(), "" if wanted == "auto" else wanted, TIME_NAMES)
    missing = [name for name in times if name not in found.names]
    if missing:
        raise ValueError(
            f"no column {missing[0]} among {shown(found.names)}: modality.time_column asks for it"
        )
    return times


def _actigraph(path: Path, lines: Sequence[str], settings: FileSettings) -> Layout:
    """ActiGraph's CSV: ten lines that give the rate and the start, then samples, under names or not."""
    head = " ".join(" ".join(lines[:ACTIGRAPH_LINES]).split())
    rate = re.search(r"at (\d+) Hz", head)
    clock, day, order = (
        re.search(pattern, head)
        for pattern in (r"Start Time ([\d:]+)", r"Start Date ([\d/.-]+)", r"date format (\S+)")
    )
    start = None
    if clock and day and order:
        moment = f"{day[1]} {clock[1]}"
        read = pd.to_datetime(moment, dayfirst=order[1].lower().startswith("d"), errors="coerce")
        start = read if isinstance(read, pd.Timestamp) else None
    table = Table.open(
        path, TableSettings(ACTIGRAPH_LINES, settings.csv_columns or AXES, None, settings.decimal)
    )
    return Layout(table, float(rate[1]) if rate else None, start, said="ActiGraph's format")


def _empatica(lines: Sequence[str]) -> tuple[pd.Timestamp, float] | None:
    """Start and rate in the first two lines of Empatica's ACC.csv, three times each; else None."""
    try:
        (start, *more), (rate, *others) = ([float(cell) for cell in line.split(",")] for line in lines[:2])
    except ValueError:
        return None
    same = len(more) == len(others) == 2 and {*more} == {start} and {*others} == {rate}
    if not (same and 1e9 < start < 1e10 and 1 <= rate <= 1000):
        return None
    return pd.Timestamp(start, unit="s").round("us"), rate


@lru_cache(maxsize=1)  # a table of many subjects is read for each of them
def _frame(path: Path, settings: FileSettings, names: tuple[str, ...]) -> pd.DataFrame:
    """Some columns of a table."""
    return layout(path, settings).table.read(names)


@lru_cache(maxsize=1)
def _places(path: Path, settings: FileSettings, names: tuple[str, ...], group: str) -> dict[str, Any]:
    """The rows of each subject of a table, in order."""
    subjects_of_rows = pd.Series(_names(_frame(path, settings, names)[group]))
    return {str(name): rows for name, rows in subjects_of_rows.groupby(subjects_of_rows).indices.items()}


def forget() -> None:
    """Drop the table that was read last: the file may have changed since."""
    _frame.cache_clear()
    _places.cache_clear()


def _numbers(frame: pd.DataFrame, names: Sequence[str]) -> Float[np.ndarray, "t c"]:
    """Columns as float32; what is no number is missing."""
    numbers = (pd.to_numeric(frame[name], errors="coerce") for name in names)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and rejected as such
        return np.stack([column.to_numpy(np.float32, na_value=np.nan) for column in numbers], axis=1)


def _names(column: "pd.Series[Any]") -> Shaped[np.ndarray, "t"]:
    """Ids or labels as text, "" where there is none."""
    if pd.api.types.is_object_dtype(column):
        for value in column:
            if isinstance(value, list | np.ndarray | dict):
                text(value)  # says what is wrong with it
    codes, values = pd.factorize(column)
    names = np.array([*map(text, values), ""], dtype=object)
    return names[codes]  # -1 is the last


def _regular(count: int, found: Layout, settings: FileSettings) -> Float[np.ndarray, "t"]:
    """Times of a table without them, by the rate in its header or the settings."""
    rate_hz = found.rate_hz or settings.source_rate_hz
    if rate_hz is None:
        raise ValueError(
            f"no time column ({shown(TIME_NAMES)}) among {shown(found.names)}: set modality.time_column "
            "or, where samples are regular, modality.source_rate_hz"
        )
    return np.arange(count) / rate_hz


def _times(
    columns: "Sequence[pd.Series[Any]]", settings: FileSettings
) -> tuple[Float[np.ndarray, "t"], pd.Timestamp | None, str]:
    """Seconds since the first, its instant if the date is known, and how they were read.

    The instant is UTC where offsets or a `timezone` are given, else the file's own clock.
    """
    unit = settings.time_unit
    said = IN_NAME.search(str(columns[0].name))
    if unit == "auto" and said:
        unit = UNIT_WORDS.get(said[1].strip().lower(), unit)
    numeric = len(columns) == 1 and not settings.time_format and _is_numeric(columns[0])
    if numeric and unit != "auto":
        numbers = pd.to_numeric(columns[0], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        found = Times(numbers * UNITS[unit], 0.0, False, UNIT_NAMES[unit])
    else:
        found = read_times(
            columns, TimeSettings(settings.time_format, settings.timezone or "UTC", dated=False)
        )
        if numeric and not found.dated:
            unit = _unit_of(found.seconds)
            found = Times(found.seconds * UNITS[unit], 0.0, False, f"{UNIT_NAMES[unit]} from the start")
    known = found.seconds[np.isfinite(found.seconds)]
    if not len(known):
        raise ValueError(f"the times in column {columns[0].name} are all missing")
    first = float(known[0])
    dated = found.dated or (numeric and 1e8 < first < 1e11)
    return found.seconds - first, pd.Timestamp(first, unit="s").round("us") if dated else None, found.reading


def _is_numeric(column: "pd.Series[Any]") -> bool:
    """Whether most of a column are numbers; a text among them is a bad number, no date."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return False
    return bool(pd.to_numeric(column, errors="coerce").notna().sum() > column.notna().sum() / 2)


def _unit_of(counts: Float[np.ndarray, "t"]) -> str:
    """The unit of counts from a start, by the rate that they would mean."""
    steps = np.diff(counts[np.isfinite(counts)])
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    for lowest, highest in (LIKELY_HZ, POSSIBLE_HZ):
        for unit, seconds in UNITS.items():
            if lowest <= 1 / (step * seconds) <= highest:
                return unit
    return "s"
