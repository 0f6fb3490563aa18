"""Columns of times of any kind to seconds since 1970: one reading, which fits the whole column.

A number such as 2019010100 is a date before it is a count of seconds, as no clock that counts seconds shows
what looks like a date in every row. `03/04/2021` is taken as neither April nor March unless other rows, or
regular steps, decide; then the message names both formats.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modalities.reading.formats import (
    ISO,
    YEARS,
    fit,
    formats_like,
    moments_of,
    more_regular,
    seconds_of,
    shapes_of,
    shortened,
    tidy,
    tidy_text,
)
from modalities.reading.parts import joined
from modalities.reading.summertime import localized

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EPOCH_S = (1e8, 1e10)  # 1973 to 2286: what seconds since 1970 are taken for
MOST_UNREADABLE = 0.5
COMPACT = {  # digits -> format of a date without marks
    14: "%Y%m%d%H%M%S",
    12: "%Y%m%d%H%M",
    10: "%Y%m%d%H",
    8: "%Y%m%d",
    7: "%Y%j",
    6: "%Y%m",
}
OF_DAY = re.compile(r"\d{1,2}[:.h]\d{2}([:.]\d{2}([.,:]\d+)?)?( ?[AaPp]\.?[Mm]\.?)?")


@dataclass(frozen=True)
class Times:
    """Times as read."""

    seconds: np.ndarray  # (n,) since 1970 in UTC, or from an unknown start; NaN = unreadable
    utc_offset_s: float  # local standard time's
    dated: bool  # whether the date is known
    reading: str  # for people: "%d/%m/%Y %H:%M", "seconds since 1970"


@dataclass(frozen=True)
class TimeSettings:
    """What a user says of times, where it is not to be found out."""

    time_format: str = ""  # of strptime; or ISO8601, s, ms, us, ns
    timezone: str = "UTC"  # of times that name no offset
    dated: bool = True  # a column without dates is refused


def read_times(columns: Sequence[Any], settings: TimeSettings) -> Times:
    """The times in one column, or in several that belong together (a date, a time of day).

    Raises ValueError, with an example and the setting that decides, where no reading fits or more than one.
    """
    check_timezone(settings.timezone)
    column = columns[0] if len(columns) == 1 else joined(columns)
    name = " and ".join(str(part.name) for part in columns)
    if pd.api.types.is_datetime64_any_dtype(column):
        return _of_moments(column, settings, "dates")
    if not column.notna().any():
        raise ValueError(f"the times in column {name!r} are all missing")
    numbers = _numbers(column)
    if settings.time_format in UNITS:
        if numbers is None:
            raise ValueError(f"modality.time_format={settings.time_format} wants numbers in {name!r}")
        return _of_numbers(numbers * UNITS[settings.time_format], UNIT_NAMES[settings.time_format], settings)
    if settings.time_format:
        return _by_format(column, name, settings)
    return (
        _of_found_numbers(column, numbers, name, settings)
        if numbers is not None
        else _of_texts(column, name, settings)
    )


def check_timezone(name: str) -> None:
    """Raises ValueError for a zone that is not known."""
    try:
        pd.Timestamp(0, tz=name)
    except (KeyError, OSError, ValueError, TypeError) as error:
        raise ValueError(f"timezone={name!r} is not known; give a name such as Europe/Paris") from error


def has_date(time_format: str) -> bool:
    """Whether a format of strptime names a whole date; a year alone is its first day."""
    named = set(re.findall(r"%([a-zA-Z])", time_format))
    return time_format in (ISO, *UNITS) or bool(
        named & set("cxs")
        or (named and named <= set("yY"))
        or (named & set("yYG") and (named & set("mbBj") or named & set("UVW")))
    )


def rolled_over(seconds: np.ndarray) -> np.ndarray:
    """Seconds of the day with a day added at midnight: where a clock goes back by more than half a day."""
    known = np.flatnonzero(np.isfinite(seconds))
    steps = np.diff(seconds[known])
    days = np.concatenate([[0], np.cumsum((steps < -43_200).astype(int) - (steps > 43_200).astype(int))])
    rolled = seconds.astype(np.float64)
    rolled[known] += 86_400.0 * days[: len(known)]
    return rolled


def _numbers(column: Any) -> np.ndarray | None:
    """A column as numbers, if most of it is."""
    if pd.api.types.is_bool_dtype(column):
        return None
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().sum() <= column.notna().sum() / 2:
        return None
    found: np.ndarray = numbers.to_numpy(np.float64, na_value=np.nan, copy=True)
    found[~np.isfinite(found)] = np.nan
    return found


def _of_found_numbers(column: Any, numbers: np.ndarray, name: str, settings: TimeSettings) -> Times:
    """Numbers as dates without marks, as a count since 1970, as Excel's days, or as seconds from a start."""
    known = numbers[np.isfinite(numbers)]
    largest = float(np.abs(known).max())
    if form := _compact_form(known) or ("%Y" if settings.dated and _are_years(known) else ""):
        texts = pd.Series(numbers).astype("Int64").astype("string")
        return _parsed(texts, form, settings)
    for unit, seconds in UNITS.items():
        if EPOCH_S[0] <= largest * seconds < EPOCH_S[1] and known.min() * seconds > EPOCH_S[0] / 10:
            return _of_numbers(numbers * seconds, f"{UNIT_NAMES[unit]} since 1970", settings)
    if _are_excel_days(known, settings):
        return _local(
            pd.Series(_moments((numbers - 25_569) * 86_400)), settings, "days since 1900, as Excel counts"
        )
    if not settings.dated:
        return Times(numbers, 0.0, False, "a count from the start")
    raise ValueError(
        f"the times in column {name!r}, for example {column[column.notna()].iloc[0]}, are neither dates "
        "nor seconds "
        "since 1970: set modality.time_column, or modality.time_format=s"
    )


def _are_years(known: np.ndarray) -> bool:
    """Whether numbers are years, which stand for their first day."""
    return bool((known == np.round(known)).all() and YEARS[0] <= known.min() and known.max() <= YEARS[1])


def _are_excel_days(known: np.ndarray, settings: TimeSettings) -> bool:
    """Whether numbers are days since 1900; where no date is needed, only if they go on in small parts."""
    if not (20_000 < known.min() and known.max() < 80_000 and len(known) > 1):
        return False
    return settings.dated or 0 < float(np.median(np.abs(np.diff(known)))) < 0.01


def is_compact(numbers: np.ndarray) -> bool:
    """Whether numbers are dates without marks, such as 2019010100."""
    return bool(_compact_form(numbers[np.isfinite(numbers)]))


def _compact_form(known: np.ndarray) -> str:
    """The format of dates without marks, if all of the numbers are some, of plausible years; else ""."""
    if not len(known) or known.min() <= 0 or (known != np.round(known)).any() or known.max() >= 1e15:
        return ""
    digits = {len(str(int(value))) for value in (known.min(), known.max())}
    form = COMPACT.get(digits.pop(), "") if len(digits) == 1 else ""
    texts = pd.Series(known).astype("int64").astype(str)
    if not form or not texts.str[:4].astype(int).between(*YEARS).all():
        return ""
    return form if pd.to_datetime(tidy(texts)[0], format=form, errors="coerce").notna().all() else ""


def _of_numbers(seconds: np.ndarray, reading: str, settings: TimeSettings) -> Times:
    known = seconds[np.isfinite(seconds)]
    dated = len(known) > 0 and bool(np.abs(known).max() >= EPOCH_S[0])
    return Times(seconds, 0.0, dated, reading if dated else f"{reading.split(' ')[0]} from the start")


def _of_texts(column: Any, name: str, settings: TimeSettings) -> Times:
    """Texts by the one format that fits the column."""
    texts = column.astype("string").str.strip()
    known = texts[texts.notna() & (texts != "")]
    if len(known) == 0:
        raise ValueError(f"the times in column {name!r} are all missing")
    # The first rows, too: among others, every 24th hour may be a midnight
    spread = np.linspace(0, len(known) - 1, 60).astype(int)
    sample = known.iloc[np.unique([*range(min(len(known), 24)), *spread])]
    example = str(known.iloc[0])[:40]
    if sample.str.fullmatch(OF_DAY.pattern).mean() > 0.9:
        if settings.dated:
            raise ValueError(
                f"column {name!r} holds times of the day without a date, for example {example!r}: name "
                "the column "
                f"of the date, too, as in modality.time_column=DATE+{name}"
            )
        return _of_day(texts)
    candidates = dict.fromkeys(form for text in shapes_of(sample) for form in formats_like(text))
    formats = tuple(form for form in candidates if fit(sample, form) > 0.5)
    fits = {form: fit(texts, form) for form in formats}
    best = max(fits.values(), default=0.0)
    likely = [form for form in formats if fits[form] >= best - 1e-9]
    standard = [form for form in likely if form == ISO or (form.startswith("%Y") and "%d" not in form[:5])]
    likely = standard[:1] or likely  # nobody writes year, day, month
    if best <= MOST_UNREADABLE:
        raise ValueError(
            f"the times in column {name!r}, for example {example!r}, are in no format that is known "
            "here: set "
            """modality.time_format, in a shell as modality.time_format='"%d.%m.%Y %H:%M"'"""
        )
    if len(likely) > 1:
        likely = more_regular(texts, likely)
    if len(likely) > 1:
        raise ValueError(
            f"the times in {name!r}, such as {example!r}, can be read in two ways: say which, "
            f'modality.time_format="{likely[0]}" or modality.time_format="{likely[1]}"'
        )
    return _parsed(texts, likely[0], settings)


def _by_format(column: Any, name: str, settings: TimeSettings) -> Times:
    """Texts, or numbers as they are written, by the format that the user gives."""
    form = settings.time_format
    if settings.dated and not has_date(form):
        raise ValueError(
            f"modality.time_format={form!r} has no date: the same hours of all days would be averaged. "
            "Name the "
            f"column of the date, too, as in modality.time_column=DATE+{name}"
        )
    if pd.api.types.is_float_dtype(column):
        column = column.round().astype("Int64")  # 2020010100, with gaps
    texts = column.astype("string").str.strip()
    known = texts[texts.notna()]
    if not has_date(form):
        return _of_day(known if len(known) == len(texts) else texts, form)
    times = _parsed(texts, form, settings)
    unreadable = int(np.isnan(times.seconds).sum()) - int(texts.isna().sum())
    if unreadable > len(texts) * MOST_UNREADABLE:
        example = str(known[np.isnan(times.seconds)[texts.notna().to_numpy()]].iloc[0])[:40]
        raise ValueError(
            f"{unreadable} of {len(texts)} times cannot be read as {form}, for example {example!r}: set "
            """modality.time_format, in a shell as modality.time_format='"%d.%m.%Y %H:%M"'"""
        )
    return times


def _parsed(texts: Any, form: str, settings: TimeSettings) -> Times:
    """Texts of a form as times; those without an offset are in the settings' zone."""
    moments = moments_of(texts, form)
    readable = texts[moments.notna()]
    if len(readable) == 0:
        return Times(np.full(len(texts), np.nan), 0.0, True, form)
    first = tidy_text(str(readable.iloc[0]))
    aware = "%z" in form or (
        form == ISO and re.search(r"[T ]\d.*\d\s*(Z|[+-]\d\d(:?\d\d)?)$", first[8:]) is not None
    )
    if not aware:
        return _local(moments.dt.tz_localize(None), settings, form)
    read = (pd.to_datetime(first, format=one, errors="coerce") for one in (form, *shortened(form)))
    parsed = next(moment for moment in read if isinstance(moment, pd.Timestamp))
    offset = parsed.utcoffset()
    offset_s = offset.total_seconds() if offset is not None else 0.0
    return Times(seconds_of(moments), offset_s, True, form)


def _of_day(texts: Any, form: str = "") -> Times:
    """Times of the day as seconds from an unknown midnight, with a day more at each midnight."""
    plain = tidy(texts)[0].str.replace(",", ".").str.replace("h", ":")
    if form:
        moments = moments_of(plain, form)
    else:
        even = plain.str.replace(r"^(\d{1,2})\.(\d\d)(?:\.(\d\d))?$", r"\1:\2:\3", regex=True).str.rstrip(":")
        short = even.str.count(":") == 1
        even = even.where(~short, even.str.replace(r"(\d:\d\d)", r"\1:00", regex=True))
        spaced = even.str.replace(r"(\d)([AP]M)$", r"\1 \2", regex=True)
        form = "%I:%M:%S.%f %p" if spaced.str.endswith("M").any() else "%H:%M:%S.%f"
        full = spaced.where(
            spaced.str.contains(r"\.", regex=True), spaced.str.replace(r"(:\d\d:\d\d)", r"\1.0", regex=True)
        )
        moments = pd.to_datetime(full, format=form, errors="coerce")
    return Times(rolled_over(seconds_of(moments) % 86_400), 0.0, False, "times of the day, without a date")


def _of_moments(column: Any, settings: TimeSettings, reading: str) -> Times:
    """A column that holds dates already, as Parquet does."""
    if column.dt.tz is None:
        return _local(column, settings, reading)
    known = column[column.notna()]
    offset_s = float(known.iloc[0].utcoffset().total_seconds()) if len(known) else 0.0
    return Times(seconds_of(column.dt.tz_convert("UTC")), offset_s, True, reading)


def _local(moments: Any, settings: TimeSettings, reading: str) -> Times:
    """Moments without an offset, in the settings' time zone."""
    zone = settings.timezone
    # Local time that the change to or from summer time makes ambiguous or impossible is not guessed
    times = localized(moments, zone)
    known = times[times.notna()]
    first = known.iloc[0] if len(known) else pd.Timestamp(0, tz=zone)
    offset = (first.utcoffset() or pd.Timedelta(0)) - (first.dst() or pd.Timedelta(0))
    offset_s = float(offset.total_seconds())
    return Times(seconds_of(times.dt.tz_convert("UTC")), offset_s, True, reading)


def _moments(seconds: np.ndarray) -> np.ndarray:
    micro = (
        np.where(np.isfinite(seconds), np.round(seconds * 1e6), 0).astype(np.int64).astype("datetime64[us]")
    )
    micro[~np.isfinite(seconds)] = np.datetime64("NaT")
    return micro
