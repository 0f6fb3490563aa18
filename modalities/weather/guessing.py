"""Which settings fit series that nobody has described."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modalities.reading.columns import part_columns, time_columns
from modalities.reading.looking import counted, matching
from modalities.reading.tables import Table
from modalities.reading.texts import reads_as_table
from modalities.reading.times import TimeSettings, read_times
from modalities.weather import archive, grids
from modalities.weather.channels import channels, is_label
from modalities.weather.clock import freq_of, usual_step
from modalities.weather.discovery import ARCHIVE_SUFFIX, GRID_SUFFIXES, YEAR_SUFFIXES, files
from modalities.weather.identities import codes_of, identity_of, ids_of, is_usual, rows_of
from modalities.weather.years import is_tmy3

SLOWEST_MOVEMENT = 1.0  # seconds: what is measured more often is read by adapters of movement or sound
LOOKED_AT = 3  # files of a kind
SHORTEST = 24  # steps, by default


@dataclass(frozen=True)
class Guess:
    """How a file may be read, and what it is taken for."""

    columns: list[str]
    words: str
    settings: dict[str, Any] = field(default_factory=dict)  # beside the columns
    left_out: str = ""


def looks_like(source: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Settings that may read a source, each with what it is then taken for."""
    years = matching(source, lambda path: path.suffix.lower() in YEAR_SUFFIXES or _is_year(path))
    if years:
        yield {}, counted("typical years of weather", years)
    paths = files(source)[0]
    kinds: tuple[tuple[Callable[[Path], bool], Callable[[Path], Guess | None]], ...] = (
        (reads_as_table, _of_table),
        (lambda path: path.suffix.lower() in GRID_SUFFIXES, _of_grid),
        (lambda path: path.suffix.lower() == ARCHIVE_SUFFIX, _of_archive),
    )
    for is_kind, guess in kinds:
        kind = [path for path in paths if is_kind(path)]
        for path in sorted(kind, key=lambda path: path.stat().st_size)[:LOOKED_AT]:
            try:
                found = guess(path)
            except Exception:  # whatever a library raises for a file of another kind
                continue
            if found is not None and found.columns:
                words = "; ".join(filter(None, (counted(found.words, kind), found.left_out)))
                yield {"columns": tuple(found.columns), **found.settings}, words


def _is_year(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and is_tmy3(path)


def _of_table(path: Path) -> Guess | None:
    """The columns of numbers that are measured, by all rows, and the usual step from one time to the next."""
    table = Table.open(path)
    head = table.head()
    times = time_columns(head, "")
    if not times:
        return None
    identity = identity_of(table, times, TimeSettings()).columns
    if _paced(head, times, identity)[2] < SLOWEST_MOVEMENT:
        return None
    frame = table.read(table.names, texts=identity)
    seconds, ids, step_s = _paced(frame, times, identity)
    taken = {*times, *part_columns(head), *identity, *filter(is_usual, table.names)}
    columns, left_out = channels(frame, taken, seconds, ids)
    words = f"series of {', '.join(columns)}, a value every {freq_of(step_s)},"
    return Guess(columns, words, {"freq": freq_of(step_s)}, left_out)


def _paced(
    frame: pd.DataFrame, times: Sequence[str], identity: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, float]:
    """The time of each row, a number for its series, and the usual step of the series."""
    seconds = read_times([frame[name] for name in times], TimeSettings()).seconds
    ids = codes_of(ids_of(frame, identity)) if identity else np.zeros(len(frame), int)
    steps = [step_s for rows in rows_of(ids) if (step_s := usual_step(seconds[rows]))]
    return seconds, ids, float(np.median(steps)) if steps else 0.0


def _of_grid(path: Path) -> Guess:
    """The variables of numbers that know times."""
    names = [name for name in next(grids.find(path, "", "", (), None)).names if not is_label(name)]
    first = next(grids.find(path, "", "", tuple(names), None))
    freq = freq_of(usual_step(first.read().times_s))
    return Guess(names, f"grids of {', '.join(names)}, a value every {freq},", {"freq": freq})


def _of_archive(path: Path) -> Guess:
    """All channels; steps have no times, so they are left to the setting."""
    found = archive.parse(path)
    shortest = min(map(len, found.instances))
    settings = {"min_steps": max(1, shortest)} if shortest < SHORTEST else {}
    words = f"instances of {len(found.names)} channels without times, which modality.freq has to say,"
    return Guess([*found.names], words, settings)
