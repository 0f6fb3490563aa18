"""NetCDF and Zarr through xarray: a series for each place that the variables know beside time."""

import gc
import importlib
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from modalities.reading.quantities import unit_of
from modalities.weather.series import Found, Series

TIME_NAMES = ("time", "valid_time", "date", "datetime")
MOST_PLACES = 200_000
MOST_PACKED = 1000  # bytes of values for one of the file
LOADED_BYTES = 2**30  # a file up to this size is read once for all its places, a larger one once for each


def find(
    path: Path, name: str, group: str, columns: tuple[str, ...], time_column: str | None
) -> Iterator[Found]:
    """One series for each combination of the other dimensions of the chosen variables."""
    _loaded.cache_clear()
    with _open(path) as dataset:
        names = [str(name) for name in dict.fromkeys([*dataset.coords, *dataset.dims])]
        time = time_column or next((n for n in TIME_NAMES if n in names), "")
        if time not in dataset.coords:
            raise ValueError(f"no time coordinate among {', '.join(names)}: set modality.time_column")
        (steps,) = dataset[time].dims
        timed = {str(name): v for name, v in dataset.data_vars.items() if steps in v.dims}
        variables = {name: v for name, v in timed.items() if v.dtype.kind in "fiu"}
        chosen = [variables[column] for column in columns if column in variables]
        places = list(dict.fromkeys(str(dim) for v in chosen for dim in v.dims if dim != steps))
        _check_size(path, chosen, [dataset.sizes[place] for place in places])
        for index in product(*(range(dataset.sizes[place]) for place in places)):
            where = dict(zip(places, index, strict=True))
            label = ",".join(f"{dim}={_shown(dataset, dim, number)}" for dim, number in where.items())
            yield Found(
                f"{name}/{label}" if label else name,
                tuple(variables),
                partial(read, path, time, columns, where),
                group=label or group,
            )


def _check_size(path: Path, chosen: Sequence[Any], sizes: Sequence[int]) -> None:
    """`ValueError` where a file claims far more than it holds, or has more places than can be listed."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    held, claimed = sum(file.stat().st_size for file in files), sum(variable.nbytes for variable in chosen)
    if claimed > LOADED_BYTES and claimed > MOST_PACKED * held:
        raise ValueError(f"it says that it holds {claimed:,} bytes of values, in a file of {held:,} bytes")
    if math.prod(sizes) > MOST_PLACES:
        raise ValueError(
            f"{math.prod(sizes):,} places, more than {MOST_PLACES:,}: choose some first, for example "
            "every tenth"
        )


def read(path: Path, time: str, columns: tuple[str, ...], where: dict[str, int]) -> Series:
    """The series of one place; times are UTC, fill values and scale factors are xarray's business."""
    whole = _loaded(path, time, columns)
    if whole is not None:
        return _series(whole, time, columns, where)
    with _open(path) as dataset:
        return _series(dataset, time, columns, where)


def _series(dataset: Any, time: str, columns: tuple[str, ...], where: dict[str, int]) -> Series:
    times = dataset[time].values
    if times.dtype.kind != "M":
        raise ValueError(f"{time} holds no dates of the standard calendar")
    seconds = (times - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    values = np.full((len(times), len(columns)), np.nan)
    units = {}
    for place, column in enumerate(columns):
        if column in dataset:
            variable = dataset[column]
            values[:, place] = variable.isel({k: v for k, v in where.items() if k in variable.dims}).values
            low, high = _valid_range(variable)
            values[(values[:, place] < low) | (values[:, place] > high), place] = np.nan
            units[column] = unit_of(str(variable.attrs.get("units", "")))
    known = {column: unit for column, unit in units.items() if unit}
    return Series(seconds.astype(np.float64), values, units=known)


def _valid_range(variable: Any) -> tuple[float, float]:
    """The values that the file says are valid; CF gives them as they are packed."""
    low, high = variable.attrs.get(
        "valid_range", (variable.attrs.get("valid_min"), variable.attrs.get("valid_max"))
    )
    scale = float(variable.encoding.get("scale_factor", 1.0))
    offset = float(variable.encoding.get("add_offset", 0.0))
    low, high = (None if end is None else float(end) * scale + offset for end in (low, high))
    return -np.inf if low is None else low, np.inf if high is None else high


@lru_cache(maxsize=1)
def _loaded(path: Path, time: str, columns: tuple[str, ...]) -> Any:
    """The chosen variables in memory, for the next places of the same file; None where they are too large."""
    with _open(path) as dataset:
        chosen = dataset[[column for column in columns if column in dataset]]
        return chosen.load() if chosen.nbytes <= LOADED_BYTES else None


def _open(path: Path) -> Any:
    try:
        xarray: Any = importlib.import_module("xarray")
    except ImportError as error:
        raise ValueError("NetCDF and Zarr need the package xarray: pip install 'seqssl[weather]'") from error
    options = {"engine": "zarr", "consolidated": False} if path.suffix.lower() == ".zarr" else {}
    with _quiet_destructors():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of units and calendars that we do not read
                return xarray.open_dataset(path, decode_timedelta=False, **options)
        except Exception as error:  # damaged headers fail anywhere in three libraries
            words = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        gc.collect()  # of what is half open, which the error has held until here
    raise ValueError(f"not readable as {path.suffix[1:]}: damaged, or not what its name says ({words})")


@contextmanager
def _quiet_destructors() -> Iterator[None]:
    """No traces of objects that fail when they go, as a file of h5netcdf does that was never open."""
    usual = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = usual


def _shown(dataset: Any, dim: str, number: int) -> str:
    if dim not in dataset.coords:
        return str(number)
    value = dataset[dim].values[number]
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value).strip()
