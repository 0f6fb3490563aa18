"""Whose a file is, by its place and name: the folder that varies, else the beginning of the name.

A name that says that it is a person's (subject1, spk_02) counts first, wherever it stands. Folders called
train, test, valid, dev or val are splits and never groups. A folder that all files share (data, wav48, clips)
says nothing. Folders that hold a corpus's regions, sessions, years or activities (DR1 of TIMIT) are nobody;
those are the folders below, or names of files that come again in several of them. Names that count files, or
say where a sensor was or when (utt001, wrist, jan), are nobody's. Folders that each count their own few
people (conv01/speaker1, conv02/speaker1) are groups; their numbers are not.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

SPLITS = {
    "train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid",
    "dev": "valid", "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
PARTS_OF_SPLITS = re.compile(
    r"(train|test|dev|valid|val)[-_](clean|other|other-500|clean-\d+|\d+h?)", re.IGNORECASE
)
NO_PERSON = re.compile(
    r"dr\d+|(wav|flac|mp3|audio|clips?|data|raw|recordings?|files?)s?(\d+)?|mic\d|ch\d|session[-_ ]?\d+|"
    r"(19|20)\d\d([-_]?\d\d){0,2}|acc|accel(erometer|eration)?|gyr(o|oscope)?|mag(netometer)?",
    re.IGNORECASE,
)
# A word of a file's name that counts files, or says where a sensor was or when
THING = re.compile(
    r"((wrist|hip|ankle|chest|thigh|shin|waist|belt|arm|forearm|leg|foot|hand|head|back|knee|pocket|left|right|"
    r"upper|lower|front|top|bottom|rec|recording|record|take|clip|utt|utterance|sent|sentence|track|file|img|"
    r"zoom|part|seg|segment|chunk|run|trial|test|task|condition|phase|exp|experiment|visit|round|scene|gesture|"
    r"activity|emotion|word|digit|class|label|session|day|week|month|year|quarter|hour|jan|feb|mar|apr|may|jun|"
    r"jul|aug|sept?|oct|nov|dec|january|february|march|april|june|july|august|september|october|november|"
    r"december)s?)+"
)
# A word of a name such as 0.Stand or climbing_stairs; the short ones are MotionSense's
ACTIVITY = re.compile(
    r"(walk|jog|run|stand|sit|jump|climb|cycl|bik|fall|sleep|ly|lay|lie)(n?ing|ging|ting|e|s)?|"
    r"(up|down)?stairs?|dws|ups|wlk|std"
)
HOW = re.compile(  # words that an activity may have beside it
    r"up|down|to|on|off|in|out|and|the|fast|slow(ly)?|quick(ly)?|normal(ly)?|back|forward|backwards?|"
    r"left|right|side|indoors?|outdoors?|treadmill|bed|chair|floor|elevator"
)
# Whole words in a name; before _nohash_ stands the code of a speaker of Speech Commands
PERSON = re.compile(
    r"(?<![^\W_])(?:sub|subj|subject|person|participant|proband|user|speaker|spk|actor)[-_ ]?\d+(?![^\W_])|"
    r"^[0-9a-f]{8}(?=_nohash_)",
    re.IGNORECASE,
)
ANEW = re.compile(r"(speaker|spk|person|participant|user)[-_ ]?\d+", re.IGNORECASE)
FEW = 4  # people that a folder may count for itself
SURE = 0.9  # of the files have to name their person
PREFIX = re.compile(r"^([A-Za-z]*\d+[A-Za-z]*|[A-Za-z]+\d*)(?=[-_. ])")
BEGINNING = re.compile(r"^[^_]+(?=_)")
WHOLE = re.compile(r"^.+")
WORDS = re.compile(r"[A-Za-z]{2,}")
FILE = -1  # the level of the files' names; 0 is the topmost folder


@dataclass(frozen=True)
class Grouping:
    """How the files of a source are told apart."""

    level: int | None  # of the folder, or FILE, whose name has the group in it; None: none has
    part: re.Pattern[str] | None  # what of that name is the group; None: all of it
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
        for level in (*folders, FILE):
            anew = level == FILE and any(_counts_anew(paths, folder) for folder in likely)
            if _names_persons(paths, level) and not anew:
                return cls(level, PERSON, None, own)
        for level in likely:
            if part := _recurring(paths, level):
                return cls(FILE, part, None, own)
            return cls(level, None, None, own, _doubt(paths, level))
        beginning = _beginning([_name(parts, FILE) for parts in paths])
        return cls(FILE if beginning else None, beginning, None, own)

    def group(self, name: str) -> str:
        """The group of a file; "" where nothing tells. ValueError where `pattern` finds none."""
        if self.pattern is not None:
            match = re.search(self.pattern, name)
            if match is None:
                raise ValueError(f"modality.group_pattern={self.pattern!r} finds no group in the path")
            return match[1] or ""
        parts = _without_splits(PurePosixPath(name).parts)
        if self.level is not None:
            return _found(self.part, _name(parts, self.level))
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
    if level == FILE:
        return "".join(parts[-1:]).partition(".")[0]
    return parts[level] if level < len(parts) - 1 else ""


def _found(part: re.Pattern[str] | None, name: str) -> str:
    """A part of a name, which may have one group for it; "" where it is not there."""
    match = part.search(name) if part else None
    return match[match.re.groups] if match else "" if part else name


def _places(names: Iterable[str], folders: Iterable[str]) -> dict[str, set[str]]:
    """In which folders each name is."""
    places: dict[str, set[str]] = defaultdict(set)
    for name, folder in zip(names, folders, strict=True):
        places[name].add(folder)
    return places


def _names_persons(paths: Sequence[Sequence[str]], level: int) -> bool:
    """Whether nearly all names of a level say which person they are, and not all the same one."""
    found = [_found(PERSON, _name(parts, level)) for parts in paths]
    return len({*found} - {""}) > 1 and sum(map(bool, found)) >= SURE * len(found)


def _counts_anew(paths: Sequence[Sequence[str]], level: int) -> bool:
    """Whether files name a few persons, counted anew in each folder of a level (conv01, house3)."""
    names = [_found(PERSON, _name(parts, FILE)) for parts in paths]
    folders = [_name(parts, level) for parts in paths]
    counted = [re.fullmatch(r"[^\W\d].*\d[^\W\d]?", _rest(folder)) for folder in {*folders}]
    if not all(counted) or _nobody({*folders}) or not all(map(ANEW.fullmatch, {*names})):
        return False
    few = all(int(re.sub(r"\D", "", name)) <= FEW for name in {*names})
    return few and _mostly_again(names, _places(names, folders))


def _mostly_again(names: Sequence[str], places: Mapping[str, Collection[str]]) -> bool:
    """Whether most files have a name that is in several folders."""
    return sum(len(places[name]) > 1 for name in names) > 0.5 * len(names)


def _nobody(names: Collection[str]) -> bool:
    """Whether names are those of containers, years or sensors, or most of them those of activities."""
    return all(NO_PERSON.fullmatch(name) for name in names) or _are_activities(names)


def _are_activities(names: Collection[str]) -> bool:
    return sum(map(_is_activity, names)) > 0.5 * len(names)


def _is_activity(name: str) -> bool:
    """Whether all words of a name say what is done and how: neither P01_walk nor anna_walk is one."""
    words = re.findall(r"[^\W\d_]+", name.lower())
    known = [word for word in words if ACTIVITY.fullmatch(word)]
    return bool(known) and all(word in known or HOW.fullmatch(word) for word in words)


def _rest(name: str) -> str:
    """A name without words for things, and without marks around what is left: 001 of utt_001."""
    if NO_PERSON.fullmatch(name):
        return ""
    words = re.findall(r"[^\W\d_]+|[\W\d_]+", name)
    return "".join(word for word in words if not THING.fullmatch(word.lower())).strip("-_. ()")


def _may_be_names(names: Collection[str], *, numbers: bool) -> bool:
    """Whether names are several, and neither all words for things nor, without `numbers`, a count."""
    rest = [each for each in map(_rest, names) if each]
    counted = all(each.isdecimal() for each in rest) and not numbers
    counted = counted and (min(map(int, rest), default=0) <= 1 or max(map(len, rest)) < 3)
    return len(names) > 1 and bool(rest) and not counted


def _is_container(paths: Sequence[Sequence[str]], level: int) -> bool:
    """Whether the folders of a level are nobody by their names, and a level of folders below them varies."""
    names = {_name(parts, level) for parts in paths} - {""}
    below = {_name(parts, level + 1) for parts in paths} - {""}
    return len(below) > 1 and _nobody(names)


def _recurring(paths: Sequence[Sequence[str]], level: int) -> re.Pattern[str] | None:
    """What of the files' names comes again in several folders of a level that are nobody by their names.

    That is the beginning or all of it; None where there is no such thing. Numbers from 0 or 1 on are only
    somebody's where the folders are activities: in those of days or sessions they count files.
    """
    folders = [_name(parts, level) for parts in paths]
    known = {*folders} - {""}
    for part in (PREFIX, WHOLE) if _nobody(known) else ():
        names = [_found(part, _name(parts, FILE)) for parts in paths]
        places = _places(names, folders)
        usual = "" not in places and _mostly_again(names, places)
        if usual and _may_be_names(places, numbers=_are_activities(known)):
            return part
    return None


def _doubt(paths: Sequence[Sequence[str]], level: int) -> str:
    """What to say where files of several folders begin alike, up to the first _; "" where they do not."""
    names = [_found(BEGINNING, _name(parts, FILE)) for parts in paths]
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


def _beginning(names: Sequence[str]) -> re.Pattern[str] | None:
    """What of names without folders is the group: their beginning, where nearly all share theirs, or None."""
    firsts = Counter(_found(PREFIX, name) for name in names)
    shared = sum(count for first, count in firsts.items() if count > 1)
    if len(firsts) < 2 or "" in firsts or shared <= 0.8 * len(names):
        return None
    digits = "0" in firsts and all(first.isdecimal() and len(first) == 1 for first in firsts)
    return (_word(names) if digits else None) or PREFIX  # persons are counted from 1


def _word(names: Sequence[str]) -> re.Pattern[str] | None:
    """The first part of names such as 0_jackson_1 whose words all come with several beginnings."""
    rows = [re.split("[-_ ]", name) for name in names]
    for place in range(1, min(map(len, rows))):
        words = _places([row[place] for row in rows], [row[0] for row in rows])
        several = len(words) > 1 and all(len(firsts) > 1 for firsts in words.values())
        if several and all(map(WORDS.fullmatch, words)) and not _nobody(words):
            return re.compile(rf"^(?:[^-_ ]*[-_ ]){{{place}}}([^-_ ]+)")
    return None
