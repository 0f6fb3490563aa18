"""Changes that leave the meaning of a sample: what they do to its values; all its parts still fit."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssl import Sample, Segment, add_noise, change_gain, stretch_time

seeds = st.integers(0, 2**32 - 1)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    steps, channels = draw(st.integers(1, 40)), draw(st.sampled_from([None, 1, 3]))
    rng = np.random.default_rng(draw(seeds))
    shape = (steps,) if channels is None else (steps, channels)
    values = rng.normal(size=shape).astype(np.float32)
    observed = rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0])) if draw(st.booleans()) else None
    cuts = np.unique(rng.integers(0, steps + 1, size=4))
    return Sample(
        values if observed is None else values * observed,
        observed=observed,
        times=np.arange(steps, dtype=np.float32) / 30 + 5 if draw(st.booleans()) else None,
        segments=[Segment(int(a), int(b), "x") for a, b in pairwise(cuts)],
    )


@given(samples(), seeds)
def test_all_parts_still_fit(sample: Sample, seed: int) -> None:
    for change in (
        lambda rng: change_gain(sample, rng, low=0.5, high=2),
        lambda rng: add_noise(sample, rng, most=0.5),
        lambda rng: stretch_time(sample, rng, low=0.5, high=2),
    ):
        changed = change(np.random.default_rng(seed))
        assert changed.values.dtype == sample.values.dtype and np.isfinite(changed.values).all()
        assert changed.values.shape[1:] == sample.values.shape[1:]
        size = len(changed.values)
        if sample.observed is not None:
            assert changed.observed is not None and changed.observed.shape == changed.values.shape
            assert not changed.values[~changed.observed].any()
        if sample.times is not None:
            assert changed.times is not None and len(changed.times) == size
            assert size < 2 or np.allclose(np.diff(changed.times), 1 / 30, atol=1e-4)
        assert len(changed.segments or ()) == len(sample.segments or ())
        for part in changed.segments or ():
            assert 0 <= part.start < part.end <= size


@given(samples(), seeds)
def test_a_gain_is_one_factor(sample: Sample, seed: int) -> None:
    changed = change_gain(sample, np.random.default_rng(seed), low=0.5, high=2)
    there = np.abs(sample.values) > 1e-3
    factors = changed.values[there] / sample.values[there]
    assert not len(factors) or (np.ptp(factors) < 1e-4 and 0.49 < factors[0] < 2.01)


def test_noise_is_a_share_of_each_channel_and_spares_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(4000, 3)) * [1, 100, 0] + [0, 5, 7]).astype(np.float32)
    observed = rng.random(values.shape) < 0.8
    sample = Sample(values * observed, observed=observed)
    drawn = np.random.default_rng(1)
    changed = add_noise(sample, np.random.default_rng(1), most=0.5)
    share = [drawn.standard_normal(values.shape, dtype=np.float32), drawn.uniform(0, 0.5)][1]
    difference = changed.values - sample.values
    assert not difference[~observed].any() and not difference[:, 2].any()
    for channel, scale in ((0, 1), (1, 100)):
        assert difference[observed[:, channel], channel].std() == pytest.approx(share * scale, rel=0.05)


def test_a_stretched_line_stays_a_line() -> None:
    values = np.linspace(0, 10, 101, dtype=np.float32)
    lengths = set()
    for seed in range(20):
        changed = stretch_time(Sample(values), np.random.default_rng(seed), low=0.8, high=1.25).values
        assert changed[0] == 0 and changed[-1] == pytest.approx(10)
        assert np.allclose(np.diff(changed), 10 / (len(changed) - 1), atol=1e-4)
        lengths.add(len(changed))
    assert min(lengths) < 90 and max(lengths) > 112 and 80 <= min(lengths) and max(lengths) <= 126


def test_codes_made_for_other_steps_forbid_it() -> None:
    sample = Sample(np.ones(8, np.float32), codes=np.zeros((4, 1), np.int64))
    assert stretch_time(sample, np.random.default_rng(0), low=0.5, high=0.6) is sample
