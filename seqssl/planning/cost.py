"""What a micro-batch costs: time and memory, from a step that is run without values (`measure`).

FLOPs are 2 per multiply-add of matrix products and convolutions, forward and backward; norms, activations
and data loading are left out. Activation memory is what autograd keeps for the backward pass, and copies of
weights in bfloat16.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from seqssl.config.schema import RunConfig

if TYPE_CHECKING:
    from torch import nn

    from seqssl.assembly import Model, Stages, Stream
    from seqssl.model.pretraining import PretrainingModel
    from seqssl.model.types import Batch
    from seqssl.planning.measure import Work
    from seqssl.planning.sharding import Unit


@dataclass(frozen=True)
class Part:
    """One part of the model and its share of the work of a micro-batch."""

    name: str
    parameters: int
    forward_flops: float


@dataclass(frozen=True)
class Kept:
    """Bytes that wait for the backward pass, of a full micro-batch of one kind of data."""

    saved: int  # by autograd, without copies of weights
    blocks: int  # of these, by the blocks of the context encoder
    block_inputs: int  # what blocks keep with activation checkpointing
    copies: int  # of weights, in bfloat16
    block_copies: int
    num_blocks: int  # that are run

    def total(self, *, checkpointed: bool, divided: bool = False) -> int:
        """The most at any time.

        `checkpointed`: of the blocks only inputs are kept, and one block is run once more. By then the copies
        are gone: autocast keeps them to the end of the forward pass. `divided`: the weights of blocks are
        gathered in bfloat16 (`seqssl.training.sharded`), and need no copies.
        """
        copies = self.copies - self.block_copies * divided
        if not checkpointed:
            return self.saved + copies
        return self.saved - self.blocks + self.block_inputs + max(copies, self.blocks // self.num_blocks)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device that works alone."""

    weights: int  # in float32, with the model's buffers
    model_buffers: int
    gradients: int
    optimizer: int
    kept: tuple[Kept, ...]  # for each kind of data; memory must hold the most

    def activations(self, *, checkpointed: bool, divided: bool = False) -> int:
        """What waits for the backward pass; see `Kept.total`."""
        return max(each.total(checkpointed=checkpointed, divided=divided) for each in self.kept)

    def total(self, checkpointed: bool) -> int:
        """The sum, with or without activation checkpointing."""
        held = self.weights + self.gradients + self.optimizer
        return held + self.activations(checkpointed=checkpointed)


@dataclass(frozen=True)
class Cost:
    """What a full micro-batch takes on one device."""

    parts: list[Part]
    memory: Memory
    checkpointed: bool
    precision: str
    unit: str  # of the input: "s" or "input steps"
    rows: int  # all of full length
    row_input: float
    row_frames: int
    once_flops: float  # forward and backward, where no block is run twice
    block_flops: float  # of the blocks' forward pass, which activation checkpointing repeats
    units: "tuple[Unit, ...]"  # what is gathered at once where weights are divided among devices
    why_whole: str  # why weights cannot be divided; "" where they can
    is_real: bool = False  # one row was really run, because a part of the model looks at values

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def micro_flops(self) -> float:
        """Forward and backward, with checkpointing as the recipe has it."""
        return self.flops(self.checkpointed)

    def flops(self, checkpointed: bool) -> float:
        """Forward and backward, with or without activation checkpointing."""
        return self.once_flops + self.block_flops * checkpointed

    @property
    def memory_bytes(self) -> int:
        """The sum, with checkpointing as the recipe has it."""
        return self.memory.total(self.checkpointed)


def cost_of(
    config: RunConfig, streams: "Sequence[Stream] | None" = None, waiting: "Stages | None" = None
) -> Cost:
    """What a full micro-batch of a run costs; with several streams, the mean one by their weights.

    `streams` are those of the configuration, if they are made already; `waiting` gives the configurations of
    stages before it that have not run. No weights are made, unless a part of the model looks at values.
    """
    from seqssl.assembly import assemble, streams_of
    from seqssl.planning.measure import measure, unfitted
    from seqssl.planning.sharding import units_of, why_whole

    streams = streams or streams_of(config, waiting)
    # Measured without checkpointing: what it saves follows from what blocks keep without it.
    plain = replace(config, train=replace(config.train, checkpoint_activations=False))
    taps, bfloat16 = config.encoder.taps, config.train.precision != "float32"
    whole = assemble(plain, streams, "meta")
    total = sum(stream.weight for stream in streams)
    shapes: dict[str, Shape] = {}
    works: dict[str, Work] = {}
    for stream in streams:
        own = unfitted(whole.of(stream.name))  # from here on it holds the teacher that its targets open
        shapes[stream.name] = Shape.of(stream, own)
        works[stream.name] = measure(
            lambda device, name=stream.name: assemble(plain, streams, device).of(name),  # type: ignore[misc]
            shapes[stream.name].batch(stream, own),
            partial(parts_of, taps=taps),
            bfloat16=bfloat16,
        )
    shares = {stream.name: stream.weight / total for stream in streams}
    first = shapes[streams[0].name]
    is_joint = len(streams) > 1  # streams differ in units and row lengths: only input steps have a mean
    steps = sum(shares[name] * shape.rows * shape.row_steps for name, shape in shapes.items())
    return Cost(
        parts=_parts(whole, streams, works, shares, taps),
        memory=_memory(config, whole, list(works.values())),
        checkpointed=config.train.checkpoint_activations,
        precision="bfloat16" if bfloat16 else "float32",
        unit="input steps" if is_joint else first.unit,
        rows=1 if is_joint else first.rows,
        row_input=round(steps) if is_joint else first.row_input,
        row_frames=max(shape.frames for shape in shapes.values()),
        once_flops=sum(shares[name] * work.flops for name, work in works.items()),
        block_flops=sum(shares[name] * _blocks(work, "flops") for name, work in works.items()),
        units=units_of(whole, bfloat16=bfloat16),
        why_whole=why_whole(config, whole),
        is_real=any(work.is_real for work in works.values()),
    )


def _parts(
    whole: "Model",
    streams: "Sequence[Stream]",
    works: "Mapping[str, Work]",
    shares: Mapping[str, float],
    taps: Mapping[str, int],
) -> list[Part]:
    """The parts of the model with their work in the mean micro-batch; streams share the context encoder."""
    parts: dict[str, Part] = {}
    for stream in streams:
        work, share = works[stream.name], shares[stream.name]
        for name, module in parts_of(whole.of(stream.name), taps).items():
            shown = name if name.startswith("encoder") or not stream.name else f"{stream.name}: {name}"
            part = parts.get(shown) or Part(shown, _count(module), 0.0)
            flops = share * work.parts[name].flops if name in work.parts else 0.0
            parts[shown] = replace(part, forward_flops=part.forward_flops + flops)
    rest = sum(share * works[name].forward.flops for name, share in shares.items())
    rest -= sum(part.forward_flops for part in parts.values())
    # Work outside of these modules' forward passes: in a method that is called in the place of one, say.
    return [*parts.values(), *([Part("everything else", 0, rest)] if rest > 1.0 else [])]


def parts_of(model: "PretrainingModel", taps: Mapping[str, int]) -> dict[str, "nn.Module"]:
    """The model's parts by name, without those that have no weights; blocks are grouped by tap."""
    from torch import nn

    parts: dict[str, object] = {
        "feature encoder": model.feature_encoder,
        "masking": model.masking,
        "targets": model.targets,
        "input projection": model.input_projection,
        "level projection": model.level_projection,
    }
    if model.encoder.position is not None:
        parts["encoder: position"] = model.encoder.position
    below = 0
    for tap, layers in sorted(taps.items(), key=lambda item: item[1]):
        parts[f"encoder: blocks {below + 1} to {layers} ({tap})"] = model.encoder.blocks[below:layers]
        below = layers
    parts["encoder: blocks above every tap, unused"] = model.encoder.blocks[below:]
    parts["objectives"] = model.objectives
    modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    return {name: part for name, part in modules.items() if [*part.parameters(), *part.buffers()]}


@dataclass(frozen=True)
class Shape:
    """The shape of a full micro-batch."""

    rows: int
    row_steps: int
    row_input: float
    unit: str
    frames: int  # per row

    @classmethod
    def of(cls, stream: "Stream", model: "PretrainingModel") -> "Shape":
        """As many rows as fit into a micro-batch, each as long as rows may be."""
        import torch

        from seqssl.data.lengths import lengths_of, longest_row

        rate, row_steps = stream.spec.rate_hz, longest_row(stream.config.data, stream.spec)
        batch = lengths_of(stream.config.data, stream.spec)["batch_length"]
        return cls(
            rows=max(1, batch // row_steps),
            row_steps=row_steps,
            row_input=row_steps / (rate or 1),
            unit="s" if rate else "input steps",
            frames=int(model.feature_encoder.output_lengths(torch.tensor([row_steps]))[0]),
        )

    def batch(self, stream: "Stream", model: "PretrainingModel") -> "Batch":
        """A made-up micro-batch with every field that some part may read."""
        import torch

        from seqssl.model.types import Batch

        spec, size = stream.spec, (self.rows, self.row_steps)
        books = spec.codebook_sizes
        # Expanded from one number, the inputs take no memory, whatever the size.
        return Batch(
            torch.zeros(()).to(getattr(torch, spec.dtype)).expand(*size, *filter(None, [spec.channels])),
            torch.full((self.rows,), self.row_steps),
            times=(torch.arange(self.row_steps) / (spec.rate_hz or 1.0)).expand(size),
            codes=None
            if books is None
            else torch.zeros(self.rows, self.frames, len(books), dtype=torch.long),
            labels=("",) * self.rows,
            segments=((),) * self.rows,
            groups=torch.zeros(self.rows, dtype=torch.long),
            stream=stream.name,
        )


def _blocks(work: "Work", figure: Literal["flops", "saved", "inputs", "copies"]) -> float:
    """A figure of the forward pass, summed over all blocks of the context encoder."""
    return sum(float(getattr(part, figure)) for name, part in work.parts.items() if "blocks" in name)


def _memory(config: RunConfig, whole: "Model", works: "Sequence[Work]") -> Memory:
    """What weights, gradients and optimizer take, and what waits for the backward pass."""
    trained = [p for p in whole.parameters() if p.requires_grad]
    number = sum(p.numel() for p in trained)
    held = sum(p.nbytes for p in whole.parameters()) + sum(b.nbytes for b in whole.buffers())
    if config.optim.name == "adafactor":  # it keeps row and column means of the second moment
        states = sum(
            p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.ndim > 1 else p.numel() for p in trained
        )
    else:
        states = 2 * number
    num_blocks = max(config.encoder.taps.values())  # blocks above the highest tap are not run
    return Memory(
        weights=held,
        model_buffers=sum(b.nbytes for b in whole.buffers()),
        gradients=4 * number,
        optimizer=4 * states,
        kept=tuple(_kept(work, num_blocks) for work in works),
    )


def _kept(work: "Work", num_blocks: int) -> Kept:
    """What waits for the backward pass."""
    return Kept(
        saved=work.forward.saved,
        blocks=int(_blocks(work, "saved")),
        block_inputs=int(_blocks(work, "inputs")),
        copies=work.forward.copies,
        block_copies=int(_blocks(work, "copies")),
        num_blocks=num_blocks,
    )


def _count(module: "nn.Module") -> int:
    """The number of weights that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
