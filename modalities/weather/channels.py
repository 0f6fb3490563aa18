"""Which columns of a table are measured, and which count, say what others are, or never change."""

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from modalities.reading.tables import shown
from modalities.reading.times import EPOCH_S, is_compact
from modalities.weather.identities import rows_of

LABEL = re.compile(  # a name of what somebody says of the values beside it
    r"(?:^|[\W_])(?:labels?|class|(?:is_?)?anomal(?:y|ies)|changepoints?|flags?|qc|qn|qf|"
    r"quality[\W_]?(?:flag|code|control)|status)(?:$|[\W_\d])|^quality$",
    re.IGNORECASE,
)
DAYS_IN_NUMBERS = 1e7  # 20200101
STEADY = 0.95  # of the steps of a column that counts are the same
USUAL = 0.5  # where all of them go one way
LOOKED_AT = 1000  # cells


def channels(
    frame: pd.DataFrame, taken: Collection[str], seconds: np.ndarray, ids: np.ndarray
) -> tuple[list[str], str]:
    """The columns of numbers that are measured, and what to say of those that are left out.

    A column is one of numbers if most of its known cells are; `taken` are those of times and ids.
    """
    kept: list[str] = []
    left: dict[str, list[str]] = {"labels by name": [], "counting": [], "never changing": []}
    for name in map(str, frame.columns):
        numbers = None if name in taken else _numbers(frame[name])
        if numbers is None:
            continue
        known = numbers[np.isfinite(numbers)]
        if len(np.unique(known)) < 2:
            left["never changing"].append(name)
        elif is_label(name):
            left["labels by name"].append(name)
        elif _counts(frame[name], numbers, seconds, ids) or (
            known.min() > DAYS_IN_NUMBERS and is_compact(known)
        ):
            left["counting"].append(name)
        else:
            kept.append(name)
    said = ", ".join(f"{shown(names)} ({why})" for why, names in left.items() if names)
    return kept, f"left out: {said}" if said else ""


def is_label(name: str) -> bool:
    """Whether a column is called as those are that say something of the values beside them."""
    return LABEL.search(name) is not None


def _numbers(column: "pd.Series[Any]") -> np.ndarray | None:
    """A column as numbers, NaN for what is none; None where most known cells are none."""
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return None
    known = column.dropna()
    if not pd.api.types.is_numeric_dtype(column):
        some = known.iloc[:: max(1, len(known) // LOOKED_AT)]
        if not some.map(type).isin([str, int, float]).all():
            return None
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().sum() <= len(known) / 2:
        return None
    found: np.ndarray = numbers.to_numpy(np.float64, na_value=np.nan)
    return found


def _counts(column: "pd.Series[Any]", numbers: np.ndarray, seconds: np.ndarray, ids: np.ndarray) -> bool:
    """Whether whole numbers go on by one step from row to row of a series, or with its times."""
    whole = pd.api.types.is_integer_dtype(column) or float(np.nanmin(numbers)) > EPOCH_S[0]
    steps, passed = (
        np.concatenate([np.empty(0), *(np.diff(values[rows]) for rows in rows_of(ids))])
        for values in (numbers, seconds)
    )
    known = np.isfinite(steps) & np.isfinite(passed)
    steps, passed = steps[known], passed[known]
    usual = float(np.median(steps)) if len(steps) else 0.0
    if not whole or not usual:
        return False
    same = float((steps == usual).mean())
    pace = float(np.median(steps) / np.median(passed)) if np.median(passed) else 0.0
    with_time = float((np.abs(steps - pace * passed) <= 1e-3 * np.abs(steps)).mean())
    return max(same, with_time) >= STEADY or (same > USUAL and bool((steps * usual > 0).all()))
