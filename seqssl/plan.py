"""What a run will cost, before any weight exists.

Parameters are counted on torch's meta device. FLOPs are 2 per multiply-add of matrix products and
convolutions, backward twice the forward; norms, activations and data loading are left out. Activation
memory is what autograd keeps for the backward pass, summed over the layers by the formulas below.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqssl.config import RunConfig
from seqssl.errors import UserError
from seqssl.hardware import DEFAULT_GPU, Speed, gpu_speed, has_gpu, local_speeds, num_cores

if TYPE_CHECKING:
    from torch import Tensor, nn

MANY_CORES = 16  # from here on size=auto gives a CPU the size above the smallest
GPU_SHARE = 0.9  # of a GPU's memory that a plan may fill; the rest is fragmentation and the driver


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
class Estimate:
    """Time to the recipe's end on a number of devices."""

    device: str
    flops: float  # per second and device, that a training step is assumed to reach
    devices: int
    accumulate: int
    input_per_update: float  # seconds, or input steps for a modality without a rate
    seconds: float
    fits: bool | None  # None: the device's memory is not known


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


@dataclass(frozen=True)
class Plan:
    """The cost of a run."""

    title: str
    cost: Cost
    num_updates: int
    estimates: list[Estimate]


def plan(config: RunConfig, devices: int = 1, device: str | None = None) -> Plan:
    """Estimate a run on 1 to `devices` devices.

    `device` names a GPU of `GPUS`; None shows the default GPU. This machine, measured, is always shown.
    """
    gpu = gpu_speed(device or DEFAULT_GPU)
    cost = cost_of(config)
    estimates = [_estimate(config, cost, gpu, number) for number in _counts(devices)]
    estimates += [_estimate(config, cost, speed, 1) for speed in local_speeds()]
    title = f"{config.recipe}, size {config.size}"
    return Plan(title, cost, config.train.num_updates, estimates)


def cost_of(config: RunConfig) -> Cost:
    """What a micro-batch of a run costs; the model is built on the meta device."""
    from seqssl.build import build_adapter, build_model

    model = build_model(config, device="meta")
    shape = _Shape.of(config, build_adapter(config).spec, model.feature_encoder)
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


def parts_of(model: Any, taps: Mapping[str, int]) -> dict[str, "nn.Module"]:
    """The model's parts by name, those without parameters left out; blocks are grouped by tap."""
    parts = {
        "feature encoder": model.feature_encoder,
        "masking": model.masking,
        "quantizer": model.quantizer,
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


def choose_size(sizes: Sequence[str], at: Callable[[str], RunConfig]) -> tuple[str, str]:
    """`size=auto`: the first of `sizes` that the GPU can hold, else one of the last two for a CPU.

    `at` gives the configuration at a size. The answer comes with a sentence for the user.
    """
    hint = f"Force another with size={'|'.join(sizes)}."
    if has_gpu() and at(sizes[-1]).train.device != "cpu":
        import torch

        gpu = torch.cuda.get_device_properties(0)
        for size in sizes:
            needed = cost_of(at(size)).memory_bytes
            if needed <= GPU_SHARE * gpu.total_memory:
                reason = f"about {needed / 2**30:.1f} GiB fit on the GPU ({gpu.name})"
                return size, f"size=auto chose {size}: {reason}. {hint}"
    cores = num_cores()
    chosen = sizes[-2] if cores >= MANY_CORES and len(sizes) > 1 else sizes[-1]
    return chosen, f"size=auto chose {chosen}: no GPU to use, {cores} CPU cores. {hint}"


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
        start, span = config.masking.get("start_prob", 0.065), config.masking.get("span", 10)
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
        similarities = 2 * shape.masked * int(config.quantizer.get("dim", width))
        return masked * (weights + similarities)
    return weights * (masked if name == "quantizer" else frames)


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

    from seqssl.build import build_feature_encoder

    kept: dict[int, Tensor] = {}

    def keep(x: "Tensor") -> "Tensor":
        kept[id(x)] = x
        return x

    with FakeTensorMode():
        encoder = build_feature_encoder(config)
        inputs = torch.zeros(1, shape.row_steps, *shape.channels, dtype=getattr(torch, shape.dtype))
        lengths = torch.full((1,), shape.row_steps)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        try:
            with FlopCounterMode(display=False) as counter, hooks:
                encoder(inputs, lengths)
        except RuntimeError:  # it looks at values; what is left is one multiply-add per weight and frame
            weights = sum(p.numel() for p in encoder.parameters() if p.ndim > 1)
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
    codes = config.quantizer.get("num_codebooks", 1) * config.quantizer.get("codebook_size", 0)
    # In float32: logits and softmaxes of the quantizer and of the head, similarities and their softmax.
    rest = feature_bytes + int(masked * 4 * (6 * codes + 2 * shape.masked))
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
    residual, hidden, inner = (6, 14, 4) if encoder.block == "conformer" else (2, 6, 2)
    position = config.mixer.get("position")
    bias = config.mixer.get("num_heads", 0) * frames if position == "relative" else 0
    hidden += 2 if position == "rotary" else 0  # queries and keys before and after
    return 4 * residual * encoder.dim + item * (hidden * encoder.dim + inner * encoder.ffn_dim + bias)


def _estimate(config: RunConfig, cost: Cost, speed: Speed, number: int) -> Estimate:
    """The recipe's global batch is kept: `number` devices share its micro-batches."""
    accumulate = -(-config.train.accumulate // number)
    return Estimate(
        device=speed.name,
        flops=speed.flops,
        devices=number,
        accumulate=accumulate,
        input_per_update=cost.rows * cost.row_input * accumulate * number,
        seconds=config.train.num_updates * accumulate * cost.micro_flops / speed.flops,
        fits=None if speed.memory is None else cost.memory_bytes <= GPU_SHARE * speed.memory,
    )


def _counts(devices: int) -> list[int]:
    """1, 2, 4, ... and the number asked for."""
    return sorted({*(2**power for power in range(devices.bit_length())), devices})


def _count(module: "nn.Module") -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
