"""Statistics of series: what they hold, and what must not matter."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from seqssl import describe_series
from seqssl.data.describing import FLOOR, NUM_BANDS

OWN = 15  # statistics of a channel


@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_they_are_finite_and_see_observed_values_only(length: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(length, channels)).astype(np.float32)
    observed = rng.random(values.shape) < rng.choice([0, 0.5, 1])
    found = describe_series(values, observed)
    assert len(found) == OWN * channels + 1 + channels * (channels - 1) // 2
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, describe_series(np.where(observed, values, 1e9), observed))


@given(st.integers(3, 200), st.integers(0, 2**32 - 1))
def test_the_bands_are_those_of_a_periodogram_and_sum_to_the_variance(length: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=length).cumsum()
    found = describe_series(x[:, None])
    bands = np.exp(found[10:15].astype(np.float64)) - FLOOR
    frequencies, power = signal.periodogram(x, detrend="constant", scaling="spectrum", window="boxcar")
    edges = [0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 0.6]
    wanted = [power[(frequencies >= a) & (frequencies < b)].sum() for a, b in pairwise(edges)]
    assert len(bands) == NUM_BANDS
    np.testing.assert_allclose(bands, wanted, rtol=1e-3, atol=1e-6 * x.var())
    assert bands.sum() == pytest.approx(x.var(), rel=1e-3)


def test_the_order_of_the_row_is_seen() -> None:
    x = np.linspace(0, 3, 30)[:, None]
    forth, back = describe_series(x), describe_series(x[::-1])
    differ = np.flatnonzero(np.abs(forth - back) > 1e-5)
    assert differ.tolist() == [9] and forth[9] == pytest.approx(-back[9]) and forth[9] < -1


def test_channels_that_move_together_are_correlated() -> None:
    x = np.random.default_rng(0).normal(size=(100, 1))
    found = describe_series(np.concatenate([x, -2 * x, np.zeros_like(x)], axis=1))
    assert found[-3:] == pytest.approx([-1, 0, 0], abs=1e-6)
