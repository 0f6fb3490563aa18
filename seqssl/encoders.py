"""From the slots of the two encoders, and of the norms around the first, to modules; what they rule out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from seqssl.config.components import Lazy, construct
from seqssl.config.schema import EncoderConfig, Slot, StreamConfig
from seqssl.data.adapters import ModalityAdapter, SampleSpec
from seqssl.data.lengths import lengths_of
from seqssl.errors import UserError
from seqssl.model.alignment import first_apart
from seqssl.model.encoder import ContextEncoder
from seqssl.model.norms import TimeNorm
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import (
    Block,
    Condition,
    FeatureEncoder,
    FrameWiring,
    InputWiring,
    Mixer,
    Objective,
)


def build_feature_encoder(
    config: StreamConfig, adapter: ModalityAdapter, dim: int, open_other: Callable[[str], PretrainingModel]
) -> FeatureEncoder:
    """The feature encoder of the slot, else the adapter's own; it may open the model of another run."""
    if config.feature_encoder is None:
        return adapter.feature_encoder(dim)
    wiring = {**vars(_input_wiring(adapter.spec)), "open_model": open_other}
    encoder: FeatureEncoder = construct(config.feature_encoder, "feature_encoder", wiring, FeatureEncoder)
    return encoder


def build_input_norm(config: StreamConfig, spec: SampleSpec) -> nn.Module | None:
    """The module that scales inputs before the feature encoder; None for none, UserError for ids."""
    if config.input_norm is None:
        return None
    if spec.vocab_size is not None:
        name = config.input_norm.get("target")
        raise UserError(f"input_norm={name}: ids cannot be scaled; use input_norm=none.")
    norm: nn.Module = construct(config.input_norm, "input_norm", vars(_input_wiring(spec)))
    return norm


def _input_wiring(spec: SampleSpec) -> InputWiring:
    channels = spec.channels if spec.vocab_size is not None else spec.channels or 1
    return InputWiring(channels, spec.vocab_size, num_bins=spec.channels, rate_hz=spec.rate_hz)


def build_feature_norm(config: EncoderConfig, input_dim: int) -> nn.Module | None:
    """The module that scales frames before masking and quantizing; None for none."""
    if config.feature_norm is None:
        return None
    norm: nn.Module = construct(
        config.feature_norm, "feature_norm", vars(FrameWiring(input_dim, config.dim, context_dim=config.dim))
    )
    return norm


def build_encoder(config: EncoderConfig, mixer: Slot, checkpoint_activations: bool) -> ContextEncoder:
    """The context encoder: a stack of blocks, each with a mixer of its own."""
    wiring = FrameWiring(config.dim, config.dim, context_dim=config.dim)
    condition: Condition | None = None
    if config.condition is not None:
        condition = construct(config.condition, "condition", vars(wiring), Condition)
        wiring = replace(wiring, condition_dim=condition.dim)

    def block(layer: int) -> nn.Module:
        own = Lazy(
            mixer=lambda: construct(mixer, "mixer", vars(wiring), Mixer),
            layer=lambda: layer,
            **{name: partial(getattr, wiring, name) for name in vars(wiring)},
        )
        built: nn.Module = construct(config.block, "block", own, Block)
        return built

    position: Block | None = None
    if config.position is not None:
        position = construct(config.position, "position", vars(wiring), Block)
    return ContextEncoder(
        [block(layer) for layer in range(config.num_layers)],
        position,
        condition,
        taps=config.taps,
        norm=config.norm,
        dim=config.dim,
        dropout=config.position_dropout,
        stochastic_depth=config.stochastic_depth,
        checkpoint_activations=checkpoint_activations,
    )


def check_frames(config: StreamConfig, spec: SampleSpec, feature_encoder: FeatureEncoder) -> None:
    """UserError where even the longest row makes one frame only, which nothing could be predicted from."""
    lengths = lengths_of(config.data, spec)  # not of a batch: a longer row is one of its own
    steps = lengths["max_length"] or (
        max(spec.max_len, lengths["join_length"] or 0) if spec.max_len else None
    )
    if steps is None:
        return
    frames = int(feature_encoder.output_lengths(torch.tensor([steps], device="cpu"))[0])
    if frames < 2:
        raise UserError(
            f"feature_encoder: {type(feature_encoder).__name__} makes {frames} frame of {steps} input steps, "
            "which a row has at most, and one alone can be predicted from nothing: take feature_encoder=null "
            "(the modality's own), one with smaller strides, or longer rows (data.max_*, data.join_*)."
        )


def check_objectives(
    objectives: Mapping[str, Objective],
    config: StreamConfig,
    encoder: ContextEncoder,
    apart: Callable[..., int],
) -> None:
    """UserError for an objective that these data or these encoders make meaningless.

    `apart`: see `frames_apart`, for the feature encoder of these data.
    """
    # A part that does not say whether it is causal is trusted.
    reads_ahead = any(getattr(part, "causal", None) is False for part in encoder.modules())
    for name, objective in objectives.items():
        foresees = getattr(objective, "foresees", False)
        if getattr(objective, "compares_views", False) and config.data.views < 2:
            raise UserError(f"objectives.{name} compares views of a row: set data.views=2 or more.")
        if foresees and reads_ahead:
            raise UserError(
                f"objectives.{name} foresees later frames, and in this encoder frames read them: take a "
                "causal mixer (mixer.causal=true for attention and fft_convolution, or causal_gated_linear), "
                "no block with a convolution that looks ahead (a conformer's conv_causal=true), and no "
                "position by convolutions."
            )
        if not foresees:
            continue
        # One with an offset says itself how far ahead its first frame is; that a frame knows the mean and the
        # spread of its row is no harm there, as in wav2vec.
        offset = getattr(objective, "offset", None)
        if offset is None and apart() > 1:
            raise UserError(
                f"objectives.{name} foresees the next frame, and frames of this feature encoder read steps "
                "of one another: take feature_encoder=patch, conv1d with kernels equal to its strides and "
                "norm=layer, or token with kernel=1."
            )
        if offset is not None and (least := apart(by_row=False)) > offset:
            raise UserError(
                f"objectives.{name}.offset = {offset}: a frame of this feature encoder shares input steps "
                f"with those up to {least - 1} ahead, which it would know: say {least} or more, or take a "
                "feature encoder whose frames read less (patch, token with a smaller kernel)."
            )


def frames_apart(
    make_features: Callable[[], FeatureEncoder], spec: SampleSpec, *, by_row: bool = True
) -> int:
    """`first_apart` of a feature encoder that is made anew, on the CPU.

    Without `by_row`, its norms over the row, by which each frame knows of all others, are left out: they
    scale each frame by itself.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        feature_encoder = make_features()
        if isinstance(feature_encoder, nn.Module):
            for part in feature_encoder.eval().modules():
                if isinstance(part, TimeNorm) and not by_row:
                    part.register_forward_hook(_by_frame)
        return first_apart(feature_encoder, spec.channels, spec.vocab_size)


def _by_frame(norm: nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> torch.Tensor:
    """What a norm over the row is given, scaled over each frame instead."""
    return F.layer_norm(given[0], given[0].shape[-1:])
