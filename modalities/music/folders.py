"""What the folders of scores say: whose pieces they hold, and which of them are one piece."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from modalities.reading.groups import split_of
from modalities.reading.words import rest

MOVEMENT = re.compile(r"(?<=\d)\.\d[\w-]*$")  # bwv244.15, of bwv244
VERSION = re.compile(r"(?<=[^/\d])\.\d{1,2}$")  # Dancing Queen.1, beside Dancing Queen
YEAR = re.compile(r"(19|20)\d\d")
CONTAINER = re.compile(
    r"((midi?|kern|krn|(music)?xml|mxl|abc|score|music|song|tune|piece|track|file|data(set|base)?|corpus|corpora|"
    r"collection|raw|source|full|matched|clean|aligned)s?[-_ ]?)+",
    re.IGNORECASE,
)
COLLECTION = re.compile(r"data(set|base)|corp(us|ora)|collection", re.IGNORECASE)
CODE = re.compile(r"(?=(?:\D*\d){4})[A-Za-z\d]+")  # TRAAAGR128F425B14B
HASH = re.compile(r"[0-9a-f]{16,}")
WORK = re.compile(r"(bwv|op(us)?|hob|hwv|rv|woo|no|kv?(?=\d\d))[-_. ]*\d[\w.-]*")
NO_COMPOSER = re.compile(rf"\d+|[^\W_]|{CONTAINER.pattern}\d*|{CODE.pattern}|{WORK.pattern}", re.IGNORECASE)
NOBODY = re.compile(r"(anon(ymous)?|trad(itional)?|unknown|various|composer)?\W*", re.IGNORECASE)
WORD = re.compile(r"[^\W\d_]{2,}")
MOST = 0.5  # of the folders, or of the files


@dataclass(frozen=True)
class Folders:
    """How the folders of a source's scores are understood."""

    plain: frozenset[str]  # the paths of all scores, without endings
    level: int | None  # of the folders that are composers; 0 is the topmost; None: none are
    pieces: bool  # whether the last folder is the piece of the scores in it
    doubt: str = ""  # a sentence about what is not sure

    @classmethod
    def of(cls, names: Iterable[PurePosixPath]) -> "Folders":
        """Look at the paths of all scores."""
        names = [*names]
        level = _level_of_composers([_folders(name) for name in names])
        owns = [_own(name, level) for name in names]
        pieces, doubt = _are_pieces([name.stem for name in names], owns)
        return cls(frozenset(str(name.with_suffix("")) for name in names), level, pieces, doubt)

    def composer(self, name: PurePosixPath) -> str:
        """The composer that a folder names; "" where none does."""
        folders = _folders(name)
        found = folders[self.level] if self.level is not None and self.level < len(folders) else ""
        return "" if NO_COMPOSER.fullmatch(found) else found

    def piece(self, name: PurePosixPath) -> str:
        """The path without its ending and the number of a movement or version, or up to a piece's own folder.

        A number is a version's where the path without it is there, too. A piece's own folder is one with the
        number that the file's name begins with (001 of 001/versions/001-v1.mid; no year is), or the last one
        where these are pieces.
        """
        for place, folder in enumerate(name.parts[:-1], start=1):
            numbered = folder.isdecimal() and not YEAR.fullmatch(folder)
            if numbered and re.match(rf"{folder}(?![^\W_])", name.stem):
                return "/".join(name.parts[:place])
        if self.pieces and (own := _own(name, self.level)):
            return own
        path = str(name.with_suffix(""))
        whole = VERSION.sub("", path)
        return whole if whole != path and whole in self.plain else MOVEMENT.sub("", path)


def composer_of(stated: str, folder: str) -> str:
    """The composer that a file states, by the name of its folder where both are one: bach, of Bach, J. S.

    The folder counts where the file states nobody.
    """
    return folder if folder and (_are_one(stated, folder) or NOBODY.fullmatch(stated)) else stated


def _are_one(*names: str) -> bool:
    """Whether one of two names has all words of the other, in any order, some perhaps as initials."""
    plain = [re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name.lower())) for name in names]
    fewer, more = sorted((set(re.findall(r"[^\W\d_]+", name)) for name in plain), key=len)

    def known(word: str) -> bool:
        return any(word == other or (1 in map(len, (word, other)) and word[0] == other[0]) for other in more)

    return any(len(word) > 1 for word in fewer & more) and all(map(known, fewer))


def top_folder(name: PurePosixPath) -> str:
    """The first folder of a path that names no split; "" where there is none."""
    return next(iter(_folders(name)), "")


def _folders(name: PurePosixPath) -> tuple[str, ...]:
    """The folders of a path that name no split."""
    return tuple(part for part in name.parts[:-1] if not split_of(f"{part}/{name.name}"))


def _level_of_composers(rows: Sequence[Sequence[str]]) -> int | None:
    """The first level of folders with names that a composer may have; None where there is no such level.

    A folder that all scores share, and that is called a collection, counts where no level below it does.
    """
    levels = [
        {row[level] for row in rows if level < len(row)} for level in range(max(map(len, rows), default=0))
    ]
    likely = [level for level, names in enumerate(levels) if not all(map(NO_COMPOSER.fullmatch, names))]
    one = [level for level in likely if len(levels[level]) == 1]
    gathered = [level for level in one if COLLECTION.search(min(levels[level]))]
    return next((level for level in likely if level not in gathered), next(iter(likely), None))


def _own(name: PurePosixPath, level: int | None) -> str:
    """The path of a score up to its last folder that is no container, if that is below the composers'."""
    above = 0 if level is None else level + 1
    inside = [folder for folder in _folders(name)[above:] if not CONTAINER.fullmatch(folder)]
    return next((str(path) for path in name.parents if inside and path.name == inside[-1]), "")


def _are_pieces(stems: Sequence[str], owns: Sequence[str]) -> tuple[bool, str]:
    """Whether last folders are pieces, and what to say where that is not sure.

    They are where a name of a file is in most of them, or where names are hashes and folders are codes.
    """
    inside = [(stem, own) for stem, own in zip(stems, owns, strict=True) if own]
    hashes = sum(
        bool(HASH.fullmatch(stem) and CODE.fullmatch(own.rpartition("/")[2])) for stem, own in inside
    )
    places: dict[str, set[str]] = defaultdict(set)
    for stem, own in inside:
        if WORD.search(rest(stem)):  # track01 counts
            places[stem].add(own)
    count = len({own for _, own in inside})
    again = [stem for stem, found in places.items() if len(found) > 1]
    if hashes > MOST * len(stems) or (count > 1 and any(len(places[stem]) > MOST * count for stem in again)):
        return True, ""
    if sum(stem in again for stem, _ in inside) <= MOST * len(stems):
        return False, ""
    first = min(again)
    return False, (
        "modality.group_pattern='(.+)/[^/]*$' makes a piece of each last folder: now each file is one, and "
        f"{first} is in several folders ({', '.join(sorted(places[first])[:2])})"
    )
