"""Weather variables whose names, units and physical limits are known; names are those of pvlib."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from modalities.reading.quantities import (
    TO_OURS,
    Quantity,
    converted,
    is_fraction,
    likely_unit,
    quantity_of,
    sentinels_in,
)

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

NOTICED = 0.01  # a share of a column's values
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


@dataclass(frozen=True)
class Cleaning:
    """The settings that decide what is no value, and in which unit the others are."""

    sentinels: tuple[float, ...]  # in every column
    detect_missing: bool
    limits: bool
    units: Mapping[str, str]  # by column, as the user says them


@dataclass
class Account:
    """What was dropped, by kind and column, and what of it a person should see."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    readings: list[str] = field(default_factory=list)

    def drop(self, kind: str, name: str, column: np.ndarray, found: np.ndarray, words: str = "") -> None:
        """Make the found values of a column NaN; said aloud where they are more than one in a hundred."""
        present = int(np.isfinite(column).sum())
        count = int(found.sum())
        column[found] = np.nan
        if count:
            before = self.counts.setdefault(kind, {}).get(name, 0)
            self.counts[kind][name] = before + count
        if words and count > NOTICED * present:
            self.notices.append(f"{name}: {count} of {present} values {words}")


def clean(
    values: np.ndarray,
    columns: tuple[str, ...],
    cleaning: Cleaning,
    *,
    known_units: bool,
    units: Mapping[str, str],
) -> tuple[np.ndarray, Account]:
    """A copy of `values` (n c) with NaN for sentinels and impossible values, in our units, and an account.

    `known_units`: the format fixes the units, so a column wholly outside its limits was not measured. In
    other sources it has other units, and is refused. `units` are those that the file itself says.
    """
    values = values.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    account = Account()
    for column, name in zip(values.T, columns, strict=True):
        for value in np.unique(column[np.abs(column) > MOST])[:3]:
            words = f"are {value:g}, which nothing that is measured can be"
            account.drop("absurd_values", name, column, column == value, words)
        account.drop("absurd_values", name, column, np.abs(column) > MOST)
        for value in cleaning.sentinels:
            words = f"are {value:g} and missing, by modality.missing_values"
            account.drop("missing_values", name, column, column == value, words)
        if cleaning.detect_missing:
            _drop_sentinels(column, name, account)
        said = cleaning.units.get(name, "" if known_units else units.get(name, ""))
        unit = _in_our_unit(column, name, said, asked=name in cleaning.units, account=account)
        known = Quantity(*VARIABLES[name]) if name in VARIABLES else quantity_of(name, unit)
        if known is not None and (cleaning.limits or known_units):
            stated = said if unit and name not in cleaning.units else ""
            _limit(column, name, known, account, known_units=known_units, stated=stated)
    return values, account


def _drop_sentinels(column: np.ndarray, name: str, account: Account) -> None:
    """Values that stand for a missing one; ValueError where most do, which only the user can know."""
    present = int(np.isfinite(column).sum())
    for value, count in sentinels_in(column):
        if count > present / 2:
            raise ValueError(
                f"{name} is {value:g} in {count} of {present} values, far from all others: if it stands "
                "for a "
                f"missing value, set modality.missing_values=[{value:g}], else modality.detect_missing=false"
            )
        words = f"are {value:g}, far from all others, and are taken for missing"
        account.drop("missing_values", name, column, column == value, words)


def _in_our_unit(column: np.ndarray, name: str, said: str, *, asked: bool, account: Account) -> str:
    """Convert a column whose unit is said; returns the unit that it then has, "" where none is known."""
    if name in VARIABLES:
        ours = VARIABLES[name][0]
    else:
        ours = (
            next((ours for ours, others in TO_OURS.items() if said in (ours, *others)), said)
            if asked
            else said
        )
    if not said or said == ours:
        return said
    try:
        column[:] = converted(column, said, ours)
    except ValueError:
        if asked:
            raise
        return ""  # a bracket that says something else
    account.readings.append(f"{name}: from {said} to {ours}")
    return ours


def _limit(
    column: np.ndarray, name: str, known: Quantity, account: Account, *, known_units: bool, stated: str
) -> None:
    """Drop what cannot have been measured; ValueError where the column seems to have another unit.

    `stated` is the unit that the file says, "" for none.
    """
    outside = (column < known.lowest) | (column > known.highest)  # NaN is neither
    present, count = int(np.isfinite(column).sum()), int(outside.sum())
    words = f"are outside [{known.lowest:g}, {known.highest:g}] {known.unit} and are taken for missing"
    if not known_units:
        if known.unit == "%" and is_fraction(column):
            raise ValueError(
                f"{name} never exceeds 1, which is no percent (%): set modality.units.{name}=fraction, or "
                "modality.limits=false"
            )
        other = likely_unit(column[np.isfinite(column)], known) if count > NOTICED * present else ""
        if other or count > present / 2:
            remedy = f"it looks like {other}: set modality.units.{name}={other}" if other else (
                f"for example {column[outside][0]:g}: convert its unit, add the value to "
                "modality.missing_values"
            )  # fmt: skip
            if other and stated:
                remedy = f"and the file says {stated}: if that is wrong, set modality.units.{name}={other}"
            raise ValueError(
                f"{name} is outside [{known.lowest:g}, {known.highest:g}] {known.unit} in {count} of "
                f"{present} values, "
                f"{remedy}, or set modality.limits=false"
            )
    account.drop("outside_limits", name, column, outside, words)
