"""Resampling of a signal that comes in parts."""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from modalities.reading.runs import equal_runs

MOST_TERMS = 4096  # in the ratio of two rates: beyond it the filter grows without use
REACH = 10  # of scipy's filter to either side, in steps of the lower rate
BLOCK = 2**18  # samples resampled at once


class Resampler:
    """`scipy.signal.resample_poly`, part by part: the values are those of the whole signal, bit for bit.

    Only where all input that the filter reaches is one value (of 16 bits) the output is that value: the
    filter lets it ripple, and ring at both ends of a file, beyond which it takes zeros.

    A sample of its output is a weighted sum of the input around it. So a block is resampled together with as
    much before and behind it as the filter reaches, and what comes of that surplus is cut off.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        ratio = Fraction(to_hz, from_hz)
        if max(ratio.numerator, ratio.denominator) > MOST_TERMS:  # such as 44,056 Hz: off by less than 1e-7
            ratio = ratio.limit_denominator(MOST_TERMS)
        self.up, self.down = ratio.numerator, ratio.denominator
        self._half = REACH * max(self.up, self.down)  # of the filter, in steps of the least common rate
        reach = self._half / self.up + 2  # in input
        self._reach = math.ceil(reach / self.down) * self.down  # blocks begin in both rates
        self._held: list[np.ndarray] = []  # input that is still needed
        self._from_start = True  # whether that is all input so far
        self._before = 0  # how much of it belongs to what has been given out

    def add(self, samples: Float[np.ndarray, "t"]) -> list[Float[np.ndarray, "s"]]:
        """What can be told of the output with these samples."""
        if self.up == self.down:
            return [samples]
        self._held.append(samples)
        ready = sum(map(len, self._held)) - self._before - self._reach
        if ready < max(BLOCK, self._reach):
            return []
        ready -= ready % self.down
        held = np.concatenate(self._held)
        first, last = self._before, self._before + ready
        found = self._resampled(held[: last + self._reach], to_end=False)
        rest = held[max(0, last - self._reach) :].copy()  # a view would keep all of it
        self._from_start &= last <= self._reach
        self._held, self._before = [rest], min(last, self._reach)
        return [found[first * self.up // self.down : last * self.up // self.down]]

    def end(self) -> list[Float[np.ndarray, "s"]]:
        """The rest of the output."""
        if not self._held:
            return []
        found = self._resampled(np.concatenate(self._held), to_end=True)
        return [found[self._before * self.up // self.down :]]

    def _resampled(self, samples: Float[np.ndarray, "t"], *, to_end: bool) -> Float[np.ndarray, "s"]:
        from scipy.signal import resample_poly  # slow to import, and most corpora do not need it

        found = np.asarray(resample_poly(samples, self.up, self.down))
        levels = np.rint(samples * np.float32(2**15))
        starts, ends = equal_runs(levels)
        long = (ends - starts) * self.up > 2 * self._half
        for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True):
            # From the first place whose filter does not reach the sample before, to that after the last one
            # whose filter does not reach the sample behind.
            first = ((start - 1) * self.up + self._half) // self.down + 1
            last = -(-(end * self.up - self._half) // self.down)
            first = 0 if start == 0 and self._from_start else first
            last = -(-end * self.up // self.down) if end == len(samples) and to_end else last
            found[first:last] = levels[start] / 2**15
        return found
