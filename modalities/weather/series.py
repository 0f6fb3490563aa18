"""Measurements of one place as they come, on a regular grid, and cut where they stop."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from modalities.weather.clock import MONTH_S, freq_of, usual_step

SAME_VALUE = 1e-7  # relative to its size: float32 knows no smaller change
SAME_STEP = (0.9, 1.1)  # a median step within this share of the wanted one is taken for it


@dataclass(frozen=True, eq=False)
class Series:
    """What a reader gives: any order, any step, gaps and repetitions included."""

    times_s: np.ndarray  # (n,) seconds since 1970 in UTC; NaN = unreadable
    values: np.ndarray  # (n, c) in the order of the columns asked for; NaN = missing
    utc_offset_s: float = 0.0  # of local standard time
    label: str = ""
    known_units: bool = False  # the format fixes them, see `variables`
    undated: bool = False  # its times only count
    judged: bool = False  # an instance of an archive, over all of which it was judged what never changes
    quality: Mapping[str, Any] = field(default_factory=dict)
    readings: tuple[str, ...] = ()  # how the file was understood, in sentences
    notices: tuple[str, ...] = ()  # what was odd
    units: Mapping[str, str] = field(default_factory=dict)  # of the columns whose unit the file says


@dataclass(frozen=True)
class Found:
    """A series that a scan has found, not yet read."""

    key: str
    names: tuple[str, ...]  # all numeric columns that it has
    read: Callable[[], Series]  # picklable
    group: str = ""
    split: str = ""
    amount: float = 0.0  # bytes, about
    notices: tuple[str, ...] = ()  # about the source
    said: tuple[tuple[str, str], ...] = ()  # columns of ids, and the one value that each has in all rows
    middles: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # where most first values lie


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells of a regular grid, ascending; not all of them have to be there."""

    cells: np.ndarray  # (n,) int64
    values: np.ndarray  # (n, c), 0 where not observed
    observed: np.ndarray  # (n, c) bool
    origin_s: float  # time of cell 0
    step_s: float
    source_step_s: float  # the usual one of what was read

    @property
    def times_s(self) -> np.ndarray:
        """The time of each cell."""
        times: np.ndarray = self.origin_s + self.cells * self.step_s
        return times

    def chosen(self, rows: np.ndarray) -> "Grid":
        """Some of the cells."""
        return replace(self, cells=self.cells[rows], values=self.values[rows], observed=self.observed[rows])


def to_grid(times_s: np.ndarray, values: np.ndarray, step_s: float, utc_offset_s: float) -> Grid:
    """The mean of all values of each cell, per channel; NaN counts for nothing.

    Values that come every `step_s` keep their phase, and each goes to the nearest cell. Values that come more
    often are averaged over the step that ends at the cell's time; steps begin at full ones of local time.
    Raises ValueError when values come less often, or months of unequal length would share a step.
    """
    usable = np.isfinite(times_s) & np.isfinite(values).any(axis=1)
    times_s, values = times_s[usable], values[usable]
    if len(times_s) == 0:
        raise ValueError("no value of the chosen columns with a readable time")
    distinct = np.unique(times_s)
    source_step_s = usual_step(distinct) or step_s
    if source_step_s > SAME_STEP[1] * step_s:
        raise ValueError(
            f"there is one value every {freq_of(source_step_s)}, modality.freq asks for one every "
            f"{freq_of(step_s)}: set modality.freq={freq_of(source_step_s)}"
        )
    if source_step_s >= SAME_STEP[0] * step_s:
        origin_s = _phase(times_s, step_s)
        cells = np.rint((times_s - origin_s) / step_s).astype(np.int64)
        _check_months(distinct, origin_s, step_s, source_step_s)
    else:
        origin_s = -utc_offset_s
        cells = np.ceil((times_s - origin_s) / step_s - 1e-6).astype(np.int64)
    found, places = np.unique(cells, return_inverse=True)
    present = np.isfinite(values)
    counts = np.stack([np.bincount(places, channel, len(found)) for channel in present.T], axis=1)
    sums = [np.bincount(places, channel, len(found)) for channel in np.where(present, values, 0.0).T]
    means = np.stack(sums, axis=1) / np.maximum(counts, 1)
    return Grid(found, means, counts > 0, origin_s, step_s, source_step_s)


def _check_months(times_s: np.ndarray, origin_s: float, step_s: float, month_s: float) -> None:
    """ValueError where months of a calendar, or several of them, do not follow one another step by step."""
    if round(month_s / MONTH_S) * MONTH_S != month_s:
        return  # steps of one length
    cells, months = np.rint((times_s - origin_s) / step_s), np.rint((times_s - times_s[0]) / month_s)
    if (np.diff(cells) != np.diff(months)).any():
        raise ValueError(
            f"with modality.freq={freq_of(step_s)} some months share a step, or leave one out: set "
            f"modality.freq={freq_of(month_s)}"
        )


def _phase(times_s: np.ndarray, step_s: float) -> float:
    """The usual place of times within a step, to the microsecond: the median around their circular mean."""
    mean_s = float(np.angle(np.exp(2j * np.pi * (times_s / step_s % 1)).mean())) / (2 * np.pi) * step_s
    away = (times_s - mean_s + step_s / 2) % step_s - step_s / 2
    return round(mean_s + float(np.median(away)), 6)


def without_constants(grid: Grid) -> tuple[Grid, np.ndarray]:
    """Channels that never change are not observed: they say nothing, and a dead sensor looks like this.

    Also returns which they are; what has no value at all is not among them. Raises ValueError when all are.
    """
    if len(grid.cells) == 1:
        raise ValueError(
            f"all values lie within one step of {freq_of(grid.step_s)}: modality.freq is too long, or the "
            "times have another unit"
        )
    lowest = np.where(grid.observed, grid.values, np.inf).min(axis=0)
    highest = np.where(grid.observed, grid.values, -np.inf).max(axis=0)
    # Not equality: means of one value, repeated, differ in their last digit
    constant = grid.observed.any(axis=0) & (highest - lowest <= SAME_VALUE * np.abs(highest))
    observed = grid.observed & ~constant
    if not observed.any():
        raise ValueError("no channel ever changes: dead sensors, or constant columns")
    kept = replace(grid, values=grid.values * observed, observed=observed)
    return kept.chosen(observed.any(axis=1)), constant


def segments(grid: Grid, max_gap_steps: int) -> Iterator[Grid]:
    """Parts between gaps of more than `max_gap_steps` missing steps; the shorter gaps become missing rows."""
    breaks = np.flatnonzero(np.diff(grid.cells) > max_gap_steps + 1) + 1
    for rows in np.split(np.arange(len(grid.cells)), breaks):
        part = grid.chosen(rows)
        places = part.cells - part.cells[0]
        shape = (int(places[-1]) + 1, grid.values.shape[1])
        values, observed = np.zeros(shape), np.zeros(shape, bool)
        values[places], observed[places] = part.values, part.observed
        cells = np.arange(shape[0]) + part.cells[0]
        yield replace(grid, cells=cells, values=values, observed=observed)


def pieces(segment: Grid, max_steps: int) -> Iterator[Grid]:
    """A segment in the fewest pieces of at most `max_steps`, of like length."""
    num_pieces = -(-len(segment.cells) // max_steps)
    for rows in np.array_split(np.arange(len(segment.cells)), num_pieces):
        yield segment.chosen(rows)


def disorder(times_s: np.ndarray, values: np.ndarray) -> dict[str, int]:
    """How many times are unreadable, before their predecessor, or repeated, in the channel with the most."""
    unordered, repeated = 0, 0
    for channel in values.T:
        times = times_s[np.isfinite(channel) & np.isfinite(times_s)]
        unordered = max(unordered, int((np.diff(times) < 0).sum()))
        repeated = max(repeated, len(times) - len(np.unique(times)))
    counts = {
        "unreadable_times": int(np.isnan(times_s).sum()),
        "unordered_times": unordered,
        "repeated_times": repeated,
    }
    return {name: count for name, count in counts.items() if count}
