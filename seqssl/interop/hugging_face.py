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
from seqssl.interop.twins import UNREAD, VECTOR, Twin, twin_of

OWN_HEADS = ("targets.", "objectives.")  # of pre-training; the encoder of another library has none
# Settings of theirs that do not change what an encoder computes of a row.
FREE = {"mask_time_prob", "mask_time_length", "mask_feature_prob", "layerdrop", "feat_proj_layer_norm"}
FREE |= {"return_attention_mask"}
KEYS = {  # what decides here what a setting of theirs says
    "hidden_size": "encoder.dim",
    "num_hidden_layers": "encoder.num_layers",
    "intermediate_size": "encoder.block.ffn_dim",
    "do_stable_layer_norm": "encoder.block.norm",
    "hidden_act": "encoder.block.activation",
    "conv_depthwise_kernel_size": "encoder.block.conv_kernel",
    "num_attention_heads": "mixer.num_heads",
    "position_embeddings_type": "mixer.position",
    "left_max_position_embeddings": "mixer.max_left",
    "right_max_position_embeddings": "mixer.max_right",
    "num_conv_pos_embeddings": "encoder.position",
    "num_conv_pos_embedding_groups": "encoder.position.groups",
    "conv_pos_kernel_size": "encoder.position.kernel",
    "conv_dim": "feature_encoder.dim",
    "conv_kernel": "feature_encoder.kernels",
    "conv_stride": "feature_encoder.strides",
    "conv_bias": "feature_encoder.bias",
    "feat_extract_norm": "feature_encoder.norm",
    "feat_extract_activation": "feature_encoder.activation",
    "do_normalize": "input_norm",
    "sampling_rate": "the modality's rate",
}


def is_head(name: str) -> bool:
    """Whether one of our weights belongs to pre-training, not to the encoder."""
    return name.startswith(OWN_HEADS)


def is_idle(name: str, config: RunConfig) -> bool:
    """Whether the encoder of a run does without a weight: a head, but for codes that the encoder reads."""
    return is_head(name) and not (config.context == "quantized" and name.startswith("targets."))


def library() -> Any:
    """The package transformers; UserError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"{error}: pip install 'seqssl[hf]'.") from error
    return transformers


def export_folder(twin: Twin, ours: Weights, folder: Path) -> None:
    """Write the weights of an encoder of ours as a folder that transformers opens."""
    transformers = library()
    config = getattr(transformers, twin.name.replace("Model", "Config"))(**twin.values)
    model = getattr(transformers, twin.name)(config).eval()
    fill(model, twin, ours)
    model.save_pretrained(folder)
    bands = twin.name == "Wav2Vec2BertModel"
    kind = transformers.SeamlessM4TFeatureExtractor if bands else transformers.Wav2Vec2FeatureExtractor
    kind(**twin.extractor).save_pretrained(folder)


def fill(model: nn.Module, twin: Twin, ours: Weights) -> None:
    """Copy our weights into the twin; UserError where either has one that the other has no place for."""
    weights = exported(twin.pairs, ours, ignore=lambda name: is_head(name) or name == VECTOR.ours)
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
    try:
        return _weights_from(folder, config, spec)
    except UserError as error:
        raise UserError(f"init = hf:{folder}: {error}") from error


def _weights_from(folder: Path, config: RunConfig, spec: SampleSpec) -> dict[str, Tensor]:
    values, theirs = _read(folder)
    twin = twin_of(config, spec)
    free = FREE | {*UNREAD} if twin.spare else FREE
    if spec.rate_hz is None:
        free = free | {"sampling_rate"}
    differing = [
        f"{name} {values[name]} there, {wanted} here" + (f" ({KEYS[name]})" if name in KEYS else "")
        for name, wanted in {**twin.values, **twin.extractor}.items()
        if name in values and values[name] != wanted and "dropout" not in name and name not in free
    ]
    if differing:
        raise UserError(f"its encoder is another one: {'; '.join(differing)}.")
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in theirs)), "")
    own = {name.removeprefix(prefix): x for name, x in theirs.items() if name.startswith(prefix)}
    own = {_renamed(name): x for name, x in own.items()}
    # The vector of masked frames belongs to pre-training: models that were tuned have none.
    pairs = [pair for pair in twin.pairs if pair != VECTOR or pair.theirs[0] in own]
    return taken(pairs, own, ignore=lambda name: not name.startswith(PARTS) or twin.has_no_use_for(name))


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and weights of a folder of transformers; UserError where it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not folder.is_dir():
        raise UserError("it must be a folder on this machine; download it first.")
    if not (whole.is_file() or index.is_file()):
        writes = "AutoModel.from_pretrained(NAME).save_pretrained(FOLDER) writes one"
        raise UserError(f"it holds no {whole.name}: {writes}.")
    values: dict[str, Any] = {}
    try:
        for path in (folder / "preprocessor_config.json", folder / "config.json"):
            if path.name == "config.json" or path.is_file():  # of a feature extractor there may be none
                values |= json.loads(path.read_text(encoding="utf-8"))
        files = {whole.name}
        if index.is_file():  # a large model is in several files
            files = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        weights = {name: x for file in sorted(files) for name, x in load_file(folder / file).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"it cannot be read as a model of transformers: {error}") from error
    return values, weights


PREFIXES = (
    "wav2vec2.",
    "hubert.",
    "data2vec_audio.",
    "wav2vec2_conformer.",
    "wav2vec2_bert.",
)  # of the encoder, in models with heads
PARTS = ("feature_extractor.", "feature_projection.", "encoder.")


def _renamed(name: str) -> str:
    """Today's names of weight norm; older folders have those of torch 1."""
    return name.replace("conv.weight_g", "conv.parametrizations.weight.original0").replace(
        "conv.weight_v", "conv.parametrizations.weight.original1"
    )
