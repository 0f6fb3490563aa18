"""Lists without a header: of files and texts, as LJSpeech's `id|text|text`, and of transcripts, `id text`."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from modalities.reading.dialects import HEAD_BYTES, WORDS, encoding_of, head_of
from modalities.speech.audio import AUDIO_SUFFIXES
from modalities.speech.texts import lines_of, text_of

SEPARATORS = ("|", "\t", ";", ",")  # in the order in which they are tried
IN_SENTENCES = (";", ",")  # marks that a text has, too: there a cell may stand in quotation marks
RIVAL = 0.5  # of the letters of the fullest column: one with as many might be the text, too
SAME = 0.5  # of the words of one column in another, which then says the same
COUNTED = re.compile(r".+\t\d+")
MICROPHONE = re.compile(r"_mic\d$")  # of VCTK
LIST_LINE = re.compile(r"\s*([^\s:]+)(?:\s*:\s*|\s+)(\S.*?)\s*")
PATH = re.compile(r".*(\S[/\\]\S|\.\w{2,4}$).*")
MOST_LISTS = 100  # texts without a recording of their name
NEARLY = 0.9  # of the lines of a list name recordings, or of the recordings are in it
MOSTLY = 0.5
LEAST = 3  # different texts: fewer are names of classes


def without_header(
    table: Path, names: Sequence[str] | None, names_file: Callable[[str], object]
) -> list[dict[str, str]] | None:
    """The rows of a table whose first line names a file already, so that it is no header; else None.

    The separator is the first of `SEPARATORS` by which one of its cells does. The columns are called as
    `names` (modality.csv_columns) says, else `file` and `text`. ValueError, with what decides, where lines
    differ in their cells, or where several columns might be the text.
    """
    head = head_of(table)
    first = "".join(lines_of(head.decode(encoding_of(head), "replace").replace("\r", "\n"))[:1])
    for separator in SEPARATORS:
        files = [number for number, cell in enumerate(_cells(first, separator)) if names_file(cell)]
        if not files:
            continue
        rows = _rows(table, separator, names)
        if names:
            return [dict(zip(names, row, strict=True)) for row in rows]
        texts = _texts(rows, files[0], table.name)
        said = (next((row[place] for place in texts if row[place]), "") for row in rows)
        return [{"file": row[files[0]], "text": text} for row, text in zip(rows, said, strict=True)]
    return None


def fairseq_of(table: Path) -> tuple[Path, list[str]] | None:
    """Root and files of a manifest of fairseq: a folder, then lines of a path and a number of samples."""
    if table.suffix.lower() != ".tsv":
        return None
    first, *lines = lines_of(text_of(table)) or [""]
    if not lines or "\t" in first or not all(map(COUNTED.fullmatch, lines)):
        return None
    first = first.strip()
    roots = [Path(first).expanduser(), table.parent / first, table.parent]
    root = next((root for root in roots if (root / lines[0].partition("\t")[0]).is_file()), table.parent)
    return root, [line.rpartition("\t")[0] for line in lines]


def _cells(line: str, separator: str) -> list[str]:
    """The cells of a line; quotation marks that do not enclose a whole cell are text."""
    cells = line.split(separator)
    if separator in IN_SENTENCES:
        try:
            cells = next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True), cells)
        except csv.Error:
            pass
    return [cell.strip() for cell in cells]


def _rows(table: Path, separator: str, names: Sequence[str] | None) -> list[list[str]]:
    """All lines as cells, each with as many; short ones are filled up.

    Commas and semicolons beyond the columns that `names` has are of the text in the last one. ValueError for
    a line with too many cells; without `names` also for one with too few, where a text may have such marks.
    """
    lines = lines_of(text_of(table))
    rows = [_cells(line, separator) for line in lines]
    open_end = separator in IN_SENTENCES
    width = len(names) if names else len(rows[0]) if open_end else max(map(len, rows))
    for number, line in enumerate(lines):
        size = len(rows[number])
        if size > width and names and open_end:
            rows[number] = [cell.strip() for cell in line.split(separator, width - 1)]
        elif size > width and names:
            raise ValueError(
                f"{table.name} has {size} cells in {line[:40]!r}, modality.csv_columns names {width}"
            )
        elif size != width and open_end and not names:
            raise ValueError(
                f"{table.name} has {width} cells in its first line and {size} in {line[:40]!r}: put texts "
                f"with {WORDS[separator]} into quotation marks, or name the columns, the text as the last: "
                "modality.csv_columns=[path,text]"
            )
    return [[*row, *[""] * (width - len(row))] for row in rows]


def _texts(rows: Sequence[Sequence[str]], files: int, name: str) -> list[int]:
    """The places of the text: the column with most letters, and those that say the same, the last first.

    Each different cell counts once, and no word with a digit does: speakers are few, and often numbers. The
    last is LJSpeech's text without numbers and abbreviations. ValueError where columns with nearly as many
    letters say something else.
    """
    columns = {place: [row[place] for row in rows] for place in range(len(rows[0])) if place != files}
    letters = {place: sum(map(_letters, {*cells})) for place, cells in columns.items()}
    rivals = [place for place, number in letters.items() if number >= RIVAL * max(letters.values())]
    others = [place for place in rivals if not _same(columns[rivals[0]], columns[place])]
    if others:
        first, other = columns[rivals[0]][0], columns[others[0]][0]
        called = {files: "path", rivals[0]: "text"}
        example = ",".join(called.get(place, f"column{place + 1}") for place in range(len(rows[0])))
        raise ValueError(
            f"{name} has no header, and {first[:30]!r} or {other[:30]!r} might be the text of its first "
            f"line: name the columns, for example modality.csv_columns=[{example}]"
        )
    return rivals[::-1]


def _letters(cell: str) -> int:
    """How many letters a cell has in words without digits."""
    words = (word for word in cell.split() if not any(map(str.isdigit, word)))
    return sum(map(str.isalpha, "".join(words)))


def _same(cells: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two columns have most words in common, row by row."""
    pairs = [
        ({*re.findall(r"\w+", cell.lower())}, {*re.findall(r"\w+", other.lower())})
        for cell, other in zip(cells, others, strict=True)
    ]
    return sum(len(words & said) for words, said in pairs) >= SAME * sum(len(words) for words, _ in pairs)


def texts_in(files: Sequence[Path]) -> tuple[dict[Path, str], str]:
    """What lists of transcripts say of recordings: texts whose lines nearly all begin with their names.

    So are those of AISHELL, MLS, VIVOS and JSUT, and Kaldi's `text`. Where two say different words of one
    recording neither is read, which comes second.
    """
    sounds: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in AUDIO_SUFFIXES:
            sounds.setdefault(path.stem, []).append(path)
    alone = {name: paths[0] for name, paths in sounds.items() if len(paths) == 1}
    taken = {*sounds, *(MICROPHONE.sub("", name) for name in sounds)}
    texts = [path for path in files if _may_list(path) and path.stem not in taken] if alone else []
    said: dict[Path, str] = {}
    source: dict[Path, str] = {}
    rivals: set[str] = set()
    for path in texts if len(texts) <= MOST_LISTS else ():
        for sound, words in _listed(path, alone, sum(map(len, sounds.values()))).items():
            if said.setdefault(sound, words) != words:
                rivals |= {source[sound], path.name}
            source.setdefault(sound, path.name)
    kept = {sound: words for sound, words in said.items() if source[sound] not in rivals}
    names = " and ".join(sorted(rivals))
    doubt = f"{names} say different words of the same recordings and are not read: keep one" if rivals else ""
    return kept, doubt


def _may_list(path: Path) -> bool:
    name = path.name.lower()
    return name == "text" or (name.endswith(".txt") and not name.endswith(".trans.txt"))


def _listed(path: Path, sounds: Mapping[str, Path], count: int) -> dict[Path, str]:
    """The words of each of `count` recordings that a text lists; nothing where it lists something else."""
    try:
        if not any(_line_of(line, sounds) for line in lines_of(text_of(path, HEAD_BYTES))):
            return {}
        lines = lines_of(text_of(path))
    except OSError:
        return {}
    named = [*filter(None, (_line_of(line, sounds) for line in lines))]
    found = dict(named)
    if len(found) < len(named) or len(found) < NEARLY * min(len(lines), count):
        return {}
    words = [text for text in found.values() if _letters(text) and not PATH.fullmatch(text)]
    own = sum(
        text.lower() in "/".join(sound.parts[-3:]).lower() for sound, text in found.items()
    )  # a speaker
    few = len({*found.values()}) < min(LEAST, len(found))
    return {} if few or own > MOSTLY * len(found) or len(words) <= MOSTLY * len(found) else found


def _line_of(line: str, sounds: Mapping[str, Path]) -> tuple[Path, str] | None:
    """The recording whose name a line begins with, and what follows; None where it begins with none."""
    found = LIST_LINE.fullmatch(line)
    name = PurePosixPath(found[1].replace("\\", "/")).name if found else ""
    stem, dot, suffix = name.rpartition(".")
    sound = sounds.get(stem if f"{dot}{suffix}".lower() in AUDIO_SUFFIXES else name)
    return (sound, found[2]) if found and sound else None
