"""Targets that are clusters of frames: of the input itself, or of another run's layers (HuBERT, 2106.07447).

The clusters are fitted once, before the first update, and saved with the model.
Codes that are learned can start there.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from itertools import chain
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from seqssl.model import kmeans
from seqssl.model.alignment import known_frames, labels_of_frames, steps_per_frame
from seqssl.model.bounds import NOT_NEGATIVE, POSITIVE
from seqssl.model.description import InputDescription
from seqssl.model.fixed import FixedCodes
from seqssl.model.measures import effective_rank, pnmi
from seqssl.model.norms import MaskedBatchNorm, scaled
from seqssl.model.precision import in_float32
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import FeatureEncoder, Quantizer
from seqssl.model.quantizers import GumbelProductQuantizer
from seqssl.model.targets import LearnedCodes, Teacher
from seqssl.model.types import Batch, length_mask

MAX_FRAMES = 200_000  # to fit clusters to
CHOICE_FRAMES = 8_000  # by which a layer is chosen
START_FRAMES = 50_000  # from which learned codes start
AUTO = "auto"


class Clusters(FixedCodes):
    """The nearest of some cluster centers of what describes a frame.

    `standardize`: each row is first scaled to zero mean and unit variance in every dimension, which takes out
    what it has all along (whose it is, what recorded it). `max_frames`: how many to fit to, drawn evenly.
    With several `parts`, a frame is described in so many parts, and each has a code: they share the centers.
    With `neighbors`, a frame has the codes of so many frames before and after it, too; at the borders of a
    row its first or last code stands in. The code of the part that begins in the middle of the frame comes
    first: it stands for the frame where one is wanted.
    """

    centroids: Tensor

    def __init__(
        self,
        feature_encoder: FeatureEncoder,
        *,
        num_clusters: int,
        standardize: bool,
        max_frames: int,
        parts: int = 1,
        neighbors: int = 0,
    ) -> None:
        own, around = parts // 2, range(-neighbors * parts, (neighbors + 1) * parts)
        places = [own, *(place for place in around if place != own)]
        super().__init__((num_clusters,) * len(places), 0, 0)  # codes only
        self._places = places  # of a frame's codes, from its first part
        self.parts = parts
        self.num_clusters, self.standardize, self.max_frames = num_clusters, standardize, max_frames
        self.register_buffer("centroids", torch.zeros(num_clusters, 0))  # no width: nothing is fitted
        self._output_lengths = feature_encoder.output_lengths
        self._stride = steps_per_frame(feature_encoder) / parts  # of what is described
        self._pretends = False

    @abstractmethod
    def described(self, batch: Batch, num_frames: int) -> Float[Tensor, "b s f"]:
        """What is clustered, for every frame, or for every part of one: then `num_frames` counts parts."""

    def usable(self, batch: Batch, valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Every frame has a code; so nothing needs to be computed."""
        return valid

    @torch.no_grad()
    def codes_of(self, batch: Batch, num_frames: int) -> Int[Tensor, "b s g"]:
        """The nearest center of every frame; ValueError before `fit`."""
        if self._pretends:
            shape = (len(batch.inputs), num_frames, len(self._places))
            return torch.zeros(shape, dtype=torch.long, device=batch.inputs.device)
        if not self.centroids.shape[1]:
            raise ValueError("these targets are clusters, and have not been fitted: call `fit` first")
        x = self._scaled(batch, num_frames * self.parts)
        with in_float32(x.device):  # so that codes do not depend on a run's precision
            codes, _ = kmeans.nearest(x.flatten(0, 1), self.centroids)
        starts = torch.arange(num_frames, device=codes.device) * self.parts
        places = starts[:, None] + torch.tensor(self._places, device=codes.device)  # s g
        last = (self._output_lengths(batch.lengths) * self.parts - 1).clamp(min=0)
        places = torch.minimum(places.clamp(min=0), last[:, None, None])  # b s g
        found = codes.view(len(x), -1).gather(1, places.flatten(1))
        return found.view(places.shape)

    def fit(self, batches: Iterable[Batch], generator: Generator) -> dict[str, int | float | str]:
        """Fit the centers to the frames of some batches; facts about them. ValueError for too few frames."""
        frames, total = kmeans.sample(self._frames_of(batches), self.max_frames, generator)
        centers = kmeans.k_means(frames, self.num_clusters, generator)
        _, distances = kmeans.nearest(frames, centers)
        self.centroids = centers
        return {
            "clusters": self.num_clusters,
            "frames": total,
            "fitted_to": len(frames),
            "mean_squared_distance": float(distances.mean()),
            "sha256": hashlib.sha256(centers.numpy().tobytes()).hexdigest(),
        }

    def pretend(self) -> None:
        """Give every frame the first code from now on."""
        self._pretends = True

    def _frames_of(self, batches: Iterable[Batch]) -> Iterable[Float[Tensor, "_ f"]]:
        for batch in batches:
            size = int(self._output_lengths(batch.lengths).max()) * self.parts
            yield self._scaled(batch, size)[self._known(batch, size)].cpu()

    def _known(self, batch: Batch, num_frames: int) -> Bool[Tensor, "b s"]:
        """The frames that clusters are about: silence or gaps would take clusters from what is there."""
        valid = length_mask(self._output_lengths(batch.lengths) * self.parts, num_frames)
        return known_frames(batch, valid, self._stride)

    @torch.no_grad()
    def _scaled(self, batch: Batch, num_frames: int) -> Float[Tensor, "b s f"]:
        x = self.described(batch, num_frames).float()
        return scaled(x, self._known(batch, num_frames)) if self.standardize else x

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take centers of any width: how wide they are is known once they are fitted."""
        saved = state_dict.get(f"{prefix}centroids")
        if saved is not None:
            self.centroids = torch.empty_like(saved, device=self.centroids.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class InputClusters(Clusters):
    """Clusters of the input itself: of its cepstra where it has a spectrum, else of a frame's own steps.

    HuBERT's first iteration has 100 of them. `codes_per_frame`: a frame is divided into so many equal parts,
    each with a code to predict; a spectrum may have several columns in the time of a frame. `neighbors`: a
    frame predicts the codes of so many frames on each side, too.
    """

    def __init__(
        self,
        feature_encoder: FeatureEncoder,
        describe_input: InputDescription,
        *,
        num_clusters: int = 100,
        standardize: bool = False,
        max_frames: int = MAX_FRAMES,
        codes_per_frame: Annotated[int, POSITIVE] = 1,
        neighbors: Annotated[int, NOT_NEGATIVE] = 0,
    ) -> None:
        super().__init__(
            feature_encoder,
            num_clusters=num_clusters,
            standardize=standardize,
            max_frames=max_frames,
            parts=codes_per_frame,
            neighbors=neighbors,
        )
        self.describe = describe_input.in_parts(codes_per_frame)

    def described(self, batch: Batch, num_frames: int) -> Float[Tensor, "b s f"]:
        """The input at each frame."""
        with in_float32(batch.inputs.device):
            return self.describe(batch, num_frames)


class TeacherClusters(Clusters):
    """Clusters of a layer of another run's model: HuBERT's second iteration has 500 of them.

    `run` is a run's folder, of which the newest checkpoint is taken; `tap` names the layer ("layer3", say; ""
    is the output). "auto" takes the layer whose clusters tell most of the labels of segments (PNMI) where
    rows have such, and else the one with the highest effective rank, on the first `CHOICE_FRAMES` frames. The
    teacher is opened when it is first needed and is not saved with the model. Its frames must be as many as
    the model's own.
    """

    layer: Tensor

    def __init__(
        self,
        feature_encoder: FeatureEncoder,
        open_teacher: Callable[[str, str], Teacher],
        list_taps: Callable[[str], list[str]],
        *,
        run: str,
        tap: str = "",
        num_clusters: int = 500,
        standardize: bool = False,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        super().__init__(
            feature_encoder, num_clusters=num_clusters, standardize=standardize, max_frames=max_frames
        )
        self.run, self.tap = run, tap
        self._open, self._list_taps = partial(open_teacher, run), list_taps
        self._opened: dict[str, Teacher] = {}
        if tap == AUTO:
            self.register_buffer("layer", torch.tensor(-1))  # the place of the one chosen among all taps
        self._place = -1  # the same as a number, for which no step waits

    @cached_property
    def _taps(self) -> list[str]:
        """The teacher's layers, lowest first; its settings are read from files, so not for every batch."""
        return self._list_taps(self.run)

    def described(self, batch: Batch, num_frames: int) -> Float[Tensor, "b s f"]:
        """The teacher's frames; ValueError where it has more or fewer."""
        tap = self.tap if self.tap != AUTO else self._taps[self._place]
        if tap not in self._opened:
            self._opened = {tap: self._open(tap)}
        x = self._opened[tap](batch).x
        if x.shape[1] != num_frames:
            raise ValueError(
                f"targets.run = {self.run}: this teacher has {x.shape[1]} frames where the model has "
                f"{num_frames}; both need feature encoders of the same stride"
            )
        return x

    def fit(self, batches: Iterable[Batch], generator: Generator) -> dict[str, int | float | str]:
        """Fit the centers, of the layer that suits best where it is to be chosen."""
        if self.tap != AUTO:
            return super().fit(batches, generator)
        rest, first, total = iter(batches), list[Batch](), 0
        while total < CHOICE_FRAMES and (batch := next(rest, None)) is not None:
            first.append(batch)
            total += int(self._output_lengths(batch.lengths).sum())
        facts = self._choose(first, generator)
        return super().fit(chain(first, rest), generator) | facts

    def _choose(self, batches: list[Batch], generator: Generator) -> dict[str, int | float | str]:
        """Choose the layer; what it was judged by, and each layer's score."""
        labels = frame_labels(batches, self._output_lengths, self._stride, self._known)
        if labels is not None and len(np.unique(labels[:CHOICE_FRAMES][labels[:CHOICE_FRAMES] >= 0])) < 2:
            labels = None  # these frames cannot tell
        scores = {}
        names = self._taps
        for place, name in enumerate(names):
            self._place = place
            frames = torch.cat(list(self._frames_of(batches)))[:CHOICE_FRAMES]
            if labels is None:
                scores[name] = effective_rank(frames)
                continue
            centers = kmeans.k_means(frames, min(self.num_clusters, len(frames)), generator)
            codes = kmeans.nearest(frames, centers)[0].numpy()
            table = np.zeros((labels.max() + 1, len(centers)))
            known = labels[: len(codes)] >= 0
            np.add.at(table, (labels[: len(codes)][known], codes[known]), 1)
            scores[name] = pnmi(table)
        best = max(names, key=scores.__getitem__)
        self._place = names.index(best)
        self.layer.fill_(self._place)
        judge = "effective_rank" if labels is None else "pnmi"
        told = ", ".join(f"{name} {score:.3g}" for name, score in scores.items())
        return {"layer": best, judge: told}

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take the layer over that was chosen, too."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.tap == AUTO:
            self._place = int(self.layer)


class StartedCodes(LearnedCodes):
    """Learned codes that start as clusters of the frames, as the feature encoder makes them before training.

    From random ones a few entries may get all frames, and the losses need not mend that. Only where codes
    start differs: what happens then is up to the objectives, as for `LearnedCodes`. It takes a Gumbel
    quantizer. `max_frames`: how many to fit to, drawn evenly.
    """

    quantizer: GumbelProductQuantizer

    def __init__(
        self,
        quantizer: Quantizer,
        quantizer_norm: MaskedBatchNorm | None = None,
        *,
        max_frames: Annotated[int, POSITIVE] = START_FRAMES,
    ) -> None:
        super().__init__(quantizer, quantizer_norm)
        if not isinstance(quantizer, GumbelProductQuantizer):
            raise ValueError(
                "targets=learned_from_clusters starts a Gumbel quantizer, "
                f"and this is {type(quantizer).__name__}"
            )
        self.max_frames = max_frames
        self._model: tuple[PretrainingModel, ...] = ()  # in a tuple: this is a part of it, not the reverse

    def follow(self, model: PretrainingModel) -> None:
        """Remember whose frames are to be clustered."""
        self._model = (model,)

    def fit(self, batches: Iterable[Batch], generator: Generator) -> dict[str, int | float | str]:
        """Start at clusters of the frames of some batches; facts about it. ValueError for too few frames."""
        frames, total = kmeans.sample(self._frames_of(batches), self.max_frames, generator)
        if len(frames) < (size := self.quantizer.codebook_size):
            raise ValueError(f"{size} clusters need as many frames, and there are {len(frames)}")
        if self.quantizer_norm is not None:
            self.quantizer_norm.running_mean.copy_(frames.mean(0))
            self.quantizer_norm.running_var.copy_(frames.var(0))
        distance = self.quantizer.start_at_clusters(self._scaled(frames, counts=False), generator)
        return {
            "clusters": self.quantizer.codebook_size,
            "frames": total,
            "fitted_to": len(frames),
            "mean_squared_distance": distance,
        }

    def pretend(self) -> None:
        """Nothing is missing before the fit: codes are random ones then."""

    def _frames_of(self, batches: Iterable[Batch]) -> Iterable[Float[Tensor, "_ f"]]:
        (model,) = self._model
        for batch in batches:
            with torch.no_grad():
                features = model.encode_features(batch)
            yield features.x[known_frames(batch, features.valid, model.stride)].float().cpu()


def frame_labels(
    batches: Iterable[Batch],
    output_lengths: Callable[[Tensor], Tensor],
    stride: float,
    known: Callable[[Batch, int], Tensor],
) -> Int[np.ndarray, "n"] | None:
    """The number of the label of each known frame, -1 without one; None unless there are two labels.

    `known` gives the mask (b, s) of a batch's frames, of which there are s.
    """
    numbers: dict[str, int] = {}
    found = []
    for batch in batches:
        own = batch.segments or ((),) * len(batch.lengths)
        kept = known(batch, int(output_lengths(batch.lengths).max())).cpu().numpy()
        for segments, row in zip(own, kept, strict=True):
            for segment in segments:
                numbers.setdefault(str(segment.label), len(numbers))
            found.append(labels_of_frames(segments, len(row), stride, numbers)[row])
    return np.concatenate(found) if len(numbers) > 1 else None
