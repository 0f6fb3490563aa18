"""Whose a file is, by its place and name: the folder that varies, else the beginning of the name.

Folders called train, test, valid, dev or val are splits and never groups. A folder that all files share
(data, wav48, clips) says nothing. Folders that hold a corpus's regions or sessions (DR1 of TIMIT) are not the
speakers; those are the folders below.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
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
    r"(19|20)\d\d([-_]?\d\d){0,2}",
    re.IGNORECASE,
)
PREFIX = re.compile(r"([A-Za-z]*\d+[A-Za-z]*|[A-Za-z]+\d*)(?=[-_. ])")


@dataclass(frozen=True)
class Grouping:
    """How the files of a source are told apart."""

    depth: int | None  # the folder that names the group; None: by the name
    by_prefix: bool
    pattern: str | None
    own: bool  # a file without a group is one by itself

    @classmethod
    def of(cls, names: Iterable[str], pattern: str | None = None, *, own: bool = False) -> "Grouping":
        """Look at all names (relative paths with /); `pattern` is a regular expression with one group.

        `own`: a file that no folder or name connects with another is a group by itself (a recording of a
        device), not a row among others.
        """
        if pattern is not None:
            return cls(None, False, pattern, own)
        paths = [_without_splits(PurePosixPath(name).parts) for name in names]
        folders = [parts[:-1] for parts in paths]
        deepest = max(map(len, folders), default=0)
        varying = [
            depth for depth in range(deepest) if len({parts[depth : depth + 1] for parts in folders}) > 1
        ]
        persons = [depth for depth in varying if not _is_container(folders, depth)]
        for depth in persons or varying[:1]:
            return cls(depth, False, None, own)
        prefixes = Counter(prefix_of(parts[-1]) for parts in paths if parts)
        shared = sum(count for prefix, count in prefixes.items() if prefix and count > 1)
        if len(prefixes) > 1 and "" not in prefixes and shared > 0.8 * len(paths):
            return cls(None, True, None, own)
        return cls(None, False, None, own)

    def group(self, name: str) -> str:
        """The group of a file; "" where nothing tells. ValueError where `pattern` finds none."""
        if self.pattern is not None:
            match = re.search(self.pattern, name)
            if match is None:
                raise ValueError(f"modality.group_pattern={self.pattern!r} finds no group in the path")
            return match[1] or ""
        parts = _without_splits(PurePosixPath(name).parts)
        if self.by_prefix:
            return prefix_of(parts[-1]) if parts else ""
        if self.depth is not None:
            return parts[self.depth] if len(parts) > self.depth + 1 else ""
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


def prefix_of(file_name: str) -> str:
    """What a file's name begins with, up to the first mark: p225 of p225_001.wav; "" without a mark."""
    found = PREFIX.match(file_name.partition(".")[0])
    return found[1] if found else ""


def _split_named(folder: str) -> str:
    plain = folder.lower()
    if plain in SPLITS:
        return SPLITS[plain]
    part = PARTS_OF_SPLITS.fullmatch(plain)
    return SPLITS[part[1].lower()] if part else ""


def _without_splits(parts: Sequence[str]) -> tuple[str, ...]:
    """A path without the folders that name a split."""
    return (*(part for part in parts[:-1] if not _split_named(part)), *parts[-1:])


def _is_container(folders: Sequence[Sequence[str]], depth: int) -> bool:
    """Whether the folders of a level are no persons by their names, and a level below them varies."""
    names = {parts[depth] for parts in folders if len(parts) > depth}
    below = {parts[depth + 1] for parts in folders if len(parts) > depth + 1}
    return len(below) > 1 and all(NO_PERSON.fullmatch(name) for name in names)
