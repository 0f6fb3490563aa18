"""Parts that compute in full whatever the rest of a step computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch


def in_float32(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast: what decides between near things must not depend on a run's precision."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
