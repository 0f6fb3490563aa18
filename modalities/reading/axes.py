"""Which columns without names are the axes of an accelerometer."""

from collections.abc import Sequence

import numpy as np

from modalities.reading.quantities import G_MS2

AXES = 3
AT_REST = (1.0, G_MS2, 1000.0)  # what a body at rest feels, in g, m/s2 and mg
NEAR, STEADY = 0.2, 0.3  # how far the mean norm may be from that, and its deviation, as a share of it
SURELY = 2.0  # times as steady as what shares a column with them


def likely_axes(rows: Sequence[Sequence[str]], places: Sequence[int]) -> list[int]:
    """The three neighbouring columns whose norm varies least, around gravity; [] where others may be it.

    A column that stays the same is no axis: an activity, or a sensor that is dead.
    """
    values = np.array([[_number(cells, place) for place in places] for cells in rows]).reshape(len(rows), -1)
    found: list[tuple[float, int]] = []
    for first in range(len(places) - AXES + 1):
        three = values[:, first : first + AXES]
        three = three[np.isfinite(three).all(axis=1)]
        if (
            places[first + AXES - 1] - places[first] != AXES - 1
            or len(three) < 2
            or not np.ptp(three, axis=0).all()
        ):
            continue
        norms = np.linalg.norm(three, axis=1)
        usual, spread = float(norms.mean()), float(norms.std())
        if any(abs(usual - one) <= NEAR * one for one in AT_REST) and spread <= STEADY * usual:
            found.append((spread / usual, first))
    spread, best = min(found, default=(0.0, -1))
    rivals = [other for other, first in found if 0 < abs(first - best) < AXES]
    if best < 0 or any(other < SURELY * spread for other in rivals):
        return []
    return [*places[best : best + AXES]]


def _number(cells: Sequence[str], place: int) -> float:
    """A cell as a number, NaN where it is none or not there."""
    try:
        return float(cells[place].strip().strip('"').replace(",", "."))
    except (ValueError, IndexError):
        return float("nan")
