"""Files that hold sequences: which there are in a folder, and how each kind is read."""

import gzip
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import pyarrow.parquet as pq

from modalities.dna.fasta import scan_fasta
from modalities.dna.storage import Bases, InMemory, InTwoBit, is_gzip, two_bit
from modalities.dna.texts import SEQUENCE_COLUMNS, InText, kind_of_text, sequences_of
from modalities.reading.dialects import TableSettings
from modalities.reading.groups import known_split, split_of, split_of_file
from modalities.reading.tables import USUAL, Table, shown
from seqssl import UserError, list_files

COMPRESSED = (".gz", ".bgz", ".bgzf")
NEVER_COMPRESSED = (".2bit", ".parquet", ".txt", ".data")
TABLE_ROWS = 4096  # read at a time
MAX_TEXT_BYTES = 2**20  # a longer text file is kept from the scan on
COUNTED_BYTES = 2**17  # a longer one may be several records, for which its letters are counted
MAX_BASES_IN_MEMORY = 2 * 10**9
LABEL_COLUMNS = ("label", "class", "target")
GROUP_COLUMNS = ("group", "chromosome", "chrom", "chr")
KEY_COLUMNS = ("key", "id")
MATE = re.compile(r"/[12]$")  # behind the name of a read


@dataclass(frozen=True)
class Sequence:
    """A sequence of a file: its letters are read later."""

    name: str  # what identifies it in its file
    bases: Bases
    title: str = ""  # a line about it, which may name an interval
    pair: str = ""  # of a read whose name tells the mates apart: the name that both share
    label: str = ""
    group: str = ""
    split: str = ""
    features: tuple[tuple[int, int, str], ...] = ()  # coding stretches: start, end, strand
    numbered: bool = False  # its name is only its place in the file


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns, None where the usual ones are looked for."""

    sequence: str | None = None
    label: str | None = None
    group: str | None = None
    table: TableSettings = USUAL  # how it is written


def kind_of(path: PurePath) -> str:
    """fasta, fastq, genbank, 2bit, table, text, data, bed, or "" for anything else, by the name's end."""
    name = path.name.lower()
    stem = next((name.removesuffix(end) for end in COMPRESSED if name.endswith(end)), name)
    suffix = Path(stem).suffix
    return "" if stem != name and suffix in NEVER_COMPRESSED else KINDS.get(suffix, "")


def kind_at(path: Path) -> str:
    """As `kind_of` says, or for a text its content; what else a text is, is one sequence or nothing."""
    kind = kind_of(path)
    if kind not in ("text", "data"):
        return kind
    return kind_of_text(path) or ("text" if kind == "text" else "")


def find_files(source: Path, *, most: int | None = None) -> list[tuple[Path, str, str]]:
    """The files of a folder, or the one file, each with its name in the source and its kind, in order.

    Of texts, which have to be looked into, about `most`, if that is given.
    """
    if source.is_file():
        kind = kind_at(source)
        if not kind:
            raise UserError(
                f"{source} is no kind of file that holds DNA here: {' '.join(KINDS)}, or with .gz."
            )
        return [(source, source.name, kind)]
    named = [path for path in list_files(source) if kind_of(path)]
    texts = [path for path in named if kind_of(path) in ("text", "data")]
    left = {*texts} - {*texts[:: max(1, len(texts) // (most or len(texts) or 1))]}
    files = [(path, path.relative_to(source).as_posix(), kind_at(path)) for path in named if path not in left]
    # Text is one sequence only in the folder of a class: others hold licenses and notes
    found = [file for file in files if file[2] and (file[2] != "text" or "/" in file[1])]
    return sorted(found, key=lambda file: file[1])


def likely_files(source: Path, most: int) -> tuple[list[Path], set[str]]:
    """The files that may be read, by their names, and all kinds; only about `most` texts are looked into."""
    if source.is_file():
        kind = kind_at(source)
        return [source][: bool(kind)], {kind}
    found = find_files(source, most=most)
    tables = {path for path, _, kind in found if kind == "table"}
    names = [path for path in list_files(source) if kind_of(path)]
    return [path for path in names if kind_of(path) != "data" or path in tables], {kind for *_, kind in found}


def split_by_name(name: str, kind: str) -> str:
    """The split that a file's name or a folder above it says: test.csv, train-00000-of-00001.parquet.

    "" for none. The name of a text stands for one sequence and says nothing.
    """
    return split_of(name) if kind == "text" else split_of_file(name)


def read_sequences(path: Path, name: str, kind: str, columns: Columns) -> Iterator[Sequence]:
    """The sequences of a file, by the name and kind that `find_files` gives.

    `ValueError`, or one of `DAMAGE`, where it cannot be read to its end, or would not fit into memory.
    """
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    num_found = num_bases = 0
    for sequence in _all_sequences(path, name, kind, columns):
        num_found += 1
        num_bases += len(sequence.bases) if isinstance(sequence.bases, InMemory) else 0
        if num_bases > MAX_BASES_IN_MEMORY:
            raise ValueError(
                f"more than {MAX_BASES_IN_MEMORY:,} bases to keep in memory, since only plain FASTA, bgzip "
                f"FASTA and 2bit can be entered anywhere: unpack it, use bgzip, or split it"
            )
        yield sequence
    if not num_found:
        raise ValueError("there is no sequence in it")


def _all_sequences(path: Path, name: str, kind: str, columns: Columns) -> Iterator[Sequence]:
    if kind in ("text", "lines"):
        return _text(path, name, several=kind == "lines")
    return _table(path, columns) if kind == "table" else READERS[kind](path)


def _fasta(path: Path) -> Iterator[Sequence]:
    for title, bases in scan_fasta(path):
        yield Sequence((title.split() or [""])[0], bases, title)


def _fastq(path: Path) -> Iterator[Sequence]:
    from Bio.SeqIO.QualityIO import FastqGeneralIterator

    with _text_lines(path) as lines:
        for title, letters, _ in FastqGeneralIterator(lines):
            name = (title.split() or [""])[0]
            yield Sequence(name, InMemory(letters.encode()), title, MATE.sub("", name))


def _genbank(path: Path) -> Iterator[Sequence]:
    from Bio import BiopythonParserWarning, SeqIO
    from Bio.Seq import UndefinedSequenceError

    with _text_lines(path) as lines, warnings.catch_warnings():
        warnings.simplefilter("ignore", BiopythonParserWarning)
        warnings.filterwarnings("error", "Premature end", BiopythonParserWarning)
        try:
            records = list(SeqIO.parse(lines, "genbank"))
        except BiopythonParserWarning as warning:
            raise ValueError(f"cut short: {warning}") from warning
    for record in records:
        try:
            letters = bytes(record.seq)
        except UndefinedSequenceError:  # a record that names its pieces and holds no bases
            letters = b""
        located = [feature.location for feature in record.features if feature.type == "CDS"]
        # A part with a reference lies in another record
        coding = [part for location in located for part in location.parts if part.ref is None]
        features = [
            (int(part.start), int(part.end), "reverse" if part.strand == -1 else "forward") for part in coding
        ]
        yield Sequence(record.id, InMemory(letters), features=tuple(sorted(features)))


def _two_bit(path: Path) -> Iterator[Sequence]:
    two_bit.cache_clear()  # the file may have changed since an earlier scan
    for name, letters in two_bit(path).sequences.items():
        yield Sequence(name, InTwoBit(path, name, 0, len(letters)))


READERS: dict[str, Callable[[Path], Iterator[Sequence]]] = {
    "fasta": _fasta,
    "fastq": _fastq,
    "genbank": _genbank,
    "2bit": _two_bit,
}
KINDS = {
    **dict.fromkeys((".fa", ".fasta", ".fna", ".fas", ".ffn", ".fsa", ".frn", ".mfa"), "fasta"),
    **dict.fromkeys((".fastq", ".fq"), "fastq"),
    **dict.fromkeys((".gb", ".gbk", ".gbff", ".genbank"), "genbank"),
    ".2bit": "2bit",
    **dict.fromkeys((".csv", ".tsv", ".parquet"), "table"),
    ".txt": "text",
    ".data": "data",
    ".bed": "bed",
}


def _text_lines(path: Path) -> Any:
    opener: Callable[..., Any] = gzip.open if is_gzip(path) else open
    return opener(path, "rt", encoding="utf-8-sig", errors="replace")


def _text(path: Path, name: str, *, several: bool) -> Iterator[Sequence]:
    """The sequences of a file SPLIT/CLASS/file.txt, CLASS/file.txt or SPLIT/file.txt; see `split_by_name`.

    One is named as its file; several are numbered from 1, as their lines are.
    """
    folder = ["", *name.split("/")][-2]
    label = "" if split_of(f"{folder}/file") else folder
    found = sequences_of(path.read_bytes()) if several else []
    if len(found) > 1:  # else its beginning looked like several
        for number, letters in enumerate(found, 1):
            yield Sequence(str(number), InMemory(letters), label=label, numbered=True)
        return
    bases: Bases = InText(path, path.stat().st_size)
    if len(bases) > MAX_TEXT_BYTES:
        bases = InMemory(bases.read())
    elif len(bases) > COUNTED_BYTES:
        bases = InText(path, len(bases.read()))
    yield Sequence(name, bases, label=label)


def _table(path: Path, columns: Columns) -> Iterator[Sequence]:
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path, columns.table)
    names = next(rows)
    places = {
        "sequence": _column(path, "sequence", columns.sequence, SEQUENCE_COLUMNS, names),
        "label": _column(path, "label", columns.label, LABEL_COLUMNS, names),
        "group": _column(path, "group", columns.group, GROUP_COLUMNS, names),
        "split": _column(path, "split", None, ("split",), names),
        "key": _column(path, "key", None, KEY_COLUMNS, names),
    }
    if not places["sequence"]:
        raise UserError(
            f"{path} has no column of sequences ({', '.join(SEQUENCE_COLUMNS)}); it has {shown(names)}: "
            f"set modality.sequence_column."
        )
    for number, row in enumerate(rows):
        values = {name: _cell(row[column]) if column else "" for name, column in places.items()}
        yield Sequence(
            values["key"] or str(number),
            InMemory(_letters(values["sequence"]).encode()),
            values["key"],
            label=values["label"],
            group=values["group"],
            split=known_split(values["split"]),
            numbered=not values["key"],
        )


def _letters(cell: str) -> str:
    """The letters of a cell without blanks; overlapping k-mers (DNABERT) give one letter each."""
    words = cell.split()
    size = len(words[0]) if words else 0
    if len(words) > 1 and size > 1 and all(len(word) == size for word in words):
        if all(before[1:] == after[:-1] for before, after in pairwise(words)):
            return words[0] + "".join(word[-1] for word in words[1:])
    return "".join(words)


def _column(path: Path, role: str, given: str | None, usual: Iterable[str], names: list[str]) -> str:
    """The column that has a role, "" for none."""
    if given is not None:
        if given not in names:
            raise UserError(f"{path} has no column {given} (modality.{role}_column); it has {shown(names)}.")
        return given
    return next((name for candidate in usual for name in names if name.lower() == candidate), "")


def _csv_rows(path: Path, settings: TableSettings) -> Iterator[Any]:
    """The names of the columns, then each row by name; every value is text."""
    table = Table.open(path, settings)
    yield [*table.names]
    frame = table.read(table.names, texts=table.names)
    for cells in frame.itertuples(index=False, name=None):
        yield dict(zip(table.names, cells, strict=True))


def _parquet_rows(path: Path) -> Iterator[Any]:
    """The names of the columns, then each row by name."""
    with pq.ParquetFile(path) as file:
        yield file.schema_arrow.names
        for batch in file.iter_batches(TABLE_ROWS):
            yield from batch.to_pylist()


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
