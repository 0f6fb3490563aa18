"""In which unit a sensor's samples are, judged by gravity and by what bodies do, and samples in ours."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from modalities.reading.quantities import G_MS2
from modalities.wearables.signals import STILL_G

G_OF = {"g": 1.0, "m/s2": 1 / G_MS2, "mg": 1e-3}
LEAST_AUTO_G = 0.5  # where nothing says the unit
# Fast exercise is 2 g and more in the median. In mg that is what counts look like: 2,048 are often 1 g.
MOST_AUTO_G = {"g": 3.0, "m/s2": 3.0, "mg": 1.6}
COUNTS = (64, 128, 256, 512, 2048, 4096, 8192, 16384)  # in 1 g, as sensors of 8 to 16 bits count
SAMPLES_AT_REST = 50
RESTING_RAD_S = 0.35  # 20 deg/s: no gyroscope's offset is larger
MOVING_RAD_S = 0.02  # 1 deg/s: nobody moves a sensor with less
MOVED_G = 0.1
# What gravity may measure, as the median of many norms: within a factor of 3 of 1 g, so that g and m/s2, a
# factor of 9.8 apart, are never taken for each other. Fast exercise reaches 2 g.
LEAST_G, MOST_G = 1 / 3, 3.0
MOST_RAD_S = 70.0  # gyroscopes end at 35 or 70 rad/s (2,000 or 4,000 deg/s)
SURELY_G = 0.05  # from 1 g: a scale is right where the median is so near, even if no value is near 0
STRETCH = 500  # samples, 0.5 to 20 s: movement alternates meanwhile, gravity hardly turns
LOOKED_AT = 200  # stretches of a recording
LEAST_MIDDLE = 0.3  # of its norms: how long a stretch's vector of medians is where gravity is in it
LEAST_OFFSET = 0.1  # of the median norm: where nearly all values of all axes are above it, zero is mid-scale
OFFSET = "no value is near 0 or below it, as in counts whose zero is mid-scale: subtract the offset first"


@dataclass(frozen=True)
class Size:
    """How large the samples of an accelerometer are, in whatever unit."""

    median: float  # of their norms
    gravity: bool  # whether gravity is in them: those of a stretch mostly point one way
    offset: bool = False  # whether their zero is mid-scale
    whole: bool = False  # whether all values are whole numbers
    positive: bool = False  # whether no value is 0 or below

    @classmethod
    def of(cls, values: Float[np.ndarray, "t 3"]) -> "Size":
        """ValueError where there are no numbers."""
        known = values[np.isfinite(values).all(axis=1)].astype(np.float64)
        if not len(known):
            raise ValueError("the accelerometer has no numbers at all")
        length = min(len(known), STRETCH)
        count = len(known) // length
        with np.errstate(over="ignore"):  # absurd values are no reason to fail: the median does not see them
            norms = np.linalg.norm(known, axis=1)
        chosen = np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int))
        parts = known[: count * length].reshape(count, length, 3)[chosen]
        middles = np.linalg.norm(np.median(parts, axis=1), axis=1)
        sizes = np.median(norms[: count * length].reshape(count, length)[chosen], axis=1)
        median = float(np.median(norms))
        offset = bool(np.percentile(parts, 1) > LEAST_OFFSET * median)
        gravity = bool(middles.sum() >= LEAST_MIDDLE * sizes.sum())
        whole = all(bool((part == np.round(part)).all()) for part in (known[:STRETCH], known))
        return cls(median, gravity, offset, whole, not bool((values <= 0).any()))

    @classmethod
    def together(cls, recordings: Iterable[Float[np.ndarray, "_ 3"]]) -> "Size | None":
        """That of recordings in one unit, each of the same weight; None where none of them moves."""
        moving = (one for one in recordings if np.isfinite(one).all(axis=1).any() and not _is_constant(one))
        sizes = [cls.of(one) for one in moving]
        if not sizes:
            return None
        return cls(
            float(np.median([size.median for size in sizes])),
            sum(size.gravity for size in sizes) >= len(sizes) / 2,
            all(size.offset for size in sizes),
            all(size.whole for size in sizes),
            all(size.positive for size in sizes),
        )

    def near(self, unit: str, least: float, most: float) -> bool:
        """Whether the median is that many g, taken as in a unit."""
        return least <= G_OF[unit] * self.median <= most


def in_g(
    values: Float[np.ndarray, "t 3"],
    units: str,
    scale: float | None = None,
    stated: str = "",
    *,
    fixed: bool = False,
    together: Size | None = None,
) -> tuple[Float[np.ndarray, "t 3"], str]:
    """Accelerations in g, and their unit; ValueError where the samples say that it is another, or any.

    `units` is "auto" or a unit, `stated` the one that the file says, `scale` what one of the file's counts is
    in g, which is sure where the format has it `fixed`. A body at rest feels 1 g, so the median norm tells
    the unit where none is said: that of all recordings of the file where they are one array (`together`).
    """
    size = Size.of(values)
    if scale is not None:
        if size.offset and not fixed and abs(scale * size.median - 1) > SURELY_G:
            raise ValueError(f"modality.scale={scale:g} fits counts from 0 on: {OFFSET}")
        if LEAST_G <= scale * size.median <= MOST_G:
            return (values * np.float32(scale)).astype(np.float32), f"{scale:g} g"
        raise ValueError(
            f"with {scale:g} g a count, the median acceleration is {scale * size.median:.3g} g, not near "
            f"1 g: {_advice(size)}"
        )
    said = units if units != "auto" else stated
    if said:
        _check_said(size, said, f"taken as {said}{', as the file says' if units == 'auto' else ''}")
        chosen = said
    else:
        chosen = _found(together or size)
        if together and not size.near(chosen, LEAST_G, MOST_G):
            raise ValueError(
                f"taken as {chosen}, the unit of all recordings of this file together, the median "
                f"acceleration is {G_OF[chosen] * size.median:.2g} g, not near 1 g"
            )
        size = together or size
    scaled = values if chosen == "g" else (values * np.float32(G_OF[chosen])).astype(np.float32)
    return scaled, chosen if size.gravity else f"{chosen}, without gravity"


def _check_said(size: Size, unit: str, words: str) -> None:
    """ValueError where the samples are not in the unit that is said.

    They may be smaller than gravity where it was removed from them.
    """
    if unit not in G_OF:
        raise ValueError(
            f"its axes are in {unit}, which is no unit of acceleration: name others in "
            "modality.accelerometer_columns, or their unit in modality.units"
        )
    if size.near(unit, LEAST_G, MOST_G) or (G_OF[unit] * size.median < LEAST_G and not size.gravity):
        return
    other = next((other for other in G_OF if size.near(other, LEAST_G, MOST_G)), "")
    if other:
        raise ValueError(
            f"{words}, the median acceleration is {G_OF[unit] * size.median:.2g} g: this looks like "
            f"{other}; set modality.units={other}"
        )
    raise ValueError(_unexplained(size))


def _is_constant(values: Float[np.ndarray, "t 3"]) -> bool:
    """Whether no known value differs from the first: a stuck sensor, or filled up."""
    known = values[np.isfinite(values).all(axis=1)]
    return bool((known == known[:1]).all())


def _found(size: Size) -> str:
    """The unit in which gravity is 1 g. ValueError where it is in none, or was removed."""
    found = next((unit for unit in G_OF if size.near(unit, LEAST_AUTO_G, MOST_AUTO_G[unit])), "")
    if not found:
        raise ValueError(_unexplained(size))
    if not size.gravity:
        raise ValueError(
            f"the median acceleration is {size.median:.3g} and points every way: gravity was "
            "removed, and nothing else tells the unit; set modality.units=g or modality.units=m/s2"
        )
    if found != "mg" and size.whole:
        raise ValueError(
            f"the median acceleration is {size.median:.3g} and all values are whole numbers: counts? Set "
            f"modality.scale to what one count is in g, or modality.units={found}"
        )
    if found == "mg" and size.positive:
        raise ValueError(
            f"the median acceleration is {size.median:.3g} and no value is below 0: mg, or counts with an "
            "offset? Say modality.units=mg, or subtract the offset first"
        )
    return found


def _unexplained(size: Size) -> str:
    """What to say of a median norm that no unit explains."""
    return (
        f"the median acceleration is {size.median:.3g}, near 1 g in no unit ({', '.join(G_OF)}): "
        f"{_advice(size)}"
    )


def _advice(size: Size) -> str:
    """What to do about a median norm that no unit explains."""
    if size.offset:
        return OFFSET
    counts = min(COUNTS, key=lambda count: abs(np.log(max(size.median, 1e-12) / count)))
    if LEAST_G <= size.median / counts <= MOST_G:
        return f"where {counts} counts are 1 g, set modality.scale={1 / counts:.7g}; else name other columns"
    return "other columns, or gravity was removed; modality.scale says what one count is in g"


def in_rad_s(
    values: Float[np.ndarray, "t 3"],
    units: str,
    accelerations: Float[np.ndarray, "t 3"] | None = None,
    stated: str = "",
) -> Float[np.ndarray, "t 3"]:
    """Rotation in rad/s; ValueError where it is faster, at rest or at all, than the unit allows.

    `accelerations` (in g, of the same samples) tell when the sensor lay still; `stated` is the unit that the
    file says, which has to be the same.
    """
    if stated not in ("", units):
        known = stated in ("rad/s", "deg/s")
        remedy = f"set modality.gyroscope_units={stated}" if known else "no unit of rotation that is known"
        raise ValueError(f"the gyroscope's columns say {stated}, modality.gyroscope_units {units}: {remedy}")
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
            f"taken as rad/s, a sensor that lies still turns by {at_rest:.2g} rad/s: this looks like deg/s; "
            "set modality.gyroscope_units=deg/s"
        )
    if units == "deg/s" and moving < MOVING_RAD_S:
        raise ValueError(
            f"taken as deg/s, a sensor that is moved turns by {np.rad2deg(moving):.2g} deg/s only: this "
            "looks like rad/s; set modality.gyroscope_units=rad/s"
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
