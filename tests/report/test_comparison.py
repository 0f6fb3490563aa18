"""Runs beside each other."""

import json
import shutil
from pathlib import Path

import pytest
from toy import toy_config, write_waves

import seqssl
from seqssl import cli
from seqssl.errors import UserError
from seqssl.report.comparison import write_comparison

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


def write_run(folder: Path, *settings: str, **values: object) -> Path:
    """A run's folder as far as a comparison reads it, with an evaluation if there are values for one."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("\n".join(("seed: 0", f"out: {folder}", *settings)))
    (folder / "metrics.jsonl").write_text("")
    if values:
        (folder / "evaluation-classify").mkdir()
        evaluation = {"task": "classify", "metric_words": "accuracy", "results": RESULTS,
                      "worth": {"sentence": f"That of {folder}."}, "groups_held_out": [], "hardware": "CPU",
                      "date": "2026-11-29", "seconds": 1.0} | values  # fmt: skip
        (folder / "evaluation-classify" / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def test_every_setting_that_differs_is_shown(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", "optim:", "  lr: 0.1", "  eps: 1", "provenance:", "  data_hash: ab")
    two = write_run(tmp_path / "two", "optim:", "  lr: 0.2", "  eps: 1", "provenance:", "  data_hash: cd")
    page = write_comparison([one, two], tmp_path / "page.html").read_text()
    assert "<td>optim.lr</td><td>0.1</td><td>0.2</td>" in page
    assert "<td>data as prepared</td><td>ab</td><td>cd</td>" in page
    assert "optim.eps" not in page and "<td>out</td>" not in page


@pytest.mark.parametrize(
    ("other", "pictures"),
    [({}, 1), ({"metric_words": "macro F1"}, 2), ({"data": "b (1)"}, 2), ({"labels": "x/*"}, 2)],
)
def test_only_like_is_drawn_over_like(tmp_path: Path, other: dict[str, str], pictures: int) -> None:
    one = write_run(tmp_path / "one", data="a (1)")
    two = write_run(tmp_path / "two", **({"data": "a (1)"} | other))
    page = write_comparison([one, two], tmp_path / "page.html").read_text()
    assert page.count("<svg") == pictures
    assert page.count("That of") == 2


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / first / "evening" / "run", data="a (1)") for first in ("x", "y")]
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    assert "<strong>x/evening/run</strong><" in page and "<strong>y/evening/run</strong><" in page
    assert page.count("That of") == 2


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path / "one")
    (run / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        write_comparison([run, run], tmp_path / "page.html")
