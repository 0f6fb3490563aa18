"""From a recording to windows of one rate, with a report of what was found and left out."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from modalities.wearables import signals, units
from modalities.wearables.recordings import AXES, Recording
from seqssl import Rows

SHORTEST_S = 2.0  # of a whole recording: a handful of frames, more than one masked span
CONSTANT_S = 10.0  # equal samples for so long are no measurement
LEAST_RATE_HZ, MOST_RATE_HZ = 1.0, 1000.0
MOST_WINDOW_S = 86_400.0
FULL_WEIGHT_G = 0.1  # mean amplitude deviation of brisk walking; more movement does not weigh more
NOTICED = 0.01  # a share of the samples
MOST_LATE = 0.1  # a clock that stands still or goes back at more samples than this cannot be trusted


@dataclass(frozen=True)
class Windowing:
    """The settings that concern samples, whatever file they come from, and what is done by them."""

    rate_hz: float
    window_s: float
    min_window_s: float
    min_observed: float
    units: str
    scale: float | None
    gyroscope_units: str
    max_g: float
    calibrate: bool
    nonwear_minutes: float
    weight_floor: float
    segments: bool = False  # whether rows say the label of each step, beside their own

    def __post_init__(self) -> None:
        if not LEAST_RATE_HZ <= self.rate_hz <= MOST_RATE_HZ:
            raise ValueError(
                f"modality.rate_hz={self.rate_hz} must lie in [{LEAST_RATE_HZ:g}, {MOST_RATE_HZ:g}]"
            )
        if not 0 < self.min_window_s <= self.window_s:
            raise ValueError(f"min_window_s={self.min_window_s} must lie in (0, window_s={self.window_s}]")
        if self.steps(self.min_window_s) < 2 or self.window_s > MOST_WINDOW_S:
            raise ValueError(
                f"modality.min_window_s={self.min_window_s} and window_s={self.window_s} must lie in "
                f"[{2 / self.rate_hz:g}, {MOST_WINDOW_S:g}], two steps to a day"
            )
        for name in ("max_g", "nonwear_minutes", "scale"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("min_observed", "weight_floor"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in (0, 1]")

    def steps(self, seconds: float) -> int:
        """Input steps in so many seconds."""
        return round(seconds * self.rate_hz)

    def rows(self, recording: Recording) -> Rows:
        """The windows worth keeping; ValueError where there is none."""
        ordered, num_late = _in_order(recording)
        clock = signals.Clock.of(ordered.times)
        shortened, left_out = self._shortened(ordered.times)
        values, report = self._values(replace(ordered, times=shortened), clock)
        observed = int(np.isfinite(values).sum()) / ((len(values) + int(left_out[-1])) * values.shape[1])
        report["observed_share"] = round(observed, 4)
        rows, counts = self._cut(values, ordered, clock, shortened, left_out)
        counts["little_observed"] += int(left_out[-1]) // self.steps(self.window_s)
        steps = np.diff(ordered.times)
        gaps = steps[steps > clock.longest_s]
        quality = {
            "seconds": round(float(ordered.times[-1]), 3),
            "samples": len(recording.times),
            "source_rate_hz": round(clock.rate_hz, 3),
            "clock": "regular" if clock.regular else "irregular",
            "late_samples": num_late,
            "gaps": len(gaps),
            "gap_s": round(float(gaps.sum()), 3),
            **report,
            "windows": counts,
            "notes": self._notes(clock),
            **recording.facts,
        }
        if not rows:
            raise ValueError(self._nothing(quality))
        readings = [*recording.readings, f"the accelerometer in {report['units']}"]
        readings.append(f"{clock.rate_hz:.4g} samples a second")
        if ordered.start is not None:
            readings.append(f"recorded from {ordered.start.isoformat(timespec='seconds')} on")
        return Rows(rows, quality, readings, _dropped(quality))

    def _values(
        self, recording: Recording, clock: signals.Clock
    ) -> tuple[Float[np.ndarray, "n c"], dict[str, Any]]:
        """All channels at the new rate, NaN where nothing was measured, and what was found on the way."""
        times = recording.times
        num_steps = math.floor(times[-1] * self.rate_hz + 1e-6) + 1

        def resampled(values: np.ndarray) -> np.ndarray:
            return signals.resample(times, values, clock, self.rate_hz, num_steps)

        stuck = signals.constant(times, recording.accelerometer, CONSTANT_S)
        if stuck.all():
            raise ValueError("the accelerometer is constant: a stuck sensor, or columns of something else")
        measured = np.where(stuck[:, None], np.float32(np.nan), recording.accelerometer)
        scale = self.scale if recording.scale is None else recording.scale
        fixed = recording.scale is not None
        measured, unit = units.in_g(
            measured, self.units, scale, recording.units, fixed=fixed, together=recording.together
        )
        measured, counts = _cleaned(measured, self.max_g, "accelerometer", "g")
        counts["missing_samples"] -= int(stuck.sum())
        values, calibration = resampled(measured), {"applied": False, "reason": "modality.calibrate=false"}
        if self.calibrate:
            values, calibration = signals.calibrated(values, self.rate_hz)
        idle = signals.not_worn(values, self.rate_hz, self.nonwear_minutes)
        report = {
            "units": unit,
            "accelerometer": {**counts, "constant_samples": int(stuck.sum())},
            "calibration": calibration,
            "nonwear_s": round(int((idle & np.isfinite(values[:, 0])).sum()) / self.rate_hz, 3),
        }
        if recording.gyroscope is not None:
            stated = recording.gyroscope_units
            turned = units.in_rad_s(recording.gyroscope, self.gyroscope_units, measured, stated)
            turned, report["gyroscope"] = _cleaned(turned, units.MOST_RAD_S, "gyroscope", "rad/s")
            values = np.concatenate([values, resampled(turned)], axis=1)
        values[idle] = np.nan
        return values, report

    def _shortened(
        self, times: Float[np.ndarray, "t"]
    ) -> tuple[Float[np.ndarray, "t"], Int[np.ndarray, "t"]]:
        """Times without the inside of long gaps, and for each how many steps were left out before it.

        Whole windows and blocks are left out, and more stays than non-wear takes: all else is as it was.
        """
        period = math.lcm(self.steps(self.window_s), max(1, self.steps(signals.BLOCK_S)))
        gaps = np.diff(times, prepend=times[0]) - 60 * self.nonwear_minutes
        whole = np.maximum(0, np.floor(gaps * self.rate_hz / period) - 2)
        left_out = whole.astype(np.int64).cumsum() * period
        return times - left_out / self.rate_hz, left_out

    def _cut(
        self,
        values: Float[np.ndarray, "n c"],
        recording: Recording,
        clock: signals.Clock,
        shortened: Float[np.ndarray, "t"],
        left_out: Int[np.ndarray, "t"],
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Windows end to end, the last as long as it is, and how many were kept or why not.

        The end of a recording may be left out, a whole recording not: it may be all that there is of a label.
        """
        size, least = self.steps(self.window_s), self.steps(self.min_window_s)
        if len(values) < least:
            least = self.steps(min(SHORTEST_S, self.min_window_s))
        # A sample stands for a whole step: ten seconds at 10 Hz are 9.9 s from the first to the last.
        least -= max(0, math.ceil(self.rate_hz / clock.rate_hz) - 1)
        rows, counts = [], {"kept": 0, "short": 0, "little_observed": 0}
        for first in range(0, len(values), size):
            part = values[first : first + size]
            following = int(np.searchsorted(shortened, (first - 0.5) / self.rate_hz))
            start_s = (first + int(left_out[min(following, len(left_out) - 1)])) / self.rate_hz
            if len(part) < least:
                counts["short"] += 1
            elif np.isfinite(part).mean() < self.min_observed:
                counts["little_observed"] += 1
            else:
                counts["kept"] += 1
                moved = min(1.0, signals.movement_g(part[:, :3]) / FULL_WEIGHT_G)
                row = {"part": f"{start_s:.12g}", "length": len(part), "values": part, "start_s": start_s}
                row["weight"] = self.weight_floor + (1 - self.weight_floor) * moved
                if self.segments:
                    row["segments"] = self._segments(recording, start_s, len(part))
                rows.append(row | _known(recording, start_s, len(part) / self.rate_hz))
        return rows, counts

    def _segments(self, recording: Recording, start_s: float, num_steps: int) -> str:
        """Runs of steps with one label, each step with that of the last sample before it, as JSON."""
        if recording.labels is None:
            return "[]"
        times = start_s + np.arange(num_steps) / self.rate_hz
        places = np.searchsorted(recording.times, times + 1e-9, side="right") - 1
        labels = recording.labels[places.clip(0)]
        edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), num_steps]
        parts = [[start, end, str(labels[start])] for start, end in pairwise(edges) if labels[start] != ""]
        return json.dumps(parts, ensure_ascii=False)

    def _notes(self, clock: signals.Clock) -> list[str]:
        if clock.rate_hz > 0.98 * self.rate_hz:
            return []
        return [f"upsampled: nothing faster than {clock.rate_hz / 2:.3g} Hz was recorded"]

    def _nothing(self, quality: Mapping[str, Any]) -> str:
        """Why no window was kept."""
        seconds = quality["seconds"]
        if not quality["windows"]["little_observed"]:
            return f"{seconds:g} s long, shorter than {min(SHORTEST_S, self.min_window_s):g} s"
        return (
            f"no window is observed for modality.min_observed={self.min_observed:g} of its time: of "
            f"{seconds:g} s {quality['observed_share']:.1%} are, {quality['nonwear_s']:g} s were not worn, "
            "the rest is gaps and bad values"
        )


def _dropped(quality: Mapping[str, Any]) -> list[str]:
    """What a person should see: what was left out where it is more than one sample in a hundred."""
    samples = quality["samples"]
    sensor = quality["accelerometer"]
    kinds = {
        "missing_samples": "missing values",
        "absurd_samples": "accelerations beyond modality.max_g",
        "constant_samples": "values that stand still",
    }
    counts = {words: sensor[kind] for kind, words in kinds.items()}
    counts["times that go back or are repeated"] = quality["late_samples"]
    return [
        f"{count} of {samples} samples are left out: {words}"
        for words, count in counts.items()
        if count > NOTICED * samples
    ]


def _in_order(recording: Recording) -> tuple[Recording, int]:
    """The samples that are later than all before, from time 0, and how many are not.

    A gyroscope with times of its own is brought to those of the accelerometer.
    """
    later = _later(recording.times)
    times = recording.times[later]
    if len(times) < 2:
        raise ValueError("fewer than two samples")
    start = None if recording.start is None else recording.start + pd.Timedelta(seconds=float(times[0]))
    gyroscope = recording.gyroscope
    if gyroscope is not None and recording.gyroscope_times is not None:
        own = _later(recording.gyroscope_times)
        if own.sum() < 2:
            raise ValueError("the gyroscope has fewer than two samples: set modality.gyroscope=false")
        gyroscope = signals.brought(recording.gyroscope_times[own], gyroscope[own], times)
    elif gyroscope is not None:
        gyroscope = gyroscope[later]
    ordered = replace(
        recording,
        accelerometer=recording.accelerometer[later],
        gyroscope=gyroscope,
        gyroscope_times=None,
        labels=None if recording.labels is None else recording.labels[later],
        times=times - times[0],
        start=start,
    )
    return ordered, int((~later).sum())


def _later(times: Float[np.ndarray, "t"]) -> Bool[np.ndarray, "t"]:
    """Which times are later than all before; ValueError where too many are not."""
    later = signals.increasing(times)
    num_late = int((~later).sum())
    if num_late <= MOST_LATE * len(later):
        return later
    known = times[np.isfinite(times)]
    falls = -np.diff(known)
    falls = falls[falls > 0]
    advice = "where samples are regular, say so: modality.time_column=null modality.source_rate_hz=50"
    if int((known < np.maximum.accumulate(known)).sum()) > NOTICED * len(later):
        advice = "sort them, or call the column that tells several devices apart 'device'"
        if len(falls) == 1:
            advice = (
                f"they go back once, by {falls[0]:.6g} s: where that is the end of summer time, write them "
                f"in UTC or with their offset (sorting mixes two hours); else {advice}"
            )
    raise ValueError(
        f"{num_late} of {len(later)} times are missing, repeated or earlier than one before: the clock "
        f"is too coarse, or the rows are out of order; {advice}"
    )


def _known(recording: Recording, start_s: float, seconds: float) -> dict[str, str]:
    """When a window began, "" where no date is known, and its label where the file has labels."""
    known = {"start": ""}
    if recording.start is not None:
        start = recording.start + pd.Timedelta(seconds=start_s)
        known["start"] = str(start.isoformat(timespec="milliseconds"))
    if recording.labels is not None:
        first, last = np.searchsorted(recording.times, [start_s, start_s + seconds])
        known["label"] = signals.most_frequent(recording.labels[first:last])
    return known


def _cleaned(
    values: Float[np.ndarray, "t 3"], most: float, sensor: str, unit: str
) -> tuple[Float[np.ndarray, "t 3"], dict[str, Any]]:
    """Samples that cannot be are NaN, with counts; ValueError for a dead axis, or where nothing is left."""
    missing = ~np.isfinite(values).all(axis=1)
    absurd = ~missing & (np.abs(values) > most).any(axis=1)
    values = np.where((missing | absurd)[:, None], np.float32(np.nan), values)
    kept = values[~(missing | absurd)]
    if len(kept) < 2:
        raise ValueError(
            f"the {sensor} has no usable samples: {missing.sum()} are missing, {absurd.sum()} beyond "
            f"{most:g} {unit}"
        )
    for axis, extent in zip(AXES, np.ptp(kept, axis=0), strict=True):
        if extent == 0:
            raise ValueError(
                f"axis {axis} of the {sensor} never changes: a dead sensor, or a column of something else"
            )
    return values, {"missing_samples": int(missing.sum()), "absurd_samples": int(absurd.sum())}
