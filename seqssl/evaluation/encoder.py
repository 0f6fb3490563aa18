"""A trained encoder, frozen: arrays in, vectors out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqssl.errors import UserError
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, Features, SampleSpec

POOLS = ("mean", "none")
FEATURES = "features"  # the stage before the context encoder, beside the names of its taps
Array = npt.NDArray[Any]


class Encoder:
    """Frozen features of a pre-trained model; a scikit-learn transformer that needs no fitting.

    `tap` is the stage to read: a tap of the context encoder, "features" (the frames that go into it), or ""
    for the highest tap. `batch_inputs` is the most input steps run at once, padding included.
    """

    def __init__(
        self, model: PretrainingModel, spec: SampleSpec, *, tap: str = "", batch_inputs: int
    ) -> None:
        self.model = model.eval()
        self.spec, self.batch_inputs = spec, batch_inputs
        self.tap = tap or model.last_tap
        if self.tap not in self.stages:
            raise UserError(f"there is no tap {tap!r}; the model has {', '.join(self.stages)}")

    @property
    def stages(self) -> tuple[str, ...]:
        """What `tap` may be, from the input up."""
        taps = self.model.encoder.taps
        return (FEATURES, *sorted(taps, key=taps.__getitem__))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        if self.tap == FEATURES:
            return int(self.model.feature_encoder.dim)
        return self.model.input_projection.out_features

    def embed(self, arrays: Sequence[Array], pool: str = "mean") -> Array | list[Array]:
        """Embed arrays of shape (t,) or (t, c) in the spec's units and rate.

        `pool="mean"` gives (len(arrays), d), the mean over each row's frames; `pool="none"` a list of (s, d).
        Raises UserError for an array that breaks the input contract.
        """
        if pool not in POOLS:
            raise UserError(f"pool must be one of {', '.join(POOLS)}; got {pool!r}")
        frames: list[Array] = [np.empty(0)] * len(arrays)
        for indices, stages in self._encoded(arrays):
            for index, embedded in zip(indices, _rows_of(stages[self.tap]), strict=True):
                frames[index] = embedded.mean(axis=0) if pool == "mean" else embedded
        if pool == "none":
            return frames
        return np.stack(frames) if frames else np.empty((0, self.dim), np.float32)

    def embed_stages(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Mean-pooled embeddings (len(arrays), d) of every stage, from one pass."""
        pooled: dict[str, list[Array]] = {name: [np.empty(0)] * len(arrays) for name in self.stages}
        for indices, stages in self._encoded(arrays):
            for name, rows in pooled.items():
                for index, embedded in zip(indices, _rows_of(stages[name]), strict=True):
                    rows[index] = embedded.mean(axis=0)
        return {name: np.stack(rows) for name, rows in pooled.items()}

    def fit(self, arrays: Sequence[Array], labels: object = None) -> "Encoder":
        """Nothing to fit: the encoder is frozen."""
        return self

    def transform(self, arrays: Sequence[Array]) -> Array:
        """Mean-pooled embeddings (len(arrays), d)."""
        embedded = self.embed(arrays)
        assert isinstance(embedded, np.ndarray)
        return embedded

    def __sklearn_clone__(self) -> "Encoder":
        return self  # nothing that fitting could change

    def _checked(self, array: Array, index: int) -> Array:
        """The array as the model wants it, or the reason why it cannot be."""
        values, spec = np.asarray(array), self.spec
        shape = () if spec.channels is None else (spec.channels,)
        expected = "(t,)" if spec.channels is None else f"(t, {spec.channels})"
        if values.ndim != 1 + len(shape) or values.shape[1:] != shape or len(values) == 0:
            raise UserError(
                f"array {index} has shape {values.shape}; the encoder expects {expected} with t >= 1"
            )
        if values.dtype.kind not in ("iu" if spec.dtype == "int64" else "f"):
            raise UserError(
                f"array {index} holds {values.dtype}; the encoder expects {spec.dtype}, as {spec.units}"
            )
        if not np.isfinite(values).all():
            raise UserError(f"array {index} holds NaN or infinite values; clean it first")
        if spec.vocab_size is not None and not 0 <= values.min() <= values.max() < spec.vocab_size:
            raise UserError(f"array {index} holds ids outside [0, {spec.vocab_size})")
        if spec.max_len is not None and len(values) > spec.max_len:
            raise UserError(f"array {index} is {len(values)} steps long; the encoder takes {spec.max_len}")
        return values.astype(spec.dtype, copy=False)

    def _encoded(self, arrays: Sequence[Array]) -> Iterator[tuple[list[int], dict[str, Features]]]:
        """Every stage, batch by batch, with the places of the batch's rows in `arrays`."""
        rows = [self._checked(array, index) for index, array in enumerate(arrays)]
        for indices in self._batches([len(row) for row in rows]):
            yield indices, self._encode([rows[index] for index in indices])

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
    def _encode(self, rows: list[Array]) -> dict[str, Features]:
        lengths = torch.tensor([len(row) for row in rows])
        # A copy: rows may be read-only views of a file.
        inputs = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        batch = Batch(inputs, lengths).to(self.device)
        features = self.model.encode_features(batch)
        taps = self.model.encoder(self.model.input_projection(features.x), features.valid)
        return {FEATURES: features, **{name: Features(x, features.lengths) for name, x in taps.items()}}


def _rows_of(features: Features) -> list[Array]:
    """The valid frames of each row."""
    x = features.x.float().cpu().numpy()
    return [x[index, :length] for index, length in enumerate(features.lengths.tolist())]
