"""The table beside scores, as MAESTRO and ASAP have one: composers, titles and splits of their files."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from modalities.reading.groups import known_split
from modalities.reading.tables import Table, shown

SUFFIXES = (".csv", ".tsv")
COMPOSER_COLUMNS = ("canonical_composer", "composer", "artist")
TITLE_COLUMNS = ("canonical_title", "title", "work", "piece")
SPLIT_COLUMNS = ("split", "subset", "set")
MOST_TABLES = 30  # in a folder, beyond which they are no lists of its scores
MOST_NAMED = 0.9  # of the scores have to be in a table that is read


class Known(NamedTuple):
    """What a table says of a score; "" where it says nothing."""

    composer: str = ""
    title: str = ""
    split: str = ""

    @property
    def piece(self) -> str:
        """The piece, by its title."""
        return f"{self.composer}/{self.title}".lstrip("/") if self.title else ""


def known_of(
    files: Mapping[PurePosixPath, Path], scores: Mapping[PurePosixPath, Path]
) -> tuple[dict[PurePosixPath, Known], str]:
    """What the one table that names nearly all scores says of each, and what to say of tables that do not."""
    tables = [name for name in files if name.suffix.lower() in SUFFIXES] if scores else []
    found = {name: _read(name, files[name], scores) for name in tables if len(tables) <= MOST_TABLES}
    found = {name: known for name, known in found.items() if known}
    whole = [known for known in found.values() if len(known) >= MOST_NAMED * len(scores)]
    if not found or len(whole) == 1:
        return (whole[0] if whole else {}), ""
    names = shown([*map(str, found)])
    return {}, (
        f"composers, titles and splits were not taken from {names}: keep one table that names nearly all "
        "scores by their paths"
    )


def _read(
    name: PurePosixPath, path: Path, scores: Mapping[PurePosixPath, Path]
) -> dict[PurePosixPath, Known]:
    """What a table says of each score that one of its cells names; nothing where none does.

    Of a score that several rows name, that in which they agree.
    """
    try:
        table = Table.open(path)
        columns = {column.strip().lower(): column for column in reversed(table.names)}
        roles = (COMPOSER_COLUMNS, TITLE_COLUMNS, SPLIT_COLUMNS)
        places = [next((columns[usual] for usual in role if usual in columns), "") for role in roles]
        head = table.head().astype(object).fillna("").astype(str)
        naming = [
            column for column in table.names if any(_score(name, cell, scores) for cell in head[column])
        ]
        if not naming or not any(places):
            return {}
        wanted = {*naming, *places} - {""}
        frame = table.read(wanted, texts=table.names).fillna("")
    except (ValueError, OSError):  # no table, or one that is damaged
        return {}
    found: dict[PurePosixPath, Known] = {}
    for cells in frame.to_dict("records"):
        composer, title, split = (str(cells[place]).strip() if place else "" for place in places)
        known = Known(composer, title, known_split(split))
        for column in naming:
            if score := _score(name, str(cells[column]), scores):
                before = found.get(score, known)
                found[score] = Known(
                    *(ours if ours == theirs else "" for ours, theirs in zip(before, known, strict=True))
                )
    return found


def _score(table: PurePosixPath, cell: str, scores: Mapping[PurePosixPath, Path]) -> PurePosixPath | None:
    """The score that a cell names, by its path from the table's folder, or from that of the source."""
    given = PurePosixPath(cell.strip().replace("\\", "/"))
    return next((path for path in (table.parent / given, given) if path in scores), None)
