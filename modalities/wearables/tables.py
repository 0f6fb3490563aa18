"""CSV and Parquet: which column means what, and when each sample was taken."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from modalities.reading.columns import time_columns
from modalities.reading.dialects import TableSettings, encoding_of, head_of
from modalities.reading.quantities import unit_in, unit_of
from modalities.reading.tables import TABLE_SUFFIXES, Table, shown
from modalities.wearables.clocks import TIME_NAMES, read_clock
from modalities.wearables.parts import DEVICE_NAMES, PART_NAMES, Part, named, rows_of, telling
from modalities.wearables.recordings import AXES, FileSettings, Recording, text, usual_name, usual_names
from modalities.wearables.sensors import recording_of

__all__ = ["TABLE_SUFFIXES", "forget", "layout", "parts", "read_table"]

LABEL_NAMES = ("label", "activity", "annotation", "class")
GROUP_NAMES = ("subject", "subject_id", "pid", "participant", "participant_id", "person", "user", "group")
LIKELY = re.compile(r"time|stamp", re.IGNORECASE)  # in the name of a column of times
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


def parts(path: Path, settings: FileSettings, place: Sequence[str] = ()) -> list[Part]:
    """The recordings of a table: each subject's, by name, or each device's of a subject, if it has several.

    A subject "" is rows without one. `place` are the names of the folders and of the file, which may say that
    it is of another sensor.
    """
    found = layout(path, settings)
    sensors = settings.sensors(found.names)  # a table of something else is told before anything is read
    settings.check_place(place, found.names)
    group = usual_name(found.names, settings.group_column, GROUP_NAMES, "group_column")
    label = usual_name(found.names, settings.label_column, LABEL_NAMES, "label_column")
    columns = [name for name in usual_names(found.names, PART_NAMES) if name not in {*sensors, group, label}]
    times = _time_columns(found, settings) if columns else ()
    # Without times nothing shows that rows go on: but those of two devices never do
    known = columns if times else usual_names(found.names, DEVICE_NAMES)
    columns = [name for name in columns if name in known and name not in times]
    texts = (*filter(None, [group]), *columns)
    if not texts:
        return [Part()]
    frame = _frame(path, settings, (*texts, *(times if columns else ())), texts)
    subjects = _names(frame[group]) if group else np.full(len(frame), "", dtype=object)
    different: Sequence[str | None] = _subjects(subjects, group) if group else [None]
    if not columns:
        return [Part(subject) for subject in different]
    codes, names = pd.factorize(subjects)
    rows = dict(zip(names, rows_of(codes), strict=False))
    apart: list[Part] = []
    for subject in different:
        own = frame.take(rows.get(subject or "", []))
        apart += _parts_of(own, subject, times, columns if subject != "" else (), settings)
    read = tuple(dict.fromkeys(column for part in apart for column in part.columns))
    return [replace(part, read=read) for part in apart]


def _subjects(names: Shaped[np.ndarray, "t"], column: str) -> list[str]:
    """The different subjects of a table; ValueError where a column holds something else, or nothing."""
    different = sorted({*names})
    if len(different) > MAX_SUBJECTS:
        raise ValueError(
            f"column {column} has {len(different):,} different values, more than {MAX_SUBJECTS:,} subjects: "
            "name that of the subject in modality.group_column, or set it to null"
        )
    if not different:
        raise ValueError("it has a header and no samples")
    return different


def _parts_of(
    frame: pd.DataFrame,
    subject: str | None,
    times: Sequence[str],
    columns: Sequence[str],
    settings: FileSettings,
) -> list[Part]:
    """The recordings of one subject."""
    names = {column: _names(frame[column]) for column in columns}
    codes = {column: pd.factorize(found)[0] for column, found in names.items() if len({*found}) > 1}
    try:
        clocked = bool(codes) and bool(times)
        seconds = read_clock([frame[name] for name in times], settings)[0] if clocked else None
        told = named(codes) if seconds is None else telling(seconds, codes)
    except ValueError:  # times that cannot be read are told when the samples are
        told = ()
    if not told:
        return [Part(subject)]
    different = sorted({*zip(*(names[column] for column in told), strict=True)})
    return [Part(subject, told, one) for one in different]


def read_table(path: Path, settings: FileSettings, part: Part) -> Recording:
    """A table as a recording: all of it, or some of its rows."""
    found = layout(path, settings)
    names = found.names
    sensors = settings.sensors(names)
    times = _time_columns(found, settings)
    label = usual_name(names, settings.label_column, LABEL_NAMES, "label_column")
    group = usual_name(names, settings.group_column, GROUP_NAMES, "group_column") if part.subject else None
    texts = tuple(filter(None, (label, group, *part.read)))
    columns = tuple(dict.fromkeys([*sensors, *times, *texts]))
    frame = _frame(path, settings, columns, texts)
    by = (*filter(None, [group]), *part.columns)
    if by:
        which = (*filter(None, [part.subject]), *part.names)
        frame = frame.iloc[_places(path, settings, columns, texts, by).get(which, [])]
    if not len(frame):
        raise ValueError("it has a header and no samples")
    readings = [*found.table.reading, *filter(None, [found.said])]
    if times:
        seconds, start, reading = read_clock([frame[name] for name in times], settings)
        readings.append(f"times in {' and '.join(map(repr, times))}: {reading}")
    else:
        seconds, start = _regular(len(frame), found, settings), found.start
        readings.append(
            f"the rate from {'the header' if found.rate_hz else 'modality.source_rate_hz'}: no times"
        )
    units = [_unit_of_axes(found.table, sensors[place : place + 3]) for place in (0, 3)]
    # Where rows are counted, one of another sensor is time, too
    made: Callable[..., Recording] = recording_of if times else Recording.of
    return made(
        _numbers(frame, sensors),
        seconds,
        labels=_names(frame[label]) if label else None,
        start=start,
        scale=found.scale,
        units=units[0],
        gyroscope_units=units[1],
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
def _frame(
    path: Path, settings: FileSettings, names: tuple[str, ...], texts: tuple[str, ...]
) -> pd.DataFrame:
    """Some columns of a table; those of `texts` hold names, in which NA is one."""
    return layout(path, settings).table.read(names, texts)


@lru_cache(maxsize=1)
def _places(
    path: Path, settings: FileSettings, names: tuple[str, ...], texts: tuple[str, ...], by: tuple[str, ...]
) -> dict[tuple[str, ...], Any]:
    """The rows of each recording of a table, in order, by what some columns hold."""
    frame = _frame(path, settings, names, texts)
    names_of = [_names(frame[name]) for name in by]
    codes, different = pd.factorize(names_of[0] if len(by) == 1 else pd.MultiIndex.from_arrays(names_of))
    keys = [(key,) for key in different] if len(by) == 1 else different
    return {tuple(map(str, key)): rows for key, rows in zip(keys, rows_of(codes), strict=False)}


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


def _unit_of_axes(table: Table, axes: Sequence[str]) -> str:
    """The unit that a table says of a sensor's axes, "" for none; ValueError where they have several."""
    found = {unit_of(table.units.get(name, "")) or unit_in(name) for name in axes} - {""}
    if len(found) > 1:
        raise ValueError(
            f"{shown(axes)} are in different units ({', '.join(sorted(found))}): convert them to one"
        )
    return next(iter(found), "")


def _regular(count: int, found: Layout, settings: FileSettings) -> Float[np.ndarray, "t"]:
    """Times of a table without them, by the rate in its header or the settings."""
    rate_hz = found.rate_hz or settings.source_rate_hz
    if rate_hz is None:
        likely = [name for name in found.names if LIKELY.search(name)]
        if likely and settings.time_column is not None:
            raise ValueError(
                f"no time column ({shown(TIME_NAMES[:4])} and so on), but {shown(likely[:4])}: set "
                f"modality.time_column={likely[0]} if that holds the time of each sample"
            )
        raise ValueError(
            f"no time column ({shown(TIME_NAMES)}) among {shown(found.names)}: set modality.time_column "
            "or, where samples are regular, modality.source_rate_hz"
        )
    return np.arange(count) / rate_hz
