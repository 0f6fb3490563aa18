"""The model of transformers that computes what an encoder of ours does: its class, settings and names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqssl.config.schema import RunConfig
from seqssl.data.adapters import SampleSpec
from seqssl.errors import UserError
from seqssl.interop.names import Pair

Values = Mapping[str, Any]
# Of positions by convolution, which their conformer makes and never calls.
UNREAD = ("num_conv_pos_embeddings", "num_conv_pos_embedding_groups")
VECTOR = Pair("masking.vector", ("masked_spec_embed",))  # of masked frames; pre-training alone reads it
BANDS_RATE = 16_000  # of the windows and filters that their extractor of bands has


@dataclass(frozen=True)
class Twin:
    """The model of transformers that computes what an encoder of ours does."""

    name: str  # of its class
    values: Values  # of its configuration
    pairs: tuple[Pair, ...]
    extractor: Values  # of the configuration of its feature extractor
    spare: tuple[str, ...] = ()  # parts of the names of weights of theirs that nothing reads
    slack: float = 1.0  # its outputs may be so many times as far from ours as those of others

    def has_no_use_for(self, name: str) -> bool:
        """Whether a weight of theirs is there and nothing reads it."""
        return any(part in name for part in self.spare)


def both(ours: str, theirs: str, *, bias: bool = True, squeeze: int | None = None) -> list[Pair]:
    """The weight of a layer, and its bias."""
    found = [Pair(f"{ours}.weight", (f"{theirs}.weight",), squeeze)]
    return [*found, Pair(f"{ours}.bias", (f"{theirs}.bias",))] if bias else found


def twin_of(config: RunConfig, spec: SampleSpec) -> Twin:
    """The twin of a run's encoder; UserError says what it would have to be to have one."""
    if config.encoder.block.get("target") == "conformer":
        return _conformer(config, spec)
    return _transformer(config, spec)


def refuse(wants: Mapping[str, object], what: str = "encoder") -> None:
    """UserError that names what does not hold; `what` transformers has no such thing of."""
    absent = [want for want, holds in wants.items() if not holds]
    if absent:
        raise UserError(f"transformers has no such {what}: it would have to be {', '.join(absent)}.")


def ends_at_the_top(config: RunConfig) -> dict[str, object]:
    """What one wants whose output is compared: blocks above the highest tap are not run."""
    top = max(config.encoder.taps.values())
    return {"its highest tap at its last layer": top == config.encoder.num_layers}


def _common(config: RunConfig, spec: SampleSpec) -> dict[str, object]:
    """What every twin wants."""
    return {
        "inputs of one channel": spec.vocab_size is None and spec.channels in (None, 1),
        "encoder.feature_norm={target: layer, affine: true}": (config.encoder.feature_norm or {}).get(
            "affine"
        ),
        "context=features": config.context == "features",
        "mixer.target=attention": config.mixer.get("target") == "attention",
        "mixer.causal=false": not config.mixer.get("causal", False),
        "input_norm=instance or none": (config.input_norm or {}).get("target") in (None, "instance"),
        "inputs of a whole number of steps a second": float(spec.rate_hz or 1).is_integer(),
    }


def _samples(config: RunConfig) -> dict[str, object]:
    """What one wants whose feature encoder reads samples."""
    front = config.feature_encoder or {}
    return {
        "feature_encoder.target=conv1d": front.get("target") == "conv1d",
        "feature_encoder.mark_missing=false": not front.get("mark_missing", False),
        "feature_encoder.norm=group or layer": front.get("norm", "layer") in ("group", "layer"),
        "feature_encoder.activation=gelu": front.get("activation", "gelu") == "gelu",
    }


def _extractor(config: RunConfig, spec: SampleSpec) -> dict[str, Any]:
    """The settings of Wav2Vec2FeatureExtractor; a model with group norm is given no mask."""
    return {
        "feature_size": 1,
        "sampling_rate": int(spec.rate_hz or 1),
        "do_normalize": config.input_norm is not None,
        "return_attention_mask": (config.feature_encoder or {}).get("norm", "layer") != "group",
    }


def _transformer(config: RunConfig, spec: SampleSpec) -> Twin:
    """Wav2Vec2Model, HubertModel or Data2VecAudioModel."""
    front, block, position = config.feature_encoder or {}, config.encoder.block, config.encoder.position or {}
    stacked, after = position.get("target") == "stacked_conv", block.get("norm") == "after"
    place = "input" if after else "output"
    wants = {
        **_common(config, spec),
        **_samples(config),
        "encoder.block.target=transformer": block.get("target") == "transformer",
        "encoder.block.activation=gelu": block.get("activation") == "gelu",
        "encoder.position.target=conv": stacked or position.get("target") == "conv",
        "mixer.position=none": config.mixer.get("position", "none") == "none",
        f"encoder.norm={place}": config.encoder.norm == place,
    }
    if stacked:
        wants["encoder.block.norm=after"] = after
        wants["feature_encoder.norm=layer"] = front.get("norm", "layer") == "layer"
    refuse(wants)
    clusters = (config.targets or {}).get("target") in ("clusters", "teacher_clusters")
    name = "Data2VecAudioModel" if stacked else "HubertModel" if clusters else "Wav2Vec2Model"
    return Twin(name, _values(config, stacked), tuple(_pairs(config, stacked)), _extractor(config, spec))


def _values(config: RunConfig, stacked: bool) -> dict[str, Any]:
    """The settings of Wav2Vec2Config, and of those that share its encoder."""
    front, block, position = config.feature_encoder or {}, config.encoder.block, config.encoder.position or {}
    dropout, inner = block.get("dropout", 0.0), block.get("inner_dropout")
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
        **_sizes(config),
        **_convolutions(config),
        "hidden_act": "gelu",
        "hidden_dropout": dropout,
        "activation_dropout": dropout if inner is None else inner,
        "num_conv_pos_embedding_groups": groups,
    }


def _sizes(config: RunConfig) -> dict[str, Any]:
    """The settings that all of their classes have."""
    dim = config.encoder.dim
    return {
        "hidden_size": dim,
        "num_hidden_layers": config.encoder.num_layers,
        "num_attention_heads": config.mixer.get("num_heads", 8),
        "intermediate_size": config.encoder.block.get("ffn_dim") or 4 * dim,
        "attention_dropout": config.mixer.get("dropout", 0.0),
        "feat_proj_dropout": config.encoder.input_dropout,
        "layerdrop": 0.0,
        "layer_norm_eps": 1e-5,
        # In training alone. Without it their model has no place for the vector of masked frames.
        "mask_time_prob": 0.05 if _has_mask_vector(config) else 0.0,
        "mask_time_length": config.masking.get("span", 10),
        "mask_feature_prob": 0.0,
    }


def _convolutions(config: RunConfig) -> dict[str, Any]:
    """The settings of a feature encoder of convolutions over samples."""
    front = config.feature_encoder or {}
    kernels, strides = front.get("kernels", ()), front.get("strides", ())
    assert isinstance(kernels, list | tuple) and isinstance(strides, list | tuple)
    return {
        "feat_extract_activation": "gelu",
        "conv_dim": [front.get("dim", 512)] * len(kernels),
        "conv_kernel": list(kernels),
        "conv_stride": list(strides),
        "num_feat_extract_layers": len(kernels),
        "conv_bias": bool(front.get("bias", True)),
    }


def _pairs(config: RunConfig, stacked: bool) -> list[Pair]:
    """Every weight of the encoder by both names, from the input up; `stacked`: data2vec's positions."""
    after = config.encoder.block.get("norm") == "after"
    pairs = [*_convolution_pairs(config), *_projection_pairs(config)]
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
        pairs += [
            Pair(
                f"{ours}.mixer.query_key_value.{part}",
                tuple(f"{theirs}.attention.{name}_proj.{part}" for name in ("q", "k", "v")),
            )
            for part in ("weight", "bias")
        ]
        pairs += both(f"{ours}.mixer.output", f"{theirs}.attention.out_proj")
        pairs += both(f"{ours}.mixer_norm", f"{theirs}.layer_norm")
        pairs += both(f"{ours}.feed_forward.1", f"{theirs}.feed_forward.intermediate_dense")
        pairs += both(f"{ours}.feed_forward.4", f"{theirs}.feed_forward.output_dense")
        last = f"{ours}.norm" if after else f"{ours}.feed_forward.0"
        pairs += both(last, f"{theirs}.final_layer_norm")
    return pairs


def _convolution_pairs(config: RunConfig) -> list[Pair]:
    """The weights of convolutions over samples."""
    front = config.feature_encoder or {}
    kernels = front.get("kernels", ())
    assert isinstance(kernels, list | tuple)
    pairs: list[Pair] = []
    for layer in range(len(kernels)):
        theirs = f"feature_extractor.conv_layers.{layer}"
        pairs += both(f"feature_encoder.convs.{layer}", f"{theirs}.conv", bias=bool(front.get("bias", True)))
        if layer == 0 or front.get("norm", "layer") == "layer":
            pairs += both(f"feature_encoder.norms.{layer}", f"{theirs}.layer_norm")
    return pairs


def _projection_pairs(config: RunConfig) -> list[Pair]:
    """The weights between the feature encoder and the first layer."""
    pairs = both("feature_norm", "feature_projection.layer_norm")
    pairs += both("input_projection", "feature_projection.projection")
    return [*pairs, VECTOR] if _has_mask_vector(config) else pairs


def _conformer(config: RunConfig, spec: SampleSpec) -> Twin:
    """Wav2Vec2ConformerModel for convolutions over samples, Wav2Vec2BertModel for stacked log-mel bands."""
    front, block = config.feature_encoder or {}, config.encoder.block
    bands = front.get("target") == "stacked_mel"
    position = config.mixer.get("position", "none")
    wants = {
        **_common(config, spec),
        **({} if bands else _samples(config)),
        "encoder.position=none": config.encoder.position is None,
        "mixer.position=none, relative or relative_key": position != "rotary",
        "encoder.block.conv_bias=false": block.get("conv_bias", True) is False,
    }
    if bands:
        wants |= {
            "feature_encoder.num_bins=80": front.get("num_bins", 80) == 80,
            "feature_encoder.stack=2": front.get("stack", 2) == 2,
            f"inputs of {BANDS_RATE} steps a second": spec.rate_hz == BANDS_RATE,
            "encoder.norm=none": config.encoder.norm == "none",
            "encoder.block.conv_norm=layer": block.get("conv_norm", "batch") == "layer",
            "encoder.block.conv_causal=true": block.get("conv_causal", False),
        }
    else:
        wants |= {
            "encoder.norm=output": config.encoder.norm == "output",
            "encoder.block.conv_norm=batch": block.get("conv_norm", "batch") == "batch",
            "encoder.block.conv_causal=false": not block.get("conv_causal", False),
            "mixer.position=none or relative": position in ("none", "relative"),
        }
    refuse(wants)
    dropout = block.get("dropout", 0.0)
    values = {
        **_sizes(config),
        "hidden_act": "swish",
        "hidden_dropout": dropout,
        "activation_dropout": dropout,
        "conformer_conv_dropout": dropout,
        "position_embeddings_type": None if position == "none" else position,
        "conv_depthwise_kernel_size": block.get("conv_kernel", 5),
    }
    pairs = [*_projection_pairs(config)]
    for layer in range(config.encoder.num_layers):
        pairs += _conformer_pairs(f"encoder.blocks.{layer}", f"encoder.layers.{layer}", config, bands)
    if bands:
        values |= {
            "feature_projection_input_dim": 160,
            "left_max_position_embeddings": config.mixer.get("max_left", 64),
            "right_max_position_embeddings": config.mixer.get("max_right", 8),
        }
        extractor = {"sampling_rate": BANDS_RATE, "stride": 2}
        # Its bands agree with ours to 1e-3: logarithms tell little differences of small powers.
        return Twin("Wav2Vec2BertModel", values, tuple(pairs), extractor, slack=10.0)
    values |= {
        **_convolutions(config),
        "feat_extract_norm": front.get("norm", "layer"),
        **dict.fromkeys(UNREAD, 1),
    }
    pairs = [*_convolution_pairs(config), *pairs, *both("encoder.norm", "encoder.layer_norm")]
    unread = ("pos_conv_embed", "num_batches_tracked")  # batches are counted
    return Twin("Wav2Vec2ConformerModel", values, tuple(pairs), _extractor(config, spec), unread)


def _conformer_pairs(ours: str, theirs: str, config: RunConfig, bands: bool) -> list[Pair]:
    """The weights of one block."""
    pairs: list[Pair] = []
    for own, other in (("feed_forward_in", "ffn1"), ("feed_forward_out", "ffn2")):
        pairs += both(f"{ours}.{own}.0", f"{theirs}.{other}_layer_norm")
        pairs += both(f"{ours}.{own}.1", f"{theirs}.{other}.intermediate_dense")
        pairs += both(f"{ours}.{own}.4", f"{theirs}.{other}.output_dense")
    pairs += both(f"{ours}.mixer_norm", f"{theirs}.self_attn_layer_norm")
    pairs += [
        Pair(
            f"{ours}.mixer.query_key_value.{part}",
            tuple(f"{theirs}.self_attn.linear_{name}.{part}" for name in ("q", "k", "v")),
        )
        for part in ("weight", "bias")
    ]
    pairs += both(f"{ours}.mixer.output", f"{theirs}.self_attn.linear_out")
    if config.mixer.get("position") == "relative":
        attention = f"{theirs}.self_attn"
        # Their sines and cosines of a distance take turns; ours lie end to end, as in Transformer-XL.
        pairs.append(
            Pair(f"{ours}.mixer.distance.weight", (f"{attention}.linear_pos.weight",), interleaved=True)
        )
        pairs.append(Pair(f"{ours}.mixer.content_bias", (f"{attention}.pos_bias_u",)))
        pairs.append(Pair(f"{ours}.mixer.distance_bias", (f"{attention}.pos_bias_v",)))
    elif config.mixer.get("position") == "relative_key":
        table = f"{theirs}.self_attn.distance_embedding.weight"
        pairs.append(Pair(f"{ours}.mixer.distances.weight", (table,)))
    pairs += both(f"{ours}.convolution.norm_in", f"{theirs}.conv_module.layer_norm")
    pairs += both(
        f"{ours}.convolution.expand", f"{theirs}.conv_module.pointwise_conv1", bias=False, squeeze=-1
    )
    pairs += both(f"{ours}.convolution.depthwise", f"{theirs}.conv_module.depthwise_conv", bias=False)
    pairs += both(
        f"{ours}.convolution.contract", f"{theirs}.conv_module.pointwise_conv2", bias=False, squeeze=-1
    )
    name = "depthwise_layer_norm" if bands else "batch_norm"
    pairs += both(f"{ours}.convolution.norm", f"{theirs}.conv_module.{name}")
    if not bands:
        pairs += [
            Pair(f"{ours}.convolution.norm.{part}", (f"{theirs}.conv_module.{name}.{part}",))
            for part in ("running_mean", "running_var")
        ]
    return [*pairs, *both(f"{ours}.norm", f"{theirs}.final_layer_norm")]


def _has_mask_vector(config: RunConfig) -> bool:
    return config.mask_at == "projection" and config.masking.get("fill") == "learned"
