"""Intervals of a genome: lines of BED or of a table with named columns, and what a FASTA title says."""

import csv
import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from modalities.dna.storage import DAMAGE, is_gzip
from modalities.reading.groups import SPLITS, known_split
from seqssl import Rejected, UserError

COLUMNS = {
    "chrom": ("chrom", "chromosome", "chr", "seqname", "seqnames", "contig", "region"),
    "start": ("start", "chromstart", "begin"),
    "stop": ("end", "chromend", "stop"),
    "label": ("label", "class", "name"),
    "strand": ("strand",),
    "group": ("group",),
    "split": ("split",),
}
BED_COLUMNS = {"chrom": 0, "start": 1, "stop": 2, "label": 3, "strand": 5}
NUM_SHOWN = 6  # names of sequences that a message lists
# chr2L:100-300, chr2L:100-300(-), UCSC's range=chr2L:101-300, and NC_004354.4:c300-100, which is NCBI's way
# to name the other strand
TITLE = re.compile(r"(?:^|\s|::)(?:\w+=)?([^\s:]+):(c?)(-?\d{1,12})-(\d{1,12})(?=\([+-]\)|\s|$)")
# Ensembl's chromosome:GRCh38:14:105881034:105881053:-1; it spans introns, so a transcript is shorter
ENSEMBL = re.compile(r"(?:^|\s)\w+:([^\s:]*):([^\s:]+):\d+:\d+:-?[01](?=\s|$)")
# gene:ENSG00000139618.1 or [gene=thrL], |ENSG00000139618.1| of GENCODE, (A2M), transcript variant 2 of RefSeq
GENE = re.compile(
    r"(?<![^\W_])gene[:=]([^\s\];,|]+)|\|(ENS[A-Z]*G\d+(?:\.\d+)?(?:_PAR_Y)?)(?=\|)|"
    r"\(([^()\s]+)\), transcript variant"
)


@dataclass(frozen=True)
class Interval:
    """Bases [start, stop) of a sequence, counted from 0, and what a table says about them."""

    chrom: str
    start: int
    stop: int
    reverse: bool = False  # the other strand is meant
    label: str = ""
    group: str = ""
    split: str = ""
    place: str = ""  # where it was read: file:line

    @property
    def key(self) -> str:
        """Its name: chr2L:100-300, with (-) behind it on the other strand."""
        return f"{self.chrom}:{self.start}-{self.stop}" + "(-)" * self.reverse


def interval_of_title(title: str, num_bases: int) -> Interval | None:
    """The interval that a title names, as `chr2L:101-300` or `chr2L:100-300` for 200 bases.

    Which way it counts shows in its length. One that starts before the sequence is cut there (UCSC's
    upstream regions), and one that fits in neither way is none.
    """
    found = TITLE.search(title)
    if not found:
        return None
    chrom, first, stop = found[1], int(found[3]), int(found[4])
    if found[2] or first > stop:
        first, stop = stop, first
    for start in (first - 1, first):
        if stop - max(0, start) == num_bases:
            return Interval(chrom, max(0, start), stop)
    return None


def chromosome_of_title(title: str) -> str:
    """The chromosome that a title names with an interval, whether the interval fits or not; else "".

    One that is only called Chromosome, as Ensembl calls those of bacteria, comes with its assembly before it.
    """
    if found := TITLE.search(title):
        return found[1]
    if found := ENSEMBL.search(title):
        return f"{found[1]}:{found[2]}" if found[2].lower() == "chromosome" else found[2]
    return ""


def gene_of_title(title: str) -> str:
    """The gene whose transcript a title names; "" where it names none."""
    found = GENE.search(title)
    return next(filter(None, found.groups())) if found else ""


def read_intervals(path: Path, *, one_based: bool) -> Iterator[Interval | Rejected]:
    """Intervals of a BED file, or of a table of tabs or commas whose first line names its columns.

    BED counts from 0 and its end is not included; with `one_based` the first base is 1 and the end is
    included. Columns 4 and 6 of BED are label and strand; a fourth column of split names only is the split.
    """
    lines = [*_lines(path)]
    places = _places(path, lines[0][1]) if lines else {}
    if places is not BED_COLUMNS:
        lines = lines[1:]
    elif all(len(fields) > 3 and fields[3].lower() in SPLITS for _, fields in lines):
        places = {("split" if name == "label" else name): at for name, at in places.items()}
    for number, fields in lines:
        values = {name: fields[at] for name, at in places.items() if at < len(fields)}
        try:
            yield _interval(values, f"{path.name}:{number}", one_based=one_based)
        except ValueError as error:
            yield Rejected(f"{path.name}:{number}", str(error))


def problem_on(interval: Interval, lengths: Mapping[str, int]) -> str:
    """Why the interval cannot be read from sequences of these lengths; "" where it can."""
    if interval.chrom not in lengths:
        names = ", ".join(islice(lengths, NUM_SHOWN)) + (" ..." if len(lengths) > NUM_SHOWN else "")
        return f"there is no sequence {interval.chrom}; there is {names or 'none at all'}"
    excess = interval.stop - lengths[interval.chrom]
    if excess <= 0:
        return ""
    hint = "; if the file counts from 1, set modality.one_based=true" if excess == 1 else ""
    size = lengths[interval.chrom]
    return f"{interval.key} ends {excess} beyond {interval.chrom}, which has {size} bases{hint}"


def _interval(values: Mapping[str, str], place: str, *, one_based: bool) -> Interval:
    try:
        start, stop = _whole(values["start"]) - one_based, _whole(values["stop"])
    except (KeyError, ValueError):
        given = " ".join(values.values())[:60]
        raise ValueError(
            f"no interval: it needs a sequence's name, a start and an end in whole numbers, not {given!r}"
        ) from None
    if start < 0:
        raise ValueError(f"the start is before the sequence's first base ({start + one_based})")
    if start == stop and not one_based:
        raise ValueError(
            f"no bases between {start} and {stop}: BED counts from 0 and leaves the end out; for a file that "
            f"counts from 1 set modality.one_based=true"
        )
    if start >= stop:
        raise ValueError(f"the end {stop} is before the start {start + one_based}")
    strand = values.get("strand", ".")
    if strand not in ("+", "-", ".", "*", ""):
        raise ValueError(f"the strand is {strand!r}, neither + nor -")
    label, group = values.get("label", ""), values.get("group", "")
    split = known_split(values.get("split", ""))
    return Interval(
        values["chrom"], start, stop, strand == "-", "" if label == "." else label, group, split, place
    )


def _whole(text: str) -> int:
    """A whole number; 1e+05, as R writes it, is one. ValueError for others."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(text) from None
        return int(number)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that has some, with its number from 1."""
    opener = gzip.open if is_gzip(path) else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if fields := _fields(line):
                    yield number, fields
    except DAMAGE as error:
        raise UserError(f"{path} is damaged or cut short ({error}).") from error


def _fields(line: str) -> list[str]:
    """Fields between tabs, else commas where the first word has one, else spaces; none for a comment."""
    line = line.strip()
    words = line.lower().split()
    if not line or words[0] in ("track", "browser"):
        return []
    commas = "\t" not in line and "," in words[0]
    names = words[0].split(",") if commas else words
    if line.startswith("#") and not {*names} & {*COLUMNS["start"]}:
        return []
    if commas:
        fields = next(csv.reader([line], skipinitialspace=True))
    else:
        fields = line.split("\t") if "\t" in line else line.split()
    return [field.strip().strip('"') for field in fields]


def _is_whole(text: str) -> bool:
    try:
        return _whole(text) is not None
    except (ValueError, OverflowError):
        return False


def _places(path: Path, first: Sequence[str]) -> Mapping[str, int]:
    """In which field each column stands, by the first line."""
    if len(first) > 2 and _is_whole(first[1]) and _is_whole(first[2]):
        return BED_COLUMNS
    names = [name.lstrip("#").lower() for name in first]
    places = {
        column: next(names.index(name) for name in candidates if name in names)
        for column, candidates in COLUMNS.items()
        if set(candidates) & set(names)
    }
    missing = [column for column in ("chrom", "start", "stop") if column not in places]
    if missing:
        wanted = ", ".join(COLUMNS[column][0] for column in missing)
        raise UserError(
            f"{path} is no BED file, and its first line names no column {wanted}: {' '.join(first)}."
        )
    return places
