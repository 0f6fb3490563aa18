"""The one place where parts meet: a configuration becomes an adapter, a model, a task."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from seqssl.config.components import construct
from seqssl.config.schema import DataConfig, EncoderConfig, RunConfig, Slot
from seqssl.data.adapters import ModalityAdapter, SampleSpec
from seqssl.errors import UserError
from seqssl.model.alignment import SymbolCodes, tiles
from seqssl.model.blocks import ConformerBlock, TransformerBlock
from seqssl.model.encoder import ContextEncoder
from seqssl.model.joint import JointModel
from seqssl.model.layers import ConvPosition
from seqssl.model.norms import ChannelNorm, InstanceNorm
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.quantizers import LinearTarget


def build_adapter(config: RunConfig) -> ModalityAdapter:
    """The modality's adapter."""
    adapter: ModalityAdapter = construct(config.modality, "modality", {})
    return adapter


def build_model(config: RunConfig, device: torch.device | str = "cpu") -> PretrainingModel:
    """The model with initial weights drawn from `config.seed`; on "meta" it has shapes and no weights.

    The caller's random state is left as it was.
    """
    with _seeded(config, device):
        return _assemble(config)


def build_joint_model(config: RunConfig, device: torch.device | str = "cpu") -> JointModel:
    """A model for each stream of the configuration, over one context encoder."""
    with _seeded(config, device):
        encoder = _encoder_of(config)
        return JointModel({name: _assemble(part, encoder) for name, part in config.parts().items()})


@contextmanager
def _seeded(config: RunConfig, device: torch.device | str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(config.seed)
        yield


def _encoder_of(config: RunConfig) -> ContextEncoder:
    return build_encoder(config.encoder, config.mixer, config.train.checkpoint_activations)


def _assemble(config: RunConfig, encoder: ContextEncoder | None = None) -> PretrainingModel:
    dim, spec = config.encoder.dim, build_adapter(config).spec
    target, mask_input = resolve_target(config, spec)
    feature_encoder = build_feature_encoder(config)
    wiring: dict[str, Any] = {"input_dim": feature_encoder.dim, "context_dim": dim}
    masking = construct(config.masking, "masking", wiring)
    if target == "identity":
        quantizer: Any = LinearTarget(feature_encoder.dim, dim=dim)
    else:
        quantizer = construct(config.quantizer, "quantizer", wiring)
    encoder = encoder or _encoder_of(config)
    symbols = None if target == "latent" else _symbol_codes(spec, feature_encoder)
    sizes = (quantizer.codebook_size,) * quantizer.num_codebooks
    if symbols is not None:
        sizes += (symbols.codebook_size,) * symbols.num_codebooks
    wiring |= {
        "target_dim": quantizer.dim,
        "num_codebooks": len(sizes),
        "codebook_size": max(sizes, default=0),
        "codebook_sizes": sizes if len(set(sizes)) > 1 else None,
    }
    objectives = {name: construct(slot, "objective", wiring) for name, slot in config.objectives.items()}
    norm = None
    if config.encoder.feature_norm == "layer":
        norm = nn.LayerNorm(feature_encoder.dim, elementwise_affine=False)
    model = PretrainingModel(
        feature_encoder,
        masking,
        quantizer,
        encoder,
        objectives,
        dim,
        norm,
        _input_norm(config, spec),
        symbols=symbols,
        mask_input=mask_input,
        codebook_size=wiring["codebook_size"],
    )
    if mask_input and "observed" not in model.extra_inputs:
        raise UserError(
            f"mask_at=input: {type(feature_encoder).__name__} does not read `observed`, so nothing can be "
            "hidden from it; use mask_at=features, or a feature encoder that does (token, patch)."
        )
    return model


def resolve_target(config: RunConfig, spec: SampleSpec) -> tuple[str, bool]:
    """`target`, and whether masks come before the feature encoder; auto looks at whether inputs are ids."""
    discrete = spec.vocab_size is not None
    target = config.target if config.target != "auto" else "identity" if discrete else "latent"
    if target != "latent" and not discrete:
        raise UserError(f"target={target} needs inputs that are ids; this modality has {spec.dtype} values.")
    mask_at = config.mask_at if config.mask_at != "auto" else "input" if discrete else "features"
    return target, mask_at == "input"


def _symbol_codes(spec: SampleSpec, feature_encoder: Any) -> SymbolCodes:
    """How the ids of a frame are codes."""
    stride = tiles(feature_encoder)
    if stride is None:
        raise UserError(
            f"the frames of {type(feature_encoder).__name__} overlap, so that a frame has no ids of its own: "
            "use target=latent, or one with output_lengths(t) = ceil(t / stride) (token, patch)."
        )
    assert spec.vocab_size is not None  # resolve_target has seen to it
    last = spec.vocab_size - 1
    return SymbolCodes(last if spec.missing_id == last else spec.vocab_size, stride, spec.channels or 1)


def _input_norm(config: RunConfig, spec: SampleSpec) -> nn.Module | None:
    if config.input_norm == "none":
        return None
    if spec.vocab_size is not None:
        raise UserError(f"input_norm={config.input_norm}: ids cannot be scaled; use input_norm=none.")
    return ChannelNorm(spec.channels or 1) if config.input_norm == "channel" else InstanceNorm()


def build_feature_encoder(config: RunConfig) -> Any:
    """The slot's feature encoder where the recipe names one, else the adapter's own."""
    adapter = build_adapter(config)
    if config.feature_encoder is None:
        return adapter.feature_encoder(config.encoder.dim)
    spec = adapter.spec
    wiring = {"channels": spec.channels, "vocab_size": spec.vocab_size, "num_bins": spec.channels}
    if spec.vocab_size is None:
        wiring["channels"] = spec.channels or 1
    return construct(config.feature_encoder, "feature_encoder", wiring)


def build_encoder(config: EncoderConfig, mixer: Slot, checkpoint_activations: bool) -> ContextEncoder:
    """The stack of blocks, each with a mixer of its own."""

    def block() -> nn.Module:
        mixing = construct(mixer, "mixer", {"dim": config.dim})
        if config.block == "transformer":
            return TransformerBlock(mixing, dim=config.dim, ffn_dim=config.ffn_dim, dropout=config.dropout)
        return ConformerBlock(
            mixing,
            dim=config.dim,
            ffn_dim=config.ffn_dim,
            conv_kernel=config.conv_kernel,
            conv_norm=config.conv_norm,
            dropout=config.dropout,
        )

    position = None
    if config.position == "conv":
        position = ConvPosition(config.dim, kernel=config.position_kernel, groups=config.position_groups)
    return ContextEncoder(
        [block() for _ in range(config.num_layers)],
        position,
        taps=config.taps,
        stochastic_depth=config.stochastic_depth,
        checkpoint_activations=checkpoint_activations,
    )


def assemble(config: RunConfig, device: str = "cpu") -> PretrainingModel | JointModel:
    """The model of a run, of one kind of data or several."""
    return build_joint_model(config, device) if config.streams else build_model(config, device)


def model_of(model: PretrainingModel | JointModel, stream: str) -> PretrainingModel:
    """The model of one kind of data."""
    return model.of(stream) if isinstance(model, JointModel) else model


def set_scaling(model: PretrainingModel, statistics: Mapping[str, Sequence[float]] | None) -> None:
    """Hand the training data's statistics to a model that scales by them."""
    if isinstance(model.input_norm, ChannelNorm) and statistics is not None:
        model.input_norm.set(statistics["mean"], statistics["std"])


def length(config: DataConfig, name: str, spec: SampleSpec) -> int | None:
    """`data.<name>_seconds` or `data.<name>_frames` in input steps."""
    seconds, frames = getattr(config, f"{name}_seconds"), getattr(config, f"{name}_frames")
    if seconds is None:
        return None if frames is None else int(frames)
    if spec.rate_hz is None:
        raise UserError(
            f"data.{name}_seconds: this modality has no rate; use data.{name}_frames (input steps)."
        )
    return int(seconds * spec.rate_hz)


def batching(config: DataConfig, spec: SampleSpec) -> dict[str, Any]:
    """How rows become batches, in input steps."""
    return {
        "batch_length": length(config, "batch", spec),
        "max_length": length(config, "max", spec),
        "join_length": length(config, "join", spec),
    }
