"""Folders of Hugging Face transformers: our encoders written as theirs, and theirs read as ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqssl.config.schema import RunConfig
from seqssl.data.adapters import SampleSpec
from seqssl.errors import UserError
from seqssl.interop.names import Weights, exported, taken
from seqssl.interop.twins import UNREAD, Twin, twin_of

OWN_HEADS = ("targets.", "objectives.")  # of pre-training; the encoder of another library has none


def is_head(name: str) -> bool:
    """Whether one of our weights belongs to pre-training, not to the encoder."""
    return name.startswith(OWN_HEADS)


def library() -> Any:
    """The package transformers; UserError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"{error}: pip install 'seqssl[hf]'.") from error
    return transformers


def export_folder(twin: Twin, ours: Weights, spec: SampleSpec, folder: Path) -> None:
    """Write the weights of an encoder of ours as a folder that transformers opens."""
    transformers = library()
    config = getattr(transformers, twin.name.replace("Model", "Config"))(**twin.values)
    model = getattr(transformers, twin.name)(config).eval()
    fill(model, twin, ours)
    model.save_pretrained(folder)
    if twin.name == "Wav2Vec2BertModel":
        transformers.SeamlessM4TFeatureExtractor(
            sampling_rate=int(spec.rate_hz or 1), stride=twin.values["feature_projection_input_dim"] // 80
        ).save_pretrained(folder)
        return
    transformers.Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=int(spec.rate_hz or 1), do_normalize=True,
        return_attention_mask=twin.values.get("feat_extract_norm") != "group",
    ).save_pretrained(folder)  # fmt: skip


def fill(model: nn.Module, twin: Twin, ours: Weights) -> None:
    """Copy our weights into the twin; UserError where either has one that the other has no place for."""
    weights = exported(twin.pairs, ours, ignore=is_head)
    missing, unknown = model.load_state_dict(weights, strict=False)
    without = [name for name in missing if not twin.has_no_use_for(name)]
    if without or unknown:
        raise UserError(f"this release of transformers has another {twin.name}: {without + unknown}.")


def read_folder(folder: Path) -> Callable[[Float[np.ndarray, "t"]], Float[np.ndarray, "s d"]]:
    """What transformers makes of a folder: a function from a row of samples to the last layer's frames."""
    transformers = library()
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extract = transformers.AutoFeatureExtractor.from_pretrained(folder)

    @torch.no_grad()
    def run(row: Float[np.ndarray, "t"]) -> Float[np.ndarray, "s d"]:
        inputs = extract(row.reshape(-1), sampling_rate=extract.sampling_rate, return_tensors="pt")
        if model.main_input_name != "input_features":
            found: np.ndarray = model(inputs.input_values).last_hidden_state[0].numpy()
            return found
        valid = inputs.attention_mask  # a last frame that its windows do not fill is padding
        frames = model(inputs.input_features, attention_mask=valid).last_hidden_state[0]
        own: np.ndarray = frames[valid[0].bool()].numpy()
        return own

    return run


def weights_from(folder: Path, config: RunConfig, spec: SampleSpec) -> dict[str, Tensor]:
    """The weights of a folder of transformers under our names; UserError where its encoder is another one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        theirs = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"init = hf:{folder}: it cannot be read as a model of transformers: {error}"
        ) from error
    twin = twin_of(config, spec)
    free = {"mask_time_prob", "mask_time_length", "mask_feature_prob", "layerdrop", "feat_proj_layer_norm"}
    free |= {*UNREAD} if twin.spare else set()
    differing = [
        f"{name} {values[name]} there, {wanted} here"
        for name, wanted in twin.values.items()
        if name in values and values[name] != wanted and "dropout" not in name and name not in free
    ]
    if differing:
        raise UserError(f"init = hf:{folder}: its encoder is another one: {'; '.join(differing)}.")
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in theirs)), "")
    own = {name.removeprefix(prefix): x for name, x in theirs.items() if name.startswith(prefix)}
    own = {_renamed(name): x for name, x in own.items()}
    return taken(
        twin.pairs, own, ignore=lambda name: name.split(".")[0] not in PARTS or twin.has_no_use_for(name)
    )


PREFIXES = (
    "wav2vec2.",
    "hubert.",
    "data2vec_audio.",
    "wav2vec2_conformer.",
    "wav2vec2_bert.",
)  # of the encoder, in models with heads
PARTS = ("feature_extractor", "feature_projection", "masked_spec_embed", "encoder")


def _renamed(name: str) -> str:
    """Today's names of weight norm; older folders have those of torch 1."""
    return name.replace("conv.weight_g", "conv.parametrizations.weight.original0").replace(
        "conv.weight_v", "conv.parametrizations.weight.original1"
    )
