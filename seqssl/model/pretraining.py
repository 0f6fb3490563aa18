"""The algorithm: one step of masked pre-training, on one screen."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from seqssl.model import alignment
from seqssl.model.encoder import ContextEncoder
from seqssl.model.features import standard_deviation
from seqssl.model.protocols import CountsOther, FeatureEncoder, Masking, Objective, Targets
from seqssl.model.types import (
    Batch,
    Context,
    Draws,
    Features,
    Frames,
    LossTerm,
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
    then must read `observed`; else frames are replaced after it. `context`: what the context encoder reads,
    the "features" or the "quantized" vectors of the targets (vq-wav2vec).
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
        context: Literal["features", "quantized"] = "features",
    ) -> None:
        super().__init__()
        self.input_norm = input_norm
        self.feature_encoder = feature_encoder
        self.feature_norm = feature_norm or nn.Identity()
        self.masking = masking
        self.targets = targets
        self.input_projection = nn.Linear(targets.dim if context == "quantized" else feature_encoder.dim, dim)
        self.encoder = encoder
        # What has weights is registered; what has none may be any callable.
        self.objectives = nn.ModuleDict({n: o for n, o in objectives.items() if isinstance(o, nn.Module)})
        self.losses = dict(objectives)
        self.last_tap = max(encoder.taps, key=lambda name: encoder.taps[name])
        self.mask_input, self.context = mask_input, context
        self.stride = alignment.steps_per_frame(feature_encoder)
        self.reads = {name: getattr(objective, "reads", "masked") for name, objective in objectives.items()}
        shares = {name: float(getattr(o, "seen_weight", 0.0)) for name, o in objectives.items()}
        self.seen_weights = {name: share for name, share in shares.items() if share}
        asked = inspect.signature(getattr(feature_encoder, "forward", feature_encoder)).parameters
        self.extra_inputs = [name for name in EXTRA_INPUTS if name in asked]
        self._check()

    def _check(self) -> None:
        """ValueError for parts that do not fit together."""
        taps = self.encoder.taps
        unknown = {objective.tap for objective in self.losses.values()} - {*taps, ""}
        if unknown:
            raise ValueError(f"objectives read unknown taps {sorted(unknown)}; there are {[*taps]}")
        wrong = {*self.reads.values()} - {"masked", "seen", "all"}
        if wrong:
            raise ValueError(f"an objective reads {', '.join(sorted(wrong))}; it may be masked, seen or all")
        if self.context == "quantized" and (self.mask_input or not self.targets.dim):
            raise ValueError(
                "context=quantized masks such vectors: it needs mask_at=features, and targets with vectors"
            )

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """The plan of a micro-batch: its masked frames, and the counts of its terms; on the CPU."""
        frames = self.draw_mask(batch, draws.generator())
        return Plan(self.counts(batch, frames), frames)

    def counts(self, batch: Batch, frames: MaskedFrames) -> dict[str, Int[Tensor, ""]]:
        """The number that each loss term is a sum over, for the masked frames chosen."""
        lengths = self.feature_encoder.output_lengths(batch.lengths)
        counts = {}
        for name, objective in self.losses.items():
            own = self._frames(name, frames)
            if isinstance(objective, CountsOther):
                counts[name] = objective.counted(own, lengths)
            else:
                counts[name] = torch.tensor(len(own))
        # A seen frame counts `seen_weight` times a masked one: both sums have one divisor.
        return counts | {f"{name}_seen": torch.tensor(len(frames)) for name in self.seen_weights}

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
        asked = {*self.reads.values(), *(["seen"] if self.seen_weights else [])}
        asked |= {"valid"} if self.context == "quantized" else set()
        sets = {"seen": usable & ~mask, "all": usable, "valid": valid}
        return MaskedFrames.of(mask & usable, **{name: sets[name] for name in sets if name in asked})

    def forward(
        self, batch: Batch, frames: MaskedFrames, *, temperature: float | None, generator: Generator
    ) -> Output:
        """One step: every objective's term. `temperature` None quantizes without noise (evaluation)."""
        features = self.encode_features(batch)
        noise = None if temperature is None else generator
        clear, targets = self._targets(batch, features, frames, temperature, noise)
        if self.mask_input:
            hidden = self.encode_features(alignment.hide(batch, frames.mask, self.stride)).x
        else:
            hidden = self.masking.apply(clear, frames.mask, generator)
        taps = self.contexts(batch, features, hidden, generator)
        terms = {
            name: self._score(name, self._frames(name, frames), taps, batch, features, targets, generator)
            for name in self.losses
        }
        weights = {name: float(objective.weight) for name, objective in self.losses.items()}
        sums = {f"{name}/{stat}": value for name, term in terms.items() for stat, value in term.stats.items()}
        for name, share in self.seen_weights.items():
            seen = frames.sets["seen"]
            term = self._score(name, seen, taps, batch, features, None, generator)
            terms[f"{name}_seen"], weights[f"{name}_seen"] = term, weights[name] * share
            sums[f"{name}_seen/frames"] = term.count  # people read a mean over the frames themselves
        sums |= self._statistics(features, frames, taps, targets)
        return Output({name: term.total for name, term in terms.items()}, weights, sums)

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

    def _score(
        self,
        name: str,
        frames: MaskedFrames,
        taps: Mapping[str, Tensor],
        batch: Batch,
        features: Features,
        targets: Quantized | None,
        generator: Generator,
    ) -> LossTerm:
        """An objective's term at some frames; for others than the masked, it makes targets without noise."""
        objective = self.losses[name]
        if targets is None or self.reads[name] != "masked":
            with torch.no_grad():
                targets = self.targets(batch, features, frames, temperature=None, generator=None)
        context = Context(frames.take(taps[objective.tap or self.last_tap]), frames, features)
        return objective(context, targets, generator)

    def _frames(self, name: str, frames: MaskedFrames) -> MaskedFrames:
        """The frames that an objective reads."""
        return frames if self.reads[name] == "masked" else frames.sets[self.reads[name]]

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
        return replace(features, x=self.feature_norm(features.x))

    def contexts(
        self, batch: Batch, features: Features, x: Float[Tensor, "b s x"], generator: Generator | None = None
    ) -> dict[str, Float[Tensor, "b s d"]]:
        """Every tap of the context encoder, from frames `x`, some of which may be masked."""
        times = features.times
        if times is None:
            times = alignment.frame_times(batch, x.shape[1], self.stride)
        condition = None if self.encoder.condition is None else self.encoder.condition(batch)
        taps: dict[str, Tensor] = self.encoder(
            self.input_projection(x), Frames(features.valid, times, condition), generator
        )
        return taps

    def clear(self, batch: Batch, features: Features) -> Float[Tensor, "b s x"]:
        """What the context encoder reads where nothing is masked and nothing is drawn."""
        if self.context == "features":
            return features.x
        nothing = torch.zeros_like(features.valid)
        frames = MaskedFrames.of(nothing, valid=features.valid)
        return self._targets(batch, features, frames, None, None)[0]

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
