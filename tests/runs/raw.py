"""Rows of single samples, one channel."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqssl import Conv1dStack, Record, Sample, SampleSpec


def read(path: Path) -> dict[str, object]:
    values = np.load(path)
    return {"length": len(values), "values": values}


class Samples:
    """Reads .npy files of shape (t,)."""

    spec = SampleSpec(dtype="float32", units="amplitude", rate_hz=100.0)

    def records(self, source: Path, split: str) -> Iterator[Record]:
        for path in sorted(source.rglob("*.npy")):
            yield Record(path.name, partial(read, path))

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        return Sample(np.asarray(row["values"], np.float32))

    def feature_encoder(self, dim: int) -> Conv1dStack:
        return Conv1dStack(1, dim=dim, kernels=(4,), strides=(2,))
