"""Physical quantities: their units, the range in which they can lie, and what stands for a missing value."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

G_MS2 = 9.80665

# Unit -> how it becomes the unit of the same quantity that is used here.
TO_OURS: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "degC": {"degF": lambda x: (x - 32) / 1.8, "K": lambda x: x - 273.15},
    "%": {"fraction": lambda x: 100 * x},
    "hPa": {
        "Pa": lambda x: x / 100,
        "kPa": lambda x: 10 * x,
        "inHg": lambda x: 33.8639 * x,
        "mmHg": lambda x: 1.33322 * x,
    },
    "m/s": {"km/h": lambda x: x / 3.6, "mph": lambda x: 0.44704 * x, "knots": lambda x: 0.514444 * x},
    "tenths": {"%": lambda x: x / 10, "fraction": lambda x: 10 * x, "oktas": lambda x: 1.25 * x},
    "g": {"m/s2": lambda x: x / G_MS2, "mg": lambda x: x / 1000},
    "rad/s": {"deg/s": np.deg2rad, "mdeg/s": lambda x: np.deg2rad(x / 1000)},
    "mm": {"inch": lambda x: 25.4 * x, "m": lambda x: 1000 * x, "cm": lambda x: 10 * x},
    "W/m2": {"kW/m2": lambda x: 1000 * x},
}
EQUAL = {"mbar": "hPa", "millibar": "hPa"}
SPELLINGS = {
    "degC": ("°c", "ºc", "deg c", "degc", "celsius", "c", "deg_c", "degree_celsius", "degrees celsius"),
    "degF": ("°f", "ºf", "deg f", "degf", "fahrenheit", "f", "deg_f", "degrees fahrenheit"),
    "K": ("k", "kelvin"),
    "%": ("%", "percent", "pct"),
    "hPa": ("hpa", "mbar", "mb", "millibar"),
    "Pa": ("pa",),
    "kPa": ("kpa",),
    "inHg": ("inhg", "in hg"),
    "mmHg": ("mmhg", "torr"),
    "m/s": ("m/s", "ms-1", "m s-1", "m s**-1", "mps", "meter/second"),
    "km/h": ("km/h", "kmh", "kph", "km h-1"),
    "mph": ("mph", "mp/h", "mi/h"),
    "knots": ("kn", "kt", "kts", "knots", "knot"),
    "W/m2": ("w/m2", "w/m²", "w m-2", "wm-2", "w/m^2"),
    "mm": ("mm",),
    "inch": ("inch", "in", "inches"),
    "g": ("g",),
    "mg": ("mg", "milli-g"),
    "m/s2": ("m/s2", "m/s²", "m/s^2", "ms-2", "m s-2"),
    "rad/s": ("rad/s", "rads-1"),
    "deg/s": ("deg/s", "dps", "°/s"),
    "uT": ("ut", "µt", "μt", "microtesla"),
}
UNIT_OF = {word: unit for unit, words in SPELLINGS.items() for word in words}
IN_NAME = re.compile(r"[\[(]\s*([^\])]{1,20}?)\s*[\])]\s*$")


@dataclass(frozen=True)
class Quantity:
    """A physical quantity: its unit here, and the values beyond which nothing was ever measured."""

    unit: str
    lowest: float
    highest: float


TEMPERATURE = Quantity("degC", -95.0, 60.0)  # of the air
HUMIDITY = Quantity("%", 0.0, 110.0)
STATISTIC = r"(?:(?:max|min)(?:imum)?|mean|avg|average|high|low)"
# A temperature of the air by a word, or of nothing in particular: what is named after a machine may be hot
OF_AIR = r"^(?=.*te?mp|t(?:air|2m)?\b).*(?:air|ambient|outdoor|outside|\d[ _]?m(?![a-z]))"
PLAIN = rf"(?:{STATISTIC}[\W_]*)*(?:te?mp(?:[eé]rat[a-zé]*)?|t)(?:[\W_]*(?:{STATISTIC}|as))*"
NAMED = (  # what a name says, where it also says the unit
    (re.compile(r"dew|td\b", re.IGNORECASE), Quantity("degC", -100.0, 40.0)),
    (re.compile(rf"{OF_AIR}|^{PLAIN}[\W_]*(?:[\[(]|$)", re.IGNORECASE), TEMPERATURE),
    (re.compile(r"humid|^rh", re.IGNORECASE), HUMIDITY),
    (re.compile(r"press|^p(res|sfc|s)?\b|baro", re.IGNORECASE), Quantity("hPa", 300.0, 1100.0)),
    (re.compile(r"wind.*(speed|gust)|^ws|gust", re.IGNORECASE), Quantity("m/s", 0.0, 115.0)),
    (re.compile(r"rain|precip|prcp|snow", re.IGNORECASE), Quantity("mm", 0.0, 2000.0)),
    (re.compile(r"irradi|radiat|ghi|dni|dhi|solar", re.IGNORECASE), Quantity("W/m2", -20.0, 2000.0)),
)

# What people and instruments write where there is no value, beside rows of nines, eights and sevens.
USUAL_SENTINELS = {
    -200.0,
    -32767.0,
    -32768.0,
    32767.0,
    32768.0,
    65535.0,
    -6999.0,
    -1e20,
    1e20,
    1e30,
    -1e30,
    1e31,
}
ROW_OF_DIGITS = re.compile(r"-?6?(9{2,}|8{3,}|7{3,})(\.(9+|0))?")
FEW = 8  # distinct values, below which nothing stands out
REPEATED = 5
FAR = 5.0  # times the spread of the rest, for a value that does not look like a sentinel
NEAR = 0.3  # of the spread, for a negative one below all others that looks like a sentinel and is repeated,
WIDE = 3.0  # where it is also so many times the widest gap between the others


def unit_of(text: str) -> str:
    """The unit that a text says, in our spelling; "" for none that is known."""
    plain = " ".join(text.strip().strip("[]()").lower().split())
    return UNIT_OF.get(plain, "")


def unit_in(name: str) -> str:
    """The unit in brackets at the end of a column's name; "" where there is none that is known."""
    found = IN_NAME.search(name)
    return unit_of(found[1]) if found else ""


def quantity_of(name: str, unit: str) -> Quantity | None:
    """What a column measures, where its name says it and its unit is said; the range is in that unit."""
    for pattern, known in NAMED:
        if pattern.search(name) and (unit == known.unit or unit in TO_OURS[known.unit]):
            if unit == known.unit:
                return known
            ends = np.array([known.lowest, known.highest])
            return Quantity(unit, *_back(known.unit, unit, ends))
    return None


def converted(values: np.ndarray, unit: str, to: str) -> np.ndarray:
    """Values in another unit of the same quantity. ValueError where the two are not of one quantity."""
    unit, to = EQUAL.get(unit, unit), EQUAL.get(to, to)
    if unit == to:
        return values
    try:
        return TO_OURS[to][unit](values)
    except KeyError as error:
        known = ", ".join([to, *TO_OURS.get(to, {})])
        raise ValueError(f"the unit {unit!r} cannot become {to}: say one of {known}") from error


def likely_unit(values: np.ndarray, quantity: Quantity) -> str:
    """The one unit in which all of the values would be possible, where they are not in the quantity's own."""
    fitting = []
    for unit in TO_OURS.get(quantity.unit, {}):
        ours = converted(values, unit, quantity.unit)
        inside = (ours >= quantity.lowest) & (ours <= quantity.highest)
        if inside.mean() >= 0.98:
            fitting.append((float(np.abs(ours).mean()), unit))
    return fitting[0][1] if fitting else ""


def sentinels_in(values: np.ndarray) -> list[tuple[float, int]]:
    """Values that stand for a missing one, and how often each occurs.

    Such a value is the lowest or the highest, lies far from the rest, and either looks like a sentinel (a row
    of nines, an integer's limit) or is repeated. A negative one that does both may lie nearer, where the rest
    has no such gap.
    """
    found: list[tuple[float, int]] = []
    distinct, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    while len(distinct) > FEW:
        place = next((end for end in (0, len(distinct) - 1) if _stands_apart(distinct, counts, end)), None)
        if place is None:
            break
        found.append((float(distinct[place]), int(counts[place])))
        distinct, counts = np.delete(distinct, place), np.delete(counts, place)
    return found


def is_fraction(values: np.ndarray) -> bool:
    """Whether values that should be percent never exceed 1, though they vary."""
    known = values[np.isfinite(values)]
    return (
        len(known) >= 10 and bool((known >= 0).all() and (known <= 1.0).all()) and len(np.unique(known)) > 2
    )


def _back(ours: str, unit: str, values: np.ndarray) -> Sequence[float]:
    """Values in our unit as values in another one: every conversion here is a straight line."""
    zero, one = TO_OURS[ours][unit](np.array([0.0, 1.0]))
    ends: list[float] = ((values - zero) / (one - zero)).tolist()
    return ends


def _stands_apart(distinct: np.ndarray, counts: np.ndarray, place: int) -> bool:
    value, count = float(distinct[place]), int(counts[place])
    rest, weights = np.delete(distinct, place), np.delete(counts, place)
    gap = float(abs(rest[0] - value) if place == 0 else abs(value - rest[-1]))
    shares = np.cumsum(weights) / weights.sum()
    low, high = (float(rest[np.searchsorted(shares, share)]) for share in (0.005, 0.995))
    spread = max(high - low, 1e-12)
    if value in USUAL_SENTINELS or ROW_OF_DIGITS.fullmatch(f"{value:.10g}"):
        below_all = value < 0 <= float(rest[0])  # a negative one where nothing else is negative
        # -99 degF in a cold place: less far off than winter from summer, but no frost leads to it
        beside = place == 0 and value < 0 and count > 1 and gap > NEAR * spread
        return bool(below_all or gap > spread or (beside and gap > WIDE * float(np.diff(rest).max())))
    return bool(count >= max(REPEATED, 0.002 * counts.sum()) and gap > FAR * spread)
