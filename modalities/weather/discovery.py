"""From a file or folder to the series in it, by suffix."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from modalities.reading.groups import Grouping, split_of
from modalities.reading.tables import TABLE_SUFFIXES, TEXT_SUFFIXES
from modalities.reading.texts import left_alone, readable
from modalities.weather import archive, grids, tables, years
from modalities.weather.series import Found
from modalities.weather.stations import by_station, check_quantities
from modalities.weather.tables import Layout
from seqssl import Rejected, UserError, list_files

YEAR_SUFFIXES = {".epw": "epw", ".tm2": "tmy2"}
GRID_SUFFIXES = (".nc", ".nc4", ".zarr")
ARCHIVE_SUFFIX = ".ts"
SUFFIXES = (*TABLE_SUFFIXES, *YEAR_SUFFIXES, *GRID_SUFFIXES, ARCHIVE_SUFFIX)
NUM_LISTED = 30


def find(source: Path, layout: Layout, step_s: float, group_pattern: str | None) -> list[Found | Rejected]:
    """All series, and the files that cannot be used. Raises UserError for a column that none of them has."""
    alone = _is_alone(source)
    rejected: list[Rejected] = []
    kept: dict[str, list[Found]] = {}
    groups: dict[str, str] = {}
    read, left = files(source, asked=alone)
    notice = left_alone(left)
    root = source.parent if alone else source
    paths = {path.relative_to(root).as_posix(): path for path in read}
    grouping = Grouping.of(paths, group_pattern, own=True)
    for name, path in paths.items():
        try:
            group = groups[name] = grouping.group(name) or _place(PurePosixPath(name), _suffix(path))
            series = list(_find_in(path, name, group, layout, step_s))
            if group_pattern is not None:
                series = [replace(one, group=group) for one in series]
            amount = path.stat().st_size / max(1, len(series))
            kept[name] = [replace(one, split=one.split or split_of(name), amount=amount) for one in series]
        except Exception as error:  # whatever a library raises for a damaged file
            rejected.append(Rejected.of(name, error))
    _check_columns(source, [one for series in kept.values() for one in series], layout.columns, notice)
    if left and not any(kept.values()):
        rejected.append(Rejected(left.relative_to(root).as_posix(), notice))
    doubt = check_quantities(kept) if group_pattern is None else ""
    said = tuple(filter(None, (notice, doubt)))
    kept = kept if group_pattern is not None else by_station(kept)
    found = [
        replace(
            one, notices=(*said, *filter(None, [grouping.doubt * (one.group == groups[name])]), *one.notices)
        )
        for name, series in kept.items()
        for one in series
    ]
    return [*(_with_some_column(item, layout.columns) for item in found), *rejected]


def files(source: Path, *, asked: bool = False) -> tuple[list[Path], Path | None]:
    """The files and stores of a source that are read, and the first text left alone, as in `readable`."""
    alone = _is_alone(source)
    whole = [source] if alone else [*dict.fromkeys(_whole(path, source) for path in list_files(source))]
    return readable(whole, lambda path: _suffix(path) in SUFFIXES, asked=asked)


def _is_alone(source: Path) -> bool:
    return source.is_file() or source.suffix.lower() == ".zarr"


def _place(name: PurePosixPath, suffix: str) -> str:
    """What a lone series is called after: its folder, if that says more than train or test, or its file."""
    folder = name.parts[0] if len(name.parts) > 1 and not split_of(name.as_posix()) else ""
    return folder or name.name[: len(name.name) - len(suffix)]


def _whole(path: Path, source: Path) -> Path:
    """The topmost Zarr store below the source that a file is a part of, else the file."""
    stores = [parent for parent in path.relative_to(source).parents if _suffix(parent) == ".zarr"]
    return source / stores[-1] if stores else path


def _find_in(path: Path, name: str, group: str, layout: Layout, step_s: float) -> Iterator[Found]:
    suffix = _suffix(path)
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError("the file is empty")
    if suffix in YEAR_SUFFIXES:
        yield years.find(path, name, YEAR_SUFFIXES[suffix], layout.columns)
    elif suffix == ".csv" and years.is_tmy3(path):
        yield years.find(path, name, "tmy3", layout.columns)
    elif suffix in (*TABLE_SUFFIXES, *TEXT_SUFFIXES):
        yield from tables.find(path, name, group, layout, step_s)
    elif suffix in GRID_SUFFIXES:
        yield from grids.find(path, name, group, layout.columns, layout.time_column)
    else:
        yield from archive.find(path, name, layout.columns, step_s)


def _suffix(path: Path) -> str:
    return "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()


def _check_columns(source: Path, series: list[Found], columns: tuple[str, ...], notice: str) -> None:
    """A column that some files lack is missing there; one that all lack is a mistake.

    `notice` tells of texts that were left alone: the column may be there.
    """
    names = list(dict.fromkeys(name for found in series for name in found.names))
    missing = [name for name in columns if name not in names]
    if series and missing:
        raise UserError(
            f"{source} has no column {', '.join(missing)}; its numeric columns (or variables) are "
            f"{_listed(names)}: "
            + (
                f"choose by modality.columns=[{','.join(names[:3])}]."
                if names
                else "see modality.separator and skip_lines."
            )
            + (f" Mind that {notice}." if notice else "")
        )


def _with_some_column(item: Found, columns: tuple[str, ...]) -> Found | Rejected:
    if not set(item.names) & set(columns):
        return Rejected(item.key, f"it has none of the chosen columns; it has {_listed(item.names)}")
    return item


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else ""
    return (", ".join(names[:NUM_LISTED]) or "none") + more
