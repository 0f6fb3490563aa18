"""Files that hold sequences: which there are in a folder, and how each kind is read."""

import gzip
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from modalities.dna.fasta import scan_fasta
from modalities.dna.storage import Bases, InMemory, InText, InTwoBit, is_gzip, two_bit
from modalities.reading.groups import known_split, split_of, split_of_file
from modalities.reading.tables import Table, shown
from seqssl import UserError, list_files

COMPRESSED = (".gz", ".bgz", ".bgzf")
NEVER_COMPRESSED = (".2bit", ".parquet", ".txt")
TABLE_ROWS = 4096  # read at a time
MAX_TEXT_BYTES = 2**20  # a longer text file is read during the scan
MAX_BASES_IN_MEMORY = 2 * 10**9
SEQUENCE_COLUMNS = ("sequence", "seq", "dna")
LABEL_COLUMNS = ("label", "class", "target")
GROUP_COLUMNS = ("group", "chromosome", "chrom", "chr")
KEY_COLUMNS = ("key", "id")


@dataclass(frozen=True)
class Sequence:
    """A sequence of a file: its letters are read later."""

    name: str  # what identifies it in its file
    bases: Bases
    title: str = ""  # a line about it, which may name an interval
    label: str = ""
    group: str = ""
    split: str = ""
    features: tuple[tuple[int, int, str], ...] = ()  # coding stretches: start, end, strand


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns, None where the usual ones are looked for."""

    sequence: str | None = None
    label: str | None = None
    group: str | None = None


def kind_of(path: PurePath) -> str:
    """fasta, fastq, genbank, 2bit, table, text, bed, or "" for anything else, by the name's end."""
    name = path.name.lower()
    stem = next((name.removesuffix(end) for end in COMPRESSED if name.endswith(end)), name)
    suffix = Path(stem).suffix
    return "" if stem != name and suffix in NEVER_COMPRESSED else KINDS.get(suffix, "")


def find_files(source: Path) -> list[tuple[Path, str]]:
    """The files of a folder, or the one file, each with its name in the source, in order."""
    if source.is_file():
        if not kind_of(source):
            raise UserError(
                f"{source} is no kind of file that holds DNA here: {' '.join(KINDS)}, or with .gz."
            )
        return [(source, source.name)]
    files = [(path, path.relative_to(source).as_posix()) for path in list_files(source)]
    # Text is data only in the folder of a class: others hold licenses and notes
    found = [(path, name) for path, name in files if kind_of(path) != "text" or "/" in name]
    return sorted(((path, name) for path, name in found if kind_of(path)), key=lambda entry: entry[1])


def split_by_name(name: str) -> str:
    """The split that a file's name or a folder above it says: test.csv, train-00000-of-00001.parquet.

    "" for none. The name of a text file stands for one sequence and says nothing.
    """
    return split_of(name) if kind_of(PurePosixPath(name)) == "text" else split_of_file(name)


def read_sequences(path: Path, name: str, columns: Columns) -> Iterator[Sequence]:
    """The sequences of a file that `find_files` calls `name`.

    `ValueError`, or one of `DAMAGE`, where it cannot be read to its end, or would not fit into memory.
    """
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    num_found = num_bases = 0
    for sequence in _all_sequences(path, name, columns):
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


def _all_sequences(path: Path, name: str, columns: Columns) -> Iterator[Sequence]:
    kind = kind_of(path)
    if kind == "text":
        return iter([_text(path, name)])
    return _table(path, columns) if kind == "table" else READERS[kind](path)


def _fasta(path: Path) -> Iterator[Sequence]:
    for title, bases in scan_fasta(path):
        yield Sequence((title.split() or [""])[0], bases, title)


def _fastq(path: Path) -> Iterator[Sequence]:
    from Bio.SeqIO.QualityIO import FastqGeneralIterator

    with _text_lines(path) as lines:
        for title, letters, _ in FastqGeneralIterator(lines):
            yield Sequence((title.split() or [""])[0], InMemory(letters.encode()), title)


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
    **dict.fromkeys((".fa", ".fasta", ".fna", ".fas", ".ffn"), "fasta"),
    **dict.fromkeys((".fastq", ".fq"), "fastq"),
    **dict.fromkeys((".gb", ".gbk", ".gbff", ".genbank"), "genbank"),
    ".2bit": "2bit",
    **dict.fromkeys((".csv", ".tsv", ".parquet"), "table"),
    ".txt": "text",
    ".bed": "bed",
}


def _text_lines(path: Path) -> Any:
    opener: Callable[..., Any] = gzip.open if is_gzip(path) else open
    return opener(path, "rt", encoding="utf-8-sig", errors="replace")


def _text(path: Path, name: str) -> Sequence:
    """One sequence in a file SPLIT/CLASS/file.txt, CLASS/file.txt or SPLIT/file.txt; see `split_by_name`."""
    text = InText(path, path.stat().st_size)
    bases = text if len(text) <= MAX_TEXT_BYTES else InMemory(text.read())
    folder = ["", *name.split("/")][-2]
    return Sequence(name, bases, label="" if split_of(f"{folder}/file") else folder)


def _table(path: Path, columns: Columns) -> Iterator[Sequence]:
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
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


def _csv_rows(path: Path) -> Iterator[Any]:
    """The names of the columns, then each row by name; every value is text."""
    table = Table.open(path)
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
