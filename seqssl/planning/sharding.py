"""What a device holds, and what devices send, where weights are whole on each or divided among them.

It follows `seqssl.training.parallel` and `sharded`; `tests/planning/test_sharding.py` holds both beside each
other.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seqssl.config.schema import RunConfig

if TYPE_CHECKING:
    from torch import nn

    from seqssl.planning.cost import Cost

FLOAT32, BFLOAT16 = 4, 2  # bytes of a number
# cuBLAS takes 32 MiB of the newer GPUs, once in the forward and once in the backward pass's thread.
WORKSPACES = 2 * 2**25


@dataclass(frozen=True)
class Weight:
    """A tensor of weights, which ranks divide along its first dimension, in pieces of equal size."""

    length: int  # of the first dimension
    width: int  # numbers in one of its entries
    is_trained: bool

    def piece(self, shards: int) -> int:
        """Numbers in one of `shards` pieces; the last ones may be filled up."""
        return -(-self.length // shards) * self.width


@dataclass(frozen=True)
class Unit:
    """Weights that are gathered at once: of a block, or all that are in no such unit."""

    weights: tuple[Weight, ...]
    is_block: bool
    sent: int = FLOAT32  # bytes of a number when it is gathered
    passes: int = 0  # how often a micro-step gathers a block

    def held(self, shards: int) -> int:
        """Bytes of one of `shards` pieces, in float32."""
        return FLOAT32 * sum(weight.piece(shards) for weight in self.weights)

    def gathered(self, shards: int) -> int:
        """Bytes of all pieces together, as they are sent."""
        return shards * self.sent * sum(weight.piece(shards) for weight in self.weights)

    def gradients(self, shards: int) -> int:
        """Bytes of the gradients of all pieces together; they are sent in float32."""
        return shards * FLOAT32 * sum(weight.piece(shards) for weight in self.weights if weight.is_trained)


def units_of(whole: "nn.Module", *, bfloat16: bool) -> tuple[Unit, ...]:
    """How `seqssl.training.sharded` gathers a model: by blocks of its context encoders, and the rest at once.

    `bfloat16`: matrix products are in it.
    """
    from seqssl.model.encoder import ContextEncoder
    from seqssl.training.precision import maps_of

    units: list[Unit] = []
    seen: set[nn.Parameter] = set()
    for encoder in [part for part in whole.modules() if isinstance(part, ContextEncoder)]:
        for number, block in enumerate(encoder.blocks):
            maps = maps_of(block) if bfloat16 else []
            own = [p for part in maps or [block] for p in part.parameters()]
            is_run, is_trained = number < max(encoder.taps.values()), any(p.requires_grad for p in own)
            units.append(
                Unit(
                    tuple(map(_weight, own)),
                    is_block=True,
                    sent=BFLOAT16 if maps else FLOAT32,
                    passes=(1 + is_trained) * is_run,  # forward, and backward
                )
            )
            seen.update(own)
    rest = tuple(_weight(p) for p in whole.parameters() if p not in seen)
    return (*units, Unit(rest, is_block=False))


def _weight(p: "nn.Parameter") -> Weight:
    """What is to be known of a parameter."""
    length = p.shape[0] if p.ndim else 1
    return Weight(length, p.numel() // max(1, length), p.requires_grad)


def why_whole(config: RunConfig, whole: "nn.Module") -> str:
    """Why the weights of a run cannot be divided among ranks; "" where they can."""
    from seqssl.model.protocols import FollowsUpdates

    moving = [
        type(part).__name__
        for part in whole.modules()
        # A codebook that is learned by gradient, and revives nothing, has no more to do after an update.
        if isinstance(part, FollowsUpdates)
        and (getattr(part, "revive", True) or not getattr(part, "learns", True))
    ]
    if config.task["target"] != "pretrain":
        return "it is for pre-training"
    if config.optim.name == "adafactor":
        return "Adafactor's moments are rows and columns of whole weights; take optim.name=adam"
    if moving:
        return f"{moving[0]} changes weights without a gradient, and needs them whole"
    return ""


@dataclass(frozen=True)
class Load:
    """Bytes on one of several devices."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int  # what is on its way between devices, and what cuBLAS takes

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers


def load_of(cost: "Cost", *, devices: int, shards: int, accumulate: int, checkpointed: bool) -> Load:
    """What each of `devices` GPUs holds, with `accumulate` micro-batches an update on each.

    shards 1: weights are whole, and DistributedDataParallel keeps a second copy of the gradients, from which
    they are sent. Else each weight is divided among so many. Its piece stays. Whole are, beside it, the
    weights that are in no block, for the whole update, and two blocks: the one that computes, and the next.
    Gradients stay whole until the last micro-step divides them, block by block.
    """
    memory, units = cost.memory, cost.units
    activations = memory.activations(checkpointed=checkpointed, divided=shards > 1)
    if shards == 1:
        buckets = memory.gradients if devices > 1 else 0
        return Load(memory.weights, memory.gradients, memory.optimizer, activations, WORKSPACES + buckets)
    blocks = sorted((unit.gathered(shards) for unit in units if unit.passes), reverse=True)
    rest = sum(unit.gathered(shards) for unit in units if not unit.is_block)
    gradients, on_its_way = memory.gradients, 0
    if accumulate == 1:
        gradients = sum(unit.gradients(shards) for unit in units) // shards
        on_its_way = max(unit.gradients(shards) for unit in units)
    return Load(
        weights=memory.model_buffers + sum(unit.held(shards) for unit in units),
        gradients=gradients,
        optimizer=memory.optimizer // shards,
        activations=activations,
        buffers=WORKSPACES + rest + sum(blocks[:2]) + on_its_way,
    )
