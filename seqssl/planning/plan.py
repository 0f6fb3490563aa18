"""What a run will take, in time and memory, before any weight exists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqssl.config import compose
from seqssl.config.compose import Resolved
from seqssl.config.schema import RunConfig
from seqssl.planning.cost import Cost, cost_of
from seqssl.planning.hardware import DEFAULT_GPU, Speed, gpu_speed, has_gpu, local_speeds, num_cores

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


def plan(config: RunConfig, devices: int = 1, device: str | None = None, *, stage: str = "") -> Budget:
    """Estimate a run on 1 to `devices` devices.

    `device` names a GPU of `GPUS`; None shows the default GPU. This machine, measured, is always shown.
    `stage` names the run's part in a recipe of several.
    """
    gpu = gpu_speed(device or DEFAULT_GPU)
    cost = cost_of(config)
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
    before = {stage: load_recipe(name, *overrides, f"stage={stage}") for stage in last.stages}
    return {**before, "": last.config}


def resolve(name: str | Path, *overrides: str) -> Resolved:
    """`load_recipe`, with the origin of every value."""
    return compose.resolve(name, *overrides, choose_size=choose_size)


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
