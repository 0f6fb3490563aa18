"""Models of transformers that pre-train as a recipe does: what the speed of a step is compared with."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from seqssl.config.schema import RunConfig
from seqssl.data.adapters import SampleSpec
from seqssl.interop.hugging_face import library
from seqssl.interop.twins import refuse, twin_of
from seqssl.model.types import Batch, MaskedFrames

ABLE = ("Wav2Vec2Model", "Wav2Vec2ConformerModel")  # of which the library has the losses, too
DEFAULT = ("speech_wav2vec2", "size=small")  # what is compared where no recipe is named


def peer_of(config: RunConfig, spec: SampleSpec) -> nn.Module:
    """The model of transformers that computes what a recipe does, losses included, with fresh weights.

    UserError says what the recipe would have to be to have one.
    """
    twin = twin_of(config, spec)
    losses = {str(slot["target"]) for slot in config.objectives.values()}
    refuse(
        {
            "an encoder whose pre-training transformers has": twin.name in ABLE,
            "quantizer.target=gumbel": (config.quantizer or {}).get("target") == "gumbel",
            "objectives of contrastive, diversity and feature_penalty": {"contrastive", "diversity"}
            <= losses
            <= {"contrastive", "diversity", "feature_penalty"},
            "objectives.contrastive.final_dim=N": bool(
                config.objectives.get("contrastive", {}).get("final_dim")
            ),
            "masking.fill=learned, at the projection": config.mask_at == "projection"
            and config.masking.get("fill") == "learned",
        }
    )
    settings = getattr(library(), twin.name.replace("Model", "Config"))
    model: nn.Module = getattr(library(), twin.name.replace("Model", "ForPreTraining"))(
        settings(**twin.values, **_of_losses(config))
    )
    return model


def _of_losses(config: RunConfig) -> Mapping[str, Any]:
    """The settings of their quantizer and losses."""
    quantizer, contrastive = config.quantizer or {}, config.objectives["contrastive"]
    return {
        "num_codevector_groups": quantizer.get("num_codebooks", 1),
        "num_codevectors_per_group": quantizer["codebook_size"],
        "codevector_dim": quantizer["dim"],
        "proj_codevector_dim": contrastive["final_dim"],
        "num_negatives": contrastive["num_negatives"],
        "contrastive_logits_temperature": contrastive["temperature"],
        "diversity_loss_weight": config.objectives["diversity"]["weight"],
        "feat_quantizer_dropout": 0.0,
    }


def peer_loss(peer: nn.Module, batch: Batch, frames: MaskedFrames, negatives: Int[Tensor, "b s k"]) -> Tensor:
    """Their loss, a mean over masked frames; `negatives` as `negatives_of` gives them."""
    steps = torch.arange(batch.inputs.shape[1], device=batch.inputs.device)
    output = peer(
        batch.inputs,
        attention_mask=(steps < batch.lengths[:, None]).long(),
        mask_time_indices=frames.mask,
        sampled_negative_indices=negatives,
    )
    loss: Tensor = output.loss / len(frames)
    return loss


def negatives_of(frames: MaskedFrames, number: int, generator: Generator) -> Int[Tensor, "b s k"]:
    """Other masked frames of the same row for each masked frame, as places in the flattened batch."""
    size = frames.mask.shape[1]
    found = torch.zeros(*frames.mask.shape, number, dtype=torch.long)
    for row, mask in enumerate(frames.mask):
        columns = mask.nonzero().squeeze(1)
        others = max(1, len(columns) - 1)
        drawn = torch.randint(others, (len(columns), number), generator=generator)
        drawn += (drawn >= torch.arange(len(columns))[:, None]) & (len(columns) > 1)
        found[row, columns] = columns[drawn] + row * size
    return found


class Given(nn.Module):
    """In the place of a part of a peer: it returns what it was made with, and computes nothing."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, *inputs: object, **settings: object) -> Any:
        """What it was made with."""
        return self.result


def heads_of(peer: nn.Module, context: Float[Tensor, "b s d"], features: Float[Tensor, "b s x"]) -> None:
    """Leave nothing of a peer but its quantizer and losses, which read these frames from now on."""
    frames = library().modeling_outputs.Wav2Vec2BaseModelOutput(context, features)
    setattr(peer, str(peer.base_model_prefix), Given(frames))
