"""Codes that are learned, and start as clusters of the frames."""

from collections.abc import Iterable
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from seqssl.model import kmeans
from seqssl.model.alignment import known_frames
from seqssl.model.bounds import POSITIVE
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import Quantizer
from seqssl.model.quantizers import GumbelProductQuantizer
from seqssl.model.targets import LearnedCodes
from seqssl.model.types import Batch

START_FRAMES = 50_000  # from which learned codes start


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
