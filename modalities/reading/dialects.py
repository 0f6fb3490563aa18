"""How a text table is written: its encoding, separator, decimal mark, quotes, and where its header is."""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

from modalities.reading.headers import (
    GROUPED,
    MINUS,
    Line,
    after_header,
    below_all,
    example_names,
    first_data,
    kind_of,
    named,
    unquoted,
)

HEAD_BYTES = 2**18  # of which the dialect is judged
HEAD_ROWS = 200
SEPARATORS = (",", ";", "\t", "|")
BLANKS = r"\s+"  # the separator of tables in columns of blanks
WORDS = {",": "commas", ".": "points", ";": "semicolons", "\t": "tabs", "|": "pipes", BLANKS: "blanks"}
COMMENTS = ("#", "%", "//", "!")
MARKS = {  # byte order marks, the longer ones first
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
CLOCK = re.compile(r"\d{1,2}\.\d\d")  # 12.30, half past twelve
OTHER = {",": ".", ".": ","}
COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
CODED = re.compile(r"[+-]\d{4},\d|\d{5},\d")  # a value and a code behind it, as in the tables of NOAA

csv.field_size_limit(2**22)  # the module's own limit is a wrong reason to reject a file


@dataclass(frozen=True)
class TableSettings:
    """What a user says of a table, where it is not to be found out."""

    skip_lines: int | None = None  # before the header
    csv_columns: tuple[str, ...] | None = None  # of tables without a header line
    separator: str | None = None  # "tab" and "blanks" stand for themselves
    decimal: str | None = None


@dataclass(frozen=True)
class Dialect:
    """How a text table is written, and what of that is worth saying."""

    names: tuple[str, ...]
    first: int  # the number of lines before the data
    encoding: str
    separator: str
    decimal: str = "."
    thousands: str = ""  # the mark between groups of three digits, where one may be there
    quoted: bool = True
    line_mark: str = ""  # what every line ends with, and no cell
    units: tuple[str, ...] = ()  # of a line of units below the header, a text for each name
    reading: tuple[str, ...] = ()


def sniff(path: Path, settings: TableSettings, example: Sequence[str] = ()) -> Dialect:
    """Find out the dialect of a file. ValueError where it holds no table, or has no header line.

    `example` names the last columns in the message that asks for `modality.csv_columns`.
    """
    columns = settings.csv_columns and tuple(settings.csv_columns)  # a user's own code may give a list
    return _dialect_of(head_of(path), replace(settings, csv_columns=columns), tuple(example))


@lru_cache(maxsize=32)  # a file is asked for its columns, its parts and its rows
def _dialect_of(data: bytes, settings: TableSettings, example: tuple[str, ...]) -> Dialect:
    encoding = encoding_of(data)
    lines = _lines(data.decode(encoding, "replace"), cut=len(data) >= HEAD_BYTES)
    said = [] if encoding in ("utf-8", "utf-8-sig") else [f"the file is in {encoding.upper()}"]
    if not any(line.strip() for line in lines):
        raise ValueError("the file is empty")
    if lines and lines[0].count("\0") > len(lines[0]) // 4:
        raise ValueError("it is no text: zero bytes where letters are expected")
    first, separator = settings.skip_lines or 0, _separator_of(settings)
    if first >= len(lines):
        raise ValueError(f"modality.skip_lines={first} skips all of its {len(lines)} lines")
    declared = re.fullmatch(r'"?sep=(.)"?', lines[first].strip("\r\n"), re.IGNORECASE)
    if declared:
        first, separator = first + 1, separator or declared[1]
        said.append(f'its first line says "sep={declared[1]}"')
    comments = []
    while settings.skip_lines is None and first < len(lines) and _is_comment(lines[first]):
        comments.append(lines[first].lstrip("#%!/ "))
        first += 1
    body = lines[first:]
    if not any(line.strip() for line in body):
        raise ValueError(f"all of its first {len(lines)} lines are comments or empty: it holds no table")
    mark = _line_mark(body, separator)
    body = [line.rstrip().removesuffix(mark) if mark else line for line in body]
    if separator is None:
        separator = max(SEPARATORS, key=lambda mark: _score(body, mark))
        separator = separator if _score(body, separator) > 0 else _blanks(body)
    quoted = _is_quoted(body, separator)
    rows = _rows(body, separator, quoted=quoted)
    # Too few rows do not tell a header in a comment from a remark
    told = [*filter(None, comments)][-1:-3:-1] if len(rows) > 2 else []
    above = [row.cells for text in told for row in _rows([text], separator, quoted=quoted)]
    names, start, units = _header(rows, above, settings, said, first, example)
    decimal, thousands, grouped = _marks(_numbers(rows[start:], names), separator, settings)
    if separator != ",":
        said.append(f"cells are separated by {WORDS.get(separator, separator)}")
    if decimal == ",":
        said.append("decimal commas")
    if grouped:
        said.append(f"{WORDS[thousands]} between thousands")
    if not quoted and separator != BLANKS and any('"' in line for line in body):
        said.append("quotation marks are part of the text")
    begin = first + (rows[start].number if start < len(rows) else len(body))
    return Dialect(
        tuple(names), begin, encoding, separator, decimal, thousands, quoted, mark, units, tuple(said)
    )


def head_of(path: Path, size: int = HEAD_BYTES) -> bytes:
    """The first `size` bytes of a file, unpacked where it is a .gz; ValueError where that is not possible."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return file.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"not readable as a table: its gzip data are damaged ({error})") from error


def encoding_of(data: bytes) -> str:
    """The encoding of a text by its mark, by its zero bytes, else UTF-8 or the usual one of Windows."""
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return name
    for name, places in (("utf-16-le", data[1:2000:2]), ("utf-16-be", data[0:2000:2])):
        if (
            len(data) > 3
            and places.count(0) > 0.8 * len(places)
            and data[:2000].count(0) < 0.6 * len(data[:2000])
        ):
            return name
    text = data.decode("utf-8", "replace")
    bad = text[:-1].count("�") - data.count("�".encode())
    good = sum(text.count(letter) for letter in {*text} if ord(letter) > 127 and letter != "�")
    return "utf-8" if bad <= good else "cp1252"


def _lines(text: str, *, cut: bool) -> list[str]:
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    if cut and len(lines) > 2:
        lines.pop()  # it may be half a line
    return lines


def _separator_of(settings: TableSettings) -> str | None:
    named = {"tab": "\t", "\\t": "\t", "blanks": BLANKS, "blank": BLANKS, " ": BLANKS}
    return named.get(settings.separator or "", settings.separator)


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith(COMMENTS)


def _line_mark(lines: Sequence[str], separator: str | None) -> str:
    """A semicolon that ends every line of a table of commas is no separator."""
    full = [line.rstrip() for line in lines if line.strip()][:HEAD_ROWS]
    ended = sum(line.endswith(";") and line.count(";") == 1 and "," in line for line in full)
    return ";" if separator in (None, ",") and ended > 0.8 * len(full) else ""


def _rows(lines: Sequence[str], separator: str, *, quoted: bool) -> list[Line]:
    """The first lines that are not empty, as cells; a quoted cell may go on in the next line."""
    rows: list[Line] = []
    if not quoted or separator == BLANKS:
        full = ((number, line) for number, line in enumerate(lines) if line.strip())
        return [Line(number, _cells(line, separator)) for number, line in islice(full, HEAD_ROWS)]
    before = 0
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, skipinitialspace=True)
    try:
        for cells in islice(reader, 10 * HEAD_ROWS):
            if any(cell.strip() for cell in cells):
                rows.append(Line(before, cells))
            if len(rows) == HEAD_ROWS:
                break
            before = reader.line_num
    except csv.Error:
        pass  # what was read so far tells enough
    return rows


def _cells(line: str, separator: str) -> list[str]:
    return line.split() if separator == BLANKS else line.split(separator)


def _score(lines: Sequence[str], separator: str) -> float:
    """How well a separator divides: the same number of cells in each line, and no other separator in them."""
    rows = _rows(lines, separator, quoted=True) or _rows(lines, separator, quoted=False)
    counts = Counter(len(row.cells) for row in rows[len(rows) // 4 :])
    count, times = max(counts.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
    if count < 2:
        return 0.0
    same = sum(len(row.cells) == count for row in rows) / len(rows)
    cells = [cell for row in rows if len(row.cells) == count for cell in row.cells]
    clean = sum(
        kind_of(cell) in ("", "number", "time") or not any(mark in cell for mark in SEPARATORS)
        for cell in cells
    )
    return same * (0.2 + 0.8 * clean / len(cells)) + 1e-3 * min(times, 50)


def _blanks(lines: Sequence[str]) -> str:
    """Blanks as separator, where they divide most lines alike into numbers; else a comma, for one column."""
    rows = [_cells(line, BLANKS) for line in lines[:HEAD_ROWS] if line.strip()]
    counts = Counter(len(cells) for cells in rows)
    count, times = counts.most_common(1)[0]
    full = [kind_of(cell) for cells in rows if len(cells) == count for cell in cells]
    data = sum(kind in ("number", "time") for kind in full)
    return BLANKS if count > 1 and times > 0.7 * len(rows) and data > 0.7 * len(full) else ","


def _is_quoted(lines: Sequence[str], separator: str) -> bool:
    """Whether quotation marks enclose cells, or are part of the text as in the tables of Common Voice."""
    full = [line for line in lines if line.strip()][:HEAD_ROWS]
    if separator == BLANKS or not any('"' in line for line in full):
        return separator != BLANKS
    plain = Counter(line.count(separator) for line in full)
    same = plain.most_common(1)[0][1] == len(full)  # a mark that encloses a separator would break this
    rows = _rows(lines, separator, quoted=True)
    if same and len(rows) < min(len(full), HEAD_ROWS):
        return False  # lines are swallowed by a mark that never closes
    if separator == "\t" and same:
        header = [cell.strip() for cell in full[0].split(separator)]
        cells = [cell.strip() for line in full[1:] for cell in line.split(separator)]
        doubled = any(len(c) > 3 and c[0] == c[-1] == '"' and '""' in c[1:-1] for c in cells)
        return doubled or all(len(c) > 1 and c[0] == c[-1] == '"' for c in header)
    return True


def _header(
    rows: Sequence[Line],
    comments: Sequence[Sequence[str]],
    settings: TableSettings,
    said: list[str],
    skipped: int,
    example: Sequence[str],
) -> tuple[list[str], int, tuple[str, ...]]:
    """Names, the place of the first row of data in `rows`, and units; ValueError where there is no header.

    `comments`: the cells of the last ones before the table, the last one first.
    """
    start, count = first_data(rows) if settings.skip_lines is None else after_header(rows)
    units, below = below_all([row.cells for row in reversed(rows[:start])])
    above = start - 1 - len(below)
    lines = (skipped + row.number + 1 for row in reversed(rows[:start]))
    said += [f"line {line} holds {what}" for line, what in zip(lines, below, strict=False)]
    if above >= 0 and abs(len(rows[above].cells) - count) <= 1 and len(rows[above].cells) > 0:
        before = skipped + rows[above].number
        if before > any("sep=" in text for text in said):
            said.append(f"line {before + 1} is the header")
        body = [row.cells for row in rows[start:]]
        return named([unquoted(cell) for cell in rows[above].cells], body, count, said), start, units
    if settings.csv_columns is not None:
        if len(settings.csv_columns) != count:
            raise ValueError(f"{count} columns where modality.csv_columns names {len(settings.csv_columns)}")
        return [*settings.csv_columns], start, units
    told, below = below_all(comments)
    comment = comments[len(below)] if comments else ()
    if comment and len(comment) == count:
        said.append(
            "the header stands in a comment" + "".join(f", above one that holds {what}" for what in below)
        )
        return named([unquoted(cell) for cell in comment], [], count, said), start, units or told
    shown = ",".join(cell.strip() for cell in rows[start].cells) if start < len(rows) else ""
    names = example_names(rows[start:], example)
    line = skipped + rows[start].number + 1
    raise ValueError(
        f"no header line: line {line} is {shown[:50]!r}. Name the columns, for example "
        f"modality.csv_columns=[{','.join(names)}]"
    )


def _numbers(rows: Sequence[Line], names: Sequence[str]) -> dict[str, list[str]]:
    """The cells of each column that mostly holds numbers, without quotes and blanks."""
    found = {}
    for place, name in enumerate(names):
        cells = [unquoted(row.cells[place]).replace(MINUS, "-") for row in rows if place < len(row.cells)]
        kinds = [kind for kind in map(kind_of, cells) if kind]
        if kinds.count("number") > 0.5 * len(kinds):
            found[name] = cells
    return found


def _marks(
    columns: Mapping[str, Sequence[str]], separator: str, settings: TableSettings
) -> tuple[str, str, bool]:
    """The decimal mark, the one between thousands ("" if unknown), and whether a cell surely has the latter.

    A table has one decimal mark; the other one then stands between groups of three digits. ValueError where
    1,219 may be both.
    """
    cells = [cell for column in columns.values() for cell in column]
    groups = [found for found in map(GROUPED.fullmatch, cells) if found]
    sure = [found[1] for found in groups if found[3] or len(found[2]) > 3]
    decimal = settings.decimal or (OTHER[sure[0]] if sure else None)
    if decimal:
        return decimal, OTHER[decimal], any(found[1] == OTHER[decimal] for found in groups)
    commas = [cell for cell in cells if COMMA.fullmatch(cell)]
    points = [cell for cell in cells if POINT.fullmatch(cell) and not CLOCK.fullmatch(cell)]
    loose_commas, loose_points = (
        any(not GROUPED.fullmatch(cell) for cell in found) for found in (commas, points)
    )
    if loose_points and not loose_commas:
        return ".", ",", bool(commas)
    if loose_commas and not loose_points and (separator != "," or not points):
        return ",", ".", bool(points)
    if loose_commas:  # of both kinds: the rarer one stands in columns of something else
        coded = separator == "," and loose_points and all(map(CODED.fullmatch, commas))
        more = len(commas) > len(points) and not coded
        return ("," if more else "."), "", False
    if commas and not points and separator != ",":
        return ",", ".", False
    for name, column in columns.items():
        found = [cell for cell in column if GROUPED.fullmatch(cell)]
        mixed = len(found) > 1 and sum(cell.isdecimal() for cell in column) > 1
        if found and (commas or mixed):
            raise ValueError(_either(name, found[0]))
    return ".", "", False


def _either(name: str, cell: str) -> str:
    """What to say of a number that can be read in two ways."""
    mark = "," if "," in cell else "."
    ways = {OTHER[mark]: cell.replace(mark, ""), mark: cell.replace(mark, ".")}
    comma, point = ways[","], ways["."]
    return (
        f"column {name!r} holds {cell!r}: set modality.decimal=. if that is {point}, "
        f"""modality.decimal='","' if it is {comma}"""
    )
