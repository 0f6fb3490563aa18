"""CSV and Parquet as people write them, read for all modalities; what was found out is said."""

import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from modalities.reading.dialects import BLANKS, Dialect, TableSettings, sniff
from modalities.reading.headers import MINUS

CSV_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".psv", ".psv.gz")
TABLE_SUFFIXES = (*CSV_SUFFIXES, ".parquet")
TEXT_SUFFIXES = (".txt", ".dat", ".log", ".data", ".txt.gz", ".dat.gz", ".log.gz", ".data.gz")
HEAD = 200  # rows
EMPTY = [
    "", "#N/A", "#NA", "-1.#IND", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN",
    "None", "n/a", "nan", "null", "-", "--", "M", "?", "missing", "Missing", "NaT", "N.A.", "nodata",
]  # fmt: skip
MORE = "\0more"  # a column for what lines hold beyond the last name
MAX_SHOWN = 12  # names in a message
USUAL = TableSettings()
FIELDS = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
UNREADABLE = (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException, OSError, csv.Error, OverflowError)


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name, in any case of letters."""
    return path.name.lower().endswith(TABLE_SUFFIXES)


def shown(names: Sequence[str]) -> str:
    """Names for a message, the first few of many."""
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return (", ".join(str(name) for name in names[:MAX_SHOWN]) or "none") + more


@dataclass(frozen=True)
class Table:
    """A table of which only the first lines have been read."""

    path: Path
    names: tuple[str, ...]
    dialect: Dialect | None = None  # None: Parquet
    units: dict[str, str] = field(default_factory=dict)  # by column, where the table says them

    @classmethod
    def open(cls, path: Path, settings: TableSettings = USUAL, example: Sequence[str] = ()) -> "Table":
        """Find out how a file is written. ValueError, with what was found, where it is no table."""
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        if path.suffix.lower() == ".parquet":
            return cls(path, tuple(_schema(path).names))
        dialect = sniff(path, settings, example)
        units = dict(zip(dialect.names, dialect.units, strict=False))
        return cls(path, dialect.names, dialect, {name: unit for name, unit in units.items() if unit})

    @property
    def reading(self) -> tuple[str, ...]:
        """How the file was understood, where that is not as usual."""
        return self.dialect.reading if self.dialect else ()

    def head(self) -> pd.DataFrame:
        """The first rows of all columns."""
        if self.dialect:
            return self._read_csv(self.dialect, self.names, (), nrows=HEAD)
        file = pq.ParquetFile(self.path)
        try:
            batch = next(file.iter_batches(HEAD), None)
            rows = [] if batch is None else [batch]
            return _with_numbers(_frame(pa.Table.from_batches(rows, file.schema_arrow)), ())
        except UNREADABLE as error:
            raise _unreadable(self.path, error) from error

    def read(self, columns: Collection[str], texts: Collection[str] = ()) -> pd.DataFrame:
        """All rows of some columns. In `texts`, a number such as 007 keeps its zeros."""
        wanted = tuple(name for name in self.names if name in columns)
        if self.dialect:
            return self._read_csv(self.dialect, wanted, texts)
        try:
            return _with_numbers(_frame(pq.read_table(self.path, columns=[*wanted]), texts), texts)
        except UNREADABLE as error:
            raise _unreadable(self.path, error) from error

    def _read_csv(
        self, dialect: Dialect, columns: Sequence[str], texts: Collection[str], nrows: int | None = None
    ) -> pd.DataFrame:
        options: dict[str, Any] = {
            "sep": dialect.separator,
            "decimal": dialect.decimal,
            "names": [*dialect.names, MORE],
            "dtype": {name: str for name in texts if name in columns},
            # In a column of texts NA is Namibia, or two bases; elsewhere it is nothing.
            "keep_default_na": False,
            "na_values": {name: EMPTY for name in (*dialect.names, MORE) if name not in texts},
            "nrows": nrows,
        }
        if dialect.separator != BLANKS:
            options |= {"quoting": csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE}
        try:
            with warnings.catch_warnings(), self._below_header(dialect) as lines:
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table: pd.DataFrame = pd.read_csv(
                    lines,
                    header=None,
                    index_col=False,  # or a line that is longer than the first would shift all columns
                    skipinitialspace=True,
                    low_memory=False,
                    **options,
                )
        except pd.errors.EmptyDataError:
            return pd.DataFrame({name: pd.Series(dtype=float) for name in columns})
        except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
            raise ValueError(f"not readable as a table: {_in_our_words(error, dialect)}") from error
        except (*UNREADABLE, UnicodeError) as error:
            raise _unreadable(self.path, error) from error
        longer = np.flatnonzero(table[MORE].notna())
        if len(longer):
            raise ValueError(
                f"not readable as a table: line {dialect.first + int(longer[0]) + 1} or so has more "
                "cells than the "
                f"{len(dialect.names)} of the header: correct it, or set modality.skip_lines or "
                "modality.separator"
            )
        return _with_numbers(table[[*columns]], texts, dialect.thousands, dialect.decimal)

    @contextmanager
    def _below_header(self, dialect: Dialect) -> Iterator[Any]:
        """The text from the first line of data on, without a mark that ends every line.

        A cell of the header may go on in the next line: pandas would take both for one line to be skipped.
        """
        opener = gzip.open if self.path.suffix.lower() == ".gz" else open
        with opener(self.path, "rt", encoding=dialect.encoding, errors="replace", newline="") as file:
            for _ in range(dialect.first):
                file.readline()
            if dialect.line_mark:
                lines = (line.rstrip().removesuffix(dialect.line_mark) for line in file)
                yield io.StringIO("".join(f"{line}\n" for line in lines))
            else:
                yield file


def _with_numbers(
    table: pd.DataFrame, texts: Collection[str], thousands: str = "", decimal: str = "."
) -> pd.DataFrame:
    """A table in which columns of numbers with other marks, or with another minus sign, hold numbers."""
    for name in table.columns:
        column = table[name]
        if name in texts or pd.api.types.infer_dtype(column, skipna=True) != "string":
            continue
        if thousands or decimal != "." or column.str.contains(MINUS, regex=False).any():
            table = table.assign(**{name: _with_points(column, thousands, decimal)})
    return table


def _with_points(column: Any, thousands: str, decimal: str) -> Any:
    """A column of texts with its numbers as Python writes them, if it mostly holds numbers, else as it is."""
    mark, point = re.escape(thousands), re.escape(decimal)
    grouped = rf"\d{{1,3}}(?:{mark}\d{{3}})+|" if mark else ""
    number = rf"[+-]?(?:(?:{grouped}\d+)(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
    texts = column.astype("string").str.strip().str.replace(MINUS, "-", regex=False)
    sample = texts.dropna().iloc[:: max(1, len(texts) // 500)]
    if sample.str.fullmatch(number).mean() < 0.3:  # texts, or times
        return column
    fits = texts.str.fullmatch(number).fillna(False)
    if fits.sum() <= column.notna().sum() / 2:
        return column
    plain = texts.str.replace(thousands, "", regex=False) if mark else texts
    plain = texts.where(~fits, plain.str.replace(decimal, ".", regex=False))
    numbers = pd.to_numeric(plain, errors="coerce")
    return numbers if numbers.notna().sum() == column.notna().sum() else plain.astype(object)


def _in_our_words(error: Exception, dialect: Dialect) -> str:
    """What pandas says of lines that do not fit together."""
    found = FIELDS.search(str(error))
    if found:
        line = dialect.first + int(found[2])
        names = len(dialect.names)
        return f"line {line} has {found[3]} cells where the header names {names}: correct that line"
    if "EOF inside string" in str(error):
        return "a quotation mark never closes"
    return "its lines do not have as many cells as its header: correct it, or set modality.separator"


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _frame(table: pa.Table, texts: Collection[str] = ()) -> pd.DataFrame:
    """As pandas has it; but whole numbers of `texts` stay whole beside empty cells, and are no floats."""
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    for place, column in enumerate(table.schema):
        if column.name in texts and pa.types.is_integer(column.type) and table.column(place).null_count:
            frame.isetitem(place, table.column(place).to_pandas(integer_object_nulls=True))
    return frame


def _unreadable(path: Path, error: BaseException) -> ValueError:
    kind = "Parquet" if path.suffix.lower() == ".parquet" else "a table"
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(f"not readable as {kind}: the file is damaged or cut short ({detail[:80]})")
