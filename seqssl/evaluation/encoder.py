"""A trained encoder, frozen: arrays in, vectors out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqssl.errors import UserError
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, SampleSpec

POOLS = ("mean", "none")
Array = npt.NDArray[Any]


class Encoder:
    """Frozen features of a pre-trained model; a scikit-learn transformer that needs no fitting.

    `tap` is the name of the context encoder's output to read ("" = the highest).
    """

    def __init__(
        self, model: PretrainingModel, spec: SampleSpec, *, tap: str = "", batch_inputs: int
    ) -> None:
        if tap and tap not in model.encoder.taps:
            raise UserError(f"there is no tap {tap!r}; the model has {', '.join(model.encoder.taps)}")
        self.model = model.eval()
        self.spec, self.tap, self.batch_inputs = spec, tap, batch_inputs

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.model.input_projection.out_features

    def embed(self, arrays: Sequence[Array], pool: str = "mean") -> Array | list[Array]:
        """Embed arrays of shape (t,) or (t, c) in the spec's units and rate.

        `pool="mean"` gives (len(arrays), d), the mean over each row's frames; `pool="none"` a list of (s, d).
        Raises UserError for an array that breaks the input contract.
        """
        if pool not in POOLS:
            raise UserError(f"pool must be one of {', '.join(POOLS)}; got {pool!r}")
        rows = [self._checked(array, index) for index, array in enumerate(arrays)]
        frames: list[Array] = [np.empty(0)] * len(rows)
        for indices in self._batches([len(row) for row in rows]):
            for index, embedded in zip(indices, self._embed([rows[i] for i in indices]), strict=True):
                frames[index] = embedded.mean(axis=0) if pool == "mean" else embedded
        if pool == "none":
            return frames
        return np.stack(frames) if frames else np.empty((0, self.dim), np.float32)

    def fit(self, arrays: Sequence[Array], labels: object = None) -> "Encoder":
        """Nothing to fit: the encoder is frozen."""
        return self

    def transform(self, arrays: Sequence[Array]) -> Array:
        """Mean-pooled embeddings (len(arrays), d)."""
        embedded = self.embed(arrays)
        assert isinstance(embedded, np.ndarray)
        return embedded

    def _checked(self, array: Array, index: int) -> Array:
        values = np.asarray(array)
        axes = 1 if self.spec.channels is None else 2
        expected = "(t,)" if axes == 1 else f"(t, {self.spec.channels})"
        if values.ndim != axes or (axes == 2 and values.shape[1] != self.spec.channels) or len(values) == 0:
            raise UserError(
                f"array {index} has shape {values.shape}; the encoder expects {expected} with t >= 1"
            )
        if not np.isfinite(values).all():
            raise UserError(f"array {index} holds NaN or infinite values; clean it first")
        return values.astype(self.spec.dtype, copy=False)

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Indices by length, so that little is padding."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
            if batch and lengths[index] * (len(batch) + 1) > self.batch_inputs:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    @torch.inference_mode()
    def _embed(self, rows: list[Array]) -> list[Array]:
        lengths = torch.tensor([len(row) for row in rows])
        inputs = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True)
        features = self.model.encode(Batch(inputs, lengths).to(self.device), self.tap)
        x = features.x.float().cpu().numpy()
        return [x[i, :length] for i, length in enumerate(features.lengths.tolist())]


def rows_of(samples: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of rows."""
    return {name: [sample[name] for sample in samples] for name in names}
