"""What is done to a recording's samples: units, missing values, resampling, gravity calibration, non-wear.

Samples are arrays t c with times in seconds; a missing value is NaN. Sensors are treated apart, and all three
axes of a sensor are missing together: they are one vector, and a rotation mixes them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from modalities.reading.quantities import G_MS2
from modalities.reading.runs import equal_runs

AUTO_G = (0.5, 1.6)  # closer than for a unit that is said: 2,048 counts are no 2 g in mg
G_OF = {"g": 1.0, "m/s2": 1 / G_MS2, "mg": 1e-3}
COUNTS = (64, 128, 256, 512, 2048, 4096, 8192, 16384)  # in 1 g, as sensors of 8 to 16 bits count
SAMPLES_AT_REST = 50
RESTING_RAD_S = 0.35  # 20 deg/s: no gyroscope's offset is larger
MOVING_RAD_S = 0.02  # 1 deg/s: nobody moves a sensor with less
MOVED_G = 0.1
BLOCK_S = 10.0  # windows in which a sensor is still or not (van Hees et al. 2014)
STILL_G = 0.013  # standard deviation of each axis in a still one (the same)
# What gravity may measure, as the median of many norms: within a factor of 3 of 1 g, so that g and m/s2, a
# factor of 9.8 apart, are never taken for each other. Fast exercise reaches 2 g.
LEAST_G, MOST_G = 1 / 3, 3.0
MOST_RAD_S = 70.0  # gyroscopes end at 35 or 70 rad/s (2,000 or 4,000 deg/s)
CALIBRATION_WINDOWS = (
    50  # still ones needed, in directions beyond DIRECTION_G both ways on each axis (as actipy)
)
DIRECTION_G = 0.3
CALIBRATED_MG = 10.0  # an error that remains above this means that the fit failed (the same)
IRREGULAR = 0.25  # a clock whose middle 90 % of steps differ by more than this from the median is irregular
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
        longest = (
            1.5 * high
        )  # one missing sample of a regular clock is a gap, a phone's uneven steps are none
        regular = high - usual <= IRREGULAR * usual and usual - low <= IRREGULAR * usual
        return cls(float(steps[steps <= longest].mean()), longest, regular)


def increasing(times: Float[np.ndarray, "t"]) -> Bool[np.ndarray, "t"]:
    """True at times later than all before them; a repeated one, one that goes back, or NaN is not."""
    before = np.fmax.accumulate(np.concatenate([[-np.inf], times[:-1]]))
    later: np.ndarray = times > before
    return later


def in_g(
    values: Float[np.ndarray, "t 3"], units: str, scale: float | None = None, stated: str = ""
) -> tuple[Float[np.ndarray, "t 3"], str]:
    """Accelerations in g, and their unit; ValueError where the median norm says that it is another.

    `units` is "auto" or a unit, `stated` the one that the file says, `scale` what one of the file's counts is
    in g. A body at rest feels 1 g, so "auto" takes the unit in which the median norm is near it.
    """
    with np.errstate(over="ignore"):  # absurd values are no reason to fail: the median does not see them
        norms = np.linalg.norm(values[np.isfinite(values).all(axis=1)].astype(np.float64), axis=1)
    if not len(norms):
        raise ValueError("the accelerometer has no numbers at all")
    median = float(np.median(norms))
    if scale is not None:
        if LEAST_G <= scale * median <= MOST_G:
            return (values * np.float32(scale)).astype(np.float32), f"{scale:g} g"
        raise ValueError(
            f"with {scale:g} g a count, the median acceleration is {scale * median:.3g} g, not near 1 g: "
            f"{_advice(median)}"
        )
    near = (LEAST_G, MOST_G) if units != "auto" else AUTO_G
    fitting = [unit for unit, of_g in G_OF.items() if near[0] <= of_g * median <= near[1]]
    chosen = units if units != "auto" else stated if stated in fitting else (fitting or [""])[0]
    if chosen not in fitting:
        if units != "auto" and fitting:
            raise ValueError(
                f"taken as {units}, the median acceleration is {G_OF[units] * median:.2g} g: this looks like "
                f"{fitting[0]}; set modality.units={fitting[0]}"
            )
        raise ValueError(
            f"the median acceleration is {median:.3g}, near 1 g in no unit ({', '.join(G_OF)}): "
            f"{_advice(median)}"
        )
    if units == "auto" and chosen == "mg" and stated != "mg" and np.nanmin(values) > 0:
        raise ValueError(
            f"the median acceleration is {median:.3g} and no value is below 0: mg, or counts with an "
            "offset? Say "
            "modality.units=mg, or subtract the offset first"
        )
    return (values if chosen == "g" else (values * np.float32(G_OF[chosen])).astype(np.float32)), chosen


def _advice(median: float) -> str:
    """What to do about a median norm that no unit explains."""
    counts = min(COUNTS, key=lambda count: abs(np.log(max(median, 1e-12) / count)))
    if LEAST_G <= median / counts <= MOST_G:
        return f"where {counts} counts are 1 g, set modality.scale={1 / counts:.7g}"
    return "other columns, or gravity was removed; modality.scale says what one count is in g"


def in_rad_s(
    values: Float[np.ndarray, "t 3"], units: str, accelerations: Float[np.ndarray, "t 3"] | None = None
) -> Float[np.ndarray, "t 3"]:
    """Rotation in rad/s; ValueError where it is faster, at rest or at all, than the unit allows.

    `accelerations` (in g, of the same samples) tell when the sensor lay still.
    """
    scaled = np.deg2rad(values) if units == "deg/s" else values
    finite = scaled[np.isfinite(scaled)]
    if not finite.size:
        raise ValueError("the gyroscope has no numbers at all: set modality.gyroscope=false")
    fast = float(np.percentile(np.abs(finite), 99))
    if fast > MOST_RAD_S / 2:
        advice = ": this looks like deg/s; set modality.gyroscope_units=deg/s" if units == "rad/s" else ""
        raise ValueError(f"taken as {units}, 1 % of the rotation is faster than {fast:.3g} rad/s{advice}")
    if accelerations is None:
        return scaled
    at_rest, moving = _median_turn(scaled, accelerations)
    if units == "rad/s" and at_rest > RESTING_RAD_S:
        raise ValueError(
            f"taken as rad/s, a sensor that lies still turns by {at_rest:.2g} rad/s: this looks like "
            "deg/s; set "
            "modality.gyroscope_units=deg/s"
        )
    if units == "deg/s" and moving < MOVING_RAD_S:
        raise ValueError(
            f"taken as deg/s, a sensor that is moved turns by {np.rad2deg(moving):.2g} deg/s only: this "
            "looks like "
            "rad/s; set modality.gyroscope_units=rad/s"
        )
    return scaled


def _median_turn(
    turns: Float[np.ndarray, "t 3"], accelerations: Float[np.ndarray, "t 3"]
) -> tuple[float, float]:
    """The median size of rotation where the sensor lies still, else 0, and where it is moved, else inf."""
    count = len(turns) // SAMPLES_AT_REST * SAMPLES_AT_REST
    pieces = accelerations[:count].reshape(-1, SAMPLES_AT_REST, 3)
    deviation = pieces.std(axis=1).max(axis=1)
    sizes = np.median(np.linalg.norm(turns[:count], axis=1).reshape(-1, SAMPLES_AT_REST), axis=1)
    still, moved = sizes[deviation < STILL_G], sizes[deviation > MOVED_G]
    still, moved = still[np.isfinite(still)], moved[np.isfinite(moved)]
    at_rest = float(np.median(still)) if len(still) >= 3 else 0.0
    return at_rest, float(np.median(moved)) if len(moved) >= 3 else np.inf


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
