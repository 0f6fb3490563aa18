"""CSV and Parquet: which column means what, and when each sample was taken."""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jaxtyping import Float, Shaped

from modalities.wearables.recordings import FileSettings, Recording, seconds, text, usual_name

TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
TIME_NAMES = ("time", "timestamp", "datetime", "date_time", "t", "seconds", "time_s")
LABEL_NAMES = ("label", "activity", "annotation", "class")
GROUP_NAMES = ("subject", "subject_id", "pid", "participant", "participant_id", "person", "user", "group")
TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
EPOCH_S = 1e8  # larger numbers count from 1970, smaller ones from the start of the recording
MAX_SUBJECTS = 1000  # in one table; a column with more is a measurement
ACTIGRAPH_LINES = 10  # of header, in ActiGraph's own CSV


@dataclass(frozen=True)
class Layout:
    """What the first lines of a table say."""

    names: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()  # of `pandas.read_csv`
    rate_hz: float | None = None
    start: pd.Timestamp | None = None


def layout(path: Path, csv_names: tuple[str, ...] | None) -> Layout:
    """Read the header; ValueError where there is none and `csv_names` does not stand in."""
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    with _readable(path):
        if path.suffix.lower() == ".parquet":
            return Layout(tuple(pq.read_schema(path).names))
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            lines = [line.strip() for _, line in zip(range(ACTIGRAPH_LINES + 1), file, strict=False)]
    if not any(lines):
        raise ValueError("the file is empty")
    if "ActiGraph" in lines[0] and len(lines) > ACTIGRAPH_LINES:
        return _actigraph(lines)
    separator = next((mark for mark in ";\t" if mark in lines[0]), ",")
    cells = [cell.strip().strip('"') for cell in lines[0].split(separator)]
    decimal = "," if separator == ";" and any("," in line for line in lines) else "."
    options = (("sep", separator), ("decimal", decimal), ("skipinitialspace", True))
    if not any(map(_is_number, cells)):
        return Layout(tuple(cells), (*options, ("header", 0), ("names", tuple(cells))))
    if csv_names is None:
        raise ValueError(
            f"no header line, the first line is {lines[0][:60]!r}: name the columns, for example "
            "modality.csv_columns=[time,x,y,z]"
        )
    if len(csv_names) != len(cells):
        raise ValueError(f"{len(cells)} columns where modality.csv_columns names {len(csv_names)}")
    return Layout(csv_names, (*options, ("header", None), ("names", csv_names)))


def subjects(path: Path, settings: FileSettings) -> list[str] | None:
    """The subjects of a table that has a column of them, by name; "" where rows have none."""
    found = layout(path, settings.csv_columns)
    settings.sensors(found.names)  # a table of something else is told before anything is read
    name = usual_name(found.names, settings.group_column, GROUP_NAMES, "group_column")
    if name is None:
        return None
    different = sorted({*_names(_frame(path, found, (name,))[name])})
    if len(different) > MAX_SUBJECTS:
        raise ValueError(
            f"column {name} has {len(different):,} different values, more than {MAX_SUBJECTS:,} subjects: "
            "name that of the subject in modality.group_column, or set it to null"
        )
    return different


def read_table(path: Path, settings: FileSettings, subject: str | None) -> Recording:
    """A table as a recording: all of it, or the rows of one subject."""
    found = layout(path, settings.csv_columns)
    names = found.names
    sensors = settings.sensors(names)
    time = None if found.rate_hz else usual_name(names, settings.time_column, TIME_NAMES, "time_column")
    label = usual_name(names, settings.label_column, LABEL_NAMES, "label_column")
    group = usual_name(names, settings.group_column, GROUP_NAMES, "group_column") if subject else None
    columns = tuple(dict.fromkeys([*sensors, *filter(None, (time, label, group))]))
    frame = _frame(path, found, columns)
    if group:
        frame = frame.iloc[_places(path, found, columns, group).get(subject or "", [])]
    if not len(frame):
        raise ValueError("it has a header and no samples")
    if time:
        times, start = _times(frame[time], settings.time_unit)
    else:
        times, start = _regular(len(frame), found, settings), found.start
    labels = _names(frame[label]) if label else None
    return Recording.of(_numbers(frame, sensors), times, labels=labels, start=start)


def _actigraph(lines: Sequence[str]) -> Layout:
    """ActiGraph's CSV: ten lines that give the rate and the start, then samples, under names or not."""
    head = "\n".join(lines)
    rate = re.search(r"at (\d+) Hz", head)
    if rate is None:
        raise ValueError("its ActiGraph header names no rate")
    clock, day, order = (
        re.search(pattern, head)
        for pattern in (r"Start Time ([\d:]+)", r"Start Date ([\d/.-]+)", r"date format (\S+)")
    )
    start = None
    if clock and day and order:
        start = pd.to_datetime(f"{day[1]} {clock[1]}", dayfirst=order[1].startswith("d"))
    cells = lines[ACTIGRAPH_LINES].split(",")
    named = not any(map(_is_number, cells))
    names = tuple(cells) if named else ("x", "y", "z")
    options = (("skiprows", ACTIGRAPH_LINES), ("header", 0 if named else None), ("names", names))
    return Layout(names, options, float(rate[1]), start)


@lru_cache(maxsize=1)  # a table of many subjects is read for each of them
def _frame(path: Path, found: Layout, names: tuple[str, ...]) -> pd.DataFrame:
    """Some columns of a table."""
    frame: pd.DataFrame
    with _readable(path):
        if path.suffix.lower() == ".parquet":
            frame = pq.read_table(path, columns=[*names]).to_pandas(ignore_metadata=True)
        else:
            options: dict[str, Any] = {
                "encoding_errors": "replace",
                "low_memory": False,
                **dict(found.options),
            }
            frame = pd.read_csv(path, usecols=[*names], **options)
    return frame


@lru_cache(maxsize=1)
def _places(path: Path, found: Layout, names: tuple[str, ...], group: str) -> dict[str, Any]:
    """The rows of each subject of a table, in order."""
    subjects_of_rows = pd.Series(_names(_frame(path, found, names)[group]))
    return {str(name): rows for name, rows in subjects_of_rows.groupby(subjects_of_rows).indices.items()}


def forget() -> None:
    """Drop the table that was read last: the file may have changed since."""
    _frame.cache_clear()
    _places.cache_clear()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, ValueError) as error:  # of pandas and pyarrow; OSError speaks for itself
        raise ValueError(f"not readable as {path.suffix.lower()[1:]}: {error}") from error


def _numbers(frame: pd.DataFrame, names: Sequence[str]) -> Float[np.ndarray, "t c"]:
    """Columns as float32; what is no number is missing."""
    numbers = (pd.to_numeric(frame[name], errors="coerce") for name in names)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and rejected as such
        return np.stack([column.to_numpy(np.float32, na_value=np.nan) for column in numbers], axis=1)


def _names(column: "pd.Series[Any]") -> Shaped[np.ndarray, "t"]:
    """Ids or labels as text, "" where there is none."""
    codes, values = pd.factorize(column)
    names = np.array([*map(text, values), ""], dtype=object)
    return names[codes]  # -1 is the last


def _regular(count: int, found: Layout, settings: FileSettings) -> Float[np.ndarray, "t"]:
    """Times of a table without them, by the rate in its header or the settings."""
    rate_hz = found.rate_hz or settings.source_rate_hz
    if rate_hz is None:
        raise ValueError(
            f"no time column ({', '.join(TIME_NAMES)}) among {', '.join(found.names)}: set "
            "modality.time_column or, where samples are regular, modality.source_rate_hz"
        )
    return np.arange(count) / rate_hz


def _times(column: "pd.Series[Any]", unit: str) -> tuple[Float[np.ndarray, "t"], pd.Timestamp | None]:
    """Seconds since the first, and its instant: UTC where offsets are given, else the file's own clock."""
    if not pd.api.types.is_datetime64_any_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().sum() > column.notna().sum() / 2:  # a text among numbers is a bad number, no date
            first = numbers[numbers.notna()].iloc[0]
            times = (numbers - first).to_numpy(np.float64, na_value=np.nan) * TIME_UNITS[unit]
            epoch_s = float(first) * TIME_UNITS[unit]
            return times, pd.Timestamp(epoch_s, unit="s").round("us") if epoch_s > EPOCH_S else None
        column = pd.to_datetime(column.astype(str), format="ISO8601", utc=True, errors="coerce")
    index = pd.DatetimeIndex(column)
    if index.isna().all():
        raise ValueError(f"the times in column {column.name} are neither numbers nor ISO dates")
    index = index.tz_convert(None) if index.tz is not None else index
    return seconds(index), index[index.notna()][0]


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True
