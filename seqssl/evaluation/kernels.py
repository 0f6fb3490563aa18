"""Features from random convolutions: what a strong classical classifier of series reads."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from seqssl.data.adapters import Sample

Array = npt.NDArray[Any]
NUM_KERNELS = 336
KERNEL = 9  # weights of a kernel: three of them 2, the others -1
QUANTILES = 3  # thresholds of a kernel
MAX_STEPS = 2048  # of a row that are read, from its middle
AT_ONCE = 512  # rows that are convolved together


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
    blocks = [rows[first : first + AT_ONCE] for first in range(0, len(rows), AT_ONCE)]
    features = []
    for _ in range(NUM_KERNELS):
        weights = np.full(KERNEL, -1.0)
        weights[rng.choice(KERNEL, 3, replace=False)] = 2.0
        dilation = int(2 ** rng.uniform(0, most))
        channel = int(rng.integers(channels))
        drawn = [rows[number] for number in rng.integers(len(rows), size=min(8, len(rows)))]
        some, real = _convolved(drawn, channel, weights, dilation)
        bars = np.quantile(some[real], rng.uniform(0.1, 0.9, size=QUANTILES))
        shares = []
        for block in blocks:
            outputs, real = _convolved(block, channel, weights, dilation)
            above = [((outputs > bar) & real).sum(1) for bar in bars]
            shares.append(np.stack(above) / real.sum(1))
        features += [*np.concatenate(shares, axis=1)]
    return np.array(features).T


def _values(sample: Sample) -> Array:
    """The values of a sample, missing ones as 0; the middle of a long row."""
    values = sample.values.astype(np.float64)
    if sample.observed is not None:
        values = np.where(sample.observed, values, 0.0)
    excess = max(0, len(values) - MAX_STEPS) // 2
    return values[excess : excess + MAX_STEPS]


def _convolved(rows: Sequence[Array], channel: int, weights: Array, dilation: int) -> tuple[Array, Array]:
    """The dilated convolution of a channel of each row (n, t), and which of its values are real.

    Rows are padded by their ends, so that the convolution of each is as long as the row.
    """
    lengths = np.array([len(row) for row in rows])[:, None]
    steps, reach = int(lengths.max()), dilation * (len(weights) // 2)
    places = np.clip(np.arange(-reach, steps + reach), 0, lengths - 1)
    padded = np.stack([row[own, channel] for row, own in zip(rows, places, strict=True)])
    total = np.zeros((len(rows), steps))
    for place, weight in enumerate(weights):
        total += weight * padded[:, place * dilation : place * dilation + steps]
    return total, np.arange(steps) < lengths
