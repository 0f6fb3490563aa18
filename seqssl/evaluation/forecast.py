"""Linear forecasts from frozen embeddings: a fixed protocol, with baselines beside.

What the encoder's training did without is held out here too, where that is known (see `held_out_rows`): the
head is fitted on the other rows and scored on all windows of these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter, Sample
from seqssl.data.files import Progress, silent
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.evaluation.frozen import FEATURES, Array, Encoder
from seqssl.evaluation.held_out import UNKNOWN, Seen, held_out_rows
from seqssl.evaluation.probe import NO_WEIGHTS, RANDOM, TRAINED, some_of
from seqssl.model.norms import MIN_STD

ALPHAS = tuple(
    10.0**power for power in range(-2, 7)
)  # of the ridge, chosen by leave-one-out on training windows
MAX_FITTED = 20_000  # series that DLinear is fitted to; of more, a fixed random part
MAX_VALUES = 2**27  # of all windows together: 1 GiB
TREND_STEPS = 25  # of DLinear's moving average
WINDOWS_AT_ONCE = 512


@dataclass(frozen=True)
class Protocol:
    """How far forecasts reach and what they are made from, in input steps."""

    lookback: int
    horizon: int
    season: int  # the number of last steps that seasonal-naive repeats
    every: int  # between the starts of two windows


@dataclass(frozen=True)
class ForecastScore:
    """Errors of one method on the windows of held-out rows, in units of each channel's standard deviation."""

    weights: str  # trained | random | none
    method: str  # a stage of the encoder, or the name of a baseline
    mse: float
    mae: float
    num_windows: int


@dataclass(frozen=True)
class Windows:
    """Look-backs and what followed, scaled to zero mean and unit variance by the training rows."""

    inputs: list[Sample]  # as the encoder reads them: lookback steps each
    past: Array  # n lookback c; a gap is filled with the last value before it
    future: Array  # n horizon c, NaN where missing

    def __len__(self) -> int:
        return len(self.past)


def probe_forecast(
    encoder: Encoder,
    random: Encoder,
    corpus: Corpus,
    adapter: ModalityAdapter,
    protocol: Protocol,
    *,
    channels: Sequence[str] = ("*",),
    seen: Seen = UNKNOWN,
    max_rows: int | None = None,
    progress: Progress = silent,
) -> list[ForecastScore]:
    """Score a linear head on every stage, beside the same encoder with random weights and without one.

    `channels` are shell patterns of channel names to forecast; `seen`: what the encoder was trained on;
    `max_rows` bounds the rows of each side. Raises UserError where no window fits.
    """
    statistics = corpus.manifest.statistics
    if statistics is None or encoder.spec.channels is None:
        raise UserError("task=forecast is for float series with channels")
    chosen = _chosen(encoder, channels, statistics)
    held_out, _ = held_out_rows(corpus, seen)
    if not held_out.any():
        raise UserError(
            f"no row of {corpus.folder} is held out: name data with rows that the encoder was not trained on."
        )
    train, test = (
        cut(corpus, adapter, some_of(np.flatnonzero(side), max_rows), protocol, chosen, statistics)
        for side in (~held_out, held_out)
    )
    if not len(train) or not len(test):
        raise UserError(
            f"no row of {corpus.folder} is {protocol.lookback} + {protocol.horizon} steps long in both "
            "splits, with a value in the look-back: lower lookback or horizon"
        )
    guesses = baselines(train, test, protocol)
    scores = [_score(NO_WEIGHTS, name, guess, test) for name, guess in guesses.items()]
    for weights, source in ((TRAINED, encoder), (RANDOM, random)):
        parts = [_features(source, windows.inputs, protocol, progress) for windows in (train, test)]
        for stage in source.stages:
            guess = head(parts[0][stage], train, parts[1][stage], test)
            scores.append(_score(weights, stage, guess, test))
    return scores


def _chosen(
    encoder: Encoder, patterns: Sequence[str], statistics: Mapping[str, Sequence[float]]
) -> npt.NDArray[np.intp]:
    """The channels with a name that matches a pattern, as numbers; UserError where none does.

    Those that never change in the training rows are left out: they have no unit in which to measure errors.
    """
    names = encoder.spec.channel_names or [str(c) for c in range(encoder.spec.channels or 1)]
    found = [c for c, name in enumerate(names) if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        raise UserError(f"no channel matches {', '.join(patterns)}; there is {', '.join(names)}")
    changing = [c for c in found if statistics["std"][c] > MIN_STD]
    if not changing:
        raise UserError(f"channels {', '.join(names[c] for c in found)} never change in the training rows")
    return np.array(changing)


def cut(
    corpus: Corpus,
    adapter: ModalityAdapter,
    rows: npt.NDArray[np.int64],
    protocol: Protocol,
    channels: npt.NDArray[np.intp],
    statistics: dict[str, list[float]],
) -> Windows:
    """All windows of some rows; UserError where they are too many to hold."""
    mean = np.array(statistics["mean"])[channels]
    std = np.array(statistics["std"])[channels]
    lengths = corpus.lengths[rows] - protocol.lookback - protocol.horizon
    number = int(np.maximum(lengths // protocol.every + 1, 0).sum())
    if number * (protocol.lookback + protocol.horizon) * len(channels) > MAX_VALUES:
        raise UserError(
            f"{number:,} windows of {len(channels)} channels are too many: lower lookback or max_rows, "
            "choose channels with labels=, or raise horizon (windows are a quarter of it apart)"
        )
    inputs, past, future = [], [], []
    for sample in (adapter.load(corpus.row(int(number)), None) for number in rows):
        values = (sample.values[:, channels] - mean) / std
        if sample.observed is not None:
            values = np.where(sample.observed[:, channels], values, np.nan)
        for start, middle, end in _places(len(values), protocol):
            if sample.observed is not None and not sample.observed[start:middle].any():
                continue  # there is nothing to forecast from
            inputs.append(_part(sample, start, middle))
            past.append(filled(values[start:middle]))
            future.append(values[middle:end])
    if not inputs:
        return Windows([], np.empty(0), np.empty(0))
    return Windows(inputs, np.stack(past), np.stack(future))


def _places(length: int, protocol: Protocol) -> Iterator[tuple[int, int, int]]:
    """Start, middle and end of every window in a row: the look-back is [start, middle)."""
    for start in range(0, length - protocol.lookback - protocol.horizon + 1, protocol.every):
        middle = start + protocol.lookback
        yield start, middle, middle + protocol.horizon


def _part(sample: Sample, start: int, end: int) -> Sample:
    """The steps [start, end) of a sample, without its label, codes and segments."""
    observed = None if sample.observed is None else sample.observed[start:end]
    times = None if sample.times is None else sample.times[start:end]
    return Sample(sample.values[start:end], observed=observed, times=times)


def filled(values: Array) -> Array:
    """Values with each missing one replaced by the last before it, or by the mean (0) where there is none."""
    places = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    places = np.maximum.accumulate(places, axis=0)
    filled = np.take_along_axis(values, np.maximum(places, 0), axis=0)
    return np.asarray(np.where(places < 0, 0.0, filled))


def baselines(train: Windows, test: Windows, protocol: Protocol) -> dict[str, Array]:
    """Forecasts (n, horizon, c) without an encoder."""
    last = test.past[:, -1:]
    season = min(protocol.season, protocol.lookback)
    steps = protocol.lookback - season + np.arange(protocol.horizon) % season
    return {
        "mean": np.zeros_like(test.future),
        "persistence": np.repeat(last, protocol.horizon, axis=1),
        "seasonal-naive": test.past[:, steps],
        "DLinear": _dlinear(train, test),
    }


def _dlinear(train: Windows, test: Windows) -> Array:
    """DLinear (Zeng et al., AAAI 2023): linear in trend and remainder, one map for all channels, by ridge."""
    future = _series(train.future)
    measured = np.isfinite(future).any(axis=1)
    series, future = _series(train.past)[measured], _bridged(future[measured])
    if not len(series):
        return np.zeros_like(test.future)
    if len(series) > MAX_FITTED:
        chosen = np.random.default_rng(0).choice(len(series), MAX_FITTED, replace=False)
        series, future = series[chosen], future[chosen]
    model = _ridge(_decomposed(series), future)
    guess = model.predict(_decomposed(_series(test.past)))
    shape = (len(test), test.past.shape[2], test.future.shape[1])
    return np.asarray(guess.reshape(shape).transpose(0, 2, 1))


def _series(past: Array) -> Array:
    """Windows (n lookback c) as series of one channel (n c, lookback)."""
    return np.asarray(past.transpose(0, 2, 1).reshape(-1, past.shape[1]))


def _bridged(series: Array) -> Array:
    """Series of which each has a value, with gaps on a line between the values around them."""
    filled, steps, known = series.copy(), np.arange(series.shape[1]), np.isfinite(series)
    for number in np.flatnonzero(~known.all(axis=1)):
        filled[number] = np.interp(steps, steps[known[number]], series[number, known[number]])
    return filled


def _decomposed(series: Array) -> Array:
    """Trend and remainder (m, 2 lookback)."""
    sides = TREND_STEPS // 2
    padded = np.pad(series, ((0, 0), (sides, sides)), mode="edge")
    sums = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)
    trend = (sums[:, TREND_STEPS:] - sums[:, :-TREND_STEPS]) / TREND_STEPS
    return np.concatenate([trend, series - trend], axis=1)


def head(x: Array, train: Windows, x_test: Array, test: Windows) -> Array:
    """Ridge from embeddings to the change from the last value (n, horizon, c)."""
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, x_test = (x - mean) / std, (x_test - mean) / std
    change, guess = train.future - train.past[:, -1:], np.zeros_like(test.future)
    # What was not measured teaches nothing. Channels that were measured together are fitted together.
    measured = np.isfinite(change).any(axis=1)  # n c
    kinds, kind_of = np.unique(measured, axis=1, return_inverse=True)
    for kind in range(kinds.shape[1]):
        rows, channels = kinds[:, kind], np.flatnonzero(kind_of.ravel() == kind)
        if rows.any():
            known = _bridged(_series(change[rows][:, :, channels]))  # (n c) horizon
            wanted = known.reshape(int(rows.sum()), -1)  # n (c horizon)
            said = _ridge(x[rows], wanted).predict(x_test).reshape(len(x_test), len(channels), -1)
            guess[:, :, channels] = said.transpose(0, 2, 1)
    return np.asarray(test.past[:, -1:] + guess)


def _ridge(x: Array, y: Array) -> Any:
    """A fitted ridge regression from x to y; its penalty is the best of `ALPHAS` by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

    with threadpool_limits(1):
        return RidgeCV(ALPHAS).fit(x, y)


def _features(
    encoder: Encoder, samples: Sequence[Sample], protocol: Protocol, progress: Progress
) -> dict[str, Array]:
    """For every stage, a vector per window: mean over frames, last frame, and the frames predicted ahead."""
    lengths = torch.tensor([protocol.lookback])
    num_past = int(encoder.model.feature_encoder.output_lengths(lengths))
    found: dict[str, list[Array]] = {stage: [] for stage in encoder.stages}
    for start in range(0, len(samples), WINDOWS_AT_ONCE):
        progress(start, len(samples), "embedding")
        part = samples[start : start + WINDOWS_AT_ONCE]
        for stage, frames in encoder.frames(part, ahead=protocol.horizon).items():
            ahead = slice(num_past, num_past if stage == FEATURES else None)
            found[stage] += [
                np.concatenate([x[:num_past].mean(axis=0), x[num_past - 1], x[ahead].reshape(-1)])
                for x in frames
            ]
    progress(len(samples), len(samples), "embedding")
    return {stage: np.stack(vectors) for stage, vectors in found.items()}


def _score(weights: str, method: str, guess: Array, test: Windows) -> ForecastScore:
    """The errors of one method's forecasts; missing values do not count."""
    error = guess - test.future
    mse, mae = float(np.nanmean(np.square(error))), float(np.nanmean(np.abs(error)))
    return ForecastScore(weights, method, mse, mae, len(test))


def to_json(scores: Sequence[ForecastScore]) -> list[dict[str, Value]]:
    """The scores as plain values."""
    return [asdict(score) for score in scores]
