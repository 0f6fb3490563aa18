"""What a practitioner would measure of a series first: statistics for adapters and classical methods."""

import warnings

import numpy as np
from jaxtyping import Bool, Float

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NUM_BANDS = 5  # octaves below half the rate; the lowest holds all that is slower
MAX_CORRELATED = 16  # channels
FLOOR = 1e-9  # of a variance whose logarithm is taken


def describe_series(
    values: Float[np.ndarray, "t c"], observed: Bool[np.ndarray, "t c"] | None = None
) -> Float[np.ndarray, "d"]:
    """Statistics of each channel and of the channels together; what is not observed is left out.

    Of each channel: mean, standard deviation, five quantiles, the mean size of a change and the deviation of
    changes, the logarithm of the variance in five bands of frequency, and the mean of the first third less
    that of the last. Of all channels: their correlations, if there are at most 16 of them, and the logarithm
    of the length. A channel without an observed value has zeros.
    """
    values = np.asarray(values, np.float64)
    known = values if observed is None else np.where(observed, values, np.nan)
    third = max(1, len(known) // 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel without an observed value
        changes = np.diff(known, axis=0) if len(known) > 1 else np.zeros_like(known)
        mean = np.nanmean(known, axis=0)
        parts = [
            mean,
            np.nanstd(known, axis=0),
            *np.nanquantile(known, QUANTILES, axis=0),
            np.nanmean(np.abs(changes), axis=0),
            np.nanstd(changes, axis=0),
            np.nanmean(known[:third], axis=0) - np.nanmean(known[-third:], axis=0),
        ]
    centered = np.nan_to_num(known - mean)
    parts += [*_bands(centered), np.log([len(known)])]
    if 1 < known.shape[1] <= MAX_CORRELATED:
        scale = np.sqrt(np.square(centered).sum(axis=0)) + FLOOR
        parts.append((centered.T @ centered / scale / scale[:, None])[np.triu_indices(known.shape[1], 1)])
    return np.asarray(np.nan_to_num(np.concatenate(parts)), np.float32)


def _bands(centered: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "b c"]:
    """The logarithm of the variance of each channel in each band, slow ones first; gaps count as the mean."""
    steps = len(centered)
    power = np.square(np.abs(np.fft.rfft(centered, axis=0))) / steps**2
    power[1 : (steps + 1) // 2] *= 2  # all frequencies but 0 and half the rate come twice
    edges = [0.0, *(0.5 / 2**octave for octave in range(NUM_BANDS - 1, 0, -1)), 0.5 + FLOOR]
    places = np.digitize(np.fft.rfftfreq(steps), edges) - 1
    bands = [power[places == band].sum(axis=0) for band in range(NUM_BANDS)]
    return np.log(np.stack(bands) + FLOOR)
