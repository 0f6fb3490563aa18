"""The algorithm."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from seqssl.model import alignment
from seqssl.model.encoder import ContextEncoder
from seqssl.model.features import standard_deviation
from seqssl.model.norms import identity
from seqssl.model.types import Batch, Context, Features, LossTerm, MaskedFrames, Quantized, length_mask

EXTRA_INPUTS = ("observed", "times")  # what a feature encoder may ask for beside inputs and lengths


@dataclass(frozen=True)
class Output:
    """What a pre-training step gives back."""

    terms: dict[str, LossTerm]
    weights: dict[str, float]  # of the terms in the loss
    targets: Quantized
    codebook_size: int  # of the largest codebook
    word: int  # input ids that one code of the data stands for
    num_frames: Int[Tensor, ""]  # valid ones
    diagnostics: dict[str, Float[Tensor, ""]]  # name -> scalar, see the metrics


class PretrainingModel(nn.Module):
    """Masked prediction of a sequence's own codes, learned end to end (w2v-BERT, 2108.06209, section 3).

    An objective with an empty tap reads the output of the highest one. `symbols`: the ids of a frame's own
    steps are codes too, after the quantizer's. `mask_input`: the steps of masked frames are
    hidden from the feature encoder, which then must read `observed`; else frames are replaced after it.
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
        input_norm: nn.Module | None = None,
        *,
        symbols: alignment.SymbolCodes | None = None,
        mask_input: bool = False,
        codebook_size: int | None = None,
    ) -> None:
        super().__init__()
        self.input_norm = input_norm
        self.feature_encoder = feature_encoder
        self.feature_norm = feature_norm or nn.Identity()
        self.masking = masking
        self.quantizer = quantizer
        self.input_projection = nn.Linear(feature_encoder.dim, dim)
        self.encoder = encoder
        self.objectives = nn.ModuleDict(objectives)
        self.all_reduce: Callable[[Tensor], Tensor] = identity  # see seqssl.training.distributed
        self.last_tap = max(encoder.taps, key=lambda name: encoder.taps[name])
        self.symbols, self.mask_input = symbols, mask_input
        self.codebook_size = codebook_size or quantizer.codebook_size
        shares = {name: float(getattr(o, "seen_weight", 0.0)) for name, o in objectives.items()}
        self.seen_weights = {name: share for name, share in shares.items() if share}
        self.stride = alignment.steps_per_frame(feature_encoder)
        asked = inspect.signature(getattr(feature_encoder, "forward", feature_encoder)).parameters
        self.extra_inputs = [name for name in EXTRA_INPUTS if name in asked]
        unknown = {o.tap for o in objectives.values()} - {*encoder.taps, ""}
        if unknown:
            raise ValueError(f"objectives read unknown taps {sorted(unknown)}; there are {[*encoder.taps]}")

    def draw_mask(self, batch: Batch, generator: Generator) -> MaskedFrames:
        """Choose the masked frames; one that is mostly missing is neither hidden nor a target."""
        lengths = self.feature_encoder.output_lengths(batch.lengths)
        mask = self.masking.sample(lengths, generator)
        size = mask.shape[1]
        usable = length_mask(lengths, size)
        if batch.observed is not None:
            share = alignment.observed_share(batch.observed, batch.lengths, size, self.stride)
            usable = usable & (share >= alignment.MIN_OBSERVED)
        if self.symbols is not None:
            codes = self._given(batch, self.symbols)
            if batch.codes is not None:
                check_given(codes, self.symbols)
            usable = usable & (codes >= 0).all(-1)
        seen = MaskedFrames.of(usable & ~mask) if self.seen_weights else None
        return replace(MaskedFrames.of(mask & usable), seen=seen)

    def forward(
        self, batch: Batch, frames: MaskedFrames, *, temperature: float | None, generator: Generator
    ) -> Output:
        """One step: every objective's term. `temperature` None quantizes without noise (evaluation)."""
        features = self.encode_features(batch)
        hidden = frames.take(features.x)
        noise = None if temperature is None else generator
        targets = self._shared(self._targets(features, batch, frames, temperature, noise), frames)
        if self.mask_input:
            corrupted = self.encode_features(self._hide(batch, frames.mask)).x
        else:
            corrupted = self.masking.apply(features.x, frames.mask, generator)
        taps = self.encoder(self.input_projection(corrupted), features.valid, generator)
        contexts = {name: Context(frames.take(x), frames, features) for name, x in taps.items()}
        terms = {
            name: objective(contexts[objective.tap or self.last_tap], targets, generator)
            for name, objective in self.objectives.items()
        }
        weights = {name: float(objective.weight) for name, objective in self.objectives.items()}  # type: ignore[arg-type]
        if frames.seen is not None:
            terms |= self._seen_terms(taps, features, batch, frames, generator)
            weights |= {f"{name}_seen": weights[name] * share for name, share in self.seen_weights.items()}
        diagnostics = {
            "features/std": standard_deviation(hidden),
            "context/std": standard_deviation(contexts[self.last_tap].x),
        }
        word = self.symbols.word if self.symbols and batch.codes is None else 1
        return Output(terms, weights, targets, self.codebook_size, word, features.lengths.sum(), diagnostics)

    def _seen_terms(
        self,
        taps: Mapping[str, Tensor],
        features: Features,
        batch: Batch,
        frames: MaskedFrames,
        generator: Generator,
    ) -> dict[str, LossTerm]:
        """Terms at the frames that are not masked, of the objectives that want them.

        Each is divided by the number of masked frames, as all terms are: a seen frame counts `seen_weight`
        times a masked one, and micro-steps add up.
        """
        seen = frames.seen
        assert seen is not None
        with torch.no_grad():
            targets = self._targets(features, batch, seen, None, None)
        terms = {}
        for name in self.seen_weights:
            objective: Any = self.objectives[name]
            context = Context(seen.take(taps[objective.tap or self.last_tap]), seen, features)
            term = objective(context, targets, generator)
            number = frames.mask.sum()  # of none: the loop would leave the term out
            terms[f"{name}_seen"] = LossTerm(term.total * (number > 0), number, num_frames=term.count)
        return terms

    def encode_features(self, batch: Batch) -> Features:
        """Frames before masking."""
        inputs = batch.inputs
        if self.input_norm is not None:
            inputs = self.input_norm(inputs, seen(batch))
        extra = {name: getattr(batch, name) for name in self.extra_inputs}
        features: Features = self.feature_encoder(inputs, batch.lengths, **extra)
        return replace(features, x=self.feature_norm(features.x))

    def codes(self, batch: Batch) -> Int[Tensor, "b s g"]:
        """What each frame's target would be, without noise; -1 where there is none."""
        features = self.encode_features(batch)
        valid = features.valid
        learned = self.quantizer(features.x[valid], temperature=None).codes
        codes = learned.new_full((*valid.shape, learned.shape[1]), -1)
        codes[valid] = learned
        return torch.cat([codes, self._given(batch, self.symbols)], dim=-1) if self.symbols else codes

    def _hide(self, batch: Batch, mask: Bool[Tensor, "b s"]) -> Batch:
        """The batch with the steps of masked frames missing."""
        steps = alignment.spread(mask, batch.inputs.shape[1], self.stride)
        steps = steps.reshape(*steps.shape, *[1] * (batch.inputs.dim() - 2))
        return replace(batch, inputs=batch.inputs.masked_fill(steps, 0), observed=seen(batch) & ~steps)

    def _given(self, batch: Batch, symbols: alignment.SymbolCodes) -> Int[Tensor, "b s g"]:
        """Codes that the data give: those of the batch, or the ids of each frame's steps; -1 is unknown."""
        return symbols.of(batch.inputs, batch.lengths, batch.observed) if batch.codes is None else batch.codes

    def _targets(
        self,
        features: Features,
        batch: Batch,
        frames: MaskedFrames,
        temperature: float | None,
        noise: Generator | None,
    ) -> Quantized:
        """Quantize some frames, and add the codes that the data give."""
        x = frames.take(features.x)
        targets: Quantized = self.quantizer(x, temperature=temperature, generator=noise)
        if self.symbols is not None:
            given = self._given(batch, self.symbols)[frames.rows, frames.columns]
            targets = replace(targets, codes=torch.cat([targets.codes, given], dim=1))
        return targets

    def _shared(self, targets: Quantized, frames: MaskedFrames) -> Quantized:
        """The targets, with the mean use taken over the masked frames of all ranks."""
        if not (self.training and len(targets.usage)):
            return targets
        number = len(frames.rows)
        count = torch.full_like(targets.usage[:1], number)
        sums = self.all_reduce(torch.cat([targets.usage * number, count]))
        return replace(targets, usage=sums[:-1] / sums[-1:].clamp(min=1))

    def encode(self, batch: Batch, tap: str = "") -> Features:
        """Frames of a tap without masking; "" is the highest."""
        features = self.encode_features(batch)
        taps = self.encoder(self.input_projection(features.x), features.valid)
        return Features(taps[tap or self.last_tap], features.lengths)


def check_given(codes: Int[Tensor, "b s g"], symbols: alignment.SymbolCodes) -> None:
    """ValueError for codes from outside that the heads have no room for."""
    size, largest = symbols.codebook_size, int(codes.max())
    if codes.shape[-1] != symbols.num_codebooks or largest >= size:
        raise ValueError(
            f"batch.codes has {codes.shape[-1]} codes a frame, up to {largest}; the model was built for "
            f"{symbols.num_codebooks}, below {size}"
        )


def seen(batch: Batch) -> Bool[Tensor, "b t *c"]:
    """Which values of the inputs are there: neither padding nor missing."""
    valid = length_mask(batch.lengths, batch.inputs.shape[1])
    valid = valid.reshape(*valid.shape, *[1] * (batch.inputs.dim() - 2))
    return valid.expand_as(batch.inputs) if batch.observed is None else valid & batch.observed
