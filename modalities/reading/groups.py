"""Whose a file is, by its place and name: the folder that varies, else a part of the name.

A name that says that it is a person's (subject1, spk_02) counts first, wherever it stands. Folders called
train, test, valid, dev or val are splits and never groups. A folder that all files share (data, wav48, clips)
says nothing. Folders that hold a corpus's regions, formats, sessions, years or activities (DR1 of TIMIT) are
nobody; those are the folders below, or names of files that come again in several of them. Names that count
files, or say where a sensor was or when (utt001, wrist, jan), are nobody's: what is left of a name without
them, and without dates, is a group where it comes again. Folders that each count their own few people
(conv01/speaker1, conv02/speaker1) are groups; their numbers are not.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from modalities.reading.words import NO_PERSON, are_activities, bare, may_be_classes, nobody, rest, undated

SPLITS = {
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid",
    "dev": "valid", "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
PARTS_OF_SPLITS = re.compile(
    r"(train|test|dev|valid|val)[-_](clean|other|other-500|clean-\d+|\d+h?)", re.IGNORECASE
)
ANEW = re.compile(r"(speaker|spk|person|participant|user)[-_ ]?\d+", re.IGNORECASE)
FEW = 4  # people that a folder may count for itself
SURE = 0.9  # of the files have to name their person
MOST = 0.8  # of the names have to share their beginning with another one
WORDS = re.compile(r"[A-Za-z]{2,}")
FILE = -1  # the level of the files' names; 0 is the topmost folder
ANY = -2  # that of the last folder, or the file, whose name says that it is a person's


@dataclass(frozen=True)
class Way:
    """How a group is read off a name: the part, of what is left of the name."""

    part: re.Pattern[str]
    cut: Callable[[str], str] = str

    def of(self, name: str) -> str:
        """The part, which may have one group for it; "" where it is not there."""
        match = self.part.search(self.cut(name))
        return match[match.re.groups] if match else ""


# Whole words in a name; before _nohash_ stands the code of a speaker of Speech Commands
PERSON = Way(
    re.compile(
        r"(?<![^\W_])(?:sub|subj|subject|person|participant|proband|user|speaker|spk|actor)[-_ ]?\d+"
        r"(?![^\W_])|"
        r"^[0-9a-f]{8}(?=_nohash_)",
        re.IGNORECASE,
    )
)
PREFIX = Way(re.compile(r"^([A-Za-z]*\d+[A-Za-z]*|[A-Za-z]+\d*)(?=[-_. ])"))
WHOLE = Way(re.compile(r"^.+", re.DOTALL))
BEGINNING = Way(re.compile(r"^[^_]+(?=_)"))
CODE = Way(re.compile(r"^[A-Za-z]*\d+(?=[A-Za-z]+\d+$)"))  # S01 of S01R02
CUTS: tuple[Callable[[str], str], ...] = (str, undated, bare)  # the sooner the more is left of a name


@dataclass(frozen=True)
class Grouping:
    """How the files of a source are told apart."""

    level: int | None  # of the folder, or FILE, whose name has the group in it; None: none has
    way: Way | None  # how it is read off that name; None: it is all of it
    pattern: str | None
    own: bool  # a file without a group is one by itself
    doubt: str = ""  # a sentence about a guess that is not sure

    @classmethod
    def of(cls, names: Iterable[str], pattern: str | None = None, *, own: bool = False) -> "Grouping":
        """Look at all names (relative paths with /); `pattern` is a regular expression with one group.

        `own`: a file that no folder or name connects with another is a group by itself (a recording of a
        device), not a row among others.
        """
        if pattern is not None:
            return cls(None, None, pattern, own)
        paths = [parts for name in names if (parts := _without_splits(PurePosixPath(name).parts))]
        folders = range(max(map(len, paths), default=1) - 1)
        varying = [level for level in folders if len({_name(parts, level) for parts in paths}) > 1]
        persons = [level for level in varying if not _is_container(paths, level)]
        likely = (persons or varying)[:1]
        for level in (*folders, FILE, ANY):
            anew = level < 0 and any(_counts_anew(paths, folder) for folder in likely)
            if _names_persons(paths, level) and not anew:
                return cls(level, PERSON, None, own)
        for level in likely:
            if way := _recurring(paths, level):
                return cls(FILE, way, None, own)
            return cls(level, None, None, own, _doubt(paths, level))
        alone, doubt = _of_names([_name(parts, FILE) for parts in paths])
        return cls(FILE if alone else None, alone, None, own, doubt)

    def group(self, name: str) -> str:
        """The group of a file; "" where nothing tells. ValueError where `pattern` finds none."""
        if self.pattern is not None:
            match = re.search(self.pattern, name)
            if match is None:
                raise ValueError(f"modality.group_pattern={self.pattern!r} finds no group in the path")
            return match[1] or ""
        parts = _without_splits(PurePosixPath(name).parts)
        if self.level is not None:
            found = (self.way or WHOLE).of(_name(parts, self.level))
            return found or (PERSON.of(_name(parts, ANY)) if self.way == PERSON else "")
        folders = [] if self.own else parts[:-1]  # one that all share, and that may still be somebody's name
        return next((folder for folder in folders if not NO_PERSON.fullmatch(folder)), "")


def check_pattern(pattern: str | None, key: str) -> None:
    """Raises ValueError for what is no regular expression with one group in parentheses."""
    try:
        groups = 1 if pattern is None else re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{key}={pattern!r} is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"{key}={pattern!r} must have one group in parentheses, it has {groups}")


def split_of(name: str) -> str:
    """The split that a folder of a path names: "train", "valid", "test"; "" for none."""
    for part in PurePosixPath(name).parts[:-1]:
        if found := _split_named(part):
            return found
    return ""


def split_of_file(name: str) -> str:
    """The split that a file's name or a folder above it says: test.csv, train-00000-of-00001.parquet."""
    stem = PurePosixPath(name).name.partition(".")[0].partition("-")[0]
    return split_of(f"{stem}/{name}")


def known_split(name: str) -> str:
    """A split in our words, whatever case or word it has: Val, dev -> valid; another name stays as it is."""
    return SPLITS.get(name.strip().lower(), name.strip())


def _split_named(folder: str) -> str:
    plain = folder.lower()
    if plain in SPLITS:
        return SPLITS[plain]
    part = PARTS_OF_SPLITS.fullmatch(plain)
    return SPLITS[part[1].lower()] if part else ""


def _without_splits(parts: Sequence[str]) -> tuple[str, ...]:
    """A path without the folders that name a split."""
    return (*(part for part in parts[:-1] if not _split_named(part)), *parts[-1:])


def _name(parts: Sequence[str], level: int) -> str:
    """The folder of a level, "" where a path has none there; for FILE the file's name up to its first dot."""
    file = "".join(parts[-1:]).partition(".")[0]
    if level == ANY:
        return next((name for name in (file, *reversed(parts[:-1])) if PERSON.of(name)), "")
    if level == FILE:
        return file
    return parts[level] if level < len(parts) - 1 else ""


def _places(names: Iterable[str], folders: Iterable[str]) -> dict[str, set[str]]:
    """In which folders each name is."""
    places: dict[str, set[str]] = defaultdict(set)
    for name, folder in zip(names, folders, strict=True):
        places[name].add(folder)
    return places


def _names_persons(paths: Sequence[Sequence[str]], level: int) -> bool:
    """Whether nearly all names of a level say which person they are, and not all the same one."""
    found = [PERSON.of(_name(parts, level)) for parts in paths]
    return len({*found} - {""}) > 1 and sum(map(bool, found)) >= SURE * len(found)


def _counts_anew(paths: Sequence[Sequence[str]], level: int) -> bool:
    """Whether files name a few persons, counted anew in each folder of a level (conv01, house3)."""
    names = [PERSON.of(_name(parts, FILE)) for parts in paths]
    folders = [_name(parts, level) for parts in paths]
    counted = [re.fullmatch(r"[^\W\d].*\d[^\W\d]?", rest(folder)) for folder in {*folders}]
    if not all(counted) or nobody({*folders}) or not all(map(ANEW.fullmatch, {*names})):
        return False
    few = all(int(re.sub(r"\D", "", name)) <= FEW for name in {*names})
    return few and _mostly_again(names, _places(names, folders))


def _mostly_again(names: Sequence[str], places: Mapping[str, Collection[str]]) -> bool:
    """Whether most files have a name that is in several folders."""
    return sum(len(places[name]) > 1 for name in names) > 0.5 * len(names)


def _may_be_names(names: Collection[str], *, numbers: bool) -> bool:
    """Whether names are several, and neither all words for things nor, without `numbers`, a count."""
    known = [each for each in map(rest, names) if each]
    counted = all(each.isdecimal() for each in known) and not numbers
    counted = counted and (min(map(int, known), default=0) <= 1 or max(map(len, known)) < 3)
    return len(names) > 1 and bool(known) and not counted


def _is_container(paths: Sequence[Sequence[str]], level: int) -> bool:
    """Whether the folders of a level are nobody by their names, and a level of folders below them varies."""
    names = {_name(parts, level) for parts in paths} - {""}
    below = {_name(parts, level + 1) for parts in paths} - {""}
    return len(below) > 1 and nobody(names)


def _recurring(paths: Sequence[Sequence[str]], level: int) -> Way | None:
    """What of the files' names comes again in several folders of a level that are nobody by their names.

    That is the beginning or all of it, else either of what is left without dates and words that are nobody's;
    None where there is no such thing. Numbers from 0 or 1 on are only somebody's where the folders are
    activities: in those of days or sessions they count files.
    """
    folders = [_name(parts, level) for parts in paths]
    known = {*folders} - {""}
    ways = [replace(way, cut=cut) for cut in CUTS for way in (PREFIX, WHOLE)]
    for way in ways if nobody(known) else ():
        names = [way.of(_name(parts, FILE)) for parts in paths]
        places = _places(names, folders)
        usual = "" not in places and _mostly_again(names, places)
        numbers = are_activities(known)
        telling = _may_be_names(places, numbers=numbers)
        if usual and telling and (way.cut is str or _are_whole(names, numbers=numbers)):
            return way
    return None


def _doubt(paths: Sequence[Sequence[str]], level: int) -> str:
    """What to say where files of several folders begin alike, up to the first _; "" where they do not."""
    names = [BEGINNING.of(_name(parts, FILE)) for parts in paths]
    places = _places(names, [_name(parts, level) for parts in paths])
    several = {name for name, found in places.items() if name and len(found) > 1}
    if sum(name in several for name in names) <= len(names) / 2 or not _may_be_names(several, numbers=False):
        return ""
    first = min(several)
    some = ", ".join(sorted(places[first])[:2])
    return (
        "modality.group_pattern='([^/_]+)_[^/]*$' makes groups of the beginnings of names: now folders are "
        f"groups, and {first}_ is in several of them ({some})"
    )


def _of_names(names: Sequence[str]) -> tuple[Way | None, str]:
    """How the group is read off names without folders, None where it is not; and what to say of a doubt.

    By their beginning, unless that is nobody's; else by what is left of them, where it comes again and is no
    word for a class.
    """
    usual = _beginning(names)
    if usual and not _are_known(map(usual.of, names)):
        return usual, ""
    for cut, least in ((undated, 0.0), (bare, 0.5)):
        left = [cut(name) for name in names]
        first = _beginning(left)
        if left == [*names] or (first and _are_known(map(first.of, left))):
            continue
        whole = WHOLE if _comes_again(left, least) else None
        for way in filter(None, (first, whole)):
            found = [*map(way.of, left)]
            if _are_whole(found, numbers=False) and not (cut is bare and may_be_classes(found)):
                return replace(way, cut=cut), _taken(names, found) if cut is bare else ""
    codes = [CODE.of(name) for name in names]
    alike = len({re.sub(r"\d+", "0", name) for name in names}) == 1
    if alike and _comes_again(codes, 0.5) and _may_be_names({*codes}, numbers=False):
        return CODE, ""
    return usual, _inside(names)


def _taken(names: Sequence[str], found: Sequence[str]) -> str:
    """What to say of groups that are left of names."""
    name, group = next((name, group) for name, group in zip(names, found, strict=True) if group)
    return (
        f"groups are what is left of names without counts and words for things, as {group} of {name}: if "
        "that is nobody, modality.group_pattern='(.+)' makes a group of each file"
    )


def _are_known(names: Iterable[str]) -> bool:
    """Whether most of some names have nothing but dates and words that are nobody's."""
    found = [bare(name) for name in names]
    return sum(map(bool, found)) < 0.5 * len(found)


def _comes_again(names: Sequence[str], least: float) -> bool:
    """Whether more than a share `least` of some names is there twice."""
    counts = Counter(names)
    return sum(count for name, count in counts.items() if name and count > 1) > least * len(names)


def _are_whole(names: Sequence[str], *, numbers: bool) -> bool:
    """Whether names may be somebody's as they are: they differ, and not by a count at their end."""
    rows = [re.split("[-_. ]+", name) for name in names]
    for _ in ("before", "behind"):  # what all of them have there says nothing
        while rows and all(rows) and len({row[0] for row in rows}) == 1:
            rows = [row[1:] for row in rows]
        rows = [row[::-1] for row in rows]
    alone = all(len(row) < 2 for row in rows)
    return _may_be_names({"".join(row[-1:]) for row in rows}, numbers=numbers and alone)


def _beginning(names: Sequence[str]) -> Way | None:
    """What of names without folders is the group: their beginning, where nearly all share theirs, or None."""
    firsts = Counter(PREFIX.of(name) for name in names)
    shared = sum(count for first, count in firsts.items() if count > 1)
    if len(firsts) < 2 or "" in firsts or shared <= MOST * len(names):
        return None
    digits = "0" in firsts and all(first.isdecimal() and len(first) == 1 for first in firsts)
    return (_word(names) if digits else None) or PREFIX  # persons are counted from 1


def _word(names: Sequence[str]) -> Way | None:
    """The first part of names such as 0_jackson_1 whose words all come with several beginnings."""
    rows = [re.split("[-_ ]", name) for name in names]
    for place in range(1, min(map(len, rows))):
        words = _places([row[place] for row in rows], [row[0] for row in rows])
        several = len(words) > 1 and all(len(firsts) > 1 for firsts in words.values())
        if several and all(map(WORDS.fullmatch, words)) and not nobody(words):
            return Way(re.compile(rf"^(?:[^-_ ]*[-_ ]){{{place}}}([^-_ ]+)"))
    return None


def _inside(names: Sequence[str]) -> str:
    """What to say of the first part of names that is somebody's, where it comes again; "" where none does."""
    rows = [re.split("[-_ ]", name) for name in names]
    differ = len({*map(bare, names)}) > 1  # not by their dates alone
    for place in range(min(map(len, rows), default=0) if differ else 0):
        counts = Counter(row[place] for row in rows)
        if len(counts) == 1 or _are_known(row[place] for row in rows):
            continue
        again = [value for value, count in counts.items() if value and count > 1]
        if place == 0 or sum(counts[value] for value in again) <= MOST * len(names):
            break
        example = min(name for name, row in zip(names, rows, strict=True) if row[place] in again)
        pattern = rf"(?:^|/)(?:[^-_ /]*[-_ ]){{{place}}}([^-_ ./]+)[^/]*$"
        return (
            f"modality.group_pattern='{pattern}' makes groups of a part of the names, if "
            f"{re.split('[-_ ]', example)[place]} in {example} says whose it is: now it is in several groups"
        )
    return ""
