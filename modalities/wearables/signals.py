"""What is done to a recording's samples: missing values, resampling, gravity calibration, non-wear.

Samples are arrays t c with times in seconds; a missing value is NaN. Sensors are treated apart, and all three
axes of a sensor are missing together: they are one vector, and a rotation mixes them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from modalities.reading.runs import equal_runs

BLOCK_S = 10.0  # windows in which a sensor is still or not (van Hees et al. 2014)
STILL_G = 0.013  # standard deviation of each axis in a still one (the same)
CALIBRATION_WINDOWS = (
    50  # still ones needed, in directions beyond DIRECTION_G both ways on each axis (as actipy)
)
DIRECTION_G = 0.3
CALIBRATED_MG = 10.0  # an error that remains above this means that the fit failed (the same)
IRREGULAR = 0.25  # a clock whose middle 90 % of steps differ by more than this from the median is irregular
GAP = 1.5  # usual long steps: one missing sample of a regular clock is a gap, a phone's uneven steps are none
MOST_DAYS = 90.0
RESAMPLED_STEPS = 2**16  # output steps made at once, to bound the memory of a recording of weeks
MARGIN_STEPS = 32  # computed on either side of them and thrown away: more than the filter's reach of 10


@dataclass(frozen=True)
class Clock:
    """How a recording's samples follow one another."""

    step_s: float  # the usual one
    longest_s: float  # a longer step is a gap
    regular: bool

    @property
    def rate_hz(self) -> float:
        """Samples per second."""
        return 1 / self.step_s

    @classmethod
    def of(cls, times: Float[np.ndarray, "t"]) -> "Clock":
        """Measured on increasing times; ValueError where no sensor counts like that."""
        steps = np.diff(times)
        low, usual, high = (float(step) for step in np.percentile(steps, [5, 50, 95]))
        if not 1 / 5000 <= usual <= 1:
            raise ValueError(
                f"its samples are {usual:.3g} s apart, as no accelerometer's are: is modality.time_unit "
                "right (s, ms, us or ns)?"
            )
        if times[-1] - times[0] > MOST_DAYS * 86_400:
            days = (times[-1] - times[0]) / 86_400
            raise ValueError(
                f"its times span {days:.0f} days, more than {MOST_DAYS:.0f}: the clock was set meanwhile"
            )
        longest = GAP * high
        regular = high - usual <= IRREGULAR * usual and usual - low <= IRREGULAR * usual
        return cls(float(steps[steps <= longest].mean()), longest, regular)


def increasing(times: Float[np.ndarray, "t"]) -> Bool[np.ndarray, "t"]:
    """True at times later than all before them; a repeated one, one that goes back, or NaN is not."""
    before = np.fmax.accumulate(np.concatenate([[-np.inf], times[:-1]]))
    later: np.ndarray = times > before
    return later


def constant(
    times: Float[np.ndarray, "t"], values: Float[np.ndarray, "t c"], least_s: float
) -> Bool[np.ndarray, "t"]:
    """True in runs of equal samples of at least `least_s`: an idle or stuck sensor, or a filled hole."""
    starts, ends = equal_runs(values)
    long = times[ends - 1] - times[starts] >= least_s
    return np.repeat(long, ends - starts)


def resample(
    times: Float[np.ndarray, "t"],
    values: Float[np.ndarray, "t c"],
    clock: Clock,
    rate_hz: float,
    num_steps: int,
) -> Float[np.ndarray, "n c"]:
    """The values at the times k / rate_hz, float32; NaN wherever the samples around are not both there.

    Each gap-free stretch is interpolated alone (cubic; linear where the clock is irregular) to a multiple of
    the rate and decimated by a zero-phase low-pass filter, so nothing crosses a gap and nothing aliases.
    """
    out = np.full((num_steps, values.shape[1]), np.nan, dtype=np.float32)
    oversampling = max(1, math.ceil(clock.rate_hz / rate_hz - 0.02))
    for first, last in _stretches(times, np.isfinite(values).all(axis=1), clock.longest_s):
        # A millionth of a step of tolerance: a rate of 1/3 s has no exact times.
        start = math.ceil(times[first] * rate_hz - 1e-6)
        stop = min(num_steps, math.floor(times[last] * rate_hz + 1e-6) + 1)
        for step in range(start, stop, RESAMPLED_STEPS):
            end = min(step + RESAMPLED_STEPS, stop)
            low, high = max(start, step - MARGIN_STEPS), min(stop, end + MARGIN_STEPS)
            fine = np.arange(low * oversampling, (high - 1) * oversampling + 1) / (oversampling * rate_hz)
            left = max(first, int(np.searchsorted(times, fine[0])) - MARGIN_STEPS)
            right = min(last + 1, int(np.searchsorted(times, fine[-1])) + MARGIN_STEPS)
            piece = _interpolated(times[left:right], values[left:right], fine, cubic=clock.regular)
            out[step:end] = _decimated(piece, oversampling)[step - low : end - low]
    return out


def brought(
    times: Float[np.ndarray, "t"], values: Float[np.ndarray, "t c"], wanted: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "n c"]:
    """A sensor's values at the increasing times of another one, float32; NaN in its gaps."""
    clock, rate_hz = Clock.of(times), Clock.of(wanted).rate_hz
    if clock.rate_hz > 1.02 * rate_hz:  # what is too fast for the other one's rate must not alias
        num_steps = math.floor((times[-1] - times[0]) * rate_hz + 1e-6) + 1
        values = resample(times - times[0], values, clock, rate_hz, num_steps)
        times = times[0] + np.arange(num_steps) / rate_hz
        clock = Clock(1 / rate_hz, GAP / rate_hz, regular=True)
    out = np.full((len(wanted), values.shape[1]), np.nan, dtype=np.float32)
    for first, last in _stretches(times, np.isfinite(values).all(axis=1), clock.longest_s):
        low = int(np.searchsorted(wanted, times[first], side="left"))
        high = int(np.searchsorted(wanted, times[last], side="right"))
        run = slice(first, last + 1)
        if high > low:
            out[low:high] = _interpolated(times[run], values[run], wanted[low:high], cubic=clock.regular)
    return out


def _stretches(
    times: Float[np.ndarray, "t"], there: Bool[np.ndarray, "t"], longest_s: float
) -> Iterator[tuple[int, int]]:
    """First and last index of runs of samples that are there with no gap between; a lone sample is none."""
    index = np.flatnonzero(there)
    broken = (np.diff(index) > 1) | (np.diff(times[index]) > longest_s)
    for run in np.split(index, np.flatnonzero(broken) + 1):
        if len(run) > 1:
            yield int(run[0]), int(run[-1])


def _interpolated(
    times: Float[np.ndarray, "t"],
    values: Float[np.ndarray, "t c"],
    wanted: Float[np.ndarray, "n"],
    *,
    cubic: bool,
) -> Float[np.ndarray, "n c"]:
    from scipy.interpolate import make_interp_spline  # scipy is slow to import, and `load` does without

    spline = make_interp_spline(times, values, k=min(3, len(times) - 1) if cubic else 1)
    interpolated: np.ndarray = spline(wanted.clip(times[0], times[-1]))
    return interpolated


def _decimated(values: Float[np.ndarray, "t c"], factor: int) -> Float[np.ndarray, "n c"]:
    if factor == 1 or len(values) < 2:  # one value cannot be mirrored: scipy would divide by zero
        return values[::factor]
    from scipy.signal import resample_poly

    # Beyond its ends a stretch goes on mirrored at the end point, since zeros would be a jump of 1 g.
    return np.asarray(resample_poly(values, 1, factor, axis=0, padtype="antireflect"))


def blocks(
    values: Float[np.ndarray, "t c"], rate_hz: float
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]:
    """Mean and standard deviation in whole windows of 10 s; NaN where any value is missing."""
    size = round(BLOCK_S * rate_hz)
    whole = len(values) // size * size
    windows = values[:whole].reshape(-1, size, values.shape[1])
    means = windows.mean(axis=1, dtype=np.float64)
    return means, np.sqrt(np.square(windows - means[:, None]).mean(axis=1))


def calibrated(
    values: Float[np.ndarray, "t 3"], rate_hz: float
) -> tuple[Float[np.ndarray, "t 3"], dict[str, Any]]:
    """Accelerations (g) with a gain and an offset per axis that bring still windows to 1 g, and a report.

    The sphere fit of van Hees et al. 2014 (doi 10.1152/japplphysiol.00421.2014), solved by robust least
    squares. Where it cannot be done well the values come back as they were, with the reason.
    """
    means, deviations = blocks(values, rate_hz)
    norms = np.linalg.norm(means, axis=1)
    still = (deviations < STILL_G).all(axis=1) & (np.abs(norms - 1) < 0.5)  # NaN is not still
    windows = means[still]
    report: dict[str, Any] = {"applied": False, "still_windows": len(windows), "error_before_mg": None}
    if len(windows):
        report["error_before_mg"] = round(_error_mg(windows), 2)
    if len(windows) < CALIBRATION_WINDOWS:
        return values, {**report, "reason": f"fewer than {CALIBRATION_WINDOWS} still windows of 10 s"}
    if (windows.max(axis=0) < DIRECTION_G).any() or (windows.min(axis=0) > -DIRECTION_G).any():
        return values, {**report, "reason": "still windows do not point both ways along every axis"}
    gain, offset = _sphere(windows)
    after = _error_mg(windows * gain + offset)
    report |= {
        "error_after_mg": round(after, 2),
        "gain": gain.round(5).tolist(),
        "offset_g": offset.round(5).tolist(),
    }
    if after > min(CALIBRATED_MG, _error_mg(windows)):
        return values, {**report, "reason": "the fit did not bring still windows near 1 g"}
    return (values * gain + offset).astype(values.dtype), {**report, "applied": True}


def _sphere(windows: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    from scipy.optimize import least_squares

    def distance(parameters: np.ndarray) -> np.ndarray:
        norms: np.ndarray = np.linalg.norm(windows * parameters[:3] + parameters[3:], axis=1)
        return norms - 1

    start = np.repeat([1.0, 0.0], 3)
    fitted = least_squares(distance, start, loss="soft_l1", f_scale=CALIBRATED_MG / 1000).x
    return fitted[:3], fitted[3:]


def _error_mg(windows: Float[np.ndarray, "n 3"]) -> float:
    return float(np.abs(np.linalg.norm(windows, axis=1) - 1).mean() * 1000)


def not_worn(values: Float[np.ndarray, "t 3"], rate_hz: float, minutes: float) -> Bool[np.ndarray, "t"]:
    """True in runs of still 10 s windows of at least so many minutes; one with gaps shows no movement."""
    _, deviations = blocks(values, rate_hz)
    still = ~np.asarray((deviations >= STILL_G).any(axis=1))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], still, [False]])))
    long = np.zeros_like(still)
    for start, stop in edges.reshape(-1, 2):
        long[start:stop] = (stop - start) * BLOCK_S >= minutes * 60
    steps = np.repeat(long, round(BLOCK_S * rate_hz))
    rest = np.full(len(values) - len(steps), bool(len(long)) and bool(long[-1]))
    return np.concatenate([steps, rest])


def movement_g(values: Float[np.ndarray, "t 3"]) -> float:
    """Mean amplitude deviation, mean |norm - mean norm|, of what is observed, in g (10.1111/cpf.12127)."""
    norms = np.linalg.norm(values[np.isfinite(values).all(axis=1)], axis=1)
    return float(np.abs(norms - norms.mean()).mean()) if len(norms) else 0.0


def most_frequent(names: Shaped[np.ndarray, "t"]) -> str:
    """The label of most samples, the first in the alphabet if several are; "" where there is none."""
    found, counts = np.unique(names[names != ""], return_counts=True)
    return str(found[counts.argmax()]) if len(found) else ""
