"""Whole runs of a toy modality: resuming, interruption, bad checkpoints, bad numbers."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy import Toy, toy_arguments, toy_config, write_waves

import seqssl
from seqssl import cli
from seqssl.errors import HealthHalt, UserError
from seqssl.training import checkpoint
from seqssl.training.loop import Trainer

REPOSITORY = Path(__file__).parents[2]


class Killed(BaseException):
    """Stands for kill -9: nothing is saved on the way out."""


def quiet_train(source: Path, out: Path, *overrides: str) -> seqssl.Run:
    return seqssl.train(toy_config(source, out, *overrides), say=lambda text: None)


def comparable(out: Path) -> list[dict[str, Any]]:
    """The metrics that must not depend on interruptions."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    timed = ("time_s", "mfu", "throughput")
    return [
        {key: value for key, value in record.items() if not key.startswith(timed)}
        for record in records
        if record["kind"] in ("train", "valid")
    ]


def die_at(update: int, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def dying(self: Trainer, batches: list[Any]) -> None:
        if self.update == update:
            raise Killed
        step(self, batches)

    monkeypatch.setattr(Trainer, "step", dying)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_bit_for_bit(waves: Path, tmp_path: Path, workers: int) -> None:
    # 15 training rows make about 5 batches, so 12 updates cross the border of an epoch twice.
    unbroken = quiet_train(waves, tmp_path / "unbroken")
    for update in (5, 7, 11) if workers == 0 else (7,):
        with pytest.MonkeyPatch.context() as patch:
            die_at(update, patch)
            with pytest.raises(Killed):
                quiet_train(waves, tmp_path / "broken", f"data.workers={workers}")
    resumed = quiet_train(waves, tmp_path / "broken", f"data.workers={workers}")
    assert comparable(resumed.out) == comparable(unbroken.out)
    assert {record["epoch"] for record in comparable(unbroken.out)} >= {0, 1}
    assert resumed.metrics == unbroken.metrics
    weights = [
        load_file(run.out / "checkpoints" / "step-00000012" / "model.safetensors")
        for run in (unbroken, resumed)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "seqssl", *arguments]


def environment(tmp_path: Path) -> dict[str, str]:
    paths = [str(REPOSITORY / "tests"), str(REPOSITORY)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "SEQSSL_CACHE": str(tmp_path / "cache")}


def start(arguments: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("train", *arguments),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_signals(waves: Path, tmp_path: Path) -> None:
    """kill -9, then SIGTERM, then to the end: the same metrics as an unbroken run, and exit code 130."""
    many = ("train.num_updates=60", "train.eval_every=30", "train.save_every=5")
    arguments = toy_arguments(waves, tmp_path / "broken", *many)
    unbroken = quiet_train(waves, tmp_path / "unbroken", *many)
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = start(arguments, tmp_path)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("train"):
                process.send_signal(number)
                break
        rest, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors
    assert process.returncode == 130, rest + errors
    assert "interrupted at update" in errors and "same command again" in rest + errors
    assert 0 < len(comparable(tmp_path / "broken")) < len(comparable(unbroken.out))
    quiet_train(waves, tmp_path / "broken", *many)
    assert comparable(tmp_path / "broken") == comparable(unbroken.out)


def test_a_finished_run_is_not_trained_again(waves: Path, tmp_path: Path) -> None:
    first = quiet_train(waves, tmp_path / "run")
    before = comparable(first.out)
    again = quiet_train(waves, tmp_path / "run")
    assert again.metrics == first.metrics and comparable(again.out) == before


def test_a_run_from_before_a_setting_existed_goes_on(waves: Path, tmp_path: Path) -> None:
    """Its default is what the run was trained with, so that counts, and not the recipe's new value."""
    out, key = tmp_path / "run", "objectives.masked_prediction.seen_weight"
    quiet_train(waves, out, f"{key}=0", "train.num_updates=4")
    config = out / "config.yaml"
    text = config.read_text()
    assert text.count("seen_weight: 0.0\n") == 1
    config.write_text(re.sub(r" *seen_weight: 0\.0\n", "", text))
    with pytest.raises(UserError, match=rf"{key}: 0.0 there, 0.5 now"):
        quiet_train(waves, out, f"{key}=0.5", "train.num_updates=4")
    assert quiet_train(waves, out, f"{key}=0", "train.num_updates=4").metrics


def test_other_settings_are_refused(waves: Path, tmp_path: Path) -> None:
    quiet_train(waves, tmp_path / "run")
    with pytest.raises(UserError, match=r"optim.lr: 0.003 there, 0.1 now") as caught:
        quiet_train(waves, tmp_path / "run", "optim.lr=0.1")
    assert "encoder" not in str(caught.value)
    np.save(waves / "group0" / "new.npy", np.zeros((40, 2), np.float32))
    with pytest.raises(UserError, match="trained on other data"):
        quiet_train(waves, tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        quiet_train(waves, tmp_path / "mine")


def test_a_full_disk_loses_nothing(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = checkpoint.save_file

    def full(tensors: Any, path: Path) -> None:
        if "step-00000006" in str(path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        written(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert cli.main(["train", *toy_arguments(waves, tmp_path / "run")]) == 2
    errors = capsys.readouterr().err
    assert "disk is full" in errors and "the same command goes on" in errors and "Traceback" not in errors
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"step-00000003", "best"}
    monkeypatch.setattr(checkpoint, "save_file", written)
    resumed = quiet_train(waves, tmp_path / "run")
    assert comparable(resumed.out) == comparable(quiet_train(waves, tmp_path / "unbroken").out)


def test_a_truncated_checkpoint_falls_back(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        die_at(8, patch)
        with pytest.raises(Killed):
            quiet_train(waves, tmp_path / "run")
    for name in ("step-00000006", "step-00000003"):
        path = tmp_path / "run" / "checkpoints" / name / "model.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        if name == "step-00000006":
            shown = capsys.readouterr()
            with pytest.MonkeyPatch.context() as patch:
                die_at(4, patch)
                with pytest.raises(Killed):
                    quiet_train(waves, tmp_path / "run")
            shown = capsys.readouterr()
            assert "step-00000006 is damaged" in shown.out and "going on from step-00000003" in shown.out
    assert cli.main(["train", *toy_arguments(waves, tmp_path / "run")]) == 2
    errors = capsys.readouterr().err
    assert "No checkpoint" in errors and "Traceback" not in errors


class Poisoned(Toy):
    """One training row turns into NaN when it is loaded for the `when`-th time."""

    loads, when = 0, 2
    steps = slice(3, 4)  # of the row

    def load(self, row: Any, rng: np.random.Generator | None) -> seqssl.Sample:
        sample = super().load(row, rng)
        if rng is not None and row["key"] == "group0/a04.npy":
            Poisoned.loads += 1
            if Poisoned.loads == self.when:
                sample.values[self.steps] = np.nan
        return sample


def test_a_bad_batch_is_named_and_dropped(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toy.Toy", Poisoned)
    monkeypatch.setattr("seqssl.runs.train.notices", lambda *_: [])  # it would load rows, which are counted
    Poisoned.loads, Poisoned.when = 0, 2
    run = quiet_train(waves, tmp_path / "run")
    events = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    named = [event for event in events if event.get("event") == "nonfinite"]
    assert len(named) == 1 and any("group0/a04.npy" in key for key in named[0]["keys"])
    weights = load_file(run.out / "checkpoints" / "step-00000012" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert np.isfinite(run.metrics["loss"])
    findings = [event["message"] for event in events if event.get("event") == "health"]
    assert any("group0/a04.npy" in message for message in findings)
    Poisoned.loads, Poisoned.when = 0, 1
    with pytest.raises(HealthHalt, match="a04"):
        quiet_train(waves, tmp_path / "halted", "health=halt")
    assert (tmp_path / "halted" / "checkpoints").exists()


ALONE = ("objectives.contrastive=null", "objectives.diversity=null", "encoder.taps={output: 2}")


@pytest.mark.parametrize(
    "own",
    [
        ("encoder.conv_norm=batch",),
        ("quantizer_norm=batch",),
        ("quantizer.revive=3", "masking.start_prob=0.4"),
        ("quantizer={target: residual, num_codebooks: 2, codebook_size: 8, dim: 16, revive: 0.5}",),
        ("targets={target: ema_clusters, layers: 2, num_clusters: 8}", *ALONE),
    ],
    ids=["conv_norm", "quantizer_norm", "gumbel", "residual", "ema_clusters"],
)
def test_a_bad_batch_leaves_nothing_in_what_moves_without_a_gradient(
    own: tuple[str, ...], waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, running means and entries that are means were not numbers from then on, for good."""
    monkeypatch.setattr("toy.Toy", Poisoned)
    monkeypatch.setattr("seqssl.runs.train.notices", lambda *_: [])  # it would load rows, which are counted
    monkeypatch.setattr("seqssl.model.quantizers.GRACE", 1)
    monkeypatch.setattr(Poisoned, "steps", slice(None))
    Poisoned.loads, Poisoned.when = 0, 1
    run = quiet_train(waves, tmp_path / "run", *own, "train.num_updates=8", "train.eval_every=8")
    events = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert len([event for event in events if event.get("event") == "nonfinite"]) == 1
    saved = load_file(run.out / "checkpoints" / "step-00000008" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())
    assert np.isfinite(run.metrics["loss"])


def test_constant_input_is_diagnosed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waves = write_waves(tmp_path / "constant", constant=True)
    arguments = toy_arguments(waves, tmp_path / "run", "modality.jitter=0.0", "health=halt")
    assert cli.main(["train", *arguments]) == 3
    assert "feature encoder" in capsys.readouterr().err
    assert cli.main(["doctor", str(tmp_path / "run")]) == 3
    assert "feature encoder" in capsys.readouterr().out


def test_no_diversity_is_diagnosed(waves: Path, tmp_path: Path) -> None:
    from seqssl import doctor

    quiet_train(
        waves,
        tmp_path / "run",
        "objectives.diversity=null",
        "objectives.contrastive=null",
        "quantizer.logit_init_std=30",  # all frames take the code that is largest at the start
        "temperature.start=0.1",
        "train.num_updates=40",
        "train.log_every=2",
        "train.eval_every=200",
        "optim.lr=0.02",
    )
    report = doctor.examine(tmp_path / "run")
    assert not report.ok and "objectives.diversity" in report.render()


def test_embeddings_of_a_run(waves: Path, tmp_path: Path) -> None:
    run = quiet_train(waves, tmp_path / "run")
    encoder = seqssl.load(run.out)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(length, 2)).astype(np.float32) for length in (40, 9, 25)]
    together = encoder.embed(arrays)
    alone = np.concatenate([encoder.embed([array]) for array in arrays])
    assert together.shape == (3, 16)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    random = seqssl.load(run.out, weights="random").embed(arrays)
    assert np.abs(random - together).max() > 1e-3
    best = seqssl.load(run.out / "checkpoints" / "best")
    assert best.spec.rate_hz == 10.0
