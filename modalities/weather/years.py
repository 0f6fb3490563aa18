"""Typical meteorological years: TMY2, TMY3 and EPW, brought to the same names, units and hours.

Times are the ends of the hours, as TMY files mean them (irradiance is that of the hour before). Each month
has the year it comes from, so the months of a file are not one series.
"""

import csv
import importlib
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modalities.weather.series import Found, Series
from modalities.weather.variables import VARIABLES

# Our name -> (the format's own, or where a line of TMY2 holds it; factor to our unit)
TMY3 = {
    "pressure": ("pressure", 1.0),  # mbar
    "total_sky_cover": ("TotCld (tenths)", 1.0),
    "opaque_sky_cover": ("OpqCld (tenths)", 1.0),
}
EPW = {"pressure": ("atmospheric_pressure", 0.01)}  # Pa
TMY2 = {
    "ghi": ((17, 21), 1.0),
    "dni": ((23, 27), 1.0),
    "dhi": ((29, 33), 1.0),
    "total_sky_cover": ((59, 61), 1.0),
    "opaque_sky_cover": ((63, 65), 1.0),
    "temp_air": ((67, 71), 0.1),
    "temp_dew": ((73, 77), 0.1),
    "relative_humidity": ((79, 82), 1.0),
    "pressure": ((84, 88), 1.0),
    "wind_direction": ((90, 93), 1.0),
    "wind_speed": ((95, 98), 0.1),
}
TMY2_DATE = {"year": (1, 3), "month": (3, 5), "day": (5, 7), "hour": (7, 9)}
TMY2_ZONE = slice(33, 36)  # of the first line, which is " 12839 MIAMI                  FL  -5 N 25 48 ..."


def is_tmy3(path: Path) -> bool:
    """A CSV file whose second line names the columns of TMY3."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().count(",") >= 6 and file.readline().lstrip('"').startswith("Date (MM/DD/YYYY)")


def find(path: Path, name: str, kind: str, columns: tuple[str, ...]) -> Found:
    """The one series of a file of `kind` tmy2, tmy3 or epw; its group is the station's name and state."""
    first = _text(path).partition("\n")[0]
    if kind == "tmy2":
        mark, cells = first[1:6].isdigit(), [first[7:29], first[30:32]]
    else:
        cells = next(csv.reader([first]), [])
        mark, cells = bool(cells) and (cells[0] == "LOCATION" or kind == "tmy3"), cells[1:3]
    station = " ".join(" ".join(cells).split()).removesuffix(" -")
    if not mark or not station:
        raise ValueError(f"the first line names no station, as that of {kind.upper()} does")
    return Found(name, tuple(VARIABLES), partial(read, path, kind, columns), group=station)


def read(path: Path, kind: str, columns: tuple[str, ...]) -> Series:
    """Hourly values in our units. Raises ValueError for a file that is not what its name says."""
    try:
        local_s, zone_h, measured = READERS[kind](_text(path))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, pd.errors.ParserError) as error:
        words = f"damaged, or not what its name says ({str(error)[:80]})"
        raise ValueError(f"not readable as {kind.upper()}: {words}") from error
    if not len(local_s):
        raise ValueError(f"not readable as {kind.upper()}: it has a header and no hours")
    if not np.issubdtype(np.asarray(local_s).dtype, np.number):
        raise ValueError(f"not readable as {kind.upper()}: its times are no numbers")
    values = np.full((len(local_s), len(columns)), np.nan)
    for place, name in enumerate(columns):
        if name in measured:
            values[:, place] = measured[name]
    return Series(local_s - 3600 * zone_h, values, 3600 * zone_h, known_units=True)


Parsed = tuple[np.ndarray, float, Mapping[str, np.ndarray]]  # local seconds, UTC offset in hours, columns


def _read_tmy3(text: str) -> Parsed:
    table, station = _pvlib().read_tmy3(io.StringIO(text))
    clock = table["Time (HH:MM)"].str.split(":", expand=True).astype(int)
    # The index of pvlib moves 29 February onto 1 March, where it meets the values of that day
    days = pd.to_datetime(table["Date (MM/DD/YYYY)"], format="%m/%d/%Y")
    local_s = _seconds(days) + 3600 * clock[0].to_numpy() + 60 * clock[1].to_numpy()
    return local_s, float(station["TZ"]), _renamed(table, TMY3)


def _read_epw(text: str) -> Parsed:
    table, station = _pvlib().read_epw(io.StringIO(text))
    minutes = table["minute"].to_numpy()
    if np.isin(minutes, (0, 60)).all():  # hour 1 is the one that ends at 1:00
        minutes = np.full(len(table), 60)
    days = pd.to_datetime(table[["year", "month", "day"]])
    local_s = _seconds(days) + 3600 * (table["hour"].to_numpy() - 1) + 60 * minutes
    return local_s, float(station["TZ"]), _renamed(table, EPW)


def _read_tmy2(text: str) -> Parsed:
    """Not by pvlib, which gives all months the first one's year and cannot read a station of two words."""
    first, _, body = text.partition("\n")
    fields = TMY2_DATE | {name: place for name, (place, _) in TMY2.items()}
    table = pd.read_fwf(io.StringIO(body), colspecs=list(fields.values()), names=list(fields))
    days = pd.to_datetime(table[["year", "month", "day"]].assign(year=table["year"] + 1900))
    measured = {name: table[name].to_numpy(np.float64) * factor for name, (_, factor) in TMY2.items()}
    return _seconds(days) + 3600 * table["hour"].to_numpy(), float(first[TMY2_ZONE]), measured


READERS: dict[str, Callable[[str], Parsed]] = {"tmy3": _read_tmy3, "epw": _read_epw, "tmy2": _read_tmy2}


def _renamed(table: pd.DataFrame, own: Mapping[str, tuple[str, float]]) -> dict[str, np.ndarray]:
    sources = {name: own.get(name, (name, 1.0)) for name in VARIABLES}
    return {
        name: pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64) * factor
        for name, (column, factor) in sources.items()
    }


def _seconds(days: Any) -> np.ndarray:
    seconds: np.ndarray = days.to_numpy().astype("datetime64[s]").astype(np.int64).astype(np.float64)
    return seconds


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _pvlib() -> Any:
    try:
        return importlib.import_module("pvlib.iotools")
    except ImportError as error:
        raise ValueError("TMY3 and EPW need the package pvlib: pip install 'seqssl[weather]'") from error
