"""What a run will take, in time and memory, before any weight exists."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seqssl.config import compose
from seqssl.config.compose import Resolved
from seqssl.config.schema import RunConfig
from seqssl.planning.cost import Cost, cost_of
from seqssl.planning.hardware import DEFAULT_GPU, Speed, gpu_speed, has_gpu, local_speeds, num_cores

if TYPE_CHECKING:
    from seqssl.assembly import Stages

MANY_CORES = 16  # from here on size=auto gives a CPU the size above the smallest
GPU_SHARE = 0.9  # of a GPU's memory that a plan may fill; the rest is fragmentation and the driver


@dataclass(frozen=True)
class Estimate:
    """The time of a whole run on a number of devices."""

    device: str
    flops: float  # per second and device, that a training step is assumed to reach
    devices: int
    accumulate: int
    input_per_update: float  # seconds, or input steps for a modality without a rate
    seconds: float
    fits: bool | None  # None: the device's memory is not known


@dataclass(frozen=True)
class Budget:
    """What a run takes."""

    title: str
    task: str  # the target of its slot
    cost: Cost
    num_updates: int
    estimates: list[Estimate]


def plan(
    config: RunConfig,
    devices: int = 1,
    device: str | None = None,
    *,
    stage: str = "",
    waiting: "Stages | None" = None,
) -> Budget:
    """Estimate a run on 1 to `devices` devices.

    `device` names a GPU of `GPUS`; None shows the default GPU. This machine, measured, is always shown.
    `stage` names the run's part in a recipe of several, of which `waiting` gives the others.
    """
    gpu = gpu_speed(device or DEFAULT_GPU)
    cost = cost_of(config, waiting=waiting)
    estimates = [_estimate(config, cost, gpu, number) for number in _counts(devices)]
    estimates += [_estimate(config, cost, speed, 1) for speed in local_speeds()]
    title = f"{config.recipe}, size {config.size}{f', stage {stage}' if stage else ''}"
    return Budget(title, str(config.task["target"]), cost, config.train.num_updates, estimates)


def load_recipe(name: str | Path, *overrides: str) -> RunConfig:
    """The configuration of a recipe, with `key=value` overrides; all its problems in one `UserError`."""
    return resolve(name, *overrides).config


def by_stage(name: str | Path, *overrides: str) -> dict[str, RunConfig]:
    """The configuration of each stage of a recipe by its name; of the last, or only one, by ""."""
    last = resolve(name, *overrides)
    return {**{stage: stage_of(name, *overrides)(stage) for stage in last.stages}, "": last.config}


def stage_of(name: str | Path, *overrides: str) -> "Stages":
    """What gives the configuration of a stage of a recipe by its name."""
    return lambda stage: load_recipe(name, *overrides, f"stage={stage}")


def resolve(name: str | Path, *overrides: str, amounts: Mapping[str, int] | None = None) -> Resolved:
    """`load_recipe`, with the origin of every value. `amounts`: see `exceeds_epoch`."""

    def choose(sizes: Sequence[str], at: Callable[[str], RunConfig]) -> tuple[str, str]:
        return choose_size(sizes, at, lambda size: stage_of(name, *overrides, f"size={size}"), amounts)

    return compose.resolve(name, *overrides, choose_size=choose)


def choose_size(
    sizes: Sequence[str],
    at: Callable[[str], RunConfig],
    waiting: "Callable[[str], Stages]",
    amounts: Mapping[str, int] | None = None,
) -> tuple[str, str]:
    """`size=auto`: the first of `sizes` that the GPU can hold, else one of the last two for a CPU.

    One that is made for more data is passed over (`exceeds_epoch`), unless it is the last. `at` gives the
    configuration at a size, `waiting` those of its stages. The answer comes with a sentence for the user.
    """
    hint = f"Force another with size={'|'.join(sizes)}."
    if has_gpu() and at(sizes[-1]).train.device != "cpu":
        import torch

        gpu = torch.cuda.get_device_properties(0)
        suited = [size for size in sizes[:-1] if not exceeds_epoch(at(size), amounts)] + [sizes[-1]]
        for size in suited:
            needed = cost_of(at(size), waiting=waiting(size)).memory_bytes
            if needed <= GPU_SHARE * gpu.total_memory:
                reason = f"about {needed / 2**30:.1f} GiB fit on the GPU ({gpu.name})"
                if larger := [each for each in sizes[: sizes.index(size)] if each not in suited]:
                    reason += f"; an update of {', '.join(larger)} would read more than all training rows"
                return size, f"size=auto chose {size}: {reason}. {hint}"
    cores = num_cores()
    chosen = sizes[-2] if cores >= MANY_CORES and len(sizes) > 1 else sizes[-1]
    return chosen, f"size=auto chose {chosen}: no GPU to use, {cores} CPU cores. {hint}"


def exceeds_epoch(config: RunConfig, amounts: Mapping[str, int] | None = None) -> bool:
    """Whether an update reads more than all training rows, of every kind of data whose amount is known.

    `amounts`: input steps of the training rows, by stream; None: as far as sources are prepared folders.
    """
    from seqssl.assembly import streams_of
    from seqssl.data.lengths import lengths_of
    from seqssl.data.prepare import prepared_steps

    batches, found = config.train.accumulate * int(os.environ.get("WORLD_SIZE", "1")), list[bool]()
    for stream in streams_of(config):
        data = stream.config.data
        steps = prepared_steps(data) if amounts is None else amounts.get(stream.name)
        if steps is not None:
            found.append(batches * lengths_of(data, stream.spec)["batch_length"] > steps)
    return bool(found) and all(found)


def _estimate(config: RunConfig, cost: Cost, speed: Speed, number: int) -> Estimate:
    """The estimate for `number` devices that share the recipe's micro-batches: the global batch stays."""
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
    """Numbers of devices to estimate: 1, 2, 4, ... and the number asked for."""
    return sorted({*(2**power for power in range(devices.bit_length())), devices})
