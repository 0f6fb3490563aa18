"""Forecasts with a known answer, from a protocol that must not see the future."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import toy_config, write_waves

import seqssl
from seqssl import Sample, SampleSpec, UserError, cli
from seqssl.assembly import OpenStream, streams_of
from seqssl.data.prepare import open_or_prepare
from seqssl.evaluation import forecast
from seqssl.evaluation.forecast import Protocol, Windows
from seqssl.evaluation.held_out import Seen
from seqssl.runs.folder import write_config
from seqssl.training import checkpoint

PROTOCOL = Protocol(lookback=24, horizon=6, season=12, every=3)


class Rows:
    """Series in memory, as a corpus and as its adapter."""

    def __init__(self, series: list[np.ndarray]) -> None:
        self.series = series
        self.lengths = np.array([len(values) for values in series])

    def row(self, number: int) -> dict[str, Any]:
        return {"number": number}

    def load(self, row: dict[str, Any], rng: object) -> Sample:
        values = self.series[row["number"]].astype(np.float32)
        return Sample(np.nan_to_num(values), observed=~np.isnan(values), times=np.arange(len(values)) * 1.0)


def windows(*series: np.ndarray, protocol: Protocol = PROTOCOL) -> Windows:
    rows: Any = Rows([*series])
    channels = series[0].shape[1]
    statistics = {"mean": [0.0] * channels, "std": [1.0] * channels}
    return forecast.cut(rows, rows, np.arange(len(series)), protocol, np.arange(channels), statistics)


def periodic(length: int = 90, period: int = 12, phase: float = 0.0) -> np.ndarray:
    steps = np.arange(length)[:, None] + phase
    return np.concatenate([np.sin(2 * np.pi * steps / period), np.cos(2 * np.pi * steps / period)], axis=1)


def errors(train: Windows, test: Windows, protocol: Protocol = PROTOCOL) -> dict[str, float]:
    guesses = forecast.baselines(train, test, protocol)
    return {name: float(np.nanmean(np.square(guess - test.future))) for name, guess in guesses.items()}


def test_every_window_is_cut_and_no_step_is_lost() -> None:
    series = np.arange(90.0)[:, None]
    cut = windows(series)
    starts = range(0, 90 - 24 - 6 + 1, 3)
    assert len(cut) == len(starts)
    for window, past, future, start in zip(cut.inputs, cut.past, cut.future, starts, strict=True):
        np.testing.assert_array_equal(window.values[:, 0], series[start : start + 24, 0])
        np.testing.assert_array_equal(past[:, 0], series[start : start + 24, 0])
        np.testing.assert_array_equal(future[:, 0], series[start + 24 : start + 30, 0])
        assert window.times is not None and window.times[0] == start


def test_baselines_on_what_they_are_made_for() -> None:
    found = errors(windows(periodic()), windows(periodic(phase=5)))
    assert found["seasonal-naive"] < 1e-9
    assert found["DLinear"] < 1e-3
    assert found["persistence"] > 0.3
    assert found["mean"] == pytest.approx(0.5, rel=0.1)
    flat = np.full((90, 1), 3.0)
    assert errors(windows(flat), windows(flat))["persistence"] == 0


def test_gaps_are_gone_through_and_not_scored() -> None:
    series = periodic()
    series[40:44] = np.nan
    cut = windows(series)
    assert np.isfinite(cut.past).all() and np.isnan(cut.future).any()
    last = cut.past[:, -1]
    place = next(i for i, window in enumerate(cut.inputs) if window.observed[-1].sum() == 0)  # type: ignore[index]
    np.testing.assert_allclose(last[place], np.float32(periodic()[39]), atol=1e-6)
    assert all(np.isfinite(value) for value in errors(cut, cut).values())


def test_a_head_finds_what_the_embedding_knows() -> None:
    train, test = windows(periodic()), windows(periodic(phase=7))

    def embedding(cut: Windows) -> np.ndarray:
        return np.concatenate([cut.past[:, -1], np.random.default_rng(0).normal(size=(len(cut), 3))], axis=1)

    guess = forecast.head(embedding(train), train, embedding(test), test)
    assert float(np.mean(np.square(guess - test.future))) < 1e-3


def test_what_was_not_measured_teaches_nothing() -> None:
    train, test = windows(periodic(200)), windows(periodic(phase=7))
    half = np.arange(len(train)) % 2 == 0
    gaps = train.future.copy()
    gaps[half, :, 0] = np.nan  # a sensor that half of the windows lack
    partly = Windows(train.inputs, train.past, gaps)
    rest = Windows([], train.past[~half, :, :1], train.future[~half, :, :1])
    x = np.random.default_rng(0).normal(size=(len(train), 4))
    y = np.random.default_rng(1).normal(size=(len(test), 4))
    found = forecast.head(x, partly, y, test)
    alone = forecast.head(x[~half], rest, y, Windows([], test.past[..., :1], test.future[..., :1]))
    np.testing.assert_allclose(found[..., :1], alone, atol=0.05)
    np.testing.assert_allclose(found[..., 1], forecast.head(x, train, y, test)[..., 1], atol=0.05)
    series = np.array([[np.nan, 1.0, np.nan, 3.0], [5.0, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(forecast._bridged(series), [[1, 1, 2, 3], [5, 5, 5, 5]])


def test_windows_without_any_value_before_are_left_out() -> None:
    series = periodic()
    series[20:60] = np.nan
    cut = windows(series)
    assert len(cut.inputs) == len(cut.past) == len(cut.future) == 15
    assert all(window.observed.any() for window in cut.inputs)  # type: ignore[union-attr]


def test_the_future_of_the_test_rows_changes_no_forecast() -> None:
    train, test = windows(periodic()), windows(periodic(phase=7))
    other = Windows(test.inputs, test.past, test.future * 0 + 9)
    for name, guess in forecast.baselines(train, test, PROTOCOL).items():
        np.testing.assert_array_equal(guess, forecast.baselines(train, other, PROTOCOL)[name])
    x = np.random.default_rng(0).normal(size=(len(train), 4))
    y = np.random.default_rng(1).normal(size=(len(test), 4))
    np.testing.assert_array_equal(forecast.head(x, train, y, test), forecast.head(x, train, y, other))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    config = toy_config(write_waves(tmp_path / "waves"), out)
    (stream,) = streams_of(config)
    corpus = open_or_prepare(stream.adapter, config.data, modality="toy:Toy")
    write_config(config, out, [OpenStream("", config, stream.adapter, corpus=corpus)])
    weights = checkpoint.weights_of(seqssl.build_model(config))
    state = checkpoint.State(update=3, cursor=3, best=None, tally={})
    checkpoint.save(out / "checkpoints" / "step-00000003", weights, None, state)
    return out


def test_the_command_scores_every_method(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["probe", f"run={run}", "task=forecast", "lookback=16", "horizon=4", "season=8"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "seasonal-naive" in shown and "output" in shown
    scores = json.loads((run / "forecast.json").read_text())["scores"]
    methods = {(score["weights"], score["method"]) for score in scores}
    stages = {(w, s) for w in ("trained", "random") for s in ("features", "contrastive", "output")}
    names = ("mean", "persistence", "seasonal-naive", "DLinear")
    assert methods == stages | {("none", name) for name in names}
    assert len({score["num_windows"] for score in scores}) == 1
    assert cli.main([*command, "labels=0"]) == 0
    assert cli.main([*command, "labels=z*"]) == 2
    assert "no channel matches z*; there is 0, 1" in capsys.readouterr().err
    assert cli.main(["probe", f"run={run}", "task=forecast", "lookback=1000"]) == 2
    assert "lower lookback or horizon" in capsys.readouterr().err
    assert cli.main(["probe", f"run={run}", "task=forecasting"]) == 2
    assert cli.main(["probe", f"run={run}", "task=forecast", "horizon=0"]) == 2


def test_too_many_windows_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "MAX_VALUES", 1000)
    with pytest.raises(UserError, match="21 windows of 2 channels are too many"):
        windows(periodic())


def test_dlinear_of_a_part_is_nearly_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = windows(periodic()), windows(periodic(phase=5))
    monkeypatch.setattr(forecast, "MAX_FITTED", 30)
    assert errors(train, test)["DLinear"] < 1e-3


def test_ids_cannot_be_forecast() -> None:
    class Empty:
        class manifest:
            statistics = None

    encoder: Any = type("E", (), {"spec": SampleSpec(dtype="int64", units="id", vocab_size=4)})
    corpus: Any = Empty()
    with pytest.raises(UserError, match="float series"):
        forecast.probe_forecast(encoder, encoder, corpus, corpus, PROTOCOL)


def test_rows_of_the_training_are_no_test() -> None:
    class Own:
        folder = "rows"
        manifest = type("M", (), {"statistics": {"mean": [0.0], "std": [1.0]}})
        keys, splits = np.array(["a", "b"], object), np.array(["train", "valid"], object)

    encoder: Any = type("E", (), {"spec": SampleSpec(dtype="float32", units="one", channels=1)})
    corpus: Any = Own()
    with pytest.raises(UserError, match="no row of rows is held out"):
        forecast.probe_forecast(encoder, encoder, corpus, corpus, PROTOCOL, seen=Seen(frozenset("ab")))
