"""How corpora of speech say what was said and by whom: tables, manifests, and texts beside the audio."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any

import pandas as pd

from modalities.reading.dialects import TableSettings, encoding_of, head_of
from modalities.reading.groups import known_split
from modalities.reading.tables import Table, shown
from modalities.speech.alignments import is_track

TABLE_SUFFIXES = {".csv", ".tsv", ".parquet", ".json", ".jsonl"}
TABLE_NAMES = ("metadata.csv", "metadata.tsv", "metadata.parquet", "metadata.jsonl", "manifest.jsonl")
PATH_COLUMNS = (
    "path", "file_name", "filename", "file", "audio", "audio_filepath", "audio_path", "audio_file", "wav",
    "wav_path", "filepath", "file_path", "clip", "fname", "recording",
)  # fmt: skip
TEXT_COLUMNS = (
    "text", "transcription", "sentence", "transcript", "normalized_text", "raw_text", "label", "words",
    "utterance",
)  # fmt: skip
SPEAKER_COLUMNS = (
    "speaker", "speaker_id", "client_id", "spk", "spk_id", "speakerid", "reader", "user_id", "talker",
)  # fmt: skip
START_COLUMNS = ("start", "begin", "start_time", "offset", "onset", "start_s", "begin_time")
END_COLUMNS = ("end", "stop", "end_time", "end_s", "offset_end")
DURATION_COLUMNS = ("duration", "dur", "length_s", "duration_s")
FOLDERS = ("", "clips", "wavs", "wav", "audio", "data")  # where the files of a table may be
SUFFIXES = ("", ".wav", ".flac", ".mp3", ".ogg")  # that an id may lack
PHONETIC = re.compile(r"^\d+\s+\d+\s+")  # a transcript of TIMIT begins with samples
MICROPHONE = re.compile(r"_mic\d$")
FESTVOX = re.compile(r'^\s*\(\s*(\S+)\s+"((?:[^"\\]|\\.)*)"\s*\)', re.MULTILINE)
COUNTED = re.compile(r".+\t\d+")


@dataclass(frozen=True)
class Said:
    """A row of a table: a file, or a stretch of it, and what is known of it."""

    key: str
    path: Path | None  # None: the file is missing
    label: str = ""
    group: str = ""
    split: str = ""
    start_s: float | None = None
    end_s: float | None = None


def rows_of(table: Path, settings: TableSettings) -> Iterator[Said]:
    """The rows of a table or manifest. ValueError, with what was found, where it names no files."""
    if table.suffix.lower() in (".json", ".jsonl"):
        yield from _described(_json_rows(table), table)
        return
    fairseq = None if table.suffix.lower() == ".parquet" else _fairseq(table)
    if fairseq is not None:
        root, names = fairseq
        for name in names:
            yield Said(name, _file(root, name))
        return
    ljspeech = None if table.suffix.lower() == ".parquet" else _without_header(table)
    if ljspeech is not None:
        yield from _described(ljspeech, table)
        return
    opened = Table.open(table, settings)
    texts = [
        name for name in opened.names if name.lower() not in (*START_COLUMNS, *END_COLUMNS, *DURATION_COLUMNS)
    ]
    frame = opened.read(opened.names, texts=texts)
    rows = ({name: value for name, value in row.items() if not _is_missing(value)} for row in _records(frame))
    yield from _described(rows, table, opened.names)


def described(row: Mapping[str, Any]) -> dict[str, str]:
    """Label, group and split of a row of a table."""
    found = {}
    for field, columns in (
        ("label", TEXT_COLUMNS),
        ("group", SPEAKER_COLUMNS),
        ("split", ("split", "subset", "set")),
    ):
        value = _first(row, columns)
        if value is not None and not isinstance(value, list | dict):
            found[field] = str(value)
    return {**found, "split": known_split(found.get("split", ""))}


def transcript(path: Path) -> str:
    """What is said in a file, by a text of its name or LibriSpeech's .trans.txt; "" where nothing tells."""
    if path.stem in transcripts(path.parent):
        return transcripts(path.parent)[path.stem]
    beside = _names_in(path.parent).get(f"{path.stem}.txt".lower())
    if beside and not is_track(path.parent / beside):
        return PHONETIC.sub("", _text(path.parent / beside))
    if path.stem in festvox(path.parent.parent / "etc"):
        return festvox(path.parent.parent / "etc")[path.stem]
    stem = MICROPHONE.sub("", path.stem)
    for folder in path.parents:
        if folder.name.lower().startswith(("wav", "audio")):  # VCTK has wav48/p225/x.wav and txt/p225/x.txt
            other = folder.parent / "txt" / path.relative_to(folder).with_name(f"{stem}.txt")
            return _text(other) if other.is_file() else ""
    return ""


@lru_cache(maxsize=4)
def transcripts(folder: Path) -> dict[str, str]:
    """The lines `name text` of LibriSpeech's .trans.txt files in a folder."""
    tables = [
        _text(folder / name).splitlines()
        for low, name in _names_in(folder).items()
        if low.endswith(".trans.txt")
    ]
    return {name: text for table in tables for name, _, text in (line.partition(" ") for line in table)}


@lru_cache(maxsize=4)
def festvox(folder: Path) -> dict[str, str]:
    """The lines `( name "text" )` of a voice of Festival, in etc/txt.done.data beside its wav/."""
    table = folder / "txt.done.data"
    if not table.is_file():
        return {}
    return {match[1]: match[2].replace('\\"', '"') for match in FESTVOX.finditer(_text(table))}


def forget() -> None:
    """Drop the folders that were looked at: they may have changed since."""
    festvox.cache_clear()
    transcripts.cache_clear()
    _names_in.cache_clear()


@lru_cache(maxsize=4)
def _names_in(folder: Path) -> dict[str, str]:
    """The regular files of a folder by their names in small letters; a pipe would be waited for."""
    return {path.name.lower(): path.name for path in sorted(folder.iterdir()) if path.is_file()}


def _text(path: Path) -> str:
    data = path.read_bytes()
    return data.decode(encoding_of(data[: 2**16]), "replace").removeprefix("\ufeff").strip()


def _described(rows: Iterable[Mapping[str, Any]], table: Path, names: Iterable[str] = ()) -> Iterator[Said]:
    """Rows with a column of paths, known by its name or because its cells name files."""
    column, keys = "", set()
    for number, row in enumerate(rows):
        column = column or _path_column(row, table)
        if not column:
            found = shown([*names] or [*row])
            raise ValueError(
                f"{table.name} has no column of file paths (one of {', '.join(PATH_COLUMNS[:6])}); its "
                "columns are "
                f"{found}: name one of them so, or set modality.separator or modality.csv_columns"
            )
        given = row.get(column)
        if given is None:
            yield Said(f"{table.name}/{number + 1}", None)
            continue
        name = str(given)
        start = _seconds(_first(row, START_COLUMNS))
        end, duration = _seconds(_first(row, END_COLUMNS)), _seconds(_first(row, DURATION_COLUMNS))
        if start is not None and end is None and duration is not None:
            end = start + duration
        cut = start is not None and (end is not None or start > 0)
        key = f"{name}/{start:g}-{'end' if end is None else format(end, 'g')}" if cut else name
        key = f"{key}/{number + 1}" if key in keys and cut else key
        keys.add(key)
        known = described(row)
        yield Said(
            key,
            _file(table.parent, name),
            **known,
            start_s=start if cut else None,
            end_s=end if cut else None,
        )


def _path_column(row: Mapping[str, Any], table: Path) -> str:
    known = {str(name).strip().lower(): str(name) for name in reversed([*row])}
    for name in PATH_COLUMNS:
        if name in known:
            return known[name]
    return next(
        (name for name, cell in row.items() if isinstance(cell, str) and _file(table.parent, cell)), ""
    )


def _file(root: Path, name: str) -> Path | None:
    """The file that a table means: in a usual folder, with Windows' marks, or without a suffix."""
    for given in dict.fromkeys([name, PureWindowsPath(name).as_posix()]):
        for folder in FOLDERS:
            for suffix in SUFFIXES:
                try:
                    path = root / folder / f"{given}{suffix}"
                    if path.is_file():
                        return path
                except (OSError, ValueError):  # a name too long, or with a zero byte
                    return None
    return None


def _fairseq(table: Path) -> tuple[Path, list[str]] | None:
    """Root and files of a manifest of fairseq: a folder, then lines of a path and a number of samples."""
    if table.suffix.lower() != ".tsv":
        return None
    lines = _text(table).splitlines()
    if len(lines) < 2 or "\t" in lines[0] or not all(COUNTED.fullmatch(line) for line in lines[1:] if line):
        return None
    roots = [Path(lines[0]).expanduser(), table.parent / lines[0], table.parent]
    root = next((root for root in roots if (root / lines[1].partition("\t")[0]).is_file()), table.parent)
    return root, [line.rpartition("\t")[0] for line in lines[1:] if line]


def _without_header(table: Path) -> list[dict[str, str]] | None:
    """The rows of a table whose first line names a file already, as LJSpeech's `id|text|text`; else None."""
    head = head_of(table)
    first = head.decode(encoding_of(head), "replace").splitlines()[:1]
    separator = max("|,\t;", key=first[0].count) if first else "|"
    cells = first[0].split(separator) if first else []
    if len(cells) < 2 or not _file(table.parent, cells[0].strip().strip('"')):
        return None
    lines = (line.split(separator) for line in _text(table).splitlines() if line.strip())
    return [
        {"file": cells[0].strip().strip('"'), "text": cells[-1 if separator == "|" else 1].strip()}
        for cells in lines
    ]


def _json_rows(table: Path) -> Iterator[dict[str, Any]]:
    """Rows of JSON lines, as NeMo writes manifests, or of one list."""
    text = _text(table)
    if text.startswith("["):
        found = json.loads(text)
        yield from (row for row in found if isinstance(row, dict))
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} of {table.name} is no JSON: {line[:40]!r}") from error
        if isinstance(row, dict):
            yield row


def _records(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    names = [str(name) for name in frame.columns]
    return (dict(zip(names, cells, strict=True)) for cells in frame.itertuples(index=False, name=None))


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    known = {str(name).strip().lower(): name for name in reversed([*row])}
    return next((row[known[name]] for name in names if name in known and row[known[name]] is not None), None)


def _seconds(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
