"""An evening on a folder: planned, kept, resumed, and judged with labels or without."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy import TOY, Toy, toy_config, two_stages, write_waves
from tuned_toys import write_labelled

from seqssl import Sample, build_model, cli
from seqssl.data.prepare import open_or_prepare
from seqssl.errors import HealthHalt, Interrupted, UserError
from seqssl.evaluation.frozen import Encoder
from seqssl.evaluation.retrieval import compare_halves, found_again
from seqssl.planning import plan
from seqssl.report.evening import parts_of, verdict
from seqssl.runs import stages
from seqssl.studies import evening as evenings
from seqssl.studies import judges, pace
from seqssl.studies.evening import Evening, evening
from seqssl.studies.judges import Costs
from seqssl.studies.pace import ENOUGH, affordable_size
from seqssl.training.log import read_records
from seqssl.training.loop import Trainer

BEST = "run/checkpoints/best"
JUDGE = ("judge", "tuning_updates", "tested")

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
    monkeypatch.setattr(judges, "FEWEST", 2)
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
    assert {*kept["costs"]} == {entry.name for entry in fields(Costs)}
    assert all(kept["costs"][name] > 0 for name in ("open", "begin", "update", "head_update", "test"))
    assert not (out / "pace").exists() and not kept["has_judge"]
    with monkeypatch.context() as patch:
        patch.setattr(evenings, "evaluate", interrupted)
        with pytest.raises(Interrupted):
            spend(source, out, settings)
    chosen = json.loads((out / "evening.json").read_text())
    assert chosen["has_judge"]
    found, said = spend(source, out, settings)
    assert said[0] == "going on with the evening in this folder"
    assert found["updates"] == kept["updates"] == evenings.CHECKPOINTS and found["classes"] >= 2
    assert [found[name] for name in JUDGE] == [chosen[name] for name in JUDGE], "though less time was left"
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
    assert f"embed run={tmp_path}/out/{weights} " in page, "as the shell that ran the evening finds it"
    assert ("those after 6 were best" in page) == (weights == BEST)


def test_labels_can_be_chosen(tmp_path: Path) -> None:
    source, settings = labelled(tmp_path)
    with pytest.raises(UserError, match=r"labels = zebra\*: two labels with 4 rows each are needed"):
        spend(source, tmp_path / "out", settings, labels="zebra*")


def test_without_labels_halves_are_found_again(tmp_path: Path) -> None:
    source = write_waves(tmp_path / "data")
    settings = ["modality=toy:Toy", *SMALL]
    # The toy calls its rows a, b, c and d; one group has all a and c, the other the rest.
    found, said = spend(source, tmp_path / "out", settings)
    assert "no labels to tell apart" in " ".join(said) and "of one group alone" in " ".join(said)
    assert found["classes"] == 0 and "evaluation" not in found and found["halves"]["rows"] >= 8
    sentence, is_good = verdict(found)
    assert sentence.startswith(f"Of {found['halves']['rows']} rows, most of which training has seen, ")
    assert not is_good
    assert sentence in (tmp_path / "out/evening.html").read_text()
    enough = {"held_out": True, "low": 0.01, "num_units": 8}
    sentence, is_good = verdict({**found, "halves": {**found["halves"], **enough}})
    assert " rows that training did without, " in sentence and is_good
    page = "\n".join(parts_of({**found, "out": "evenings/a <b>"}))
    assert "run='evenings/a &lt;b&gt;/run'" in page.replace("&#x27;", "'")


def test_the_interval_is_over_the_groups_of_the_corpus(tmp_path: Path) -> None:
    corpus = open_or_prepare(
        Toy(), toy_config(write_waves(tmp_path / "waves"), tmp_path).data, modality="toy:Toy"
    )
    ours, theirs = (
        Encoder(build_model(toy_config(tmp_path, tmp_path, f"seed={seed}")), Toy().spec, batch_inputs=2000)
        for seed in (0, 1)
    )

    class Silent(Toy):
        """Gives values alone; the corpus knows the groups."""

        def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
            return Sample(super().load(row, rng).values)

    assert compare_halves(ours, theirs, corpus, Silent()) == compare_halves(ours, theirs, corpus, Toy())


def test_labels_that_cannot_judge_are_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the time goes to training then, and the page says why."""
    source, settings = labelled(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise UserError("labels of no use")

    monkeypatch.setattr(evenings, "measure", refused)
    found, said = spend(source, tmp_path / "out", settings)
    assert any("judged without labels: labels of no use" in text for text in said)
    assert not found["judged_by"] and "evaluation" not in found and "rows" in found["halves"]
    assert "labels of no use" in (tmp_path / "out/evening.html").read_text()


def test_halves_are_found_by_what_differs_between_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 5))
    common = 1000 + rng.normal(size=(1, 5))
    assert found_again(rows + common, rows + common + 0.01 * rng.normal(size=rows.shape)).all()
    assert not found_again(rows, rows[::-1]).any()
    assert found_again(np.ones((4, 2)), np.ones((4, 2))).sum() == 1, "ties are told as the first"


STAGED = [
    *two_stages(SMALL),
    "modality=toy:Toy",
]


def test_stages_are_a_part_of_the_evening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_waves(tmp_path / "data"), tmp_path / "out"

    def run() -> dict[str, Any]:
        return evening(source, out, *STAGED, recipe="base/hubert", hours=1e-6, say=str)

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "train", interrupted)
        with pytest.raises(Interrupted):
            run()
    kept = json.loads((out / "evening.json").read_text())
    assert kept["seconds"] > 0 and kept["stages"] == {"first": evenings.CHECKPOINTS} and not kept["updates"]
    found = run()
    assert found["seconds"] > kept["seconds"] and found["updates"] == evenings.CHECKPOINTS
    for part in ("run", "run/stages/first"):
        records = list(read_records(out / part / "metrics.jsonl"))
        assert max(int(record["step"]) for record in records) == evenings.CHECKPOINTS  # type: ignore[call-overload]
    assert "run/report.html" in (out / "evening.html").read_text()


def test_stages_and_the_run_share_the_time(tmp_path: Path) -> None:
    plan = Evening({}, 1.0, judged_by=["classify"], stages={"one": 0, "two": 0})
    work, left, shares = evenings._Work(plan, tmp_path, str, lambda *_: None), 1.0, []
    for stage in ("one", "two", ""):
        shares.append(left * work.portion)
        left -= shares[-1]
        plan.stages |= {stage: 1} if stage else {}
    assert shares == pytest.approx([0.55 / 3] * 3) and left == pytest.approx(0.45)


def test_what_was_planned_for_other_hours_is_refused(tmp_path: Path) -> None:
    asked: evenings.Asked = {"source": "data"}
    plan = Evening(asked, 0.2, recipe="base/w2vbert", updates=12)
    work = evenings._Work(plan, tmp_path, str, lambda *_: None)
    work.keep()
    assert evenings._opened(tmp_path, asked, 0.2).updates == 12
    with pytest.raises(UserError, match=r"hours = 5: .* holds an evening of 0.2 hours.*Say hours=0.2"):
        evenings._opened(tmp_path, asked, 5.0)
    plan.updates = 0
    work.keep()
    assert evenings._opened(tmp_path, asked, 5.0).hours == 5, "nothing is planned yet"


def test_an_evening_that_was_refused_may_be_asked_otherwise(tmp_path: Path) -> None:
    source, settings = labelled(tmp_path)
    with pytest.raises(UserError, match="zebra"):
        spend(source, tmp_path / "out", settings, labels="zebra*")
    with pytest.raises(UserError, match="lion"):
        spend(source, tmp_path / "out", settings, labels="lion*")


def test_a_halted_evening_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, out = evenings.train, tmp_path / "out"

    def halt(config: Any, **more: Any) -> None:
        train(replace(config, train=replace(config.train, num_updates=4)), **more)
        (out / "run/report.html").unlink()
        raise HealthHalt("halted at update 4 by health=halt: <collapse>")

    monkeypatch.setattr(evenings, "train", halt)
    words = ["recipe=base/w2vbert", "hours=1e-6", f"data={write_waves(tmp_path / 'data')}", f"out={out}"]
    assert cli.main(["evening", *words, "modality=toy:Toy", *SMALL]) == 3
    assert f"How far it came: {out}/evening.html" in capsys.readouterr().err
    page = (out / "evening.html").read_text()
    assert (
        "Stopped: halted at update 4" in page and "<b>4</b><span>updates of the encoder, when it was" in page
    )
    assert "report.html" not in page, "it was not written"
    assert f"seqssl doctor {out}/run<" in page and "seqssl embed" not in page


def test_an_evening_ends_with_forecasts(tmp_path: Path) -> None:
    source, settings = write_waves(tmp_path / "data"), ["modality=test_trials:Continuing", *SMALL]
    found, said = spend(source, tmp_path / "out", settings)
    assert found["judged_by"][0] == "forecast" and f"{found['num_labels']:,} windows" in " ".join(said)
    assert found["evaluation"]["task"] == "forecast" and (tmp_path / "out/run/evaluation-forecast").is_dir()
    page = (tmp_path / "out/evening.html").read_text()
    assert "How far forecasts are off" in page and "windows to be forecast" in page
    assert "task=forecast data=YOUR_FILES" in page
    kept = json.loads((tmp_path / "out/evening.json").read_text())
    (tmp_path / "out/evening.json").write_text(json.dumps({**kept, "patterns": "*"}))
    with pytest.raises(UserError, match="another version of seqssl planned it"):
        spend(source, tmp_path / "out", settings)


def test_a_large_model_has_to_fit_into_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "num_cores", lambda: plan.MANY_CORES)
    monkeypatch.setattr(pace, "seconds_per_update", lambda config, folder: 0.5)
    size, _ = affordable_size("speech_clusters", [], 1e6 * ENOUGH, tmp_path)
    assert size == "small"
    size, why = affordable_size("speech_clusters", [], ENOUGH, tmp_path)
    assert size == "tiny" and "about 4,000 updates" in why and "of small" in why
    assert affordable_size("speech_clusters", ["size=small"], ENOUGH, tmp_path) == ("", "")


def test_stages_share_the_time_that_a_size_must_fit_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a recipe with stages had the size of size=auto, whatever the time."""
    monkeypatch.setattr(plan, "num_cores", lambda: plan.MANY_CORES)
    monkeypatch.setattr(pace, "seconds_per_update", lambda config, folder: 0.5)

    def cost(config: Any, waiting: Any) -> SimpleNamespace:
        last = config.targets["target"] == "teacher_clusters"
        return SimpleNamespace(micro_flops={"tiny": 1.0, "small": 8.0}[config.size] * (2 if last else 1))

    monkeypatch.setattr(pace, "cost_of", cost)
    own = ["modality=toy:Toy", "data=.", "data.batch_frames=160", "train.accumulate=1"]
    size, why = affordable_size("base/hubert", own, 4 * ENOUGH, tmp_path)
    assert size == "tiny" and "about 4,000 updates fit" in why and "of small 500" in why
    assert affordable_size("base/hubert", own, 16 * ENOUGH, tmp_path)[0] == "small"


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
