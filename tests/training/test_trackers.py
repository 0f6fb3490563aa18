"""Trackers, with the real packages: what a run tells is what they keep, offline, also when it goes on."""

from pathlib import Path
from typing import Any

import pytest
from toy import toy_config

from seqssl import UserError
from seqssl.runs.train import train
from seqssl.training.log import read_records

KEPT: list[tuple[int, str, float]] = []


class Mine:
    """A tracker of somebody's own."""

    def __init__(self, run: Path, settings: dict[str, Any], resume_at: int) -> None:
        assert settings["train.num_updates"] in (4, 6)
        KEPT[:] = [point for point in KEPT if point[0] <= resume_at]

    def log(self, update: int, values: dict[str, float]) -> None:
        KEPT.extend((update, name, value) for name, value in values.items())

    def close(self) -> None:
        KEPT.append((99, "closed", 0.0))


def losses(run: Path) -> list[tuple[int, float]]:
    return [
        (record["step"], record["loss"])
        for record in read_records(run / "metrics.jsonl")
        if record["kind"] == "train"
    ]


def test_a_tracker_of_ones_own_is_told_all_figures(waves: Path, tmp_path: Path) -> None:
    KEPT.clear()
    train(toy_config(waves, tmp_path / "run", "train.trackers=[test_trackers:Mine]", "train.num_updates=6"))
    told = [(update, value) for update, name, value in KEPT if name == "train/loss"]
    assert told == losses(tmp_path / "run") and KEPT[-1][1] == "closed"
    assert any(name == "valid/loss" for _, name, _ in KEPT)
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_tensorboard(waves: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(toy_config(waves, tmp_path / "run", "train.num_updates=6"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    found = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars("train/loss")]
    assert found == losses(tmp_path / "run")


def test_mlflow_in_the_runs_folder(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = toy_config(waves, tmp_path / "run", "train.trackers=[mlflow]", "train.num_updates=6")
    train(config)
    train(config)  # it goes on: the same run of MLflow, not a second one
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "seqssl"]
    (run,) = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, pytest.approx(point.value)) for point in points) == losses(tmp_path / "run")
    assert run.data.params["train.num_updates"] == "6" and run.info.status == "FINISHED"


def test_wandb_offline(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(toy_config(waves, tmp_path / "run", "train.trackers=[wandb]", "train.num_updates=6"))
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (log,) = offline.glob("*.wandb")
    data = log.read_bytes()
    assert b"train/loss" in data and b"num_updates" in data


@pytest.mark.parametrize(
    ("name", "words"),
    [("tensorbord", "did you mean 'tensorboard'"), ("no.such:Tracker", "cannot be imported")],
)
def test_an_unknown_tracker_is_told(waves: Path, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        train(toy_config(waves, tmp_path / "run", f"train.trackers=[{name}]", "train.num_updates=4"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_names_the_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seqssl.training.trackers import start

    for module in ("wandb", "mlflow", "mlflow.tracking"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'seqssl\[trackers\]'"):
        start([name], tmp_path, object(), 0)
