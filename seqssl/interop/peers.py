"""Models of transformers that pre-train as a recipe does: what the speed of a step is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from seqssl.config.schema import RunConfig, Slot
from seqssl.data.adapters import SampleSpec
from seqssl.interop.hugging_face import library
from seqssl.interop.twins import ends_at_the_top, refuse, twin_of
from seqssl.model.types import Batch, MaskedFrames, length_mask

ABLE = ("Wav2Vec2Model", "Wav2Vec2ConformerModel")  # of which there is one with a quantizer and losses
DEFAULT = ("speech_wav2vec2", "size=small")  # what is compared where no recipe is named


@dataclass(frozen=True)
class Peer:
    """The model of transformers that computes what a recipe does, losses included."""

    name: str  # of its class
    values: Mapping[str, Any]  # of its configuration

    def load(self) -> tuple[Any, Any]:
        """The classes of its configuration and of itself, with all that they import."""
        return getattr(library(), self.name.replace("ForPreTraining", "Config")), getattr(
            library(), self.name
        )

    def build(self) -> Any:
        """The model, with fresh weights."""
        settings, kind = self.load()
        return kind(settings(**self.values))


def peer_of(config: RunConfig, spec: SampleSpec) -> Peer:
    """The peer of a recipe; UserError says what the recipe would have to be to have one.

    One difference is allowed: a recipe may scale its inputs in the step, which they leave to their feature
    extractor.
    """
    twin = twin_of(config, spec)
    found = _by_target(config)
    quantizer, contrastive = config.quantizer or {}, found.get("contrastive", {})
    wants = {
        "an encoder of theirs that has losses": twin.name in ABLE,
        "quantizer.target=gumbel": quantizer.get("target") == "gumbel",
        "quantizer.revive=0": not quantizer.get("revive"),
        "quantizer_norm=none": config.quantizer_norm == "none",
        "targets=learned": (config.targets or {}).get("target", "learned") == "learned",
        "objectives of contrastive, diversity and at most feature_penalty": {"contrastive", "diversity"}
        <= {*found}
        <= {"contrastive", "diversity", "feature_penalty"},
        "a contrastive objective with a final_dim": bool(contrastive.get("final_dim")),
        "mask_at=projection": config.mask_at == "projection",
        "masking.fill=learned": config.masking.get("fill") == "learned",
        **ends_at_the_top(config),
        "train.checkpoint_activations=false": not config.train.checkpoint_activations,
    }
    refuse(wants, "pre-training")
    return Peer(twin.name.replace("Model", "ForPreTraining"), {**twin.values, **_of_losses(config)})


def _by_target(config: RunConfig) -> dict[str, Slot]:
    """The objectives by what they are; a recipe may call them anything."""
    return {str(slot["target"]): slot for slot in config.objectives.values()}


def _of_losses(config: RunConfig) -> dict[str, Any]:
    """The settings of their quantizer and losses."""
    quantizer, found = config.quantizer or {}, _by_target(config)
    contrastive = found["contrastive"]
    return {
        "num_codevector_groups": quantizer.get("num_codebooks", 1),
        "num_codevectors_per_group": quantizer["codebook_size"],
        "codevector_dim": quantizer["dim"],
        "proj_codevector_dim": contrastive["final_dim"],
        "num_negatives": contrastive["num_negatives"],
        "contrastive_logits_temperature": contrastive["temperature"],
        "diversity_loss_weight": found["diversity"]["weight"],
        "feat_quantizer_dropout": 0.0,
    }


def peer_loss(peer: Any, batch: Batch, frames: MaskedFrames, negatives: Int[Tensor, "b s k"]) -> Tensor:
    """Their loss, a mean over masked frames; `negatives` as `negatives_of` gives them."""
    # As their feature extractor has it: a model with group norm is given padding as zeros, and no mask.
    masked = peer.config.feat_extract_norm != "group"
    present = length_mask(batch.lengths, batch.inputs.shape[1]).long()
    output = peer(
        batch.inputs.flatten(1),
        attention_mask=present if masked else None,
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


def heads_of(peer: Any, context: Float[Tensor, "b s d"], features: Float[Tensor, "b s x"]) -> None:
    """Leave nothing of a peer but its quantizer and losses, which read these frames from now on."""
    frames = library().modeling_outputs.Wav2Vec2BaseModelOutput(context, features)
    setattr(peer, str(peer.base_model_prefix), Given(frames))
