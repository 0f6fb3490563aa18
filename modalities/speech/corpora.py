"""How tables and manifests of speech say what was said, by whom, and in which stretch of a file."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from modalities.reading.dialects import TableSettings
from modalities.reading.groups import known_split
from modalities.reading.tables import Table, shown
from modalities.speech.audio import AUDIO_SUFFIXES
from modalities.speech.lists import fairseq_of, without_header
from modalities.speech.texts import json_rows

TABLE_SUFFIXES = {".csv", ".tsv", ".parquet", ".json", ".jsonl"}
TABLE_NAMES = ("metadata.csv", "metadata.tsv", "metadata.parquet", "metadata.jsonl", "manifest.jsonl")
PATH_COLUMNS = (
    "path", "file_name", "filename", "file", "audio", "audio_filepath", "audio_path", "audio_file", "wav",
    "wav_path", "filepath", "file_path", "clip", "fname", "recording",
)  # fmt: skip
TEXT_COLUMNS = (
    "text", "transcription", "sentence", "transcript", "normalized_text", "raw_text", "label", "words",
    "utterance", "event_label",
)  # fmt: skip
SPEAKER_COLUMNS = (
    "speaker", "speaker_id", "client_id", "spk", "spk_id", "speakerid", "reader", "user_id", "talker",
)  # fmt: skip
START_COLUMNS = ("start", "begin", "start_time", "offset", "onset", "start_s", "begin_time")
END_COLUMNS = ("end", "stop", "end_time", "end_s", "offset_end")
EITHER_COLUMN = "offset"  # a start in NeMo's manifests, the end where a column `onset` stands beside it
DURATION_COLUMNS = ("duration", "dur", "length_s", "duration_s")
FOLDERS = ("", "clips", "wavs", "wav", "audio", "data")  # where the files of a table may be
OF_SOUNDS = re.compile(r".*[._-](clips|wavs?|audio)", re.IGNORECASE)  # as FSD50K.dev_audio
MOST_TABLES = 30  # in a folder, beyond which they are no lists of it
LOOKED_AT = 20  # rows of each
MOST_NAMED = 0.9  # of the sounds have to be in a table that is read unasked
SUFFIXES = ("", ".wav", ".flac", ".mp3", ".ogg")  # that an id may lack
CLOCK = re.compile(r"(?:(?P<h>\d+):(?=[0-5]?\d:))?(?P<m>\d+):(?P<s>[0-5]?\d(?:[.,]\d+)?)")


@dataclass(frozen=True)
class Said:
    """A row of a table: a file, or a stretch of it, and what is known of it."""

    key: str
    path: Path | None  # None: the file is missing
    sound: str = ""  # its name, where several rows are each all of it
    label: str = ""
    label_column: str = ""  # what the table calls it, in small letters; "" where it is not the table's
    group: str = ""
    split: str = ""
    start_s: float | None = None
    end_s: float | None = None
    problem: str = ""  # why the row cannot be used

    @property
    def name(self) -> str:
        """What tells its group and split: its key, without the number of a row."""
        return self.sound or self.key


def rows_of(table: Path, settings: TableSettings, top: Path | None = None) -> Iterator[Said]:
    """The rows of a table or manifest. ValueError, with what was found, where it names no files.

    Its files are looked for beside it and beside its folder, but not above `top`. A key that
    comes again has the number of its row behind it.
    """
    rows = [*_rows_of(table, settings, top)]
    whole = [row for row in rows if row.path and row.start_s is None and not row.problem]
    counts = Counter(row.path for row in whole)
    first = {row.path: row.key for row in reversed(whole)}
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        key = f"{row.key}/{number}" if row.key in seen and row.path else row.key
        seen.add(row.key)
        yield replace(row, key=key, sound=first[row.path] if counts[row.path] > 1 else "")


def _rows_of(table: Path, settings: TableSettings, top: Path | None) -> Iterator[Said]:
    folders = _folders(table, top)
    if table.suffix.lower() in (".json", ".jsonl"):
        yield from _described(json_rows(table), table, folders)
        return
    if table.suffix.lower() != ".parquet":
        fairseq = fairseq_of(table)
        if fairseq is not None:
            root, names = fairseq
            yield from (Said(name, _file(_beside(root), name)) for name in names)
            return
        bare = without_header(table, settings.csv_columns, partial(_sound, folders))
        if bare is not None:
            yield from _described(bare, table, folders)
            return
    opened = Table.open(table, settings)
    texts = [
        name for name in opened.names if name.lower() not in (*START_COLUMNS, *END_COLUMNS, *DURATION_COLUMNS)
    ]
    frame = opened.read(opened.names, texts=texts)
    yield from _described(_records(frame), table, folders, opened.names)


def lists_in(source: Path, files: Sequence[Path], settings: TableSettings) -> tuple[Path | None, str]:
    """The table of a folder that is read unasked, if there is one, and what to say of tables that are not.

    It is the only one (.csv, .tsv) that names sounds of the folder, and it names nearly all, each as a whole.
    """
    sounds = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    tables = [path for path in files if path.suffix.lower() in (".csv", ".tsv")] if sounds else []
    tables = tables if len(tables) <= MOST_TABLES else []
    tables = [table for table in tables if _names_sounds(table, settings, source)]
    if not tables or (len(tables) == 1 and _names_most(tables[0], settings, source, sounds)):
        return (tables[0] if tables else None), ""
    largest = max(tables, key=lambda table: table.stat().st_size)
    names = shown([table.name for table in tables])
    return None, f"source={largest} reads that table of recordings; now none of them was read: {names}"


def as_found(
    rows: Iterable[Said], root: Path, files: Iterable[Path], words_of: Callable[[Path], str]
) -> list[Said]:
    """Rows of a table that is read unasked, which adds to what paths and texts say and replaces neither.

    Keys are the files' paths below `root`, which tell groups and splits; what `words_of` a sound says is its
    label.
    """
    names = {path.resolve(): path.relative_to(root).as_posix() for path in files}
    return [_as_found(row, row.path, names, words_of) if row.path else row for row in rows]


def _as_found(row: Said, path: Path, names: Mapping[Path, str], words_of: Callable[[Path], str]) -> Said:
    key = names.get(path.resolve(), row.key)
    try:
        words = words_of(path)
        return replace(row, key=key, label=words, label_column="") if words else replace(row, key=key)
    except OSError as error:  # a text that cannot be read
        return replace(row, key=key, problem=str(error))


def _names_sounds(table: Path, settings: TableSettings, top: Path) -> bool:
    """Whether most of the first rows of a table name sounds that are there."""
    folders = _folders(table, top)
    try:
        rows = [*islice(_records(Table.open(table, settings).head()), LOOKED_AT)]
        column = _path_column(rows[0], folders)
        found = [_file(folders, str(row[column])) for row in rows]
    except Exception:  # whatever a library raises for a table of another kind
        return False
    return sum(path is not None and path.suffix.lower() in AUDIO_SUFFIXES for path in found) > len(rows) / 2


def _names_most(table: Path, settings: TableSettings, top: Path, sounds: Sequence[Path]) -> bool:
    """Whether a table names nearly all of some sounds, once each and none of them in stretches."""
    try:
        rows = [*rows_of(table, settings, top)]
    except Exception:  # whatever a library raises for a damaged one
        return False
    found = [row.path.resolve() for row in rows if row.path]
    whole = not any(row.problem or row.start_s is not None for row in rows)
    named = {*found} & {path.resolve() for path in sounds}
    return whole and len({*found}) == len(found) and len(named) >= MOST_NAMED * len(sounds)


def described(row: Mapping[str, Any]) -> dict[str, str]:
    """Label, its column, group and split of a row of a table."""
    found = {}
    for field, columns in (
        ("label", TEXT_COLUMNS),
        ("group", SPEAKER_COLUMNS),
        ("split", ("split", "subset", "set")),
    ):
        column, value = _cell(row, columns)
        if value is not None and not isinstance(value, list | dict):
            found[field] = _text(value)
            if field == "label":
                found["label_column"] = column.strip().lower()
    return {**found, "split": known_split(found.get("split", ""))}


def _described(
    rows: Iterable[Mapping[str, Any]], table: Path, folders: Sequence[Path], names: Iterable[str] = ()
) -> Iterator[Said]:
    """Rows with a column of paths, known by its name or because its cells name files."""
    column = ""
    for number, row in enumerate(rows):
        column = column or _path_column(row, folders)
        if not column:
            found = shown([*names] or [*row])
            raise ValueError(
                f"{table.name} has no column of file paths (one of {', '.join(PATH_COLUMNS[:6])}); its "
                "columns are "
                f"{found}: name one of them so, or set modality.separator or modality.csv_columns"
            )
        name = "" if _is_missing(row.get(column)) else _text(row[column])
        if not name:
            yield Said(f"{table.name}/{number + 1}", None)
            continue
        start, end, problem = None, None, ""
        try:
            start, end = _stretch(row)
        except ValueError as error:
            problem = f"row {number + 1} of {table.name}: {error}"
        path, known = _file(folders, str(row[column])) or _file(folders, name), described(row)
        if path and "\\" in name and "\\" not in path.name:  # a list that was made on Windows
            name = PureWindowsPath(name).as_posix()
        cut = start is not None
        key = f"{name}/{start:g}-{'end' if end is None else format(end, 'g')}" if cut else name
        if path and path.is_relative_to(table.parent):  # then so are all
            folders = _beside(table.parent)
        yield Said(key, path, **known, start_s=start, end_s=end, problem=problem)


def _stretch(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Where a row's stretch begins and ends in its file, in seconds; (None, None) for all of it.

    An end of None is that of the file. ValueError, with the cell, for a time that cannot be read.
    """
    ends_with_offset = any(str(name).strip().lower() == "onset" for name in row)
    start = _time(row, [name for name in START_COLUMNS if not (ends_with_offset and name == EITHER_COLUMN)])
    end = _time(row, [*END_COLUMNS, EITHER_COLUMN] if ends_with_offset else END_COLUMNS)
    duration = None if start is None or end is not None else _time(row, DURATION_COLUMNS)
    if start is not None and duration is not None:
        end = start + duration
    if end is None and not start:
        return None, None
    return start or 0.0, end


def _time(row: Mapping[str, Any], columns: Iterable[str]) -> float | None:
    """Seconds in the first of some columns that has any: a number, or `[h:]m:s[.f]`. None where none has."""
    column, value = _cell(row, columns)
    if value is None or isinstance(value, dict) or np.ndim(value):  # times of words are no stretch
        return None
    clock = CLOCK.fullmatch(str(value).strip())
    if clock:
        return 3600.0 * int(clock["h"] or 0) + 60.0 * int(clock["m"]) + float(clock["s"].replace(",", "."))
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"its {column} is {str(value)[:20]!r}: write seconds (83.5) or h:m:s (0:01:23.5)")
    return seconds


def _path_column(row: Mapping[str, Any], folders: Sequence[Path]) -> str:
    known = {str(name).strip().lower(): str(name) for name in reversed([*row])}
    for name in PATH_COLUMNS:
        if name in known:
            return known[name]
    return next((name for name, cell in row.items() if isinstance(cell, str) and _file(folders, cell)), "")


def _beside(root: Path) -> list[Path]:
    """The usual folders of sounds in a folder, and itself."""
    return [root / name for name in FOLDERS]


def _folders(table: Path, top: Path | None) -> list[Path]:
    """Where the files of a table may be, the likeliest first; not above `top`, where that is given."""
    folder, above = table.parent, table.absolute().parent.parent
    if top is not None and folder == top:
        return _beside(folder)
    try:
        more = sorted(path for path in above.iterdir() if OF_SOUNDS.fullmatch(path.name))
    except OSError:  # one that may not be looked through
        more = []
    return [*_beside(folder), *_beside(above), *more]


def _file(folders: Sequence[Path], name: str) -> Path | None:
    """The file that a table means: in one of some folders, with Windows' marks, or without a suffix."""
    for given in dict.fromkeys([name, name.strip(), PureWindowsPath(name.strip()).as_posix()]):
        for folder in folders:
            for suffix in SUFFIXES:
                try:
                    path = folder / f"{given}{suffix}"
                    if path.is_file():
                        return path
                except (OSError, ValueError):  # a name too long, or with a zero byte
                    return None
    return None


def _sound(folders: Sequence[Path], name: str) -> Path | None:
    """The file that a name means, if it is a recording: `text` may be a list of Kaldi's, and a column."""
    path = _file(folders, name)
    return path if path and path.suffix.lower() in AUDIO_SUFFIXES else None


def _records(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    names = [str(name) for name in frame.columns]
    return (dict(zip(names, cells, strict=True)) for cells in frame.itertuples(index=False, name=None))


def _cell(row: Mapping[str, Any], names: Iterable[str]) -> tuple[str, Any]:
    """The first of some columns (in any case of letters) that holds something, and what it holds, or None."""
    known = {str(name).strip().lower(): name for name in reversed([*row])}
    filled = (name for name in names if name in known and not _is_missing(row[known[name]]))
    return next(((str(known[name]), row[known[name]]) for name in filled), ("", None))


def _text(value: Any) -> str:
    """A cell as text, the same for 7 and 7.0, which whole numbers become beside an empty cell."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value) if whole else value).strip()


def _is_missing(value: Any) -> bool:
    blank = isinstance(value, str) and not value.strip()
    return value is None or blank or (isinstance(value, float) and value != value)


def has_audio(table: Path) -> bool:
    """Whether a table is a Parquet file that holds audio. ValueError where it cannot be read."""
    if table.suffix.lower() != ".parquet":
        return False
    try:
        schema = pq.read_schema(table)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"a Parquet file that cannot be read: damaged or cut short ({str(error)[:60]})"
        ) from error
    return "audio" in schema.names and pa.types.is_struct(schema.field("audio").type)


@lru_cache(maxsize=2)
def audio_column(table: Path, group: int) -> pa.ChunkedArray:
    """The sounds of a row group of a Parquet file; the last two that were read are kept."""
    return pq.ParquetFile(table).read_row_group(group, columns=["audio"]).column("audio")
