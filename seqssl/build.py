"""The one place where parts meet: a configuration becomes an adapter, a model, a task."""

from typing import Any

import torch
from torch import nn

from seqssl.components import construct
from seqssl.config import EncoderConfig, RunConfig, Slot
from seqssl.model.encoder import ConformerBlock, ContextEncoder, TransformerBlock
from seqssl.model.layers import ConvPosition
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import ModalityAdapter


def build_adapter(config: RunConfig) -> ModalityAdapter:
    """The modality's adapter."""
    adapter: ModalityAdapter = construct(config.modality, "modality", {})
    return adapter


def build_model(config: RunConfig, device: torch.device | str = "cpu") -> PretrainingModel:
    """The model with initial weights drawn from `config.seed`; on "meta" it has shapes and no weights.

    The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(config.seed)
        return _assemble(config)


def _assemble(config: RunConfig) -> PretrainingModel:
    dim = config.encoder.dim
    feature_encoder = build_feature_encoder(config)
    wiring: dict[str, Any] = {"input_dim": feature_encoder.dim, "context_dim": dim}
    masking = construct(config.masking, "masking", wiring)
    quantizer = construct(config.quantizer, "quantizer", wiring)
    wiring |= {
        "target_dim": quantizer.dim,
        "num_codebooks": quantizer.num_codebooks,
        "codebook_size": quantizer.codebook_size,
    }
    encoder = build_encoder(config.encoder, config.mixer, config.train.checkpoint_activations)
    objectives = {name: construct(slot, "objective", wiring) for name, slot in config.objectives.items()}
    norm = None
    if config.encoder.feature_norm == "layer":
        norm = nn.LayerNorm(feature_encoder.dim, elementwise_affine=False)
    return PretrainingModel(feature_encoder, masking, quantizer, encoder, objectives, dim, norm)


def build_feature_encoder(config: RunConfig) -> Any:
    """The slot's feature encoder where the recipe names one, else the adapter's own."""
    adapter = build_adapter(config)
    if config.feature_encoder is None:
        return adapter.feature_encoder(config.encoder.dim)
    return construct(config.feature_encoder, "feature_encoder", {"channels": adapter.spec.channels or 1})


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
