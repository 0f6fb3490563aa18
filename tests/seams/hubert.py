"""Targets of a user's own: clusters of the frames of another run (HuBERT)."""

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

import seqssl
from seqssl import Batch, FixedCodes


class HuBertTargets(FixedCodes):
    """k-means ids of the frames of a teacher, which is a run; `clusters` are made of some of them."""

    def __init__(
        self, input_dim: int, vector_dim: int, *, run: str, tap: str = "output", num_clusters: int = 5
    ) -> None:
        super().__init__((num_clusters,), input_dim, vector_dim)
        self.teacher = seqssl.load(run, tap=tap)
        self.clusters: KMeans | None = None

    def usable(self, batch: Batch, valid: Tensor) -> Tensor:
        return valid

    def fit(self, arrays: list[np.ndarray]) -> "HuBertTargets":
        frames = np.concatenate(self.teacher.embed(arrays, pool="none"))
        self.clusters = KMeans(self.codebook_sizes[0], n_init=1, random_state=0).fit(frames)
        return self

    def codes_of(self, batch: Batch, num_frames: int) -> Tensor:
        rows = zip(batch.inputs.cpu().numpy(), batch.lengths.tolist(), strict=True)
        arrays = [row[:length] for row, length in rows]
        if self.clusters is None:
            self.fit(arrays)
        codes = torch.full((len(arrays), num_frames, 1), -1)
        for row, frames in zip(codes, self.teacher.embed(arrays, pool="none"), strict=True):
            row[: len(frames), 0] = torch.from_numpy(self.clusters.predict(frames).astype(np.int64))
        return codes
