"""Targets of a teacher that is a running mean of the model itself (data2vec, DinoSR)."""

import copy
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from seqssl.model.bounds import NOT_NEGATIVE, POSITIVE, Bound
from seqssl.model.codebooks import Codebook, Decay, quantized
from seqssl.model.fixed import FixedVectors
from seqssl.model.norms import centered
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, Features, MaskedFrames, Quantized

EPS = 1e-5
DECAY = Annotated[float, Bound(at_least=0, at_most=1)]


class EmaTeacher(FixedVectors):
    """The mean of the teacher's top layers at a frame, each scaled over the row first (data2vec, 2202.03555).

    The teacher has a context encoder whose weights follow those of the model's after each update, and whose
    positions are the model's; it reads the model's own projected frames, none of them masked. `layers`: how
    many, from the top. The decay of its running mean rises from `decay` to `end_decay` in `rise` updates.
    """

    updates: Tensor

    def __init__(
        self,
        vector_dim: int,
        *,
        layers: Annotated[int, POSITIVE] = 8,
        decay: DECAY = 0.999,
        end_decay: DECAY = 0.9999,
        rise: Annotated[int, POSITIVE] = 30_000,
    ) -> None:
        super().__init__()
        if end_decay < decay:
            raise ValueError(f"end_decay ({end_decay}) must be at least decay ({decay})")
        self.dim, self.layers = vector_dim, layers
        self.decay, self.end_decay, self.rise = decay, end_decay, rise
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._updates = 0  # the same as a number, for which no update waits

    def follow(self, model: PretrainingModel) -> None:
        """Become the teacher of a model: take copies of its parts. ValueError for one with too few layers."""
        depth = len(model.encoder.blocks)
        if self.layers > depth:
            raise ValueError(f"targets.layers = {self.layers}: the context encoder has {depth}")
        self.encoder = copy.deepcopy(model.encoder).requires_grad_(False).eval()
        self.encoder.taps = {str(layer): layer for layer in range(depth - self.layers + 1, depth + 1)}
        self._student = (model,)  # in a tuple: the model has this part, not the reverse

    def train(self, mode: bool = True) -> "EmaTeacher":
        """Stay in evaluation: a teacher drops nothing out, and counts in no batch statistics."""
        return super().train(False)

    def current_decay(self) -> float:
        """The decay of the update that comes next."""
        share = min(1.0, self._updates / self.rise)
        return self.decay + share * (self.end_decay - self.decay)

    @torch.no_grad()
    def after_update(self) -> None:
        """Move the teacher's weights toward the model's, and take over its buffers and its positions."""
        (model,) = self._student
        rate, theirs = 1 - self.current_decay(), dict(model.encoder.named_parameters())
        for name, weight in self.encoder.named_parameters():
            weight.lerp_(theirs[name].to(weight.dtype), 1.0 if name.startswith("position.") else rate)
        for buffer, value in zip(self.encoder.buffers(), model.encoder.buffers(), strict=True):
            buffer.copy_(value)
        self._updates += 1
        self.updates.fill_(self._updates)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Count on from what was saved."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._updates = int(self.updates)

    def vectors_of(self, batch: Batch, features: Features) -> Float[Tensor, "b s q"]:
        """The mean of the scaled layers."""
        return torch.stack(self.scaled_layers(batch, features)).mean(0)

    def scaled_layers(self, batch: Batch, features: Features) -> list[Float[Tensor, "b s d"]]:
        """The teacher's top layers, lowest first, each dimension scaled over the valid frames of its row."""
        (model,) = self._student
        # The student's own, as the features are.
        x = model.with_levels(model.input_projection(features.x), batch)
        taps = self.encoder(x, model.frames_of(batch, features, x.shape[1]))
        parts = [centered(tap, features.valid) for tap in taps.values()]
        return [away * (variance + EPS).rsqrt() for away, variance in parts]


class EmaClusters(EmaTeacher):
    """The clusters that each of the teacher's top layers falls into: a code for each (DinoSR, 2305.10005).

    The centers are running means, too: of the frames that were nearest to them, with `cluster_decay`. A
    cluster that gets fewer than `revive` frames an update becomes a frame of the batch.
    """

    def __init__(
        self,
        vector_dim: int,
        *,
        layers: Annotated[int, POSITIVE] = 8,
        num_clusters: Annotated[int, POSITIVE] = 256,
        cluster_decay: Decay = 0.9,
        revive: Annotated[float, NOT_NEGATIVE] = 0.0,
        decay: DECAY = 0.999,
        end_decay: DECAY = 0.9999,
        rise: Annotated[int, POSITIVE] = 30_000,
    ) -> None:
        super().__init__(vector_dim, layers=layers, decay=decay, end_decay=end_decay, rise=rise)
        self.dim, self.codebook_sizes = 0, (num_clusters,) * layers
        self.codebooks = nn.ModuleList(
            Codebook(num_clusters, vector_dim, decay=cluster_decay, revive=revive) for _ in range(layers)
        )
        with torch.no_grad():
            for codebook in self.codebooks:  # centers start as spread out as scaled frames are
                start = nn.init.normal_(codebook.get_parameter("entries"))
                codebook.get_buffer("sums").copy_(start)

    def train(self, mode: bool = True) -> "EmaClusters":
        """Let clusters move or stand still; the teacher stays in evaluation."""
        super().train(mode)
        self.codebooks.train(mode)
        return self

    @torch.no_grad()
    def forward(
        self,
        batch: Batch,
        features: Features,
        frames: MaskedFrames,
        *,
        temperature: float | None,
        generator: Generator | None,
    ) -> Quantized:
        """The codes of the frames, which are counted in training."""
        layers = [frames.take(layer) for layer in self.scaled_layers(batch, features)]
        pairs = zip(self.codebooks, layers, strict=True)
        codes = torch.stack([codebook(x, generator)[0] for codebook, x in pairs], dim=1)
        return quantized(codes, layers[0].new_empty(len(codes), 0), self.codebook_sizes[0])

    @torch.no_grad()
    def everywhere(self, batch: Batch, features: Features) -> Int[Tensor, "b s g"]:
        """The codes of every frame; -1 on padding."""
        pairs = zip(self.codebooks, self.scaled_layers(batch, features), strict=True)
        codes = torch.stack([codebook(x.flatten(0, 1), None)[0] for codebook, x in pairs], dim=-1)
        return codes.view(*features.valid.shape, -1).masked_fill(~features.valid[..., None], -1)
