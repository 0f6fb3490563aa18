"""What files of one source say of each other: that they are of one station, or of different quantities."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import PurePosixPath

from modalities.reading.words import bare
from modalities.weather.identities import key_of
from modalities.weather.series import Found
from seqssl import UserError

QUANTITIES = {  # by a word of a file's name
    "temperature": r"te?mp|temperatures?|tmax|tmin|tmean|t2m|tas|tair",
    "humidity": r"humid(ity)?|rh|hurs",
    "pressure": r"press(ure)?|slp|psl|baro(meter|metric)?",
    "wind": r"winds?|gusts?",
    "speed": r"speeds?|velocity",
    "direction": r"dir(ection)?s?",
    "rain": r"rain(fall)?|precip(itation)?|prcp|snow(fall)?",
    "radiation": r"radiation|irradiance|solar|ghi|dni|dhi|sunshine|pv",
    "clouds": r"clouds?|cloudiness",
    "dew": r"dew(point)?",
    "flow": r"flows?|discharge|levels?|stage",
    "load": r"loads?|power|consumption|demand|generation|prices?",
    "gas": r"co2?|no2?|nox|o3|ozone|so2|pm10|pm2|pm25",
}
LOOKED_AT = 5  # files without a word of a quantity that are compared with each other
SURE = 3  # columns that have to lie apart in them
UNSURE = {"city", "location", "sensor", "device", "name", "place"}  # that many stations may share

Middles = Mapping[str, tuple[float, float]]
Places = dict[
    str, set[tuple[str, str]]
]  # by the value of a column: the files that hold it, with their groups


def by_station(files: Mapping[str, Sequence[Found]]) -> dict[str, list[Found]]:
    """The series of each file: in one group where a column of ids says that they are of one station.

    A column counts whose values differ, and come again in files that the path puts into different groups.
    Groups of several files that each lie within one value say more than it (houses of a city). Numbers that
    folders may each count for themselves (sensor 1 of house1, of house2) are only said, as are columns that
    may be of many stations, or that one of stations divides.
    """
    places: dict[str, Places] = defaultdict(lambda: defaultdict(set))
    spelled: dict[str, str] = {}
    for name, found in files.items():
        for one in found:
            for column, value in one.said:
                spelled.setdefault(key_of(column), column)
                places[key_of(column)][value].add((name, one.group))
    several = [
        column
        for column, values in places.items()
        if len(values) > 1 and _says_more(values, sure=column not in UNSURE)
    ]
    if not several:
        return {name: [*found] for name, found in files.items()}
    column = max(several, key=lambda column: (column not in UNSURE, len(places[column])))
    others = (places[other] for other in places if other not in {column, *UNSURE})
    divided = any(_divides(other, places[column]) for other in others)
    if divided and column in UNSURE:
        return {name: [*found] for name, found in files.items()}
    doubt = _doubt(spelled[column], places[column])
    if divided or column in UNSURE:
        doubt = (
            f"column {spelled[column]!r} has {len(places[column])} values in the files and makes no groups: "
            f"if it names stations, set modality.id_column={spelled[column]}"
        )

    def told(one: Found) -> Found:
        values = [value for name, value in one.said if key_of(name) == column]
        if not values:
            return one
        return replace(one, notices=(*one.notices, doubt)) if doubt else replace(one, group=values[0])

    return {name: [told(one) for one in found] for name, found in files.items()}


def _says_more(values: Places, *, sure: bool) -> bool:
    """Whether files of several groups share a value, and the groups are no finer ones of several files.

    Or whether values that each come again divide a group that only names of files make (bme280), or are all
    of it where they are `sure`.
    """
    shared = any(
        len({name for name, _ in places}) > 1 < len({group for _, group in places})
        for places in values.values()
    )
    held: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for value, places in values.items():
        for name, group in places:
            held[group].add((name, value))
    finer = all(len({value for _, value in pairs}) == 1 for pairs in held.values())
    again = all(len({name for name, _ in places}) > 1 for places in values.values())
    named = not any(group in PurePosixPath(name).parts[:-1] for group in held for name, _ in held[group])
    if not shared:
        return named and again and (sure or not finer)
    return not (finer and any(len({name for name, _ in pairs}) > 1 for pairs in held.values()))


def _divides(others: Places, values: Places) -> bool:
    """Whether files that share a value of one column differ by another one."""
    theirs = {name: value for value, places in others.items() for name, _ in places}
    return any(len({theirs[name] for name, _ in places if name in theirs}) > 1 for places in values.values())


def _doubt(column: str, values: Places) -> str:
    """What to say where folders may count their own; "" where a value is surely the same in all of them."""
    counted = all(value.isdecimal() for value in values) and max(map(int, values)) < 2 * len(values) + 2
    for value, places in values.items():
        groups = {group for name, group in places if group in PurePosixPath(name).parts[:-1]}
        named = sorted(filter(bare, groups))
        if counted and len(named) > 1:
            return (
                f"column {column!r} is {value} in {named[0]} and in {named[1]}, which are groups: if that is "
                f"one station, set modality.id_column={column}"
            )
    return ""


def check_quantities(files: Mapping[str, Sequence[Found]]) -> str:
    """UserError where columns of one name hold another quantity in each file: temperature.csv, pressure.csv.

    The names of the files have to say so, and those of several columns (places) not. Returns what to say
    where only the values look like it.
    """
    lone = {name: found[0].middles for name, found in files.items() if len(found) == 1 and found[0].middles}
    kinds: dict[frozenset[str], list[str]] = defaultdict(list)
    for name in lone:
        kinds[_quantities(PurePosixPath(name).name)].append(name)
    unknown = kinds.pop(frozenset(), [])
    said = ""
    for one, other in combinations([names[0] for names in kinds.values()], 2):
        apart, count = _apart(lone[one], lone[other])
        if 2 * len(apart) > count >= SURE:
            raise UserError(
                f"columns of one name hold different things in {one} and {other}: {apart[0]}. Join them into "
                "one table, with a column for each quantity, or prepare one of them. If they hold the same, "
                "set modality.group_pattern='([^/.]+)[^/]*$', which makes a group of each name."
            )
        said = said or (_far(one, other, apart[0]) if 2 * len(apart) > count else "")
    for one, other in combinations(unknown[:LOOKED_AT], 2):
        apart, count = _apart(lone[one], lone[other])
        said = said or (_far(one, other, apart[0]) if len(apart) == count >= SURE else "")
    return said


def _far(one: str, other: str, apart: str) -> str:
    return (
        f"columns of one name lie far apart in {one} and {other}: {apart}; if they hold different things, "
        "join them into one table"
    )


def _quantities(name: str) -> frozenset[str]:
    """The quantities that the words of a name say."""
    words = re.findall(r"[a-z]+\d*", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return frozenset(
        kind for kind, pattern in QUANTITIES.items() for word in words if re.fullmatch(pattern, word)
    )


def _apart(one: Middles, other: Middles) -> tuple[list[str], int]:
    """The columns that lie farther apart than either is wide, in words, of how many that both files have.

    Those that are called after a quantity do not count: they are what they are called.
    """
    names = [name for name in one if name in other and not _quantities(name)]
    found = []
    for name in names:
        (low, high), (least, most) = one[name], other[name]
        if max(least - high, low - most) > max(high - low, most - least) > 0:
            found.append(f"{name} is {low:.4g} to {high:.4g}, and {least:.4g} to {most:.4g}")
    return found, len(names)
