"""From the slots of the two encoders, and of the norms around the first, to modules."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import nn

from seqssl.config.components import Lazy, construct
from seqssl.config.schema import EncoderConfig, Slot, StreamConfig
from seqssl.data.adapters import ModalityAdapter, SampleSpec
from seqssl.errors import UserError
from seqssl.model.encoder import ContextEncoder
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import Block, Condition, FeatureEncoder, FrameWiring, InputWiring, Mixer


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
