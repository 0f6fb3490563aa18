"""metrics.jsonl of a run, and what trackers are told."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from seqssl.data.files import unlinked
from seqssl.training.trackers import Tracker

Value = bool | int | float | str | list[str] | None  # what a record of metrics.jsonl holds
Record = Mapping[str, Value]
NOT_FINITE = ("nan", "inf", "-inf")  # how `write` spells what JSON cannot hold


def read_records(path: Path) -> Iterator[Record]:
    """The records of a metrics file; a line that is none, such as one cut short by a kill, is left out."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from (record for record in map(_parsed, lines) if record is not None)


def _parsed(line: str) -> Record | None:
    """The record in a line; None for a line that is none, or has no kind or no finite step."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    step = number_of(record.get("step"))
    return record if step is not None and math.isfinite(step) else None


def number_of(value: Value) -> float | None:
    """A value of a record as a number ("nan" and "inf" count as numbers); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and value not in NOT_FINITE:
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None


class MetricsLog:
    """metrics.jsonl of a run folder, and the trackers that are told the same."""

    def __init__(self, run: Path, *, resume_at: int, trackers: Sequence[Tracker] = ()) -> None:
        self.path = run / "metrics.jsonl"
        self.kept = self._forget_after(resume_at)
        self._file = unlinked(self.path).open("a", encoding="utf-8")
        self._trackers = trackers

    def _forget_after(self, step: int) -> list[Record]:
        """Drop records after a step, because a resumed run writes them again; returns those that stay."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        parsed = [(line, _parsed(line)) for line in lines]
        kept = [(line, record) for line, record in parsed if record is not None and _step_of(record) <= step]
        partial = unlinked(self.path.with_suffix(".partial"))
        partial.write_text("".join(f"{line}\n" for line, _ in kept), encoding="utf-8")
        partial.replace(self.path)
        return [record for _, record in kept]

    def write(self, record: Record) -> None:
        """Append one record; floats that JSON cannot hold are written as text."""
        safe = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        self._file.write(json.dumps(safe) + "\n")
        self._file.flush()
        if record["kind"] == "event":
            return
        figures = {
            f"{record['kind']}/{key}": value for key, value in record.items() if isinstance(value, float)
        }
        for tracker in self._trackers:
            tracker.log(int(_step_of(record)), figures)

    def close(self) -> None:
        """Flush and close the file and all trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _step_of(record: Record) -> float:
    return number_of(record.get("step")) or 0.0
