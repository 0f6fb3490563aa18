"""What a micro-batch costs.

Parameters are counted on torch's meta device. FLOPs are 2 per multiply-add of matrix products and
convolutions, backward twice the forward; norms, activations and data loading are left out. Activation
memory is what autograd keeps for the backward pass, summed over the layers by the formulas below.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from seqssl.config.schema import RunConfig, StreamConfig
from seqssl.config.values import number
from seqssl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """One part of the model and its share of the work of a micro-batch."""

    name: str
    parameters: int
    forward_flops: float


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    activations_checkpointed: int  # with train.checkpoint_activations=true

    def total(self, checkpointed: bool) -> int:
        """All of it, with or without activation checkpointing."""
        activations = self.activations_checkpointed if checkpointed else self.activations
        return self.weights + self.gradients + self.optimizer + activations


@dataclass(frozen=True)
class Cost:
    """A full micro-batch on one device."""

    parts: list[Part]
    memory: Memory
    checkpointed: bool
    precision: str
    unit: str  # of the input: "s" or "input steps"
    rows: int  # all of full length
    row_input: float
    row_frames: int
    micro_flops: float  # forward and backward

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def memory_bytes(self) -> int:
        """Memory as the recipe stands."""
        return self.memory.total(self.checkpointed)


def cost_of(config: RunConfig) -> Cost:
    """What a micro-batch of a run costs; the model is built on the meta device."""
    if config.streams:
        return _joint_cost(config)
    from seqssl.assembly import build_model, streams_of

    model = build_model(config, device="meta")
    (stream,) = streams_of(config)
    shape = _Shape.of(config, stream.spec, model.feature_encoder)
    feature_flops, feature_bytes = _feature_encoder_cost(config, shape)
    parts = [
        Part(
            name,
            _count(module),
            feature_flops if name == "feature encoder" else _flops(name, module, config, shape),
        )
        for name, module in parts_of(model, config.encoder.taps).items()
    ]
    bfloat16 = config.train.precision != "float32"
    checkpointed = config.train.checkpoint_activations
    repeated = sum(part.forward_flops for part in parts if "blocks" in part.name) if checkpointed else 0
    return Cost(
        parts=parts,
        memory=_memory(config, model, shape, feature_bytes, bfloat16),
        checkpointed=checkpointed,
        precision="bfloat16" if bfloat16 else "float32",
        unit=shape.unit,
        rows=shape.rows,
        row_input=shape.row_input,
        row_frames=shape.frames,
        micro_flops=3 * sum(part.forward_flops for part in parts) + repeated,
    )


def _joint_cost(config: RunConfig) -> Cost:
    """The mean micro-batch of a joint run, by the weights of its streams; the encoder counts once."""
    costs = {
        name: cost_of(
            replace(config, streams={}, **{f.name: getattr(part, f.name) for f in fields(StreamConfig)})
        )
        for name, part in config.parts().items()
    }
    first = next(iter(costs.values()))
    parts = [part for part in first.parts if part.name.startswith("encoder")]
    for name, cost in costs.items():
        own = [part for part in cost.parts if not part.name.startswith("encoder")]
        parts += [replace(part, name=f"{name}: {part.name}") for part in own]
    number = sum(part.parameters for part in parts)
    total = sum(stream.weight for stream in config.streams.values())
    shares = {name: stream.weight / total for name, stream in config.streams.items()}
    scale = number / first.parameters
    memory = Memory(
        weights=int(first.memory.weights * scale),
        gradients=4 * number,
        optimizer=int(first.memory.optimizer * scale),
        activations=max(cost.memory.activations for cost in costs.values()),
        activations_checkpointed=max(cost.memory.activations_checkpointed for cost in costs.values()),
    )
    rates = {name: _rate_of(part) for name, part in config.parts().items()}
    steps = sum(shares[name] * cost.rows * cost.row_input * rates[name] for name, cost in costs.items())
    return replace(
        first,
        parts=parts,
        memory=memory,
        unit="input steps",
        rows=1,
        row_input=round(steps),
        row_frames=max(cost.row_frames for cost in costs.values()),
        micro_flops=sum(shares[name] * cost.micro_flops for name, cost in costs.items()),
    )


def _rate_of(config: StreamConfig) -> float:
    """Input steps in one unit of a stream's cost."""
    from seqssl.assembly import build_adapter

    return build_adapter(config.modality).spec.rate_hz or 1.0


def parts_of(model: Any, taps: Mapping[str, int]) -> dict[str, "nn.Module"]:
    """The model's parts by name, those without parameters left out; blocks are grouped by tap."""
    parts = {
        "feature encoder": model.feature_encoder,
        "masking": model.masking,
        "targets": model.targets,
        "input projection": model.input_projection,
    }
    if model.encoder.position is not None:
        parts["encoder: position"] = model.encoder.position
    below = 0
    for tap, layers in sorted(taps.items(), key=lambda item: item[1]):
        parts[f"encoder: blocks {below + 1} to {layers} ({tap})"] = model.encoder.blocks[below:layers]
        below = layers
    parts["encoder: blocks above every tap, unused"] = model.encoder.blocks[below:]
    parts["objectives"] = model.objectives
    return {name: part for name, part in parts.items() if [*part.parameters(), *part.buffers()]}


@dataclass(frozen=True)
class _Shape:
    """A full micro-batch."""

    rows: int
    row_steps: int
    row_input: float
    unit: str
    channels: tuple[int, ...]
    dtype: str
    frames: int  # per row
    masked: float  # per row, expected

    @classmethod
    def of(cls, config: RunConfig, spec: Any, feature_encoder: Any) -> "_Shape":
        import torch

        data, rate = config.data, spec.rate_hz
        batch = _steps(data.batch_seconds, data.batch_frames, rate) or 1
        row_steps = min(batch, _steps(data.max_seconds, data.max_frames, rate) or batch)
        frames = int(feature_encoder.output_lengths(torch.tensor([row_steps]))[0])
        start, span = number(config.masking, "start_prob", 0.065), number(config.masking, "span", 10)
        return cls(
            rows=max(1, batch // row_steps),
            row_steps=row_steps,
            row_input=row_steps / (rate or 1),
            unit="s" if rate else "input steps",
            channels=(spec.channels,) if spec.channels else (),
            dtype=spec.dtype,
            frames=frames,
            masked=frames * (1 - (1 - start) ** span),
        )


def _steps(seconds: float | None, frames: int | None, rate_hz: float | None) -> int | None:
    if seconds is None:
        return frames
    if rate_hz is None:
        raise UserError("data.*_seconds need a modality with a rate; say data.batch_frames, in input steps")
    return round(seconds * rate_hz)


def _flops(name: str, module: "nn.Module", config: RunConfig, shape: _Shape) -> float:
    """Forward FLOPs of a part above the feature encoder, for a micro-batch."""
    weights = 2 * sum(p.numel() for p in module.parameters() if p.ndim > 1)  # one multiply-add per frame
    frames, masked = shape.rows * shape.frames, shape.rows * shape.masked
    width = config.encoder.dim
    if "unused" in name:
        return 0.0
    if "blocks" in name:
        attention = _attention_flops(config.mixer, width, shape.frames)
        return float(frames * (weights + attention * len(list(module.children()))))
    if name == "objectives":  # heads, and the similarities of each row's masked frames
        similarities = 2 * shape.masked * int(number(config.quantizer, "dim", width))
        seen = sum(_flops("heads", head, config, shape) for head in module.children() if _reads_seen(head))
        return masked * (weights + similarities) + seen * (1 - masked / frames)
    if name == "targets" and not any(slot.get("seen_weight") for slot in config.objectives.values()):
        return weights * masked
    return weights * frames


def _reads_seen(objective: object) -> bool:
    return bool(getattr(objective, "seen_weight", 0))


def _attention_flops(mixer: Mapping[str, Any], dim: int, frames: int) -> int:
    """Scores and weighted sums of one layer, per frame; other mixers are counted by their weights alone."""
    if "num_heads" not in mixer:
        return 0
    return (6 if mixer.get("position") == "relative" else 4) * frames * dim


def _feature_encoder_cost(config: RunConfig, shape: _Shape) -> tuple[float, int]:
    """FLOPs forward, and bytes kept for backward, by a run on fake tensors: shapes without data."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from seqssl.assembly import build_feature_encoder, streams_of

    kept: dict[int, Tensor] = {}

    def keep(x: "Tensor") -> "Tensor":
        kept[id(x)] = x
        return x

    with FakeTensorMode():
        encoder = build_feature_encoder(streams_of(config)[0], config.encoder.dim)
        inputs = torch.zeros(1, shape.row_steps, *shape.channels, dtype=getattr(torch, shape.dtype))
        lengths = torch.full((1,), shape.row_steps)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        try:
            with FlopCounterMode(display=False) as counter, hooks:
                encoder(inputs, lengths)
        except RuntimeError:  # it looks at values; what is left is one multiply-add per weight and frame
            weights = sum(p.numel() for p in nn_parameters(encoder) if p.ndim > 1)
            return 2.0 * weights * shape.rows * shape.frames, 0
    return float(shape.rows * counter.get_total_flops()), shape.rows * sum(x.nbytes for x in kept.values())


def _memory(config: RunConfig, model: Any, shape: _Shape, feature_bytes: int, bfloat16: bool) -> Memory:
    """Weights in float32 (and their bfloat16 copies under autocast), gradients, optimizer, activations."""
    trained = [p for p in model.parameters() if p.requires_grad]
    number = sum(p.numel() for p in trained)
    held = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    if config.optim.name == "adafactor":  # rows and columns of the second moment
        states = sum(
            p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.ndim > 1 else p.numel() for p in trained
        )
    else:
        states = 2 * number
    frames = shape.rows * shape.frames
    block = _block_bytes(config, shape.frames, bfloat16)
    layers, width = config.encoder.num_layers, config.encoder.dim
    masked = shape.rows * shape.masked
    learned = sum(model.targets.codebook_sizes)
    heads = [(o.head.out_features, _reads_seen(o)) for o in model.objectives.values() if hasattr(o, "head")]
    predicted, seen = sum(size for size, _ in heads), sum(size for size, reads in heads if reads)
    # In float32: logits and softmaxes of the quantizer and of the heads, similarities and their softmax.
    numbers = masked * (4 * learned + 2 * predicted + 2 * shape.masked) + (frames - masked) * 2 * seen
    rest = feature_bytes + int(4 * numbers)
    return Memory(
        weights=held + (2 * number if bfloat16 else 0),
        gradients=4 * number,
        optimizer=4 * states,
        activations=frames * layers * block + rest,
        activations_checkpointed=frames * (layers * 4 * width + block) + rest,
    )


def _block_bytes(config: RunConfig, frames: int, bfloat16: bool) -> int:
    """What one block keeps for its backward pass, bytes per frame of a row with `frames` of them.

    Counted as what autograd saves (tests/test_plan.py counts again): `residual` tensors stay in float32;
    of the others `hidden` have the encoder's width, `inner` that of the feed-forward. Attention keeps no
    scores, for it runs through torch's fused kernel; relative position keeps its bias.
    """
    encoder, item = config.encoder, 2 if bfloat16 else 4
    residual, hidden, inner = (6, 14, 4) if encoder.block["target"] == "conformer" else (2, 6, 2)
    position, ffn_dim = config.mixer.get("position"), int(number(encoder.block, "ffn_dim", 4 * encoder.dim))
    bias = int(number(config.mixer, "num_heads", 0)) * frames if position == "relative" else 0
    hidden += 2 if position == "rotary" else 0  # queries and keys before and after
    return 4 * residual * encoder.dim + item * (hidden * encoder.dim + inner * ffn_dim + bias)


def nn_parameters(part: object) -> "list[Tensor]":
    """Parameters of a part that may be no module."""
    from torch import nn

    return [*part.parameters()] if isinstance(part, nn.Module) else []


def _count(module: "nn.Module") -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
