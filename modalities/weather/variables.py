"""Weather variables whose names, units and physical limits are known; names are those of pvlib."""

import numpy as np

# Name -> (unit, lowest, highest). Limits lie beyond all records on land: what exceeds them was not measured.
VARIABLES = {
    "temp_air": ("degC", -95.0, 60.0),
    "temp_dew": ("degC", -100.0, 40.0),
    "relative_humidity": ("%", 0.0, 110.0),
    "pressure": ("hPa", 300.0, 1100.0),  # of the station, not reduced to sea level
    "wind_speed": ("m/s", 0.0, 90.0),
    "wind_direction": ("degrees", 0.0, 360.0),
    "ghi": ("W/m2", -20.0, 2000.0),  # pyranometers read a little below zero at night
    "dni": ("W/m2", -20.0, 1500.0),
    "dhi": ("W/m2", -20.0, 1500.0),
    "total_sky_cover": ("tenths", 0.0, 10.0),
    "opaque_sky_cover": ("tenths", 0.0, 10.0),
}

MOST = 1e18  # nothing that is measured is larger, and squares of more do not fit into float32


def units_of(columns: tuple[str, ...]) -> str:
    """The unit of each column whose unit is known, by name, for the spec."""
    known = [f"{name} in {VARIABLES[name][0]}" for name in columns if name in VARIABLES]
    others = ["others as in the source" if known else "as in the source"] * (len(known) < len(columns))
    return ", ".join(known + others)


def numbers_of(missing_values: tuple[str, ...]) -> tuple[float, ...]:
    """The setting as numbers. Raises ValueError for what is none."""
    try:
        return tuple(map(float, missing_values))
    except ValueError as error:
        raise ValueError(f"missing_values must be numbers: {error}") from error


def clean(
    values: np.ndarray,
    columns: tuple[str, ...],
    *,
    sentinels: tuple[float, ...],
    limits: bool,
    known_units: bool,
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """A copy of `values` (n c) with NaN for sentinels and impossible values, and their counts by column.

    `known_units`: the format fixes the units, so a column wholly outside its limits was not measured. In
    other sources it has other units, and is refused.
    """
    values = values.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    counts: dict[str, dict[str, int]] = {}
    for column, name in zip(values.T, columns, strict=True):
        absurd = np.abs(column) > MOST
        column[absurd] = np.nan
        _count(counts, "absurd_values", name, absurd)
        found = np.isin(column, sentinels)
        column[found] = np.nan
        _count(counts, "missing_values", name, found)
        if name not in VARIABLES or not (limits or known_units):
            continue
        unit, lowest, highest = VARIABLES[name]
        outside = (column < lowest) | (column > highest)  # NaN is neither
        present = int(np.isfinite(column).sum())
        if outside.sum() > present / 2 and not known_units:
            raise ValueError(
                f"{name} is outside [{lowest:g}, {highest:g}] {unit} in {outside.sum()} of {present} values, "
                f"for example {column[outside][0]:g}: convert its unit, add the value to "
                f"modality.missing_values, or set modality.limits=false"
            )
        column[outside] = np.nan
        _count(counts, "outside_limits", name, outside)
    return values, counts


def _count(counts: dict[str, dict[str, int]], kind: str, name: str, found: np.ndarray) -> None:
    if found.any():
        counts.setdefault(kind, {})[name] = int(found.sum())
