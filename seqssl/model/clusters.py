"""Targets that are clusters of frames: of the input itself, or of another run's layers (HuBERT, 2106.07447).

The clusters are fitted once, before the first update, and saved with the model.
`starting_codes` starts learned codes at clusters of frames.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from seqssl.model import kmeans
from seqssl.model.alignment import frame_labels, known_frames, steps_per_frame
from seqssl.model.bounds import NOT_NEGATIVE, POSITIVE
from seqssl.model.description import InputDescription
from seqssl.model.fixed import FixedCodes
from seqssl.model.measures import effective_rank, pnmi
from seqssl.model.norms import scaled
from seqssl.model.precision import in_float32
from seqssl.model.protocols import FeatureEncoder
from seqssl.model.targets import Teacher
from seqssl.model.types import Batch, length_mask

MAX_FRAMES = 200_000  # to fit clusters to
CHOICE_FRAMES = 8_000  # by which a layer is chosen
AUTO = "auto"
NO_ORIGIN = -1  # of a teacher that was not opened, or has not begun


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
    _places: Tensor

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
        # Of a frame's codes, from its first part; where the codes are, so that no step waits for it.
        self.register_buffer("_places", torch.tensor(places), persistent=False)
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
        places = starts[:, None] + self._places  # s g
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
            feature_encoder, num_clusters=num_clusters, standardize=standardize, max_frames=max_frames,
            parts=codes_per_frame, neighbors=neighbors,
        )  # fmt: skip
        self.describe = describe_input.in_parts(codes_per_frame)

    def described(self, batch: Batch, num_frames: int) -> Float[Tensor, "b s f"]:
        """The input at each frame."""
        with in_float32(batch.inputs.device):
            return self.describe(batch, num_frames)


class TeacherClusters(Clusters):
    """Clusters of a layer of another run's model: HuBERT's second iteration has 500 of them.

    `run` is a run's folder; `tap` names the layer ("layer3", say; "" is the output). "auto" takes the layer
    whose clusters tell most of the labels of segments (PNMI) where rows have such, and else the one with the
    highest effective rank, on `CHOICE_FRAMES` frames drawn evenly. The teacher is opened when it is first
    needed and is not saved with the model: to fit, its newest checkpoint, and from then on that one, of which
    update and digest are kept with the centers. Its frames must be as many as the model's own. `neighbors`: a
    frame predicts the codes of so many frames on each side, too.
    """

    layer: Tensor
    origin: Tensor

    def __init__(
        self,
        feature_encoder: FeatureEncoder,
        open_teacher: Callable[..., Teacher],
        list_taps: Callable[[str], list[str]],
        *,
        run: str,
        tap: str = "",
        num_clusters: int = 500,
        standardize: bool = False,
        max_frames: int = MAX_FRAMES,
        neighbors: Annotated[int, NOT_NEGATIVE] = 0,
    ) -> None:
        super().__init__(
            feature_encoder, num_clusters=num_clusters, standardize=standardize, max_frames=max_frames,
            neighbors=neighbors,
        )  # fmt: skip
        self.run, self.tap = run, tap
        self._open, self._list_taps = partial(open_teacher, run), list_taps
        self._opened: dict[str, Teacher] = {}
        self.register_buffer("origin", torch.full((2,), NO_ORIGIN))  # of the teacher: `FrozenTeacher.origin`
        if tap == AUTO:
            self.register_buffer("layer", torch.tensor(-1))  # the place of the one chosen among all taps
        self._place = -1  # the same as a number, for which no step waits

    @cached_property
    def _taps(self) -> list[str]:
        """The teacher's layers, lowest first; its settings are read from files, so not for every batch."""
        return self._list_taps(self.run)

    def pretend(self) -> None:
        """Give every frame the first code from now on; the teacher works all the same, to be counted."""
        super().pretend()
        with torch.device(self.centroids.device):
            self._trial = self._open("" if self.tap == AUTO else self.tap)

    def codes_of(self, batch: Batch, num_frames: int) -> Int[Tensor, "b s g"]:
        """The nearest center of every frame; ValueError before `fit`."""
        if self._pretends:
            self._trial(batch)
        return super().codes_of(batch, num_frames)

    def described(self, batch: Batch, num_frames: int) -> Float[Tensor, "b s f"]:
        """The teacher's frames, of all layers while one is to be chosen; ValueError where it has others."""
        x = self._teacher()(batch).x
        if x.shape[1] != num_frames:
            raise ValueError(
                f"targets.run = {self.run}: this teacher has {x.shape[1]} frames where the model has "
                f"{num_frames}; both need feature encoders of the same stride"
            )
        return x

    def _teacher(self) -> Teacher:
        """The teacher as it was when the centers were fitted to it."""
        wanted: str | list[str] = self.tap
        if self.tap == AUTO:
            wanted = self._taps if self._place < 0 else self._taps[self._place]
        key = str(wanted)
        if key not in self._opened:
            known = self.origin.tolist()
            is_known = NO_ORIGIN not in known
            self._opened = {key: self._open(wanted, tuple(known)) if is_known else self._open(wanted)}
            if (found := getattr(self._opened[key], "origin", None)) is not None:
                self.origin.copy_(torch.tensor(found))
        return self._opened[key]

    def fit(self, batches: Iterable[Batch], generator: Generator) -> dict[str, int | float | str]:
        """Fit the centers; where the layer is to be chosen, all batches are gone through twice."""
        self.origin.fill_(NO_ORIGIN)
        self._opened.clear()
        facts = self._choose(batches, generator) if self.tap == AUTO else {}
        return super().fit(batches, generator) | facts

    def _choose(self, batches: Iterable[Batch], generator: Generator) -> dict[str, int | float | str]:
        """Choose the layer; what it was judged by, and each layer's score."""
        self._place, names = -1, self._taps
        frames, _ = kmeans.sample(self._labelled(batches), CHOICE_FRAMES, generator)
        labels, scores = frames[:, 0].long().numpy(), {}
        is_told = len(np.unique(labels[labels >= 0])) > 1  # else these frames cannot tell
        for name, x in zip(names, frames[:, 1:].chunk(len(names), dim=1), strict=True):
            if not is_told:
                scores[name] = effective_rank(x)
                continue
            centers = kmeans.k_means(x, min(self.num_clusters, len(x)), generator)
            codes = kmeans.nearest(x, centers)[0].numpy()
            table = np.zeros((labels.max() + 1, len(centers)))
            np.add.at(table, (labels[labels >= 0], codes[labels >= 0]), 1)
            scores[name] = pnmi(table)
        best = max(names, key=scores.__getitem__)
        self._place = names.index(best)
        self.layer.fill_(self._place)
        told = ", ".join(f"{name} {score:.3g}" for name, score in scores.items())
        return {"layer": best, "pnmi" if is_told else "effective_rank": told}

    def _labelled(self, batches: Iterable[Batch]) -> Iterator[Float[Tensor, "_ f"]]:
        """The number of each known frame's label, -1 without one; beside it the frame at every layer."""
        numbers: dict[str, int] = {}
        for batch in batches:
            size = int(self._output_lengths(batch.lengths).max())
            known = self._known(batch, size)
            labels = torch.from_numpy(frame_labels(batch, known, self._stride, numbers))
            yield torch.cat([labels[:, None].float(), self._scaled(batch, size)[known].cpu()], dim=1)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take over the layer that was chosen and the state of the teacher, but not without the centers."""
        given = state_dict if f"{prefix}centroids" in state_dict else {}
        super()._load_from_state_dict(given, prefix, *rest)
        self._opened.clear()
        if self.tap == AUTO:
            self._place = int(self.layer)
