"""An evening on a folder: planned, kept, resumed, and judged with labels or without."""

import json
from pathlib import Path

import numpy as np
import pytest
from toy import TOY, write_waves
from tuned_toys import write_labelled

from seqssl import cli
from seqssl.errors import Interrupted, UserError
from seqssl.evaluation.retrieval import found_again
from seqssl.report.evening import verdict
from seqssl.studies import evening as evenings
from seqssl.studies.evening import JUDGES, evening, judge_for
from seqssl.training.loop import Trainer

BEST = "run/checkpoints/best"

SMALL = [
    *(text for text in TOY if not text.startswith(("modality", "train.", "encoder.taps"))),
    "size=tiny",
    "encoder.taps={contrastive: 1, output: 2}",
    "train.precision=float32",
]


def labelled(folder: Path) -> tuple[Path, list[str]]:
    return write_labelled(folder / "data", num_rows=36), ["modality=tuned_toys:Labelled", *SMALL]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evenings, "FEWEST", 2)
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))


def spend(source: Path, out: Path, settings: list[str], **more: object) -> tuple[dict, list[str]]:  # type: ignore[type-arg]
    said: list[str] = []
    found = evening(source, out, *settings, recipe="base/w2vbert", hours=1e-6, say=said.append, **more)  # type: ignore[arg-type]
    return found, said


def test_with_labels_it_ends_with_the_ruler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, settings = labelled(tmp_path)
    out = tmp_path / "evening"

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(evenings, "seconds_per_update", interrupted)
        with pytest.raises(Interrupted):
            spend(source, out, settings)
    (out / "pace").mkdir()  # as if the measuring had begun
    with monkeypatch.context() as patch:
        patch.setattr(evenings, "train", interrupted)
        with pytest.raises(Interrupted):
            spend(source, out, settings)
    kept = json.loads((out / "evening.json").read_text())
    found, said = spend(source, out, settings)
    assert said[0] == "going on with the evening in this folder"
    assert found["updates"] == kept["updates"] == evenings.CHECKPOINTS and found["classes"] >= 2
    rows = {line["row"] for line in found["evaluation"]["results"]}
    assert {"scratch", "pretrained", "random", "frozen"} <= rows
    page = (out / "evening.html").read_text()
    assert found["evaluation"]["worth"]["sentence"].split(",")[0] in page and "run/report.html" in page
    assert "36 rows" in page and "Without labels" in page
    again, _ = spend(source, out, settings)
    assert again["evaluation"]["results"] == found["evaluation"]["results"], "finished work is not done again"
    with pytest.raises(UserError, match="an evening with other data or settings"):
        spend(source, out, [*settings, "seed=3"])


@pytest.mark.parametrize(("recipe", "weights"), [("base/w2vbert", "run"), ("base/clusters", BEST)])
def test_the_weights_that_are_judged(
    recipe: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where targets stay as they are, the best checkpoint is judged, and the page says of which update."""
    evaluate = Trainer.evaluate

    def worse_at_the_end(self: Trainer) -> dict[str, float]:
        self.best = -1e9 if self.update > 6 else self.best
        return evaluate(self)

    monkeypatch.setattr(Trainer, "evaluate", worse_at_the_end)
    source = write_waves(tmp_path / "data")
    settings = [text for text in SMALL if not text.startswith("quantizer") or recipe == "base/w2vbert"]
    more = [] if recipe == "base/w2vbert" else ["targets.num_clusters=4"]
    found = evening(
        source, tmp_path / "out", "modality=toy:Toy", *settings, *more, recipe=recipe, hours=1e-6, say=str
    )
    assert found["weights"] == weights
    assert found["judged_update"] == (6 if weights == BEST else evenings.CHECKPOINTS)
    page = (tmp_path / "out/evening.html").read_text()
    assert f"embed run=out/{weights} " in page
    assert ("those after 6 were best" in page) == (weights == BEST)


def test_labels_can_be_chosen(tmp_path: Path) -> None:
    source, settings = labelled(tmp_path)
    with pytest.raises(UserError, match=r"labels = zebra\*: two labels with 4 rows each are needed"):
        spend(source, tmp_path / "out", settings, labels="zebra*")


def test_without_labels_halves_are_found_again(tmp_path: Path) -> None:
    source = write_waves(tmp_path / "data")
    settings = ["modality=toy:Toy", *SMALL]
    # The toy calls its rows a, b, c and d, each after its frequency: to be told apart, if asked.
    found, said = spend(source, tmp_path / "out", settings)
    assert found["classes"] == 4 and "4 labels on 20 rows" in " ".join(said)
    plan = json.loads((tmp_path / "out/evening.json").read_text())
    plan |= {"patterns": "", "num_labels": 0, "classes": 0}
    (tmp_path / "out/evening.json").write_text(json.dumps(plan))
    found, _ = spend(source, tmp_path / "out", settings)
    assert "evaluation" not in found and found["halves"]["rows"] >= 8
    sentence, _ = verdict(found)
    assert sentence.startswith(f"Of {found['halves']['rows']} rows, ")
    assert sentence in (tmp_path / "out/evening.html").read_text()


def test_the_judge_fits_the_time() -> None:
    seen = [judge_for(seconds, pace=0.5) for seconds in (0, 100, 600, 2000, 5000, 40_000, 10**6)]
    assert [judge for judge, _ in seen] == sorted((judge for judge, _ in seen), reverse=True)
    assert seen[0] == (len(JUDGES) - 1, 2) and seen[-1] == (0, 300)


def test_halves_are_found_by_what_differs_between_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 5))
    common = 1000 + rng.normal(size=(1, 5))
    assert found_again(rows + common, rows + common + 0.01 * rng.normal(size=rows.shape)) == 1.0
    assert found_again(rows, rows[::-1]) == 0.0
    assert found_again(np.ones((4, 2)), np.ones((4, 2))) == 0.25, "ties are told as the first"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hours=0"], "hours = 0: expected more than 0"),
        (["hours=many"], "expected a number"),
        (["data=nowhere"], "there is no file or folder nowhere"),
    ],
)
def test_bad_words_are_explained(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_waves(tmp_path / "data")
    assert cli.main(["evening", f"data={source}", f"out={tmp_path / 'out'}", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    source, settings = labelled(tmp_path)
    out = tmp_path / "full"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="the folder is not empty and holds no evening"):
        spend(source, out, settings)
