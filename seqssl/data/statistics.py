"""Mean and standard deviation of each channel over observed values, added up file by file."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from seqssl.data.adapters import Sample

Vector = npt.NDArray[np.float64]


@dataclass
class Sums:
    """Count, mean and squared deviations per channel; merging keeps the precision (Chan et al. 1979)."""

    count: Vector = field(default_factory=lambda: np.zeros(0))
    mean: Vector = field(default_factory=lambda: np.zeros(0))
    squares: Vector = field(default_factory=lambda: np.zeros(0))

    def add(self, sample: Sample) -> None:
        """Add a sample's observed values; samples of ids are left out."""
        if sample.values.dtype.kind != "f":
            return
        values = sample.values.reshape(len(sample.values), -1).astype(np.float64)
        present = (
            np.ones(values.shape, bool) if sample.observed is None else sample.observed.reshape(values.shape)
        )
        count = present.sum(axis=0).astype(np.float64)
        mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(count, 1)
        squares = np.where(present, values - mean, 0.0)
        self.merge(Sums(count, mean, np.square(squares).sum(axis=0)))

    def merge(self, other: "Sums") -> None:
        """Add another set of sums."""
        if len(other.count) == 0:
            return
        if len(self.count) == 0:
            self.count, self.mean, self.squares = other.count, other.mean, other.squares
            return
        total = self.count + other.count
        share = other.count / np.maximum(total, 1)
        gap = other.mean - self.mean
        self.mean = self.mean + gap * share
        self.squares = self.squares + other.squares + np.square(gap) * self.count * share
        self.count = total

    def tolist(self) -> list[list[float]]:
        """Count, mean and squared deviations as lists."""
        return [self.count.tolist(), self.mean.tolist(), self.squares.tolist()]

    def statistics(self) -> dict[str, list[float]] | None:
        """Mean and standard deviation of each channel; None where nothing was counted."""
        if len(self.count) == 0:
            return None
        return {
            "mean": self.mean.tolist(),
            "std": np.sqrt(self.squares / np.maximum(self.count, 1)).tolist(),
        }
