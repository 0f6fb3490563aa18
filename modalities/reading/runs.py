"""Stretches of equal samples: what a recorder writes that hears, or feels, nothing."""

import math

import numpy as np
from jaxtyping import Int, Shaped


def equal_runs(values: Shaped[np.ndarray, "t *c"]) -> tuple[Int[np.ndarray, "r"], Int[np.ndarray, "r"]]:
    """Where each run of equal samples begins, and where it has ended (the next one's beginning).

    A sample of several channels equals another only in all of them; NaN equals nothing.
    """
    differs = values[1:] != values[:-1]
    changes = differs.reshape(len(differs), math.prod(differs.shape[1:])).any(axis=1)
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(values)), bool), changes]))
    return starts, np.append(starts[1:], len(values))[: len(starts)]
