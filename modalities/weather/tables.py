"""CSV and Parquet, wide (a column for each channel) or long (a column of names, one of values)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modalities.reading.columns import named_columns, time_columns
from modalities.reading.dialects import TableSettings
from modalities.reading.headers import kind_of
from modalities.reading.quantities import unit_in, unit_of
from modalities.reading.tables import Table, shown
from modalities.reading.times import Times, TimeSettings, read_times
from modalities.weather.clock import freq_of
from modalities.weather.identities import NOBODY, Identity, identity_of, ids_of, repeated, telling
from modalities.weather.series import Found, Series

MOST_CHANNELS = 60  # columns of numbers; of more without a time, each row may be a series
MIDDLE, LEAST = (1, 99), 20  # percent of a column's first values, and how many of them say where it lies


@dataclass(frozen=True)
class Layout:
    """Where a table holds what; "" = there is no such column, or it is found by its name."""

    columns: tuple[str, ...]
    time_column: str | None  # or several, DATE+TIME; None: rows are counted
    id_column: str  # or several, A+B; none: no column tells series apart
    variable_column: str
    value_column: str
    times: TimeSettings
    table: TableSettings

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns with which a time may occur several times: that of the names of variables."""
        return (self.variable_column,) if self.variable_column else ()

    @property
    def measured(self) -> tuple[str, ...]:
        """The columns of values."""
        return (self.value_column,) if self.variable_column else self.columns


def find(path: Path, name: str, group: str, layout: Layout, step_s: float) -> Iterator[Found]:
    """One series, or one for each id. Raises ValueError when the file cannot be used."""
    read_table.cache_clear()
    table = Table.open(path, layout.table)
    head = table.head()
    times = () if layout.time_column is None else time_columns(head, layout.time_column)
    nobody = layout.id_column == NOBODY and NOBODY not in table.names
    asked = named_columns(layout.id_column, table.names) if layout.id_column and not nobody else ()
    needed = {"time": times, "id": asked, "variable": (layout.variable_column,)}
    if layout.variable_column:
        needed["value"] = (layout.value_column,)
    _check(table, head, layout, needed)
    taken = {column for wanted in needed.values() for column in wanted}
    if layout.variable_column:
        present = tuple(_distinct(table, (layout.variable_column,)))
    else:
        usable = {*head.select_dtypes("number").columns, *layout.columns} - taken
        present = tuple(column for column in table.names if column in usable)
    identity = Identity(asked)
    if not asked and not nobody:
        identity = identity_of(table, times, layout.times, beside=layout.measured, keys=layout.keys)
    read_it = partial(read, path, times, layout, identity.columns, step_s)
    if not identity.columns:
        middles = {} if layout.variable_column else _middles(head, layout.columns)
        yield Found(name, present, partial(read_it, ""), group, said=identity.said, middles=middles)
        return
    identities = _distinct(table, identity.columns)
    if not identities:
        raise ValueError(f"column {'+'.join(identity.columns)!r} is empty: set modality.id_column")
    for one in identities:
        said = tuple((column, one) for column in identity.columns) if len(identity.columns) == 1 else ()
        yield Found(f"{name}/{one}", present, partial(read_it, one), one, said=said)


def _check(table: Table, head: pd.DataFrame, layout: Layout, needed: Mapping[str, Sequence[str]]) -> None:
    """ValueError for a column that is not there, by the kind of thing that it is needed for."""
    for kind, wanted in needed.items():
        for column in wanted or ("",):
            wants = bool(column) or (kind == "time" and layout.time_column is not None)
            if not wants or column in table.names:
                continue
            count = len(head.select_dtypes("number").columns)
            if not column and count > MOST_CHANNELS:
                raise ValueError(
                    f"{count} columns of numbers and no time: each row seems to be a series: transpose the "
                    "table; where each row is a moment, set modality.time_column=null"
                )
            raise ValueError(
                f"there is no {kind} column{f' {column!r}' if column else ''} among "
                f"{shown(table.names)}: "
                f"set modality.{kind}_column{' (null: rows are counted)' if kind == 'time' else ''}, or "
                "modality.skip_lines if line 1 is not the header"
            )


def _middles(head: pd.DataFrame, columns: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where the middle 98 % of the first values of each column lie."""
    found = {}
    for name in columns:
        if name in head and not pd.api.types.is_datetime64_any_dtype(head[name]):
            known = pd.to_numeric(head[name], errors="coerce").dropna().to_numpy(np.float64)
            if len(known) >= LEAST:
                low, high = np.percentile(known, MIDDLE)
                found[name] = (float(low), float(high))
    return found


def read(
    path: Path,
    times: tuple[str, ...],
    layout: Layout,
    id_columns: tuple[str, ...],
    step_s: float,
    identity: str,
) -> Series:
    """The series of one id, or of a whole table without ids."""
    table, frame, places = read_table(path, times, layout, id_columns)
    if id_columns:
        frame = frame.iloc[places[identity]]
    if len(frame) == 0:
        raise ValueError("the table has no rows")
    found = Times(
        np.arange(len(frame)) * step_s, 0.0, False, f"rows are counted, one every {freq_of(step_s)}"
    )
    notices = []
    if times:
        found = read_times([frame[name] for name in times], layout.times)
        notices = repeated(
            table,
            frame,
            times,
            found.seconds,
            id_columns=id_columns,
            asked=bool(layout.id_column),
            keys=layout.keys,
            measured=[name for name in layout.measured if name in frame],
        )
    values, quality = (_long if layout.variable_column else _wide)(frame, layout)
    clock = f"times in {' and '.join(map(repr, times))}: " if times else ""
    readings = [*table.reading, f"{clock}{found.reading}"]
    if id_columns and not layout.id_column:
        readings.append(telling(id_columns, "series"))
    units = {column: unit_of(table.units.get(column, "")) or unit_in(column) for column in layout.columns}
    return Series(
        found.seconds,
        values,
        found.utc_offset_s,
        undated=not times,
        quality=quality,
        readings=tuple(readings),
        notices=tuple(notices),
        units={column: unit for column, unit in units.items() if unit},
    )


@lru_cache(maxsize=1)
def read_table(
    path: Path, times: tuple[str, ...], layout: Layout, id_columns: tuple[str, ...]
) -> tuple[Table, pd.DataFrame, dict[str, np.ndarray]]:
    """The columns that are needed, and the rows of each id; kept for the next id of the same file."""
    table = Table.open(path, layout.table)
    if layout.variable_column:
        wanted = [*times, *id_columns, layout.variable_column, layout.value_column]
    else:
        wanted = [*times, *id_columns, *layout.columns]
    frame = table.read(wanted, texts=(*id_columns, layout.variable_column))
    places: dict[str, np.ndarray] = {}
    if id_columns:
        codes, names = pd.factorize(ids_of(frame, id_columns))
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        places = {str(name): order[starts[i] : starts[i + 1]] for i, name in enumerate(names)}
    return table, frame, places


def _wide(table: pd.DataFrame, layout: Layout) -> tuple[np.ndarray, dict[str, Any]]:
    values = np.full((len(table), len(layout.columns)), np.nan)
    texts: dict[str, int] = {}
    for place, name in enumerate(layout.columns):
        if name in table:
            values[:, place], num_texts = _numbers(table[name], name)
            texts |= {name: num_texts} if num_texts else {}
    return values, {"text_cells": texts} if texts else {}


def _long(table: pd.DataFrame, layout: Layout) -> tuple[np.ndarray, dict[str, Any]]:
    """A row for each value, so that repeated times are told and averaged as in a wide table."""
    numbers, num_texts = _numbers(table[layout.value_column], layout.value_column)
    names = table[layout.variable_column].astype("string").fillna("").to_numpy()
    values = np.full((len(table), len(layout.columns)), np.nan)
    for place, name in enumerate(layout.columns):
        values[:, place] = np.where(names == name, numbers, np.nan)
    others = pd.Series(names[~np.isin(names, layout.columns)]).value_counts().sort_index()
    quality: dict[str, Any] = {"text_cells": {layout.value_column: num_texts}} if num_texts else {}
    if len(others):
        quality["other_variables"] = {str(name): int(count) for name, count in others.items()}
    return values, quality


def _numbers(column: Any, name: str) -> tuple[np.ndarray, int]:
    """A column as floats, and how many cells hold text; raises ValueError when most do."""
    if pd.api.types.is_datetime64_any_dtype(column):
        raise ValueError(f"column {name!r} holds dates: choose others by modality.columns")
    numbers = pd.to_numeric(column, errors="coerce")
    texts = numbers.isna() & column.notna()
    if texts.sum() > column.notna().sum() / 2:
        example = str(column[texts].iloc[0])[:40]
        if kind_of(example):
            raise ValueError(
                f"column {name!r} holds text in {texts.sum()} of {column.notna().sum()} cells, for example "
                f"{example!r}: choose others by modality.columns, or write numbers"
            )
    found: np.ndarray = numbers.to_numpy(np.float64, na_value=np.nan)
    return found, int(texts.sum())


def _distinct(table: Table, columns: tuple[str, ...]) -> list[str]:
    """The ids that columns of names hold, sorted."""
    return sorted({*ids_of(table.read(columns, texts=columns), columns)} - {""})
