"""Which settings fit series that nobody has described."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modalities.reading.columns import part_columns, time_columns
from modalities.reading.looking import counted, matching
from modalities.reading.tables import Table
from modalities.reading.texts import reads_as_table
from modalities.reading.times import TimeSettings, read_times
from modalities.weather.discovery import YEAR_SUFFIXES, files
from modalities.weather.identities import ID_COLUMNS, codes_of, ids_of, series_columns, steps_within
from modalities.weather.years import is_tmy3

SLOWEST_MOVEMENT = 1.0  # seconds: what is measured more often is read by adapters of movement or sound
LOOKED_AT = 3  # tables
UNITS = ((86_400, "D"), (3_600, "h"), (60, "min"), (1, "s"))


def looks_like(source: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Settings that may read a source, each with what it is then taken for."""
    years = matching(source, lambda path: path.suffix.lower() in YEAR_SUFFIXES or _is_year(path))
    if years:
        yield {}, counted("typical years of weather", years)
    tables = [path for path in files(source)[0] if reads_as_table(path)]  # or stores, archives
    for path in sorted(tables, key=lambda path: path.stat().st_size)[:LOOKED_AT]:
        try:
            columns, step = _of_table(path)
        except Exception:  # whatever a library raises for a table of another kind
            continue
        if columns and step >= SLOWEST_MOVEMENT:
            freq = _freq(step)
            words = counted(f"series of {', '.join(columns)}, a value every {freq},", tables)
            yield {"columns": tuple(columns), "freq": freq}, words


def _is_year(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and is_tmy3(path)


def _of_table(path: Path) -> tuple[list[str], float]:
    """The columns of numbers that vary, and the seconds from one time to the next."""
    table = Table.open(path)
    head = table.head()
    times = time_columns(head, "")
    if not times:
        return [], 0.0
    seconds = read_times([head[name] for name in times], TimeSettings()).seconds
    identity = series_columns(table, times, TimeSettings())
    ids = codes_of(ids_of(head, identity)) if identity else np.zeros(len(head), int)
    steps = steps_within(seconds, ids)
    taken = {
        *times,
        *part_columns(head),
        *identity,
        *(name for name in table.names if name.strip().lower() in ID_COLUMNS),
    }
    numbers = head.select_dtypes("number")
    columns = [
        str(name)
        for name in numbers.columns
        if name not in taken and not pd.api.types.is_bool_dtype(numbers[name]) and numbers[name].nunique() > 1
    ]
    return columns, float(np.median(steps)) if len(steps) else 0.0


def _freq(step: float) -> str:
    """A step as people write it: 10min, 1h, 7D."""
    size, name = next((size, name) for size, name in UNITS if step >= size)
    return f"{max(1, round(step / size))}{name}"
