"""Runs beside each other."""

import json
import shutil
from pathlib import Path

import pytest
from toy import toy_config, write_waves

import seqssl
from seqssl import cli

RESULTS = [
    {
        "row": row,
        "fraction": f,
        "num_labels": 10 * f,
        "mean": 0.4 + f / 10,
        "low": 0.3,
        "high": 0.6,
        "by_seed": {},
    }
    for row in ("scratch", "pretrained")
    for f in (1, 2)
]


def test_what_differs_and_evaluations_over_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_waves(tmp_path / "waves")
    for seed in (0, 1):
        config = toy_config(source, tmp_path / f"run{seed}", f"seed={seed}", "train.num_updates=4")
        seqssl.train(config, say=lambda text: None)
        folder = tmp_path / f"run{seed}" / "evaluation-classify"
        folder.mkdir()
        values = {"task": "classify", "metric_words": "accuracy", "results": RESULTS,
                  "worth": {"sentence": f"Sentence <{seed}>."}, "groups_held_out": [], "hardware": "CPU",
                  "date": "2026-11-29", "seconds": 1.0}  # fmt: skip
        (folder / "evaluation.json").write_text(json.dumps(values))
    out = tmp_path / "page.html"
    assert cli.main(["report", str(tmp_path / "run0"), str(tmp_path / "run1"), f"out={out}"]) == 0
    page = out.read_text()
    assert "<strong>run0</strong>" in page and "<strong>run1</strong>" in page
    assert "<td>seed</td><td>0</td><td>1</td>" in page
    assert "encoder.dim" not in page, "both have the same"
    assert "run1: Sentence &lt;1&gt;." in page
    assert page.count("<svg") == 1
    shutil.rmtree(tmp_path / "run1" / "checkpoints")
    (tmp_path / "run1" / "metrics.jsonl").unlink()
    assert cli.main(["report", str(tmp_path / "run0"), str(tmp_path / "run1"), f"out={out}"]) == 2
    assert "is no run, or has not begun" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path / "run0"), "out=x.txt"]) == 2
