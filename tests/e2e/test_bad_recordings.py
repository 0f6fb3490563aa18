"""Recordings as people have them, through the whole of `seqssl train recipe=speech_w2vbert`."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seqssl import cli

ARGUMENTS = [
    "recipe=speech_w2vbert",
    "encoder.taps={contrastive: 1, output: 2}",
    *(
        "size=tiny encoder.dim=16 train.num_updates=3 train.log_every=1 train.eval_every=3 "
        "encoder.ffn_dim=16 encoder.num_layers=2 encoder.position_groups=4 quantizer.dim=16 "
        "quantizer.codebook_size=8 mixer.num_heads=2 modality.conv_channels=2 data.batch_seconds=6 "
        "train.precision=float32 train.save_every=3 data.valid_share=0.3"
    ).split(),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))


def tone(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
    time = np.arange(int(seconds * rate_hz))[:, None] / rate_hz
    rng = np.random.default_rng(int(rate_hz * seconds))
    return 0.3 * np.sin(2 * np.pi * 300 * time) + 0.05 * rng.normal(size=(len(time), channels))


def write_usable(folder: Path) -> None:
    folder.mkdir()
    soundfile.write(folder / "stereo44k.wav", tone(1.5, 44_100, 2), 44_100)
    soundfile.write(folder / "phone8k.wav", tone(1.2, 8_000), 8_000)
    soundfile.write(folder / "short.wav", tone(0.15, 16_000), 16_000)  # 4 frames; a mask span has 10
    for number in range(6):
        soundfile.write(folder / f"plain{number}.flac", tone(1 + 0.1 * number, 16_000), 16_000)
    soundfile.write(folder / "cut.wav", tone(2, 16_000), 16_000)
    (folder / "cut.wav").write_bytes((folder / "cut.wav").read_bytes()[:40_000])


def write_unusable(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "notes.wav").write_text("this is no recording")
    soundfile.write(folder / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(folder / "blink.wav", tone(0.02, 16_000), 16_000)


def test_what_can_be_used_is_used(tmp_path: Path) -> None:
    write_usable(tmp_path / "mine")
    write_unusable(tmp_path / "mine")
    assert cli.main(["train", *ARGUMENTS, f"data={tmp_path / 'mine'}", f"out={tmp_path / 'run'}"]) == 0
    (rejected,) = (tmp_path / "cache" / "prepared").glob("*/rejected.jsonl")
    reasons = {entry["path"]: entry["reason"] for entry in map(json.loads, rejected.read_text().splitlines())}
    assert set(reasons) == {"empty.wav", "notes.wav", "nan.wav", "silent.wav", "blink.wav"}
    assert all(len(reason) > 5 for reason in reasons.values())
    (manifest,) = (tmp_path / "cache" / "prepared").glob("*/manifest.json")
    splits = json.loads(manifest.read_text())["splits"]
    assert splits["train"]["num_rows"] + splits["valid"]["num_rows"] == 10


def test_clips_shorter_than_a_mask_span_train(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for number in range(8):
        soundfile.write(tmp_path / "mine" / f"{number}.wav", tone(0.11 + 0.04 * number, 16_000), 16_000)
    arguments = [*ARGUMENTS, f"data={tmp_path / 'mine'}", f"out={tmp_path / 'run'}", "data.join_seconds=null"]
    assert cli.main(["train", *arguments]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(record["loss"]) for record in records if record["kind"] == "train")


@pytest.mark.parametrize("there", [True, False])
def test_nothing_usable_is_one_message(
    there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if there:
        write_unusable(tmp_path / "mine")
    assert cli.main(["train", *ARGUMENTS, f"data={tmp_path / 'mine'}", f"out={tmp_path / 'run'}"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors and "mine" in errors
    assert ("5 rejected" in errors) if there else ("no file or folder" in errors)
    assert not (tmp_path / "run" / "checkpoints").exists()
