"""Random convolutions of many rows at once, beside one row after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqssl import Sample
from seqssl.evaluation import kernels
from seqssl.evaluation.kernels import KERNEL, NUM_KERNELS, QUANTILES, kernel_features


def one_by_one(rows: list[np.ndarray], channels: int) -> np.ndarray:
    """The same, a row at a time, as it is told in the docstring."""
    rng = np.random.default_rng(0)
    most = max(0.0, np.log2((max(KERNEL, min(map(len, rows))) - 1) / (KERNEL - 1)))
    features = []
    for _ in range(NUM_KERNELS):
        weights = np.full(KERNEL, -1.0)
        weights[rng.choice(KERNEL, 3, replace=False)] = 2.0
        dilation, channel = int(2 ** rng.uniform(0, most)), int(rng.integers(channels))
        outputs = []
        for row in rows:
            padded = np.pad(row[:, channel], dilation * (KERNEL // 2), mode="edge")
            spread = np.zeros(dilation * (KERNEL - 1) + 1)
            spread[::dilation] = weights
            outputs.append(np.convolve(padded, spread[::-1], mode="valid"))
        some = np.concatenate([outputs[n] for n in rng.integers(len(rows), size=min(8, len(rows)))])
        bars = np.quantile(some, rng.uniform(0.1, 0.9, size=QUANTILES))
        features += [[np.mean(output > bar) for output in outputs] for bar in bars]
    return np.array(features).T


@settings(max_examples=8)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9),
    channels=st.integers(1, 3),
    at_once=st.integers(1, 5),
)
def test_rows_of_any_lengths_are_told_as_one_by_one(lengths: list[int], channels: int, at_once: int) -> None:
    rng = np.random.default_rng(sum(lengths))
    rows = [rng.integers(-9, 9, size=(length, channels)).astype(np.float32) for length in lengths]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernels, "AT_ONCE", at_once)
        found = kernel_features([Sample(row) for row in rows], channels)
    assert found.shape == (len(rows), NUM_KERNELS * QUANTILES)
    np.testing.assert_array_equal(found, one_by_one(rows, channels))  # whole numbers, so sums are exact


def test_what_is_missing_counts_as_nothing() -> None:
    values = np.arange(24, dtype=np.float32)[:, None]
    observed = np.arange(24)[:, None] % 3 > 0
    hidden = kernel_features([Sample(values, observed=observed)], 1)
    np.testing.assert_array_equal(hidden, one_by_one([np.where(observed, values, 0)], 1))
