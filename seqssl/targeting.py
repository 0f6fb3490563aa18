"""From the slots `targets` and `quantizer` to what a model predicts."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from seqssl.config.components import Lazy, construct
from seqssl.config.schema import Slot, StreamConfig
from seqssl.data.adapters import SampleSpec
from seqssl.errors import UserError
from seqssl.model.alignment import Alphabet, steps_per_frame, tiles
from seqssl.model.description import InputDescription
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.protocols import FeatureEncoder, FrameWiring, Quantizer, Targets
from seqssl.model.targets import LearnedCodes, SymbolCodes, Teacher


def targets_slot(config: StreamConfig, spec: SampleSpec) -> Slot:
    """The slot of the targets; the default is a frame's own ids where inputs are ids, else learned codes."""
    return config.targets or {"target": "learned" if spec.vocab_size is None else "symbols"}


def build_targets(
    config: StreamConfig,
    spec: SampleSpec,
    feature_encoder: FeatureEncoder,
    dim: int,
    open_teacher: Callable[..., Teacher],
    list_taps: Callable[[str], list[str]],
    make_reader: Callable[[], FeatureEncoder],
    input_norm: nn.Module | None,
) -> Targets:
    """What is predicted, built from the slots `targets` and `quantizer`.

    `dim` is the width of the context encoder; `open_teacher` opens the model of another run, at its taps, and
    `list_taps` says which there are, lowest first;
    `make_reader` makes the modality's own feature encoder, which the model need not use; `input_norm` is the
    model's own.
    """
    input_dim = feature_encoder.dim

    def make_quantizer(width: int) -> Quantizer:
        wiring = vars(FrameWiring(width, dim, context_dim=dim))
        quantizer: Quantizer = construct(config.quantizer, "quantizer", wiring, Quantizer)
        return quantizer

    def quantizer_norm() -> MaskedBatchNorm | None:
        return MaskedBatchNorm(input_dim, affine=False) if config.quantizer_norm == "batch" else None

    # Lazy, because making a part draws weights or refuses data: only what these targets ask for may be made.
    wiring = Lazy(
        quantizer=partial(make_quantizer, input_dim),
        quantizer_norm=quantizer_norm,
        learned=lambda: LearnedCodes(make_quantizer(input_dim), quantizer_norm()),
        symbols=lambda: SymbolCodes(_alphabet(config, spec, feature_encoder)),
        alphabet=lambda: _alphabet(config, spec, feature_encoder),
        codebook_sizes=lambda: _given_sizes(spec),
        feature_encoder=lambda: feature_encoder,
        make_quantizer=lambda: make_quantizer,
        stride=lambda: steps_per_frame(feature_encoder),
        channels=lambda: spec.channels,
        vocab_size=lambda: spec.vocab_size,
        open_teacher=lambda: open_teacher,
        list_taps=lambda: list_taps,
        read_array=lambda: read_array,
        describe_input=lambda: InputDescription(
            make_reader(),
            steps_per_frame(feature_encoder),
            channels=spec.channels,
            vocab_size=spec.vocab_size,
            input_norm=input_norm,
        ),
        input_dim=lambda: input_dim,
        vector_dim=lambda: dim,
    )
    targets: Targets = construct(targets_slot(config, spec), "targets", wiring, Targets)
    return targets


def _alphabet(config: StreamConfig, spec: SampleSpec, feature_encoder: FeatureEncoder) -> Alphabet:
    """How the ids of a frame become codes; UserError where inputs are no ids, or frames overlap."""
    stride = tiles(feature_encoder)
    if spec.vocab_size is None:
        target = targets_slot(config, spec)["target"]
        raise UserError(f"targets={target} needs inputs that are ids; this modality has {spec.dtype} values.")
    if stride is None:
        raise UserError(
            f"the frames of {type(feature_encoder).__name__} overlap, so that a frame has no ids of its own: "
            "use targets=learned, or one with output_lengths(t) = ceil(t / stride) (token, patch)."
        )
    last = spec.vocab_size - 1  # "unknown" is no target; it can be left out of the codes if it is the last id
    return Alphabet(last if spec.missing_id == last else spec.vocab_size, stride, spec.channels or 1)


def _given_sizes(spec: SampleSpec) -> tuple[int, ...]:
    """The sizes of the codebooks of the codes that an adapter gives; UserError where it gives none."""
    if spec.codebook_sizes is None:
        raise UserError("targets=given needs an adapter that gives codes and says spec.codebook_sizes.")
    return spec.codebook_sizes


def read_array(path: str) -> Tensor:
    """A .npy file; UserError where it cannot be read."""
    try:
        return torch.from_numpy(np.load(Path(path).expanduser(), allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a .npy array: {error}") from error
