"""Made-up sequences of known units, in the voices of several groups: codes can be judged by the truth."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqssl.data.adapters import Record, Sample, SampleSpec
from seqssl.model.features import Conv1dStack
from seqssl.model.types import Segment

NUM_UNITS, CHANNELS, NUM_GROUPS = 16, 6, 6
MIN_STEPS, MAX_STEPS = 6, 14  # of a unit
NOISE = 0.35
OFFSET = 0.7  # of a group's voice, beside units of size 1


def write_units(folder: Path, *, num_rows: int = 96, units_per_row: int = 16, seed: int = 0) -> Path:
    """Rows of units, each a trajectory in several channels; groups differ by an offset and a scale.

    Units follow each other by a sparse Markov chain, so that hidden ones can be told from their surroundings.
    """
    rng = np.random.default_rng(seed)
    starts, ends = rng.normal(size=(2, NUM_UNITS, CHANNELS))
    chain = rng.dirichlet(np.full(NUM_UNITS, 0.15), size=NUM_UNITS)
    voices = OFFSET * rng.normal(size=(NUM_GROUPS, CHANNELS))
    scales = rng.uniform(0.8, 1.25, size=(NUM_GROUPS, CHANNELS))
    for row in range(num_rows):
        group, unit = row % NUM_GROUPS, int(rng.integers(NUM_UNITS))
        parts, segments, place = [], [], 0
        for _ in range(units_per_row):
            size = int(rng.integers(MIN_STEPS, MAX_STEPS + 1))
            share = np.linspace(0, 1, size)[:, None]
            parts.append(starts[unit] * (1 - share) + ends[unit] * share)
            segments.append([place, place + size, f"unit {unit:02}"])
            place += size
            unit = int(rng.choice(NUM_UNITS, p=chain[unit]))
        values = np.concatenate(parts) * scales[group] + voices[group]
        values += NOISE * rng.normal(size=values.shape)
        path = folder / f"voice{group}" / f"{row:03}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, values=values.astype(np.float32), segments=np.array(json.dumps(segments)))
    return folder


def _read(path: Path) -> dict[str, object]:
    with np.load(path, allow_pickle=False) as table:
        values = table["values"]
        return {"length": len(values), "values": values.ravel(), "segments": str(table["segments"])}


class Units:
    """The files of `write_units`; the folder is the group, and segments are the units."""

    def __init__(self) -> None:
        self.spec = SampleSpec(dtype="float32", units="one", channels=CHANNELS)

    def records(self, source: Path, split: str) -> Iterator[Record]:
        """The files, in order."""
        for path in sorted(source.rglob("*.npz")):
            key = path.relative_to(source).as_posix()
            yield Record(key, partial(_read, path), group=path.parent.name)

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """The values of a row."""
        values = np.asarray(row["values"], np.float32).reshape(-1, CHANNELS)
        segments = tuple(Segment(*part) for part in json.loads(row["segments"]))
        return Sample(values, group=row["group"], segments=segments)

    def feature_encoder(self, dim: int) -> Conv1dStack:
        """Convolutions, a frame for four steps."""
        return Conv1dStack(CHANNELS, dim=32, kernels=(5, 3), strides=(2, 2))
