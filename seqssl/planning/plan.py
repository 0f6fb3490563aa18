"""What a run will take, in time and memory, before any weight exists."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seqssl.config import compose
from seqssl.config.compose import Resolved
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.planning.assumptions import Assumptions
from seqssl.planning.cluster import GPU_SHARE, Choice, cheapest, choices_of
from seqssl.planning.cost import Cost, cost_of
from seqssl.planning.hardware import DEFAULT_GPU, Speed, gpu_of, has_gpu, local_speeds, num_cores
from seqssl.planning.sharding import load_of

if TYPE_CHECKING:
    from seqssl.assembly import Stages

MANY_CORES = 16  # from here on size=auto gives a CPU the size above the smallest


@dataclass(frozen=True)
class Here:
    """The time of a whole run on this machine."""

    speed: Speed
    update: float  # seconds
    seconds: float


@dataclass(frozen=True)
class Heard:
    """How a run goes through so many hours of data."""

    hours: float
    epochs: float  # in the whole run
    update: float  # the share of them that one update reads


@dataclass(frozen=True)
class Budget:
    """What a run takes."""

    title: str
    task: str  # the target of its slot
    cost: Cost
    num_updates: int
    recipe_input: float  # of one update on one device: seconds, or input steps for a modality without a rate
    update_input: float  # of one on the devices asked for
    gpu: str
    assumed: Assumptions
    why_whole: str  # why weights cannot be divided among devices; "" where they can
    choices: list[Choice]  # on the devices asked for
    fewer: list[Choice]  # the cheapest one on fewer devices, and on those asked for
    here: list[Here]
    heard: Heard | None  # None: nobody said how much data there are


def plan(
    config: RunConfig,
    devices: int = 1,
    device: str | None = None,
    *,
    assumed: Assumptions | None = None,
    hours: float | None = None,
    measured: Sequence[Speed] = (),
    stage: str = "",
    waiting: "Stages | None" = None,
) -> Budget:
    """What a run takes on `devices` GPUs, on fewer, and here.

    `device` names a GPU of `GPUS`; None takes the default one. This machine's speed, by a matrix product and
    as `measured`, is always shown. `hours` is the amount of data. `stage` names the run's part in a recipe of
    several, of which `waiting` gives the others. UserError for what makes no sense.
    """
    name, assumed = (device or DEFAULT_GPU).lower(), assumed or Assumptions()
    gpu, cost = gpu_of(name), cost_of(config, waiting=waiting)
    accumulate = config.train.accumulate

    def ways(number: int) -> list[Choice]:
        return choices_of(
            cost, gpu, assumed, devices=number, accumulate=accumulate, own_shards=config.train.shards
        )

    choices, counts = ways(devices), _counts(devices, assumed.devices_per_machine)
    micro_input = cost.rows * cost.row_input
    update_input = micro_input * choices[0].accumulate * devices
    here = [
        Here(speed, update, update * config.train.num_updates)
        for speed in (*local_speeds(), *measured)
        for update in [accumulate * cost.micro_flops / speed.flops]
    ]
    return Budget(
        title=f"{config.recipe}, size {config.size}{f', stage {stage}' if stage else ''}",
        task=str(config.task["target"]),
        cost=cost,
        num_updates=config.train.num_updates,
        recipe_input=micro_input * accumulate,
        update_input=update_input,
        gpu=name,
        assumed=assumed,
        why_whole=cost.why_whole,
        choices=choices,
        fewer=[cheapest(ways(number)) for number in counts],
        here=here,
        heard=None if hours is None else _heard(hours, update_input, cost.unit, config.train.num_updates),
    )


def _heard(hours: float, update_input: float, unit: str, num_updates: int) -> Heard:
    """How often so many hours are gone through; UserError where input is not counted in seconds."""
    if not hours > 0:
        raise UserError(f"hours = {hours:g}: must be above 0")
    if unit != "s":
        raise UserError(f"hours = {hours:g}: the input of this recipe is counted in {unit}, not in seconds.")
    share = update_input / 3600 / hours
    return Heard(hours, share * num_updates, share)


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
            needed = needed_bytes(at(size), waiting(size))
            if needed <= GPU_SHARE * gpu.total_memory:
                reason = f"about {needed / 2**30:.1f} GiB fit on the GPU ({gpu.name})"
                if larger := [each for each in sizes[: sizes.index(size)] if each not in suited]:
                    reason += f"; an update of {', '.join(larger)} would read more than all training rows"
                return size, f"size=auto chose {size}: {reason}. {hint}"
    cores = num_cores()
    chosen = sizes[-2] if cores >= MANY_CORES and len(sizes) > 1 else sizes[-1]
    return chosen, f"size=auto chose {chosen}: no GPU to use, {cores} CPU cores. {hint}"


def needed_bytes(config: RunConfig, waiting: "Stages") -> int:
    """What a run takes of each GPU, as it is configured, on as many as torchrun started it on."""
    train, devices = config.train, int(os.environ.get("WORLD_SIZE", "1"))
    load = load_of(
        cost_of(config, waiting=waiting),
        devices=devices,
        shards=train.shards,
        accumulate=train.accumulate,
        checkpointed=train.checkpoint_activations,
    )
    return load.total


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


def _counts(devices: int, per_machine: int) -> list[int]:
    """Numbers of devices to plan for: one, a machine's, and the number asked for."""
    return sorted({1, min(per_machine, devices), devices})
