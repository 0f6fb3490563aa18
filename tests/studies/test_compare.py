"""Recipes side by side: the same budget, each run once, stages included."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from toy import TOY, write_waves
from tuned_toys import write_labelled

from seqssl import cli
from seqssl.errors import UserError
from seqssl.studies import compare
from seqssl.studies.compare import Budget
from seqssl.training.log import read_records

COMMON = [
    *(
        text
        for text in TOY
        if not text.startswith(("quantizer", "encoder.conv", "encoder.ffn", "encoder.taps", "modality"))
    ),
    "modality=tuned_toys:Labelled",
    "size=tiny",
    "encoder.block.ffn_dim=16",
    "encoder.taps={output: 2}",
    "feature_encoder=null",
    "objectives.masked_prediction.final_dim=8",
]
RECIPE = """
extends: base/hubert
stages: {{first: {{targets: {{num_clusters: 5}}}}}}
sizes: {{tiny: {{targets: {{num_clusters: {size}, tap: layer1}}}}}}
"""


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    """Two recipes of one method: HuBERT with fewer clusters and with more."""
    paths = {tmp_path / "few.yaml": 4, tmp_path / "many.yaml": 7}
    for path, size in paths.items():
        path.write_text(RECIPE.format(size=size))
    return [str(path) for path in paths]


def test_recipes_are_trained_alike_and_judged_alike(recipes: list[str], tmp_path: Path) -> None:
    source, told = write_labelled(tmp_path / "waves", num_rows=36), list[str]()

    def run(task: str = "classify", tuning: int = 2, budget: str = "updates:8") -> str:
        return compare.compare(
            tmp_path / "out", recipes=recipes, settings=[*COMMON, f"data={source}"], task=task.split(),
            frames=str(source), budget=budget, tuning=tuning, seeds=1, jobs=1, say=told.append,
        )  # fmt: skip

    page = run()
    assert (
        "| recipe | fine-tuned | frozen | from scratch | frames, best layer | the same, random weights | "
        in page
    )
    assert page.count(".yaml | ") == 2
    ElementTree.parse(tmp_path / "out" / "report.svg")
    drawn = (tmp_path / "out" / "report.svg").read_text()
    assert "report.svg" in page and all(word in drawn for word in ("few", "many", "fine-tuned", "frozen"))
    (place,) = (tmp_path / "out").glob("pretrained-*/runs/few-0")
    steps = [
        max(r["step"] for r in read_records(place / part / "metrics.jsonl")) for part in (".", "stages/first")
    ]
    assert steps == [4, 4], "the stages share the budget"
    assert len(told) == 6, "two recipes: pre-trained, and judged by frames and by the task"
    assert run() == page and len(told) == 6, "nothing is run twice"
    assert "fine-tuned" not in run(task="") and len(told) == 6, "judged by less: nothing to do"
    assert "fine-tuned" in run(tuning=3) and len(told) == 8, "tuned for longer: pre-trained runs are kept"
    assert "| 6 |" in run(task="", budget="updates:6"), "another budget: other runs"
    assert len(told) == 12
    assert run() == page and len(told) == 12, "and the first ones are still there"


def test_the_command(recipes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", f"recipes={','.join(recipes)}", f"out={tmp_path / 'out'}", *COMMON]
    assert cli.main([*arguments, "budget=5", "task=classify"]) == 2
    assert "expected updates:N or minutes:M" in capsys.readouterr().err
    assert cli.main([*arguments, "seeds=0", "task=classify"]) == 2
    assert "seeds = 0: must be at least 1" in capsys.readouterr().err


def test_minutes_become_updates(
    recipes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_waves(tmp_path / "waves")
    settings = [*COMMON, "modality=toy:Toy", f"data={source}"]
    figures = compare.pretrain(recipes[0], 0, settings, "minutes:0.02", tmp_path / "run")
    assert figures["updates"] >= 2
    assert capsys.readouterr().out == "", "a comparison tells what it found, not every step of every run"
    run = tmp_path / "run"
    seconds = [[r["time_s"] for r in read_records(run / part / "metrics.jsonl") if r.get("kind") == "train"]
               for part in (".", "stages/first")]  # fmt: skip
    assert 0.1 < sum(each[-1] for each in seconds if each) < 20, "near 1.2 s, on a machine with other work"
    assert not (tmp_path / "run-timing").exists()
    again = compare.pretrain(recipes[0], 0, settings, "minutes:0.02", tmp_path / "run")
    assert again["updates"] == figures["updates"], "what was timed is not timed again"


@pytest.mark.parametrize("text", ["", "5", "updates:0", "updates:1.5", "minutes:", "minutes:-1", "hours:3"])
def test_a_budget_that_is_none_is_said(text: str) -> None:
    with pytest.raises(UserError, match=r"expected updates:N or minutes:M"):
        Budget.of(text)


def test_what_cannot_be_compared_is_said_before_anything_runs(recipes: list[str], tmp_path: Path) -> None:
    for settings in (
        {"recipes": ["base/hubert"], "task": ["classify"]},
        {"recipes": ["base/hubert", "base/wav2vec2"]},
    ):
        with pytest.raises(UserError, match="name two recipes or more"):
            compare.compare(tmp_path / "out", **settings)  # type: ignore[arg-type]
    settings = [*COMMON, f"data={write_waves(tmp_path / 'waves')}"]
    twin = tmp_path / "more/few.yaml"
    twin.parent.mkdir()
    twin.write_text(RECIPE.format(size=4))
    with pytest.raises(UserError, match="two have one name"):
        compare.compare(tmp_path / "out", recipes=[*recipes, str(twin)], task=["classify"], settings=settings)
    with pytest.raises(UserError, match="base/nothing"):
        compare.compare(
            tmp_path / "out", recipes=[recipes[0], "base/nothing"], task=["classify"], settings=settings
        )
    assert not (tmp_path / "out").exists()
