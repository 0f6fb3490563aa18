"""A trained encoder, frozen: arrays in, vectors out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqssl.data.adapters import Sample, SampleSpec
from seqssl.data.batching import collate
from seqssl.errors import UserError
from seqssl.model.alignment import known_frames
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.readouts import WEIGHTLESS
from seqssl.model.types import Features

POOLS = (*WEIGHTLESS, "none")  # of the frames of a row; none: they stay as they are
FEATURES = "features"  # the stage before the context encoder, beside the names of its taps
Array = npt.NDArray[Any]  # values, ids or frames
Input = Array | Sample
Views = Callable[[Sample], list[Sample]]


class ArrayError(UserError):
    """An array that cannot be embedded: its place among those given, and what is said behind its name."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"array {index}{problem}")
        self.index, self.problem = index, problem


@dataclass(frozen=True)
class Encoded:
    """Every stage of some rows, and which of their frames hold enough to be pooled."""

    places: list[int]  # of these rows among all rows that were asked for
    stages: Mapping[str, Features]
    pooled: torch.Tensor  # b s

    def frames(self, stage: str) -> Iterator[Array]:
        """The valid frames (s, d) of each row."""
        features = self.stages[stage]
        for x, length in zip(features.x.float().cpu().numpy(), features.lengths.tolist(), strict=True):
            yield x[:length]

    def vectors(self, stage: str, pool: str = "mean") -> Array:
        """One vector (b, k d) a row, from its frames that are mostly observed."""
        x = self.stages[stage].x.float()
        vectors: Array = WEIGHTLESS[pool](x.shape[2])(x, self.pooled).cpu().numpy()
        return vectors


class Encoder:
    """Frozen features of a pre-trained model; a scikit-learn transformer that needs no fitting.

    `tap` is the stage to read: a tap of the context encoder, "features" (the frames that go into it), or ""
    for the highest tap. `batch_inputs` is the most input steps run at once, padding included. `views`: see
    `HasViews`.
    """

    def __init__(
        self,
        model: PretrainingModel,
        spec: SampleSpec,
        *,
        tap: str = "",
        batch_inputs: int,
        views: Views | None = None,
    ) -> None:
        self.model = model.eval()
        self.spec, self.batch_inputs = spec, batch_inputs
        self.views = views or (lambda sample: [sample])
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
        return int(self.model.feature_encoder.dim) if self.tap == FEATURES else self._width

    @property
    def _width(self) -> int:
        return self.model.input_projection.out_features

    def embed(self, arrays: Sequence[Input], pool: str = "mean") -> Array | list[Array]:
        """Embed arrays of shape (t,) or (t, c) in the spec's units and rate, or samples of an adapter.

        `pool="mean"` gives (len(arrays), d), the mean over each row's frames (those mostly missing left out),
        averaged over views where the modality has them; "statistics" mean and deviation (2 d), "thirds" the
        means of the first, middle and last third (3 d), "last" the last frame; "none" a list of (s, d). NaN
        means missing, where the feature encoder reads what is observed. Raises UserError for an array that
        breaks the input contract.
        """
        check_pool(pool)
        if pool == "none":
            return self.frames(arrays, [self.tap])[self.tap]
        return self._pooled(arrays, [self.tap], pool)[self.tap]

    def frames(
        self, arrays: Sequence[Input], stages: Sequence[str] = (), *, ahead: int = 0
    ) -> dict[str, list[Array]]:
        """All frames, an array (s, d) for each row, of every stage or of those named; one pass, no views.

        `ahead` adds so many steps behind each row, masked as in training. The frames of a tap there are what
        the model expects; those of "features" hold nothing.
        """
        names = stages or self.stages
        found: dict[str, list[Array]] = {name: [np.empty(0)] * len(arrays) for name in names}
        samples = [self._checked(array, index) for index, array in enumerate(arrays)]
        for encoded in self._encoded([longer(sample, ahead) for sample in samples], ahead):
            for name in names:
                for place, embedded in zip(encoded.places, encoded.frames(name), strict=True):
                    found[name][place] = embedded
        return found

    def embed_stages(self, arrays: Sequence[Input], pool: str = "mean") -> dict[str, Array]:
        """Pooled embeddings (len(arrays), k d) of every stage, from one pass."""
        return self._pooled(arrays, self.stages, pool)

    def _pooled(self, arrays: Sequence[Input], stages: Sequence[str], pool: str) -> dict[str, Array]:
        """The pool over frames, then the mean over views: (len(arrays), k d) for every stage."""
        views = [self.views(self._checked(array, index)) for index, array in enumerate(arrays)]
        owners = np.repeat(np.arange(len(views)), [len(samples) for samples in views])
        widths = {
            name: self.model.feature_encoder.dim if name == FEATURES else self._width for name in stages
        }
        sums = {
            name: np.zeros((len(views), WEIGHTLESS[pool](width).dim), np.float32)
            for name, width in widths.items()
        }
        try:
            for encoded in self._encoded([sample for samples in views for sample in samples]):
                for name in stages:
                    np.add.at(sums[name], owners[encoded.places], encoded.vectors(name, pool))
        except ArrayError as error:  # it counts views
            raise ArrayError(int(owners[error.index]), error.problem) from None
        numbers = np.array([len(samples) for samples in views], np.float32)[:, None]
        return {name: total / numbers for name, total in sums.items()}

    def fit(self, arrays: Sequence[Array], labels: object = None) -> "Encoder":
        """Returns the encoder itself: it is frozen, so nothing is fitted."""
        return self

    def transform(self, arrays: Sequence[Array]) -> Array:
        """Mean-pooled embeddings (len(arrays), d)."""
        embedded = self.embed(arrays)
        assert isinstance(embedded, np.ndarray)
        return embedded

    def __sklearn_clone__(self) -> "Encoder":
        return self  # nothing that fitting could change

    def _checked(self, array: Input, index: int) -> Sample:
        """The array as a sample that the model can read; UserError with the reason where it cannot be."""
        given = array if isinstance(array, Sample) else None
        values, spec = np.asarray(array if given is None else given.values), self.spec
        shape = () if spec.channels is None else (spec.channels,)
        expected = "(t,)" if spec.channels is None else f"(t, {spec.channels})"
        if values.ndim != 1 + len(shape) or values.shape[1:] != shape or len(values) == 0:
            raise ArrayError(index, f" has shape {values.shape}; the encoder expects {expected} with t >= 1")
        if values.dtype.kind not in ("iu" if spec.dtype == "int64" else "f"):
            raise ArrayError(
                index, f" holds {values.dtype}; the encoder expects {spec.dtype}, as {spec.units}"
            )
        if given is not None:
            check_extras(given, values, index)
        observed = None if given is None else given.observed
        if "observed" in self.model.extra_inputs and np.isnan(values).any():
            observed = ~np.isnan(values) & (True if observed is None else observed)
            values = np.where(observed, values, 0)
        if observed is None and spec.missing_id is not None:
            observed = values != spec.missing_id
        if not np.isfinite(values).all():
            raise ArrayError(index, " holds NaN or infinite values; clean it first")
        if observed is not None and not np.any(observed):
            raise ArrayError(index, " holds missing values only")
        if spec.vocab_size is not None and not 0 <= values.min() <= values.max() < spec.vocab_size:
            raise ArrayError(index, f" holds ids outside [0, {spec.vocab_size})")
        if spec.max_len is not None and len(values) > spec.max_len:
            raise ArrayError(index, f" is {len(values)} steps long; the encoder takes {spec.max_len}")
        with np.errstate(over="ignore"):
            values = values.astype(spec.dtype, copy=False)
        if not np.isfinite(values).all():
            raise ArrayError(index, f" holds values beyond the range of {spec.dtype}")
        return Sample(values, observed=observed, times=None if given is None else given.times)

    def _encoded(self, samples: Sequence[Sample], hidden: int = 0) -> Iterator[Encoded]:
        """Every stage, batch by batch; the last `hidden` steps of each row are masked."""
        for places in self._batches([len(sample.values) for sample in samples]):
            yield self._encode(places, [samples[place] for place in places], hidden)

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """The places of samples in batches of like length, so that little is padding."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
            if batch and lengths[index] * (len(batch) + 1) > self.batch_inputs:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    @torch.inference_mode()
    def _encode(self, places: list[int], samples: list[Sample], hidden: int) -> Encoded:
        """Every stage of one batch, without gradient; UserError where an embedding is not finite."""
        if any(sample.observed is not None for sample in samples):
            samples = [
                sample
                if sample.observed is not None
                else replace(sample, observed=np.ones(sample.values.shape, bool))
                for sample in samples
            ]
        batch = collate(samples, []).to(self.device)
        features = self.model.encode_features(batch)
        x = self.model.clear(batch, features)
        if hidden and not self.model.mask_input:
            first = self.model.feature_encoder.output_lengths(batch.lengths - hidden)
            mask = features.valid & (torch.arange(x.shape[1], device=x.device) >= first[:, None])
            x = self.model.masking.apply(x, mask, torch.Generator(x.device).manual_seed(0))
        taps = self.model.contexts(batch, features, x)
        pooled = known_frames(batch, features.valid, self.model.stride)
        bad = [
            place
            for place, x in zip(places, taps[self.model.last_tap], strict=True)
            if not x.isfinite().all()
        ]
        if bad:
            raise ArrayError(bad[0], f" gives no finite embedding: are its values in {self.spec.units}?")
        stages = {FEATURES: features, **{name: Features(x, features.lengths) for name, x in taps.items()}}
        return Encoded(places, stages, pooled)


def check_pool(pool: str, known: Sequence[str] = POOLS) -> None:
    """UserError for a pool that is not known."""
    if pool not in known:
        raise UserError(f"pool = {pool}: expected {', '.join(known[:-1])} or {known[-1]}")


def longer(sample: Sample, steps: int) -> Sample:
    """A sample with `steps` missing steps after its own."""
    if not steps:
        return sample
    shape = (steps, *sample.values.shape[1:])
    observed = np.ones(sample.values.shape, bool) if sample.observed is None else sample.observed
    times = sample.times
    if times is not None:
        step = times[-1] - times[-2] if len(times) > 1 else 1.0
        times = np.concatenate([times, times[-1] + step * np.arange(1, steps + 1)])
    return Sample(
        np.concatenate([sample.values, np.zeros(shape, sample.values.dtype)]),
        observed=np.concatenate([observed, np.zeros(shape, bool)]),
        times=times,
    )


def check_extras(sample: Sample, values: Array, index: int) -> None:
    """UserError where `observed` or `times` of a sample do not fit its values."""
    for name, wanted in (("observed", values.shape), ("times", values.shape[:1])):
        extra = getattr(sample, name)
        if extra is not None and (not isinstance(extra, np.ndarray) or extra.shape != wanted):
            raise ArrayError(index, f": `{name}` must be an array of shape {wanted}, like its values")
    if sample.observed is not None and sample.observed.dtype != bool:
        raise ArrayError(index, f": `observed` holds {sample.observed.dtype}, not bool")
