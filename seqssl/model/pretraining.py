"""The algorithm: one step of masked pre-training, on one screen."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from seqssl.model import alignment
from seqssl.model.dropout import Dropout
from seqssl.model.encoder import ContextEncoder
from seqssl.model.features import standard_deviation
from seqssl.model.losses import Losses
from seqssl.model.protocols import FeatureEncoder, FollowsModel, HasLevels, Masking, Objective, Targets
from seqssl.model.types import (
    Batch,
    Draws,
    Features,
    Frames,
    MaskedFrames,
    Output,
    Plan,
    Quantized,
    length_mask,
)

EXTRA_INPUTS = ("observed", "times")  # what a feature encoder may ask for beside inputs and lengths


class PretrainingModel(nn.Module):
    """Masked pre-training: what is masked is predicted from its surroundings (w2v-BERT, 2108.06209, 3).

    `targets` say what is predicted, `objectives` how well it was. An objective with an empty tap reads the
    highest one. `mask_input`: the steps of masked frames are made missing before the feature encoder, which
    then must read `observed`; else frames are replaced after it. `mask_projection`: they are replaced after
    the projection to the width of the context encoder (wav2vec 2.0). `context`: what the context encoder
    reads, the "features" or the "quantized" vectors of the targets (vq-wav2vec). `feature_gradient`: the
    gradient that reaches the feature encoder is multiplied by it. `input_dropout`: of projected frames.
    """

    feature_encoder: FeatureEncoder
    masking: Masking
    targets: Targets

    def __init__(
        self,
        feature_encoder: FeatureEncoder,
        masking: Masking,
        targets: Targets,
        encoder: ContextEncoder,
        objectives: Mapping[str, Objective],
        dim: int,
        feature_norm: nn.Module | None = None,
        input_norm: nn.Module | None = None,
        *,
        mask_input: bool = False,
        mask_projection: bool = False,
        context: Literal["features", "quantized"] = "features",
        feature_gradient: float = 1.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_norm = input_norm
        self.feature_encoder = feature_encoder
        self.feature_norm = feature_norm or nn.Identity()
        self.masking = masking
        self.targets = targets
        self.input_projection = nn.Linear(targets.dim if context == "quantized" else feature_encoder.dim, dim)
        self.level_projection: nn.Linear | None = None
        if (leveled := _leveled(input_norm)) is not None:
            self.level_projection = nn.Linear(leveled.num_levels, dim)
            for weight in self.level_projection.parameters():
                nn.init.zeros_(weight)  # at first rows are as if their levels were not known
        self.encoder = encoder
        self.objectives = Losses(objectives, encoder.taps)
        self.mask_input, self.mask_projection, self.context = mask_input, mask_projection, context
        self.feature_gradient, self.input_dropout = feature_gradient, Dropout(input_dropout)
        self.stride = alignment.steps_per_frame(feature_encoder)
        asked = inspect.signature(getattr(feature_encoder, "forward", feature_encoder)).parameters
        self.extra_inputs = [name for name in EXTRA_INPUTS if name in asked]
        if isinstance(targets, FollowsModel):
            targets.follow(self)
        if context == "quantized" and (mask_input or not targets.dim):
            raise ValueError(
                "context=quantized masks such vectors: it needs mask_at=features, and targets with vectors"
            )

    @property
    def last_tap(self) -> str:
        """The highest tap."""
        return self.objectives.last_tap

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """The plan of a micro-batch: its masked frames, and the counts of its terms; on the CPU."""
        frames = self.draw_mask(batch, draws.generator())
        return Plan(self.counts(batch, frames), frames)

    def counts(self, batch: Batch, frames: MaskedFrames) -> dict[str, Int[Tensor, ""]]:
        """The number that each loss term is a sum over, for the masked frames chosen."""
        return self.objectives.counts(frames, self.feature_encoder.output_lengths(batch.lengths))

    def draw_mask(self, batch: Batch, generator: Generator) -> MaskedFrames:
        """Choose the masked frames; one that is mostly missing is neither masked nor a target."""
        lengths = self.feature_encoder.output_lengths(batch.lengths)
        mask = self.masking.sample(lengths, generator)
        size = mask.shape[1]
        valid = length_mask(lengths, size)
        usable = valid
        if batch.observed is not None:
            share = alignment.observed_share(batch.observed, batch.lengths, size, self.stride)
            usable = usable & (share >= alignment.MIN_OBSERVED)
        usable = self.targets.usable(batch, usable)
        sets = {"seen": usable & ~mask, "all": usable, "valid": valid}
        asked = self.objectives.sets | ({"valid"} if self.context == "quantized" else set())
        return MaskedFrames.of(mask & usable, **{name: sets[name] for name in sets if name in asked})

    def forward(
        self, batch: Batch, frames: MaskedFrames, *, temperature: float | None, generator: Generator
    ) -> Output:
        """One step: every objective's term. `temperature` None quantizes without noise (evaluation)."""
        features = self.encode_features(batch)
        noise = None if temperature is None else generator
        clear, targets = self._targets(batch, features, frames, temperature, noise)
        shown = batch
        if self.mask_input:
            shown = alignment.hide(batch, frames.mask, self.stride)
            hidden = self.encode_features(shown).x
        else:
            hidden = self.masking.apply(self._maskable(clear), frames.mask, generator)
        taps = self.contexts(shown, features, hidden, generator)
        targets_at = partial(self._targets_at, batch, features)
        output: Output = self.objectives(taps, features, frames, targets, targets_at, generator)
        return replace(output, sums=output.sums | self._statistics(features, frames, taps, targets))

    def _targets(
        self,
        batch: Batch,
        features: Features,
        frames: MaskedFrames,
        temperature: float | None,
        noise: Generator | None,
    ) -> tuple[Float[Tensor, "b s x"], Quantized]:
        """What the context encoder reads before masking, and the targets of the masked frames."""
        if self.context == "features":
            return features.x, self.targets(batch, features, frames, temperature=temperature, generator=noise)
        valid = frames.sets["valid"]
        everywhere = self.targets(batch, features, valid, temperature=temperature, generator=noise)
        places = torch.zeros_like(valid.mask, dtype=torch.long)
        places[valid.rows, valid.columns] = torch.arange(len(valid), device=places.device)
        return valid.put(everywhere.vectors), everywhere.at(places[frames.rows, frames.columns])

    @torch.no_grad()
    def _targets_at(self, batch: Batch, features: Features, frames: MaskedFrames) -> Quantized:
        """The targets of frames that are not masked: without noise or gradient."""
        return self.targets(batch, features, frames, temperature=None, generator=None)

    def _statistics(
        self, features: Features, frames: MaskedFrames, taps: Mapping[str, Tensor], targets: Quantized
    ) -> dict[str, Tensor]:
        """Sums by which people judge a step: how codes are used, whether frames still differ."""
        size, codes = max(self.targets.codebook_sizes, default=0), targets.codes
        counts = torch.zeros(codes.shape[1], size, dtype=torch.long, device=codes.device)
        counts.scatter_add_(1, codes.T, torch.ones_like(codes.T))  # bincount would wait for a GPU
        return {
            "codes": counts,
            "usage": targets.usage.detach() * len(frames),
            "masked": frames.mask.sum()[None],
            "maskable": features.lengths.sum()[None],
            "features/std": standard_deviation(frames.take(features.x)),
            "context/std": standard_deviation(frames.take(taps[self.last_tap])),
        }

    def encode_features(self, batch: Batch) -> Features:
        """The frames of the feature encoder, before masking."""
        inputs = batch.inputs
        if self.input_norm is not None:
            inputs = self.input_norm(inputs, alignment.present(batch))
        extra = {name: getattr(batch, name) for name in self.extra_inputs}
        features: Features = self.feature_encoder(inputs, batch.lengths, **extra)
        x = features.x
        if self.feature_gradient != 1:
            x = x.detach() + (x - x.detach()) * self.feature_gradient
        return replace(features, x=self.feature_norm(x), raw=x, clips=batch.clips)

    def contexts(
        self, batch: Batch, features: Features, x: Float[Tensor, "b s x"], generator: Generator | None = None
    ) -> dict[str, Float[Tensor, "b s d"]]:
        """Every tap of the context encoder, from frames as `clear` gives them; some may be masked."""
        if not self.mask_projection:
            x = self._projected(x)
        x = self.with_levels(x, batch)
        taps: dict[str, Tensor] = self.encoder(x, self.frames_of(batch, features, x.shape[1]), generator)
        return taps

    def with_levels(self, x: Float[Tensor, "b s d"], batch: Batch) -> Float[Tensor, "b s d"]:
        """Projected frames, with what the input norm took away from their rows, if it keeps that."""
        if self.level_projection is None:
            return x
        leveled = _leveled(self.input_norm)
        assert leveled is not None
        levels = leveled.levels(batch.inputs, alignment.present(batch))
        added: Tensor = x + self.level_projection(levels)[:, None]
        return added

    def frames_of(self, batch: Batch, features: Features, num_frames: int) -> Frames:
        """What blocks may know of frames beside their vectors."""
        times = features.times
        if times is None:
            times = alignment.frame_times(batch, num_frames, self.stride)
        condition = None if self.encoder.condition is None else self.encoder.condition(batch)
        return Frames(features.valid, times, condition)

    def clear(self, batch: Batch, features: Features) -> Float[Tensor, "b s x"]:
        """Frames where nothing is masked and nothing is drawn, as masking would find them."""
        if self.context == "features":
            return self._maskable(features.x)
        nothing = torch.zeros_like(features.valid)
        frames = MaskedFrames.of(nothing, valid=features.valid)
        return self._maskable(self._targets(batch, features, frames, None, None)[0])

    def _maskable(self, x: Float[Tensor, "b s x"]) -> Float[Tensor, "b s _"]:
        """What masking replaces: frames, or their projections."""
        return self._projected(x) if self.mask_projection else x

    def _projected(self, x: Float[Tensor, "b s x"]) -> Float[Tensor, "b s d"]:
        """Frames of the width of the context encoder."""
        y: Tensor = self.input_dropout(self.input_projection(x))
        return y

    def encode(self, batch: Batch, tap: str = "") -> Features:
        """Frames of a tap without masking; "" is the highest."""
        features = self.encode_features(batch)
        taps = self.contexts(batch, features, self.clear(batch, features))
        return replace(features, x=taps[tap or self.last_tap])

    def codes(self, batch: Batch) -> Int[Tensor, "b s g"]:
        """The codes that each frame has as targets, without noise; -1 where there is none."""
        return self.targets.everywhere(batch, self.encode_features(batch))

    def of(self, stream: str) -> "PretrainingModel":
        """The model of a stream: here there is only one."""
        return self


def _leveled(norm: object) -> HasLevels | None:
    """An input norm that keeps what it takes away; None for any other."""
    return norm if isinstance(norm, HasLevels) else None
