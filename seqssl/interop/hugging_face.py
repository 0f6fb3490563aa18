"""Our encoders as those of Hugging Face transformers, and back: configurations and names of weights."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqssl.config.schema import RunConfig
from seqssl.data.adapters import SampleSpec
from seqssl.errors import UserError
from seqssl.interop.names import Pair, Weights, exported, taken

OWN_HEADS = ("targets.", "objectives.")  # of pre-training; the encoder of another library has none
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Twin:
    """The model of transformers that computes what an encoder of ours does."""

    name: str  # of its class
    values: Values  # of its configuration
    pairs: tuple[Pair, ...]


def both(ours: str, theirs: str, *, bias: bool = True, squeeze: int | None = None) -> list[Pair]:
    """The weight of a layer, and its bias."""
    found = [Pair(f"{ours}.weight", (f"{theirs}.weight",), squeeze)]
    return [*found, Pair(f"{ours}.bias", (f"{theirs}.bias",))] if bias else found


def twin_of(config: RunConfig, spec: SampleSpec) -> Twin:
    """The twin of a run's encoder; UserError says what it would have to be to have one."""
    front, block, position = config.feature_encoder or {}, config.encoder.block, config.encoder.position or {}
    stacked, after = position.get("target") == "stacked_conv", block.get("norm") == "after"
    place = "input" if after else "output"
    wants = {
        "inputs of one channel": spec.vocab_size is None and spec.channels in (None, 1),
        "feature_encoder.target=conv1d": front.get("target") == "conv1d",
        "feature_encoder.mark_missing=false": not front.get("mark_missing", False),
        "encoder.feature_norm={target: layer, affine: true}": (config.encoder.feature_norm or {}).get(
            "affine"
        ),
        "encoder.block.target=transformer": block.get("target") == "transformer",
        "encoder.block.activation=gelu": block.get("activation") == "gelu",
        "encoder.position.target=conv": stacked or position.get("target") == "conv",
        "mixer.position=none": config.mixer.get("position", "none") == "none",
        f"encoder.norm={place}": config.encoder.norm == place,
        "context=features": config.context == "features",
    }
    if stacked:
        wants["encoder.block.norm=after"] = after
        wants["feature_encoder.norm=layer"] = front.get("norm", "layer") == "layer"
    absent = [want for want, holds in wants.items() if not holds]
    if absent:
        raise UserError(f"transformers has no such encoder: it would have to be {', '.join(absent)}.")
    clusters = str((config.targets or {}).get("target", "")).endswith("clusters")
    name = "Data2VecAudioModel" if stacked else "HubertModel" if clusters else "Wav2Vec2Model"
    return Twin(name, _values(config, stacked), tuple(_pairs(config, stacked)))


def _values(config: RunConfig, stacked: bool) -> dict[str, Any]:
    """The settings of Wav2Vec2Config, and of those that share its encoder."""
    front, block, position = config.feature_encoder or {}, config.encoder.block, config.encoder.position or {}
    kernels, strides = front.get("kernels", ()), front.get("strides", ())
    assert isinstance(kernels, list | tuple) and isinstance(strides, list | tuple)
    dropout, inner = block.get("dropout", 0.0), block.get("inner_dropout")
    masking, dim = config.masking, config.encoder.dim
    kernel, groups = position.get("kernel"), position.get("groups")
    if stacked:
        own = {"num_conv_pos_embeddings": position.get("layers"), "conv_pos_kernel_size": kernel}
    else:
        own = {
            "num_conv_pos_embeddings": kernel,
            "feat_extract_norm": front.get("norm", "layer"),
            "do_stable_layer_norm": block.get("norm") != "after",
            "feat_proj_layer_norm": True,
        }
    return {
        **own,
        "hidden_size": dim,
        "num_hidden_layers": config.encoder.num_layers,
        "num_attention_heads": config.mixer.get("num_heads", 8),
        "intermediate_size": block.get("ffn_dim") or 4 * dim,
        "hidden_act": "gelu",
        "hidden_dropout": dropout,
        "activation_dropout": dropout if inner is None else inner,
        "attention_dropout": config.mixer.get("dropout", 0.0),
        "feat_proj_dropout": config.encoder.input_dropout,
        "layerdrop": 0.0,
        "feat_extract_activation": "gelu",
        "conv_dim": [front.get("dim", 512)] * len(kernels),
        "conv_kernel": list(kernels),
        "conv_stride": list(strides),
        "num_feat_extract_layers": len(kernels),
        "conv_bias": bool(front.get("bias", True)),
        "num_conv_pos_embedding_groups": groups,
        # In training alone. Without it their model has no place for the vector of masked frames.
        "mask_time_prob": 0.05 if _has_mask_vector(config) else 0.0,
        "mask_time_length": masking.get("span", 10),
        "mask_feature_prob": 0.0,
    }


def _pairs(config: RunConfig, stacked: bool) -> list[Pair]:
    """Every weight of the encoder by both names, from the input up; `stacked`: data2vec's positions."""
    front, after = config.feature_encoder or {}, config.encoder.block.get("norm") == "after"
    kernels = front.get("kernels", ())
    assert isinstance(kernels, list | tuple)
    pairs: list[Pair] = []
    for layer in range(len(kernels)):
        theirs = f"feature_extractor.conv_layers.{layer}"
        pairs += both(f"feature_encoder.convs.{layer}", f"{theirs}.conv", bias=bool(front.get("bias", True)))
        if layer == 0 or front.get("norm", "layer") == "layer":
            pairs += both(f"feature_encoder.norms.{layer}", f"{theirs}.layer_norm")
    pairs += both("feature_norm", "feature_projection.layer_norm")
    pairs += both("input_projection", "feature_projection.projection")
    if _has_mask_vector(config):
        pairs.append(Pair("masking.vector", ("masked_spec_embed",)))
    if stacked:
        layers = (config.encoder.position or {}).get("layers", 0)
        assert isinstance(layers, int)
        for layer in range(layers):
            pairs += both(f"encoder.position.convs.{layer}", f"encoder.pos_conv_embed.layers.{layer}.conv")
    else:
        for name in ("bias", "parametrizations.weight.original0", "parametrizations.weight.original1"):
            pairs.append(Pair(f"encoder.position.conv.{name}", (f"encoder.pos_conv_embed.conv.{name}",)))
    pairs += both("encoder.norm", "encoder.layer_norm")
    for layer in range(config.encoder.num_layers):
        ours, theirs = f"encoder.blocks.{layer}", f"encoder.layers.{layer}"
        for part in ("weight", "bias"):
            three = tuple(f"{theirs}.attention.{name}_proj.{part}" for name in ("q", "k", "v"))
            pairs.append(Pair(f"{ours}.mixer.query_key_value.{part}", three))
        pairs += both(f"{ours}.mixer.output", f"{theirs}.attention.out_proj")
        pairs += both(f"{ours}.mixer_norm", f"{theirs}.layer_norm")
        pairs += both(f"{ours}.feed_forward.1", f"{theirs}.feed_forward.intermediate_dense")
        pairs += both(f"{ours}.feed_forward.4", f"{theirs}.feed_forward.output_dense")
        last = f"{ours}.norm" if after else f"{ours}.feed_forward.0"
        pairs += both(last, f"{theirs}.final_layer_norm")
    return pairs


def _has_mask_vector(config: RunConfig) -> bool:
    return config.mask_at == "projection" and config.masking.get("fill") == "learned"


def is_head(name: str) -> bool:
    """Whether one of our weights belongs to pre-training, not to the encoder."""
    return name.startswith(OWN_HEADS)


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"{error}: pip install 'seqssl[hf]'.") from error
    return transformers


def export_folder(twin: Twin, ours: Weights, spec: SampleSpec, folder: Path) -> None:
    """Write the weights of an encoder of ours as a folder that transformers opens."""
    library = _library()
    config = getattr(library, twin.name.replace("Model", "Config"))(**twin.values)
    model = getattr(library, twin.name)(config).eval()
    model.load_state_dict(exported(twin.pairs, ours, ignore=is_head))
    model.save_pretrained(folder)
    library.Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=int(spec.rate_hz or 1), do_normalize=True,
        return_attention_mask=twin.values.get("feat_extract_norm") != "group",
    ).save_pretrained(folder)  # fmt: skip


def read_folder(folder: Path) -> Callable[[Float[np.ndarray, "t"]], Float[np.ndarray, "s d"]]:
    """What transformers makes of a folder: a function from a row of samples to the last layer's frames."""
    library = _library()
    model = library.AutoModel.from_pretrained(folder).eval()
    extract = library.AutoFeatureExtractor.from_pretrained(folder)

    @torch.no_grad()
    def run(row: Float[np.ndarray, "t"]) -> Float[np.ndarray, "s d"]:
        inputs = extract(row.reshape(-1), sampling_rate=extract.sampling_rate, return_tensors="pt")
        found: np.ndarray = model(inputs.input_values).last_hidden_state[0].numpy()
        return found

    return run


def weights_from(folder: Path, config: RunConfig, spec: SampleSpec) -> dict[str, Tensor]:
    """The weights of a folder of transformers under our names; UserError where its encoder is another one."""
    from safetensors.torch import load_file

    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        theirs = load_file(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise UserError(
            f"init = hf:{folder}: it cannot be read as a model of transformers: {error}"
        ) from error
    twin = twin_of(config, spec)
    free = {"mask_time_prob", "mask_time_length", "mask_feature_prob", "layerdrop", "feat_proj_layer_norm"}
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
    return taken(twin.pairs, own, ignore=lambda name: name.split(".")[0] not in PARTS)


PREFIXES = ("wav2vec2.", "hubert.", "data2vec_audio.")  # of the encoder, in models with heads
PARTS = ("feature_extractor", "feature_projection", "masked_spec_embed", "encoder")


def _renamed(name: str) -> str:
    """Today's names of weight norm; older folders have those of torch 1."""
    return name.replace("conv.weight_g", "conv.parametrizations.weight.original0").replace(
        "conv.weight_v", "conv.parametrizations.weight.original1"
    )
