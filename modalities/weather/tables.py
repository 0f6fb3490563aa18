"""CSV and Parquet, wide (a column for each channel) or long (a column of names, one of values)."""

import gzip
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from modalities.weather.clock import to_seconds
from modalities.weather.series import Found, Series

TIME_COLUMNS = ("time", "timestamp", "datetime", "date_time", "date", "valid_time", "ds")  # in any case
SNIFFED_ROWS = 100


@dataclass(frozen=True)
class Layout:
    """Where a table holds what; "" = there is no such column, or it is found by its name."""

    columns: tuple[str, ...]
    time_column: str
    time_format: str
    timezone: str
    id_column: str
    variable_column: str
    value_column: str


def find(path: Path, name: str, group: str, layout: Layout) -> Iterator[Found]:
    """One series, or one for each id. Raises ValueError when the file cannot be used."""
    read_table.cache_clear()
    with _with_reasons():
        head = _head(path)
    columns = [str(column) for column in head.columns]
    time = layout.time_column or _time_column(head)
    needed = {"time": time, "id": layout.id_column, "variable": layout.variable_column}
    if layout.variable_column:
        needed["value"] = layout.value_column
    for kind, column in needed.items():
        if (kind == "time" or column) and column not in columns:
            raise ValueError(
                f"there is no {kind} column{f' {column!r}' if column else ''} among {', '.join(columns)}: "
                f"set modality.{kind}_column"
            )
    if layout.variable_column:
        present = tuple(_distinct(path, layout.variable_column))
    else:
        numeric = head.select_dtypes("number").columns
        usable = {*numeric, *layout.columns} - {*needed.values()}
        present = tuple(column for column in columns if column in usable)
    if not layout.id_column:
        yield Found(name, present, partial(read, path, time, layout, ""), group)
        return
    identities = _distinct(path, layout.id_column)
    if not identities:
        raise ValueError(f"column {layout.id_column!r} is empty: set modality.id_column")
    for identity in identities:
        yield Found(f"{name}/{identity}", present, partial(read, path, time, layout, identity), identity)


def read(path: Path, time: str, layout: Layout, identity: str) -> Series:
    """The series of one id, or of a whole table without ids."""
    with _with_reasons():
        table, places = read_table(path, time, layout)
    if layout.id_column:
        table = table.iloc[places[identity]]
    if len(table) == 0:
        raise ValueError("the table has no rows")
    times_s, utc_offset_s = to_seconds(table[time], layout.time_format, layout.timezone)
    values, quality = (_long if layout.variable_column else _wide)(table, layout)
    return Series(times_s, values, utc_offset_s, quality=quality)


@lru_cache(maxsize=1)
def read_table(path: Path, time: str, layout: Layout) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The columns that are needed, and the rows of each id; kept for the next id of the same file."""
    if layout.variable_column:
        wanted = [time, layout.id_column, layout.variable_column, layout.value_column]
    else:
        wanted = [time, layout.id_column, *layout.columns]
    texts = (layout.id_column, layout.variable_column)
    table = _read(path, [column for column in dict.fromkeys(wanted) if column], *texts)
    places: dict[str, np.ndarray] = {}
    if layout.id_column:
        codes, names = pd.factorize(table[layout.id_column].astype(str))
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        places = {str(name): order[starts[i] : starts[i + 1]] for i, name in enumerate(names)}
    return table, places


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
    numbers = pd.to_numeric(column, errors="coerce")
    texts = numbers.isna() & column.notna()
    if texts.sum() > column.notna().sum() / 2:
        raise ValueError(
            f"column {name!r} holds text in {texts.sum()} of {column.notna().sum()} cells, for example "
            f"{str(column[texts].iloc[0])!r}: choose others by modality.columns, or write numbers"
        )
    return numbers.to_numpy(np.float64, na_value=np.nan), int(texts.sum())


def _time_column(head: pd.DataFrame) -> str:
    """The first column with a usual name, else the only one that holds dates; "" where there is none."""
    named = {str(column).lower(): str(column) for column in reversed(head.columns)}
    dates = [str(name) for name, kind in head.dtypes.items() if pd.api.types.is_datetime64_any_dtype(kind)]
    found = [named[name] for name in TIME_COLUMNS if name in named]
    return (found or (dates if len(dates) == 1 else [""]))[0]


def _distinct(path: Path, column: str) -> list[str]:
    """The values of a column of names, sorted."""
    with _with_reasons():
        return sorted(str(value) for value in _read(path, [column], column)[column].dropna().unique())


def _head(path: Path) -> pd.DataFrame:
    """The first rows of all columns."""
    if path.suffix.lower() != ".parquet":
        return _read_csv(path, nrows=SNIFFED_ROWS)
    file = pq.ParquetFile(path)
    batches = list(islice(file.iter_batches(SNIFFED_ROWS), 1))
    head: pd.DataFrame = pa.Table.from_batches(batches, file.schema_arrow).to_pandas(ignore_metadata=True)
    return head


def _read(path: Path, columns: list[str], *texts: str) -> pd.DataFrame:
    """Those of the columns that there are; in `texts`, a number like 007 keeps its zeros."""
    if path.suffix.lower() != ".parquet":
        return _read_csv(path, usecols=lambda name: name.strip() in columns, dtype=dict.fromkeys(texts, str))
    present = [name for name in columns if name in pq.read_schema(path).names]
    table: pd.DataFrame = pq.read_table(path, columns=present).to_pandas(ignore_metadata=True)
    return table


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Separated by commas, semicolons (then with decimal commas, if any) or tabs, as the first line says."""
    opened = gzip.open(path, "rt", errors="replace") if path.suffix == ".gz" else path.open(errors="replace")
    with opened as file:
        separator = max(",;\t", key=file.readline().count)
    table: pd.DataFrame = pd.read_csv(
        path,
        sep=separator,
        decimal="," if separator == ";" else ".",
        index_col=False,  # or a line that is longer than the first would shift all columns
        skipinitialspace=True,
        low_memory=False,
        encoding="utf-8-sig",
        encoding_errors="replace",
        **options,
    )
    return table.rename(columns=str.strip)


@contextmanager
def _with_reasons() -> Iterator[None]:
    """What pandas and pyarrow raise or warn of a damaged file, as a ValueError that says what it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except pd.errors.EmptyDataError as error:
        raise ValueError("the file is empty") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pa.ArrowException, EOFError, OSError) as error:
        raise ValueError(f"not readable as a table: {error}".splitlines()[0]) from error
