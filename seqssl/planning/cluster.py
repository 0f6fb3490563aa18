"""The time of an update on many devices, from what they compute and what they send.

A device computes a micro-batch in FLOPs / (peak x utilization). Collectives go around in a ring: of n ranks,
each passes on (n - 1) / n of what is gathered or reduced, twice as much where all get the sum (the "bus
bandwidth" of nccl-tests). Of the shorter of both, network and the micro-batch that goes on meanwhile, a share
`overlap` costs no time. Reading data, evaluation and checkpoints are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from seqssl.planning.assumptions import Assumptions
from seqssl.planning.cost import Cost
from seqssl.planning.hardware import Gpu
from seqssl.planning.sharding import Load, load_of

GPU_SHARE = 0.9  # of a GPU's memory that a plan may fill; the rest is fragmentation and the driver
GIGA = 1e9


@dataclass(frozen=True)
class Choice:
    """One way to train on a number of GPUs, and what it takes."""

    devices: int
    shards: int  # among how many devices each weight is divided
    checkpointed: bool  # whether blocks are run twice
    accumulate: int  # micro-batches of a device in an update
    load: Load
    fits: bool
    compute: float  # seconds of an update
    network: float  # seconds of an update, if nothing else went on
    seconds: float  # of an update


@dataclass(frozen=True)
class Cluster:
    """Devices of one kind, and what connects them."""

    devices: int
    per_machine: int
    link: float  # bytes per second of a device within its machine
    bandwidth: float  # bytes per second of a machine to others

    def rate(self, ranks: int) -> float:
        """Bytes per second that pass through each member of a ring of neighbors."""
        return self.link if ranks <= self.per_machine else min(self.link, self.bandwidth)

    def rate_of_copies(self, shards: int) -> float:
        """The same for a ring of those that hold the same piece; the rings of all pieces work at once."""
        if self.devices <= self.per_machine:
            return self.link
        return min(self.link, self.bandwidth / min(shards, self.per_machine))

    def exchange(self, cost: Cost, shards: int) -> tuple[float, float, float]:
        """Seconds of the network for a micro-step; and for an update, at its beginning and at its end."""
        if shards == 1:  # one exchange of all gradients, at the last micro-step
            passed = 2 * (self.devices - 1) / self.devices * cost.memory.gradients
            return 0.0, 0.0, passed / self.rate(self.devices)
        blocks = sum(unit.passes * unit.gathered(shards) for unit in cost.units)
        rest = sum(unit.gathered(shards) for unit in cost.units if not unit.is_block)
        # Blocks that are not run have none.
        gradients = sum(unit.gradients(shards) for unit in cost.units if unit.passes or not unit.is_block)
        each = (shards - 1) / shards / self.rate(shards)
        copies = self.devices // shards
        shared = 2 * (copies - 1) / copies * gradients / shards / self.rate_of_copies(shards)
        return blocks * each, rest * each, gradients * each + shared


def choices_of(
    cost: Cost, gpu: Gpu, assumed: Assumptions, *, devices: int, accumulate: int, own_shards: int = 1
) -> list[Choice]:
    """All ways to train on so many devices, weights whole on each first.

    They share the `accumulate` micro-batches that one device would have in an update. `own_shards` is what
    the recipe says of `train.shards`.
    """
    per_machine = assumed.devices_per_machine
    link = gpu.link if assumed.link is None else GIGA * assumed.link
    cluster = Cluster(devices, per_machine, link, GIGA * assumed.bandwidth)
    asked = {1} if cost.why_whole else {1, min(per_machine, devices), own_shards, devices}
    return [
        _choice(cost, gpu, assumed, cluster, shards, checkpointed, -(-accumulate // devices))
        for shards in sorted(asked)
        for checkpointed in (False, True)
        if devices % shards == 0
    ]


def _choice(
    cost: Cost,
    gpu: Gpu,
    assumed: Assumptions,
    cluster: Cluster,
    shards: int,
    checkpointed: bool,
    accumulate: int,
) -> Choice:
    """What one way takes, with so many micro-batches of each device in an update."""
    devices = cluster.devices
    load = load_of(cost, devices=devices, shards=shards, accumulate=accumulate, checkpointed=checkpointed)
    micro = cost.flops(checkpointed) / (gpu.flops * assumed.utilization)
    step, first, last = cluster.exchange(cost, shards)
    network = [step] * accumulate
    network[0] += first
    network[-1] += last
    seconds = sum(micro + sent - assumed.overlap * min(micro, sent) for sent in network)
    return Choice(
        devices=devices,
        shards=shards,
        checkpointed=checkpointed,
        accumulate=accumulate,
        load=load,
        fits=load.total <= GPU_SHARE * gpu.memory,
        compute=accumulate * micro,
        network=sum(network),
        seconds=seconds,
    )


def cheapest(choices: Sequence[Choice]) -> Choice:
    """The fastest choice that fits; where none does, the one that takes the least memory."""
    fitting = [choice for choice in choices if choice.fits]
    if not fitting:
        return min(choices, key=lambda choice: choice.load.total)
    return min(fitting, key=lambda choice: choice.seconds)
