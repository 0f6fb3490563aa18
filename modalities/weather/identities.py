"""Which columns of a table tell its series apart, and what is said of times that occur several times."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from modalities.reading.columns import may_hold_clock, may_hold_minutes
from modalities.reading.parts import plain
from modalities.reading.tables import Table
from modalities.reading.times import TimeSettings, read_times

ID_COLUMNS = (
    "station", "station_id", "stations_id", "stationid", "station_name", "site", "site_id", "site_code",
    "location", "location_id", "id", "name", "sensor", "sensor_id", "device", "device_id", "unique_id",
    "series", "city", "wmo", "icao", "usaf", "node", "node_id", "plot", "gauge", "gauge_id", "item_id",
    "place",
)  # fmt: skip
COORDINATES = (("lat", "latitude"), ("lon", "long", "lng", "longitude"))  # that name a place together
SOME, MANY = 0.01, 0.1  # shares of times that are repeated: noticed, refused where a column tells them apart
SAME_STEP = 0.1  # a step that differs by less than this share of another is as long
OFTEN, MOSTLY = 0.1, 0.5  # shares of all times at which a series has a row: of a place, by unusual names
MOST_COLUMNS, LOOKED_AT = 12, 50  # that are judged together, at about so many times first
NOBODY = "none"  # as a setting: no column tells series apart
VARIABLES = re.compile(
    r"(element|param(eter)?|variable|data_?type|pollutant|quantity|propert(y|ies)|measure(ment)?|observed_property|"
    r"observation|indicator|metric|channel|tag)(_?(name|id|code))?"
)
FEW = 5  # spellings of one value
SEVERAL = 1.5  # rows of one time are those of variables, fewer may be those of states
MOST_VARIABLES, SHOWN = 60, 3  # names of what is measured that one column holds, and that are shown
MOST_SAID = 200  # characters of a reason


@dataclass(frozen=True)
class Identity:
    """How the series of a table are told apart, and what the table says of all of its rows."""

    columns: tuple[str, ...] = ()  # none: it is one series
    said: tuple[tuple[str, str], ...] = ()  # columns with a usual name of one value, and that value


def identity_of(
    table: Table,
    times: Sequence[str],
    settings: TimeSettings,
    *,
    beside: Collection[str] = (),
    keys: Sequence[str] = (),
) -> Identity:
    """The column with a usual name that tells the series of a table apart, or those of a place.

    `beside` are columns of something else; `keys` those with which a time may occur several times, as the
    names of variables. ValueError where no column alone tells the series apart, or there are no times to
    judge it by.
    """
    taken = {*times, *keys, *beside}
    free = [name for name in table.names if name not in taken]
    usual = [name for name in free if is_usual(name)]
    place = _place(free)
    if not usual and not place:
        return Identity()
    frame = table.read([*times, *keys, *usual, *place], texts=[*usual, *place, *keys])
    known = {name: frame[name].dropna().unique() for name in usual}
    names = {
        name: {text(value) for value in values} - {""} for name, values in known.items() if len(values) < FEW
    }
    said = tuple((name, min(found)) for name, found in names.items() if len(found) == 1)
    if not times:
        several = [name for name in usual if _may_name(frame[name])]
        if several:
            raise ValueError(
                f"column {several[0]!r} may tell series apart, which nothing but times can show: set "
                f"modality.id_column={several[0]}, or modality.id_column=none"
            )
        return Identity(said=said)
    column = _tells_apart(frame, [*times, *keys], usual)
    if not column and place and _name_series(frame, [*times, *keys], place, OFTEN):
        return Identity(place, said)
    column = column or _at_once(frame, times, usual, settings)
    return Identity((column,) if column else (), said)


def is_usual(name: str) -> bool:
    """Whether a column is called as those are that name stations and sensors: Station Name."""
    return key_of(name) in ID_COLUMNS


def key_of(name: str) -> str:
    """A column's name in small letters, with _ for blanks, so that those of two files are the same."""
    return "_".join(name.lower().split())


def repeated(
    table: Table,
    frame: pd.DataFrame,
    times: Sequence[str],
    seconds: np.ndarray,
    *,
    id_columns: Sequence[str],
    asked: bool,
    keys: Sequence[str] = (),
    measured: Sequence[str] = (),
) -> list[str]:
    """What to say of times that occur several times. ValueError where they are those of several series.

    `frame` holds the rows of one series, by `id_columns` if there are some, and what is `measured`; the user
    may have `asked` for that.
    """
    known = pd.DataFrame({"seconds": seconds, **{name: frame[name].to_numpy() for name in keys}})
    known = known[np.isfinite(seconds)]
    share = float(known.duplicated().mean()) if len(known) else 0.0
    if share <= SOME:
        return []
    if share > MANY and not asked:
        often = round(1 / (1 - share))
        said = f"each time occurs {often} times" if often > 1 else f"{share:.0%} of the times are repeated"
        others = [
            name for name in table.names if name not in {*times, *keys, *(keys and measured), *id_columns}
        ]
        whole = table.read([*times, *keys, *others], texts=keys).loc[frame.index]
        kinds = [name for name in others if not pd.api.types.is_float_dtype(whole[name])]
        kinds.sort(key=lambda name: (name in measured, not VARIABLES.fullmatch(key_of(name))))
        column = _tells_apart(whole, [*times, *keys], kinds)
        columns = (column,) if column else _together(whole, [*times, *keys], others)
        if columns:
            raise ValueError(_advice(whole, said, times, keys, id_columns, columns, () if keys else measured))
        if not keys and (known["seconds"].diff() < 0).any():
            raise ValueError(
                f"{said}, and they start again: several series are in one table. Name a column that tells "
                "them apart in modality.id_column (none: average them), or make each a file"
            )
    return [f"{share:.0%} of the times are repeated: their values are averaged"]


def telling(columns: Sequence[str], what: str) -> str:
    """That columns tell rows, or series, apart, in words."""
    names = " and ".join(map(repr, columns))
    return f"column {names} tells {what} apart" if len(columns) == 1 else f"columns {names} tell {what} apart"


def ids_of(frame: pd.DataFrame, columns: Sequence[str]) -> Any:
    """The id of each row as text, "" where a cell is missing; that of several columns is A=1,B=2."""
    parts = [frame[column].astype(object).map(text) for column in columns]
    if len(parts) == 1:
        return parts[0]
    named = [f"{column}=" + part for column, part in zip(columns, parts, strict=True)]
    known = np.logical_and.reduce([part != "" for part in parts])
    return reduce(lambda left, right: left + "," + right, named).where(known, "")


def codes_of(column: Any) -> np.ndarray:
    """A number for each different id of a column, -1 where there is none."""
    codes, values = pd.factorize(column)
    numbers = pd.factorize(pd.Series([text(value) or None for value in values], dtype=object))[0]
    found: np.ndarray = np.append(numbers, -1)[codes]
    return found


def text(value: Any) -> str:
    """An id as text, the same for 7 and 7.0; "" where it is missing. ValueError for a list."""
    if isinstance(value, list | np.ndarray | dict):
        raise ValueError(f"a cell of ids holds a {type(value).__name__}, not a name: set modality.id_column")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if pd.isna(value) else str(value).strip()


def _advice(
    frame: pd.DataFrame,
    said: str,
    times: Sequence[str],
    keys: Sequence[str],
    id_columns: Sequence[str],
    columns: Sequence[str],
    measured: Sequence[str],
) -> str:
    """What columns say of rows of the same time, and the setting that follows."""
    ids = f"modality.id_column={'+'.join([*id_columns, *columns])}"
    first = columns[0]
    clock = len(times) == len(columns) == 1 and may_hold_clock(frame[times[0]], frame[first])
    if clock or (len(columns) == 1 and may_hold_minutes(times, frame[first])):
        together, what = "+".join([*times, first]), "is a time of day" if clock else "holds minutes"
        return (
            f"{said}, and {telling(columns, 'the rows')}: set modality.time_column={together} if it {what}, "
            f"else {ids}"
        )
    names = frame[first].dropna().map(text).value_counts()
    several = len(frame) > SEVERAL * len(frame[[*times]].drop_duplicates())  # rows of a time
    long = several and len(columns) == len(measured) == 1 and first != measured[0]
    if long and len(names) <= MOST_VARIABLES:
        settings = f"modality.variable_column={first} modality.value_column={measured[0]}"
        begin = f"{telling(columns, 'rows of one time')}: if it says where, set {ids}; if what, {settings}"
        lists = [f"'modality.columns=[{','.join(names.index[:count])}]'" for count in range(SHOWN, 0, -1)]
        return f"{begin} {next((known for known in lists if len(begin + known) < MOST_SAID), lists[-1])}"
    if len(columns) == 1 and not (several and _name_series(frame, [*times, *keys], columns, MOSTLY)):
        return (
            f"{said}, and {telling(columns, 'their rows')}. If it names states, set modality.id_column=none, "
            f"which averages them; if series, {ids}"
        )
    even = f"even of one {' and '.join(map(repr, id_columns))}: " if id_columns else ""
    return f"{said}, and {telling(columns, 'the rows')}: several series are in one table, {even}set {ids}"


def _place(names: Sequence[str]) -> tuple[str, ...]:
    """The columns of a latitude and a longitude; () where one of them is not there."""
    known = {plain(name): name for name in reversed(names)}
    found = [next((known[word] for word in words if word in known), "") for words in COORDINATES]
    return tuple(found) if all(found) else ()


def _together(frame: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """The fewest columns, up to three, that together name series with a row at most times; () for none."""
    numbers = frame.groupby([*keys], sort=False, dropna=False).ngroup().to_numpy()
    count = int(numbers.max()) + 1
    few = [name for name in columns if 2 <= int(frame[name].nunique()) <= len(frame) / count / MOSTLY]
    some = frame[numbers % max(1, count // LOOKED_AT) == 0]
    for size in (1, 2, 3):
        for chosen in combinations(few[:MOST_COLUMNS], size):
            if all(_name_series(rows, keys, chosen, MOSTLY) for rows in (some, frame)):
                return chosen
    return ()


def _name_series(frame: pd.DataFrame, keys: Sequence[str], columns: Sequence[str], least: float) -> bool:
    """Whether columns tell repeated times apart, and what they name has a row at a share of all times.

    What is measured has other values at other times, so that it names nothing.
    """
    times, names = (len(frame[[*some]].drop_duplicates()) for some in (keys, columns))
    known = times < (1 - SOME) * len(frame) and 2 <= names <= len(frame) / 2
    often = least * times * names <= len(frame)
    return known and often and float(frame.duplicated([*keys, *columns]).mean()) <= SOME


def _tells_apart(frame: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> str:
    """The first of some columns with which repeated times are no longer repeated; "" for none."""
    if frame.duplicated([*keys]).mean() <= SOME:
        return ""
    for column in columns:
        if _may_name(frame[column]) and frame.duplicated([*keys, column]).mean() <= SOME:
            return column
    return ""


def _at_once(
    frame: pd.DataFrame, times: Sequence[str], columns: Sequence[str], settings: TimeSettings
) -> str:
    """The first of some columns whose names are series of the same time that no other divides; "" for none.

    ValueError where each is divided by another one: rows of several series would be averaged.
    """
    columns = [column for column in columns if _may_name(frame[column])]
    if not columns:
        return ""
    seconds = read_times([frame[name] for name in times], settings).seconds
    ids = {name: codes_of(frame[name]) for name in columns}
    found = [name for name in columns if _are_series(seconds, ids[name])]
    divided = {
        name: [other for other in columns if _divides(seconds, ids[name], ids[other])] for name in found
    }
    whole = [name for name in found if not divided[name]]
    if found and not whole:
        one, other = (name for name in columns if name in (found[0], divided[found[0]][0]))
        raise ValueError(
            f"columns {one!r} and {other!r} both tell series apart, and neither does alone: set "
            f"modality.id_column={one}+{other}, or one of them"
        )
    return whole[0] if whole else ""


def _may_name(column: Any) -> bool:
    """Whether a column has few enough different values to be names of series."""
    return 2 <= int(column.nunique()) <= len(column) / 2


def _are_series(seconds: np.ndarray, ids: np.ndarray) -> bool:
    """Whether rows of several ids (-1: none) are of the same time, and these no states of one series.

    The rows of one series come in step, and those of one state do not come in a longer step of their own.
    """
    known = np.isfinite(seconds) & (ids >= 0)
    seconds, ids = seconds[known], ids[known]
    if not len(ids) or _share_inside(seconds, ids) <= SOME:
        return False
    usual = _in_step(seconds)
    if not usual:
        return True
    own = sum(len(rows) for rows in rows_of(ids) if _in_step(seconds[rows]) > (1 + SAME_STEP) * usual)
    return own > len(ids) / 2


def _in_step(seconds: np.ndarray) -> float:
    """The usual step of times that come in this step, or in whole numbers of it; 0 where they do not."""
    steps = _steps(seconds)
    if not len(steps):
        return 0.0
    usual = float(np.median(steps))
    early = len(seconds) - 1 - int((steps >= (1 - SAME_STEP) * usual).sum())
    even = np.abs(steps / usual - np.rint(steps / usual)) <= SAME_STEP
    return usual if early <= SOME * len(seconds) and even.mean() > 1 - MANY else 0.0


def _steps(seconds: np.ndarray) -> np.ndarray:
    """The time from each different time that is known to the next."""
    return np.diff(np.unique(seconds[np.isfinite(seconds)]))


def rows_of(ids: np.ndarray) -> list[np.ndarray]:
    """The rows of each id, without those that have none (-1)."""
    order = np.argsort(ids, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(ids[order])) + 1)
    return [part for part in parts if len(part) and ids[part[0]] >= 0]


def _divides(seconds: np.ndarray, ids: np.ndarray, others: np.ndarray) -> bool:
    """Whether the rows of one id are of several others at the same time, by another column."""
    pairs = pd.factorize(pd.MultiIndex.from_arrays([ids, others]))[0]
    if len(np.unique(pairs)) == len(np.unique(ids)):
        return False
    return any(_are_series(seconds[rows], others[rows]) for rows in rows_of(ids))


def _share_inside(seconds: np.ndarray, ids: np.ndarray) -> float:
    """The share of rows whose time lies between the first and the last one of another id."""
    groups = pd.Series(seconds).groupby(ids)
    first, last = (ends.to_numpy() for ends in (groups.min(), groups.max()))
    long = first < last
    begun = np.searchsorted(np.sort(first[long]), seconds)
    ended = np.searchsorted(np.sort(last[long]), seconds, "right")
    places = np.unique(ids, return_inverse=True)[1]
    own = (seconds > first[places]) & (seconds < last[places])
    return float((begun - ended - own > 0).mean())
