"""Ways to change a sample of numbers that leave its meaning, for adapters to offer."""

import warnings
from dataclasses import replace

import numpy as np

from seqssl.data.adapters import Sample
from seqssl.model.types import Segment


def change_gain(sample: Sample, rng: np.random.Generator, *, low: float, high: float) -> Sample:
    """All values times one factor, drawn evenly in its logarithm."""
    factor = np.exp(rng.uniform(np.log(low), np.log(high)))
    return replace(sample, values=(sample.values * factor).astype(sample.values.dtype))


def add_noise(sample: Sample, rng: np.random.Generator, *, most: float) -> Sample:
    """White noise of up to `most` standard deviations of each channel; missing values stay as they are."""
    values = sample.values
    there = np.ones(values.shape, bool) if sample.observed is None else sample.observed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel without an observed value
        deviation = values.std(axis=0, where=there)
    drawn = rng.standard_normal(values.shape, dtype=np.float32) * np.nan_to_num(deviation)
    changed = values + rng.uniform(0, most) * drawn * there
    return replace(sample, values=changed.astype(values.dtype))


def stretch_time(sample: Sample, rng: np.random.Generator, *, low: float, high: float) -> Sample:
    """Faster or slower by a factor drawn evenly in its logarithm: values on straight lines between steps.

    The step stays what it was, so the sample becomes shorter or longer, and times go on at their step. A
    value is missing where one of its two neighbors was. Segments move along. A sample with codes of its own
    is left as it is: they would belong to other steps.
    """
    steps = len(sample.values)
    size = max(1, round(steps * float(np.exp(rng.uniform(np.log(low), np.log(high))))))
    if sample.codes is not None or steps < 2 or size < 2:
        return sample
    places = np.linspace(0, steps - 1, size)
    before = np.minimum(places.astype(np.int64), steps - 2)
    share = (places - before).astype(np.float32).reshape(-1, *[1] * (sample.values.ndim - 1))
    values = sample.values[before] * (1 - share) + sample.values[before + 1] * share
    observed, times = sample.observed, sample.times
    if observed is not None:
        observed = observed[before] & observed[before + 1]
        values = values * observed
    if times is not None:
        times = times[0] + np.arange(size, dtype=times.dtype) * (times[1] - times[0])
    segments = (
        None if sample.segments is None else [_moved(part, size / steps, size) for part in sample.segments]
    )
    return replace(
        sample, values=values.astype(sample.values.dtype), observed=observed, times=times, segments=segments
    )


def _moved(segment: Segment, factor: float, size: int) -> Segment:
    """A segment of a stretched sample of this size: of one step at least."""
    start = min(round(segment.start * factor), size - 1)
    return replace(segment, start=start, end=min(size, max(start + 1, round(segment.end * factor))))
