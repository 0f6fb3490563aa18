"""DNA: FASTA, FASTQ, GenBank, 2bit, tables and class folders to rows of bases A C G T N."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from modalities.dna import alphabet, files, shuffling
from modalities.dna.counting import gapped_pairs
from modalities.dna.files import Columns, Sequence, find_files, likely_files, read_sequences, split_by_name
from modalities.dna.frames import open_frames, other_strand, stretches_within
from modalities.dna.intervals import (
    Interval,
    interval_of_title,
    problem_on,
    read_intervals,
)
from modalities.dna.repeats import group_of, keys_of, shared_name
from modalities.dna.storage import DAMAGE, Bases, OtherStrand
from modalities.reading.dialects import TableSettings
from modalities.reading.groups import Grouping, check_pattern
from modalities.reading.looking import MOST, counted, problem_of
from seqssl import Record, Rejected, Rows, Sample, SampleSpec, Segment, Suggestion, TokenEncoder, UserError

BLOCK_BASES = 2**18  # a longer sequence becomes several records
MAX_STRIDE = 64  # bases of a frame
GENOME_KINDS = ("fasta", "genbank", "2bit")  # what intervals may refer to


@dataclass(frozen=True)
class Piece:
    """What one record reads."""

    key: str
    bases: Bases
    start: int = 0  # of its first base in the sequence
    whole: bool = True  # it is all of the sequence
    features: tuple[tuple[int, int, str], ...] = ()  # stretches of the whole sequence, with their strand
    notices: tuple[str, ...] = ()  # sentences about its file


class DNA:
    """Windows of nucleotide sequences, stored as text; N is missing and never a target.

    A sequence (or interval) of at most `length` bases is one row, a longer one gives a row every `step`.
    """

    endings = tuple(files.KINDS)

    def __init__(
        self,
        *,
        length: int = 2048,
        step: int | None = None,
        min_length: int = 32,
        max_missing: float = 0.5,
        soft_masked: Literal["keep", "missing"] = "keep",
        intervals: str | None = None,
        one_based: bool = False,
        sequence_column: str | None = None,
        label_column: str | None = None,
        group_column: str | None = None,
        group_pattern: str | None = None,
        skip_lines: int | None = None,
        csv_columns: tuple[str, ...] | None = None,
        separator: str | None = None,
        every: int = 1,
        shuffled: bool = False,
        rc: bool = True,
        stride: int = 4,
        segments: Literal["none", "orf", "cds"] = "none",
        min_orf: int = 300,
    ) -> None:
        self.length, self.min_length, self.every = length, min_length, every
        self.step = length if step is None else step
        self.max_missing, self.soft_masked = max_missing, soft_masked
        self.intervals, self.one_based = intervals, one_based
        self.sequence_column, self.label_column = sequence_column, label_column
        self.group_column, self.shuffled = group_column, shuffled
        self._table = TableSettings(skip_lines, csv_columns, separator)
        # Public where it is given: older prepared folders know no such settings
        given = {**vars(self._table), "group_pattern": group_pattern}
        vars(self).update({name: value for name, value in given.items() if value is not None})
        self._rc, self._stride = rc, stride
        if segments not in ("none", "orf", "cds") or min_orf < 3:
            raise ValueError(
                f"modality.segments={segments} and min_orf={min_orf}: none, orf, cds; at least 3"
            )
        if segments == "cds":
            self.segments = segments  # public, as it changes what is stored
        self._segments, self._min_orf = segments, min_orf
        self._check()
        if intervals:
            self.rc = rc  # public, as here it decides which rows there are; elsewhere strands are not named
        # A file outside the source is part of the settings by its content
        outside = Path(intervals).expanduser() if intervals else None
        content = outside.read_bytes() if outside and outside.is_file() else b""
        self.intervals_digest = hashlib.sha256(content).hexdigest() if content else ""
        self.spec = SampleSpec(
            dtype="int64",
            units="nucleotide",
            vocab_size=len(alphabet.SYMBOLS),
            missing_id=alphabet.SYMBOLS.index("N"),
            symbols=alphabet.SYMBOLS,
        )

    def _check(self) -> None:
        """ValueError for settings of rows that do not go together."""
        fits = 1 <= self.min_length <= self.length and 0 <= self.max_missing <= 1
        if not fits or min(self.step, self.every) < 1:
            raise ValueError(
                f"1 <= min_length <= length, step >= 1, every >= 1 and 0 <= max_missing <= 1 are needed; got "
                f"{self.min_length}, {self.length}, {self.step}, {self.every} and {self.max_missing}"
            )
        if not 1 <= self._stride <= MAX_STRIDE:
            raise ValueError(f"modality.stride={self._stride} must lie in [1, {MAX_STRIDE}]")
        check_pattern(self._group_pattern, "modality.group_pattern")

    @property
    def _group_pattern(self) -> str | None:
        return getattr(self, "group_pattern", None)

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """The sequences of all files of a folder, or of one file, or the intervals of a BED file in them."""
        found = self._from_intervals(source) if self.intervals else self._from_files(source)
        return (row for row in found if split == "all" or (isinstance(row, Record) and row.split == split))

    @classmethod
    def suggest(cls, source: Path) -> Suggestion | None:
        """Files of sequences by their names; tables and texts, which may be anything, if one can be read."""
        found, kinds = likely_files(source, MOST)
        if not found:
            return None
        problem = "" if kinds & {*GENOME_KINDS, "fastq"} else problem_of(cls()._from_files(source, MOST))
        return Suggestion(counted("nucleotide sequences", found), problem=problem)

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """Ids of a stored row; with `rng`, in half of the cases those of the other strand."""
        values = self._values(row["sequence"].encode())
        observed = values != alphabet.MISSING
        segments: tuple[Segment, ...] | None = None
        if self._segments == "orf":
            segments = tuple(open_frames(values, self._min_orf))
        elif self._segments == "cds":
            segments = tuple(Segment(*part) for part in json.loads(row["segments"]))
        sample = Sample(values, label=row["label"], group=row["group"], observed=observed, segments=segments)
        flip = rng is not None and self._rc and rng.random() < 0.5
        return other_strand(sample) if flip else sample

    def views(self, sample: Sample) -> list[Sample]:
        """Both strands, or with `rc` off the one that is there."""
        return [sample, other_strand(sample)] if self._rc else [sample]

    def descriptors(self, sample: Sample) -> dict[str, Float[np.ndarray, "d"]]:
        """How often each base comes so many bases after each other one, over both strands if `rc`."""
        counts = np.sum([gapped_pairs(view.values) for view in self.views(sample)], axis=0)
        return {"pairs at a distance": (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).ravel()}

    def feature_encoder(self, dim: int) -> TokenEncoder:
        """Embedded bases, a convolution over 9 of them, `stride` bases per frame."""
        return TokenEncoder(len(alphabet.SYMBOLS), dim=dim, kernel=9, stride=self._stride)

    def _from_files(self, source: Path, most: int | None = None) -> Iterator[Record | Rejected]:
        listed = find_files(source, most=most)
        several = sum(kind not in ("text", "bed") for _, _, kind in listed) > 1
        for path, name, kind in listed:
            found = self._sequences(source, path, name, kind)
            if isinstance(found, Rejected):
                yield found
                continue
            prefix = f"{name}/" if several and kind != "text" else ""
            intervals = (interval_of_title(sequence.title, len(sequence.bases)) for sequence in found)
            given = split_by_name(name, kind)
            for row in self._of_sequences(name, prefix, zip(found, intervals, strict=True)):
                yield replace(row, split=row.split or given) if isinstance(row, Record) else row

    def _from_intervals(self, source: Path) -> Iterator[Record | Rejected]:
        table = self._interval_file(source if source.is_dir() else source.parent)
        genome: dict[str, Sequence] = {}
        for path, name, kind in find_files(source):
            found = self._sequences(source, path, name, kind) if kind in GENOME_KINDS else []
            if isinstance(found, Rejected):
                yield found
                continue
            for sequence in found:
                if genome.setdefault(sequence.name, sequence) is not sequence:
                    yield Rejected(f"{name}/{sequence.name}", "the name is that of an earlier sequence")
        lengths = {name: len(sequence.bases) for name, sequence in genome.items()}
        stretches: list[tuple[Sequence, Interval]] = []
        for interval in read_intervals(table, one_based=self.one_based):
            problem = "" if isinstance(interval, Rejected) else problem_on(interval, lengths)
            if isinstance(interval, Rejected):
                yield interval
            elif problem:
                yield Rejected(interval.place, problem)
            else:
                place, reverse = (interval.start, interval.stop), interval.reverse
                bases = genome[interval.chrom].bases.narrow(*place)
                bases = OtherStrand(bases) if reverse else bases
                features = stretches_within(genome[interval.chrom].features, *place, reverse=reverse)
                described = {name: getattr(interval, name) for name in ("label", "group", "split")}
                sequence = Sequence(interval.place, bases, features=features, **described)
                stretches.append((sequence, interval))
        yield from self._of_sequences(table.name, "", stretches)

    def _interval_file(self, folder: Path) -> Path:
        places = [Path(str(self.intervals)).expanduser(), folder / str(self.intervals)]
        path = next((path for path in places if path.is_file()), None)
        if path is None:
            raise UserError(f"modality.intervals: there is no file {self.intervals}, nor is it in {folder}.")
        return path

    def _sequences(self, source: Path, path: Path, name: str, kind: str) -> list[Sequence] | Rejected:
        """All sequences of a file, or why there are none: one that is cut short is left out whole."""
        if kind == "bed":
            return Rejected(name, "intervals, but no genome: name this file in modality.intervals")
        columns = Columns(self.sequence_column, self.label_column, self.group_column, self._table)
        try:
            return list(read_sequences(path, name, kind, columns))
        except DAMAGE as error:
            return Rejected(name, f"damaged or cut short, bring it again ({error})")
        except Exception as error:  # a library may raise anything for a damaged file
            if isinstance(error, UserError) and path == source:
                raise
            return Rejected.of(name, error)

    def _of_sequences(
        self, name: str, prefix: str, found: Iterable[tuple[Sequence, Interval | None]]
    ) -> Iterator[Record | Rejected]:
        """Records of the sequences of the file `name`; copies are left out."""
        keys = keys_of(name, prefix, found, both_strands=self._rc)
        yield from keys.rejected
        chosen = keys.kept[:: self.every]
        notices = tuple(filter(None, [keys.notice, "" if self._group_pattern else shared_name(chosen)]))
        # The longest one is the likeliest to have a row, which the notices of the file need
        longest = max(chosen, key=lambda one: len(one.sequence.bases), default=None)
        for one in chosen:
            try:
                group = self._given_group(name, one.sequence) or group_of(prefix, one)
            except ValueError as error:
                yield Rejected.of(prefix + one.key, error)
                continue
            said = notices if one is longest else ()
            yield from self._of_sequence(prefix + one.key, one.sequence, group, said)

    def _given_group(self, name: str, sequence: Sequence) -> str:
        """What `group_pattern` finds in the file's path and the title behind it, "" without a pattern."""
        if self._group_pattern is None:
            return ""
        return Grouping.of((), self._group_pattern).group(f"{name}/{sequence.title or sequence.name}")

    def _of_sequence(
        self, key: str, sequence: Sequence, group: str, notices: tuple[str, ...]
    ) -> Iterator[Record]:
        """One record, or several of a long sequence; windows lie at the same places in both cases."""
        bases = sequence.bases
        describe = partial(
            Record, group=group, label=sequence.label, split=sequence.split, amount=float(len(bases))
        )
        starts, num_windows = self._starts(len(bases)), max(1, BLOCK_BASES // self.step)
        if len(starts) <= num_windows:
            piece = Piece(key, bases, features=sequence.features, notices=notices)
            yield describe(key, partial(self._read, piece))
            return
        for block in (starts[at : at + num_windows] for at in range(0, len(starts), num_windows)):
            start, stop = block[0], min(len(bases), block[-1] + self.length)
            name = f"{key}:{start}-{stop}"
            inside = tuple(part for part in sequence.features if part[0] < stop and part[1] > start)
            said = () if start else notices
            piece = Piece(name, bases.narrow(start, stop), start, False, inside, said)
            yield describe(name, partial(self._read, piece))

    def _starts(self, num_bases: int) -> range:
        """Where windows start: at least one, and none whose bases are all in the one before."""
        overlap = max(0, self.length - self.step)
        return range(0, max(1, num_bases - overlap), self.step)

    def _read(self, piece: Piece) -> dict[str, object] | Rows:
        """The columns of a sequence that is one row; else windows, and what was changed or left out."""
        try:
            letters, changes = alphabet.normalized(piece.bases.read())
        except DAMAGE as error:
            raise ValueError(f"the file is damaged or cut short ({error})") from error
        starts = self._starts(len(letters))
        single = piece.whole and len(letters) <= self.length
        rows: list[dict[str, object]] = []
        dropped: Counter[str] = Counter()
        for start in starts:
            window = letters[start : start + self.length]
            problem = self._problem(window)
            if problem:
                dropped[problem] += 1
                continue
            place = piece.start + start
            found = self._rows(window, piece.key, "" if single else f"{place}-{place + len(window)}")
            if self._segments == "cds":
                parts = stretches_within(piece.features, place, place + len(window))
                found = [{**row, "segments": json.dumps(parts)} for row in found]
            rows += found
        if not rows:
            (problem, _), *_ = dropped.most_common()
            raise ValueError(problem if single else f"{problem}, or worse, in each of {len(starts)} windows")
        if dropped:
            changes["dropped_windows"] = dict(dropped)
        if single and not changes and not self.shuffled and not piece.notices:
            return {name: value for name, value in rows[0].items() if name != "part"}
        quality = {"bases": len(letters), "rows": len(rows), **changes} if changes else {}
        return Rows(rows, quality, notices=piece.notices)

    def _rows(self, window: bytes, key: str, part: str) -> list[dict[str, object]]:
        """A window as it is, or as a pair of the real and a shuffled one."""
        row: dict[str, object] = {"part": part, "length": len(window), "sequence": window.decode()}
        if not self.shuffled:
            return [row]
        seed = hashlib.sha256(f"{key}#{part}".encode()).digest()
        mixed = shuffling.shuffled(window, np.random.default_rng([*seed]))
        pair = {"real": row["sequence"], "shuffled": mixed.decode()}
        return [
            {**row, "part": f"{part}/{kind}".lstrip("/"), "label": kind, "sequence": sequence}
            for kind, sequence in pair.items()
        ]

    def _problem(self, window: bytes) -> str:
        """Why a window is no row; "" where it is one."""
        if len(window) < self.min_length:
            return f"fewer than {self.min_length} bases (modality.min_length)"
        if np.mean(self._values(window) == alphabet.MISSING) > self.max_missing:
            what = "N" if self.soft_masked == "keep" else "N or lower case"
            return f"more than {self.max_missing:.0%} {what} (modality.max_missing)"
        return ""

    def _values(self, letters: bytes) -> Int[np.ndarray, "t"]:
        """Ids, N for what is missing."""
        values = alphabet.ids(letters)
        if self.soft_masked == "missing":
            values[alphabet.codes(letters) & alphabet.LOWER_CASE > 0] = alphabet.MISSING
        return values
