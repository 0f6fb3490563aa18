"""Features from random convolutions: what a strong classical classifier of series reads."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from seqssl.data.adapters import Sample

Array = npt.NDArray[Any]
NUM_KERNELS = 336
KERNEL = 9  # weights of a kernel: three of them 2, the others -1
QUANTILES = 3  # thresholds of a kernel
MAX_STEPS = 2048  # of a row that are read, from its middle


def kernel_features(samples: Iterable[Sample], channels: int) -> Array:
    """Shares of positive values of dilated convolutions with fixed kernels (n, d).

    This follows MiniRocket (Dempster et al., KDD 2021): kernels with weights 2 and -1, dilations up to the
    length of the row, thresholds from the data's own quantiles, and the share of values above each threshold
    as the feature. Unlike there, kernels, dilations and channels are drawn at random (with a fixed seed)
    rather than enumerated, and thresholds are quantiles of the first rows' outputs.
    """
    rows = [_values(sample) for sample in samples]
    rng = np.random.default_rng(0)
    shortest = max(KERNEL, min(map(len, rows)))
    most = max(0.0, np.log2((shortest - 1) / (KERNEL - 1)))
    features = []
    for _ in range(NUM_KERNELS):
        weights = np.full(KERNEL, -1.0)
        weights[rng.choice(KERNEL, 3, replace=False)] = 2.0
        dilation = int(2 ** rng.uniform(0, most))
        channel = int(rng.integers(channels))
        outputs = [_convolved(row[:, channel], weights, dilation) for row in rows]
        some = np.concatenate([outputs[n] for n in rng.integers(len(outputs), size=min(8, len(outputs)))])
        for bar in np.quantile(some, rng.uniform(0.1, 0.9, size=QUANTILES)):
            features.append([float((output > bar).mean()) for output in outputs])
    return np.array(features).T


def _values(sample: Sample) -> Array:
    """The values of a sample, missing ones as 0; the middle of a long row."""
    values = sample.values.astype(np.float64)
    if sample.observed is not None:
        values = np.where(sample.observed, values, 0.0)
    excess = max(0, len(values) - MAX_STEPS) // 2
    return values[excess : excess + MAX_STEPS]


def _convolved(series: Array, weights: Array, dilation: int) -> Array:
    """The dilated convolution of a series, as long as the series, which is padded by its ends."""
    reach = dilation * (len(weights) // 2)
    padded = np.pad(series, reach, mode="edge")
    total = np.zeros(len(series))
    for place, weight in enumerate(weights):
        total += weight * padded[place * dilation : place * dilation + len(series)]
    return total
