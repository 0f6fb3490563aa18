"""In what precision matrix products are computed, and whether a device computes them rightly."""

import math

import torch
from torch import nn

from seqssl.model.convolutions import Conv1d
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch

# Rounding to bfloat16 changes the stages of a deep encoder by some hundredths of their size; a wrong kernel
# changes them altogether.
MOST_ERROR = 0.3
MAPS = (nn.Linear, nn.Conv1d, Conv1d)  # whose weights autocast rounds; types derived from them may differ


def name_of(precision: torch.dtype) -> str:
    """Its name in settings and to people."""
    return str(precision).removeprefix("torch.")


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """A context for matrix products in `precision`; float32 changes nothing."""
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)


def maps_of(block: nn.Module) -> list[nn.Module]:
    """The parts of a block whose weights autocast would round.

    A part that computes in float32 by weights of its own says so by an attribute `keeps_float32`. What does
    not learn is a teacher's, and computes in float32 altogether.
    """
    exact = {
        kept for part in block.modules() if getattr(part, "keeps_float32", False) for kept in part.modules()
    }
    learns = any(p.requires_grad for p in block.parameters())
    return [part for part in block.modules() if learns and type(part) in MAPS and part not in exact]


@torch.no_grad()
def precision_error(
    model: PretrainingModel, batch: Batch, device: torch.device, precision: torch.dtype
) -> tuple[float, str]:
    """How far a stage is from what it is in float32, as a share of its size; the worst one, and its name.

    The stages are the features and the taps, without masking, in evaluation mode. The model stays as it is.
    """
    training = model.training
    model.eval()
    batch = batch.to(device)
    exact, given = (_stages(model, batch, device, kind) for kind in (torch.float32, precision))
    model.train(training)
    worst = (0.0, "")
    for name, x in exact.items():
        if not x.isfinite().all():  # the batch or the weights are to blame, which other rules tell
            continue
        error = float((given[name] - x).norm() / x.norm().clamp(min=torch.finfo(x.dtype).tiny))
        worst = max(worst, (error if math.isfinite(error) else math.inf, name))
    return worst


def _stages(
    model: PretrainingModel, batch: Batch, device: torch.device, precision: torch.dtype
) -> dict[str, torch.Tensor]:
    with autocast(device, precision):
        features = model.encode_features(batch)
        taps = model.contexts(batch, features, model.clear(batch, features))
    stages = {"features": features.x, **taps}
    return {name: x[features.valid].float() for name, x in stages.items()}
