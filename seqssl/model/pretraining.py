"""The algorithm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from seqssl.model.encoder import ContextEncoder
from seqssl.model.features import standard_deviation
from seqssl.model.layers import identity
from seqssl.model.types import Batch, Context, Features, LossTerm, MaskedFrames, Quantized


@dataclass(frozen=True)
class Output:
    """What a pre-training step gives back."""

    terms: dict[str, LossTerm]
    targets: Quantized
    num_frames: Int[Tensor, ""]  # valid ones
    diagnostics: dict[str, Float[Tensor, ""]]  # name -> scalar, see the metrics


class PretrainingModel(nn.Module):
    """Masked prediction of a sequence's own codes, learned end to end (w2v-BERT, 2108.06209, section 3).

    An objective with an empty tap reads the output of the highest one.
    """

    # Modules that keep the protocols of seqssl.model.protocols, which a type cannot say together.
    feature_encoder: Any
    masking: Any
    quantizer: Any

    def __init__(
        self,
        feature_encoder: Any,
        masking: Any,
        quantizer: Any,
        encoder: ContextEncoder,
        objectives: Mapping[str, Any],
        dim: int,
        feature_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.feature_encoder = feature_encoder
        self.feature_norm = feature_norm or nn.Identity()
        self.masking = masking
        self.quantizer = quantizer
        self.input_projection = nn.Linear(feature_encoder.dim, dim)
        self.encoder = encoder
        self.objectives = nn.ModuleDict(objectives)
        self.all_reduce: Callable[[Tensor], Tensor] = identity  # see seqssl.training.distributed
        self.last_tap = max(encoder.taps, key=lambda name: encoder.taps[name])
        unknown = {o.tap for o in objectives.values()} - {*encoder.taps, ""}
        if unknown:
            raise ValueError(f"objectives read unknown taps {sorted(unknown)}; there are {[*encoder.taps]}")

    def draw_mask(self, lengths: Int[Tensor, "b"], generator: Generator) -> MaskedFrames:
        """Choose the masked frames of rows with these many input steps."""
        return MaskedFrames.of(self.masking.sample(self.feature_encoder.output_lengths(lengths), generator))

    def forward(
        self, batch: Batch, frames: MaskedFrames, *, temperature: float | None, generator: Generator
    ) -> Output:
        """One step: every objective's term. `temperature` None quantizes without noise (evaluation)."""
        features = self.encode_features(batch)
        hidden = frames.take(features.x)
        targets = self._targets(hidden, temperature, generator)
        corrupted = self.masking.apply(features.x, frames.mask, generator)
        taps = self.encoder(self.input_projection(corrupted), features.valid, generator)
        contexts = {name: Context(frames.take(x), frames, features) for name, x in taps.items()}
        terms = {
            name: objective(contexts[objective.tap or self.last_tap], targets, generator)
            for name, objective in self.objectives.items()
        }
        diagnostics = {
            "features/std": standard_deviation(hidden),
            "context/std": standard_deviation(contexts[self.last_tap].x),
        }
        return Output(terms, targets, features.lengths.sum(), diagnostics)

    def encode_features(self, batch: Batch) -> Features:
        """Frames before masking."""
        features: Features = self.feature_encoder(batch.inputs, batch.lengths)
        return replace(features, x=self.feature_norm(features.x))

    def _targets(self, x: Tensor, temperature: float | None, generator: Generator) -> Quantized:
        """Quantize; the mean use is taken over the masked frames of all ranks."""
        noise = None if temperature is None else generator
        targets: Quantized = self.quantizer(x, temperature=temperature, generator=noise)
        if not self.training:
            return targets
        count = torch.full_like(targets.usage[:1], len(x))
        sums = self.all_reduce(torch.cat([targets.usage * len(x), count]))
        return replace(targets, usage=sums[:-1] / sums[-1:].clamp(min=1))

    def encode(self, batch: Batch, tap: str = "") -> Features:
        """Frames of a tap without masking; "" is the highest."""
        features = self.encode_features(batch)
        taps = self.encoder(self.input_projection(features.x), features.valid)
        return Features(taps[tap or self.last_tap], features.lengths)
