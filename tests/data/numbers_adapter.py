"""A tiny modality for tests of the data layer: files of numbers, one row each."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqssl import Record, Rejected, Sample, SampleSpec


def read_numbers(path: Path) -> dict[str, object]:
    """A file of numbers; `ValueError` for anything else."""
    values = np.array(path.read_text().split(), dtype=np.float32)
    return {"length": len(values), "values": values, "table": np.stack([values, -values], axis=1)}


class Numbers:
    """Reads *.num; rows are float32 (t,), or (t, 2) with `observed` and `times` when `wide`."""

    def __init__(self, *, wide: bool = False, scale: float = 1.0) -> None:
        self.wide = wide
        self.scale = scale
        self.spec = SampleSpec(dtype="float32", units="one", channels=2 if wide else None, rate_hz=10.0)

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        for path in sorted(source.rglob("*.num")):
            name = path.relative_to(source)
            if path.stem == "unwanted":
                yield Rejected(name.as_posix(), "unwanted by its name")
            else:
                group = name.parts[0] if len(name.parts) > 1 else ""
                yield Record(name.as_posix(), partial(read_numbers, path), group=group, label=path.stem)

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        values = row["table"] if self.wide else row["values"]
        values = values * np.float32(self.scale + (rng.normal() if rng and self.scale != 1.0 else 0.0))
        if not self.wide:
            return Sample(values, label=row["label"], group=row["group"])
        return Sample(values, observed=values > 0, times=np.arange(len(values), dtype=np.float32) / 10 + 5)

    def feature_encoder(self, dim: int) -> Any:
        raise NotImplementedError("rows are prepared and loaded without one")


def write_numbers(source: Path, *, num_groups: int = 3, num_rows: int = 8, first_length: int = 3) -> None:
    """`num_groups` folders of files; row r of group g counts up from 1000 g + 100 r."""
    for group in range(num_groups):
        folder = source / f"group{group}"
        folder.mkdir(parents=True, exist_ok=True)
        for row in range(num_rows):
            start = 1000 * group + 100 * row + 1
            values = range(start, start + first_length + row)
            (folder / f"row{row}.num").write_text(" ".join(map(str, values)))
