"""Optimizers, and schedules as pure functions of the number of updates done."""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from seqssl.config.schema import OptimConfig, TemperatureConfig
from seqssl.model.protocols import Task

TINY = 1e-6  # beside the norm that gradients are divided by, as in torch.nn.utils


def learning_rate(config: OptimConfig, update: int, num_updates: int) -> float:
    """The rate of update number `update` (from 0) of a run of `num_updates`.

    All begin with a linear warm-up to the peak. Then `noam` is peak * sqrt(warm-up / update) (Vaswani et al.
    2017, 5.3); `cosine` and `linear` (wav2vec 2.0, HuBERT) end at 0 with the run.
    """
    done, warmup = update + 1, max(1, config.warmup_updates)
    if done < warmup:
        return config.lr * done / warmup
    if config.schedule == "noam":
        return config.lr * math.sqrt(warmup / done)
    progress = min(1.0, (done - warmup) / max(1, num_updates - warmup))
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * (1 - progress) if config.schedule == "linear" else config.lr


def temperature(config: TemperatureConfig, update: int, num_updates: int) -> float:
    """Gumbel temperature of update number `update`.

    A run shorter than the planned one decays faster in proportion, so that it ends where the planned one
    would. A fixed decay would leave it in the high-noise regime.
    """
    hurry = max(1.0, config.planned_updates / max(1, num_updates))
    return max(config.end, config.start * math.pow(config.decay, update * hurry))


class ParameterGroup(TypedDict):
    """Parameters that share a multiple of the learning rate."""

    params: list[Tensor]
    lr_scale: float


@runtime_checkable
class HasParameterGroups(Protocol):
    """What a task may offer beside `Task`: learning rates that differ from part to part."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every parameter to be trained, once, with the multiple of the schedule's rate that it gets."""
        ...


def trained_parameters(task: Task) -> list[ParameterGroup]:
    """What an optimizer is to change: the task's own groups, else all parameters of its model."""
    if isinstance(task, HasParameterGroups):
        return task.parameter_groups()
    return [ParameterGroup(params=[p for p in task.model.parameters() if p.requires_grad], lr_scale=1.0)]


def make_optimizer(config: OptimConfig, groups: Sequence[ParameterGroup]) -> Optimizer:
    """Adam, AdamW or Adafactor of torch. Torch's Adafactor has no first moment, so `betas` do not apply."""
    trainable = [{**group} for group in groups]
    if config.name == "adafactor":
        return torch.optim.Adafactor(trainable, lr=config.lr, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        trainable,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group its multiple of the rate; groups of older checkpoints have none, and get the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def clip_gradients(parameters: Iterable[Tensor], norm: Tensor, max_norm: float) -> None:
    """Scale gradients of the global norm `norm` to one of at most `max_norm`.

    A gradient that is not finite is dropped whole, on the device: so one bad batch cannot poison the weights,
    and nothing has to wait.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    # Where ranks divide a gradient, each scales its part by itself.
    gradients = [grad.to_local() if hasattr(grad, "to_local") else grad for grad in gradients]
    scale = (max_norm / (norm + TINY)).clamp(max=1.0)
    bad = ~torch.isfinite(norm)
    if gradients:
        torch._foreach_mul_(gradients, scale)  # of all at once, where the device can
    if norm.device.type == "cpu" and not bad:
        return  # a look costs nothing here, and a pass over all gradients does
    for grad in gradients:
        grad.masked_fill_(bad, 0.0)
