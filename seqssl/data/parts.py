"""Parts of a preparation, as a job array makes them: each alone, and all joined by a manifest.

Part 3 of 16 reads the third sixteenth of the records, by their declared amounts, and writes shards of its own
names. Nobody talks to anybody: every part looks through the whole source and knows which share is its own.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqssl.data.adapters import Record, Row
from seqssl.data.files import write_atomic
from seqssl.data.shards import Manifest
from seqssl.data.statistics import Sums
from seqssl.errors import UserError

_NAMES = re.compile(r"(?:plan|part|shard|\.lock)-(\d+)of(\d+)\b.*")
_SHARDS = re.compile(r"shard-(?:\d+of\d+-)?\d{5}\.(?:parquet|tmp)")


class Stretch(NamedTuple):
    """The records [first, last), and how the names of their shards begin."""

    first: int
    last: int
    shards: str = "shard-"


@dataclass(frozen=True)
class Part:
    """One of `count` shares of a preparation; `number` counts from 1. UserError for one that cannot be."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UserError(f"part = {self}: parts are 1/{self.count} to {self.count}/{self.count}.")

    @classmethod
    def read(cls, text: str) -> "Part":
        """The part that a text such as 3/16 names."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found:
            raise UserError(f"part = {text}: say which of how many, such as 3/16; the first is 1/16.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """As it stands in the names of files, which then sort by it."""
        return f"{self.number:0{len(str(self.count))}d}of{self.count}"

    @property
    def file(self) -> str:
        """The file that says what the part holds, once it is done."""
        return f"part-{self.name}.json"

    @property
    def mark(self) -> str:
        """The file that says of which state of the source its shards are."""
        return f"plan-{self.name}.txt"

    @property
    def lock(self) -> str:
        """The file that its one job holds."""
        return f".lock-{self.name}"

    @property
    def shards(self) -> str:
        """How the names of its shards begin."""
        return f"shard-{self.name}-"

    def of(self, records: Sequence[Record]) -> Stretch:
        """Its records: up to where their amounts, added up in their order, reach its share of the whole."""
        known = all(record.amount > 0 for record in records)
        sums = [0.0, *accumulate(record.amount if known else 1.0 for record in records)]

        def border(number: int) -> int:
            return len(records) if number == self.count else bisect_left(sums, sums[-1] * number / self.count)

        return Stretch(border(self.number - 1), border(self.number), self.shards)


@dataclass(frozen=True)
class Done:
    """A part that is done: what its folder would say if it were all, and what only the whole needs."""

    records: str  # digest of all records, their splits and the settings
    manifest: Manifest  # without the source's own rejections
    rejected: list[tuple[str, str]]  # key, reason
    quality: Sequence[Row]
    sums: list[list[float]]  # over the observed values of its rows in "train"

    def write(self, out: Path, part: Part) -> None:
        """Say in a folder that the part is done."""
        write_atomic(out / part.file, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Done | None":
        """What a part's file says; None where there is none, or it is damaged."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            manifest = Manifest.restore(values.pop("manifest"))
            rejected = [(key, reason) for key, reason in values.pop("rejected")]
            return cls(manifest=manifest, rejected=rejected, **values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def problem(self, plan: str, records: str, sizes: Mapping[str, int]) -> str:
        """Why it is no part of this preparation, whose folder has files of these sizes; "" = it is one."""
        if (self.manifest.plan, self.records) != (plan, records):
            return "of another state of the source, or with other settings"
        cut = [shard.name for shard in self.manifest.shards if sizes.get(shard.name) != shard.num_bytes]
        return f"{cut[0]} is missing or cut short" if cut else ""

    @property
    def total(self) -> Sums:
        """The sums over the observed values of its rows in "train"."""
        return Sums(*map(np.array, self.sums))


def is_of_part(name: str) -> bool:
    """Whether a file of this name is a part's."""
    return bool(_NAMES.fullmatch(name))


def count_in(names: Sequence[str], out: str) -> int:
    """Among how many parts a folder is divided, by the names of its files; 0 for none.

    UserError where parts of several divisions lie in it.
    """
    counts = {int(found[2]) for name in names if (found := _NAMES.fullmatch(name))}
    if len(counts) > 1:
        some = " and ".join(map(str, sorted(counts)))
        raise UserError(f"{out} holds parts of {some}: choose another folder, or remove those of one kind.")
    return counts.pop() if counts else 0


def gathered(
    out: Path, name: str, count: int, records: str, plan: str, sizes: Mapping[str, int]
) -> list[Done]:
    """All parts of a folder, in order; UserError that names those that are missing."""
    parts = [Part(number, count) for number in range(1, count + 1)]
    found = [Done.read(out / part.file) for part in parts]
    problems = ["not done" if done is None else done.problem(plan, records, sizes) for done in found]
    if any(problems):
        some = [part.number for part, problem in zip(parts, problems, strict=True) if problem]
        why = sorted({problem for problem in problems if problem})
        raise UserError(
            f"{name} is divided among {count} parts, of which {len(some)} are missing: {_ranges(some)} "
            f"({'; '.join(why)}). Run them, as with part={some[0]}/{count}, and then this again."
        )
    return [done for done in found if done is not None]


def is_done_mark(name: str) -> bool:
    """Whether a file of this name says that a part is done."""
    return is_of_part(name) and name.startswith("part-")


def stray(names: Iterable[str], manifest: Manifest) -> list[str]:
    """Of the names in a finished folder those that it needs no more: of parts, and of shards of others."""
    shards = {shard.name for shard in manifest.shards}
    return [name for name in names if name not in shards and (is_of_part(name) or _SHARDS.fullmatch(name))]


def tidy(out: Path, manifest: Manifest) -> None:
    """Remove what a finished folder needs no more."""
    for name in stray([path.name for path in out.iterdir()], manifest):
        (out / name).unlink(missing_ok=True)


def said_of(manifest: Manifest) -> str:
    """A sentence for people about a part that is done, whose manifest this is."""
    rows, number = sum(shard.num_rows for shard in manifest.shards), len(manifest.shards)
    shards = f"{number:,} shard" if number == 1 else f"{number:,} shards"
    return (
        f"{rows:,} rows in {shards}, {manifest.num_rejected:,} rejected. "
        "When all parts are done, the same command without part= joins them."
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as `3,7,12-14`, as Slurm takes them."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, stretch)) for stretch in found)
