"""What metrics mean: declared once by objectives of any name, read by progress, report and health rules."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_config

import seqssl
from seqssl.doctor import Monitor
from seqssl.errors import UserError
from seqssl.model.types import Stat
from seqssl.report.curves import curves
from seqssl.training import catalogue
from seqssl.training.catalogue import CLASSIC, Catalogue, by_stream
from seqssl.training.log import read_records
from seqssl.training.metrics import BUILT_IN, LOSSES, Metric
from seqssl.training.progress import describe

LETTERS = (  # the recipe's own objectives under other names; two of a kind
    "objectives.contrastive=null",
    "objectives.masked_prediction=null",
    "objectives.diversity=null",
    "objectives.a={target: contrastive, tap: contrastive, num_negatives: 10}",
    "objectives.b={target: masked_prediction, tap: output}",
    "objectives.c={target: diversity, weight: 0.1}",
    "objectives.d={target: masked_prediction, tap: contrastive, weight: 0.1}",
)


def train(source: Path, out: Path, *overrides: str) -> tuple[Path, str]:
    lines: list[str] = []
    seqssl.train(toy_config(source, out, *overrides), say=lines.append)
    return out, "\n".join(lines)


def test_objectives_of_any_name_have_curves_baselines_rules_and_words(
    waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = train(waves, tmp_path / "run", *LETTERS)
    printed = capsys.readouterr().out
    assert "contrastive acc " in printed and "(chance " in printed
    assert "b prediction acc " in printed and "d prediction acc " in printed and "(trivial " in printed
    last = [each for each in read_records(out / "metrics.jsonl") if each["kind"] == "valid"][-1]
    assert {"a/accuracy", "a/chance", "b/accuracy", "b/trivial", "d/accuracy", "d/trivial"} <= last.keys()

    page = (out / "report.html").read_text()
    for title in ("A accuracy", "B accuracy", "D accuracy", "Codebook perplexity", "Loss"):
        assert f">{title}<" in page
    assert "held-out a accuracy (chance " in page and "held-out b accuracy (trivial " in page

    monitor = Monitor(12, catalogue.read(out))
    for record in read_records(out / "metrics.jsonl"):
        monitor.observe(record)
    assert {"a task", "b", "d", "codebook 0", "loss"} <= monitor.readings.keys()


def test_remedies_name_the_objectives_of_the_run() -> None:
    meanings = {"": Catalogue.from_stats({
        "a": (Stat("accuracy", unit="share", against="chance", rule="discrimination"),),
        "c": (Stat("loss", rule="evenness"),),
    })}  # fmt: skip
    record = {"kind": "train", "loss": 1.0, "a/accuracy": 0.01, "a/chance": 0.01, "perplexity/size": 320.0,
              "perplexity/hard_0": 1.0, "codes/top1_0": 1.0, "codes/dead_0": 0.99}  # fmt: skip
    monitor = Monitor(1000, meanings)
    found = [finding for step in (600, 620) for finding in monitor.observe({**record, "step": step})]
    assert {finding.rule for finding in found} == {"collapse", "at-chance"}
    assert [f.remedy_key for f in found if f.rule == "collapse"] == ["objectives.c.weight"]
    assert all("contrastive" not in finding.cause for finding in found)


def test_a_run_stores_what_its_metrics_mean(waves: Path, tmp_path: Path) -> None:
    out, _ = train(waves, tmp_path / "run", "train.num_updates=2")
    stored = catalogue.read(out)
    objectives = {"contrastive", "masked_prediction", "diversity"}
    assert {metric.objective for metric in stored[""].metrics} == objectives | {""}
    catalogue.write(tmp_path, stored)
    assert catalogue.read(tmp_path) == stored


def test_a_run_without_a_catalogue_is_read_by_the_names_of_the_base_recipes(tmp_path: Path) -> None:
    assert catalogue.read(tmp_path) == {}
    record = {"kind": "train", "step": 3, "loss": 2.0, "contrastive/accuracy": 0.5, "contrastive/chance": 0.1,
              "masked_prediction/accuracy": 0.25, "masked_prediction/trivial": 0.2}  # fmt: skip
    assert describe(record, {}) == (
        "train      3 | loss 2.000 | contrastive acc 50.0% (chance 10.0%) | "
        "prediction acc 25.0% (trivial 20.0%)"
    )
    assert len(curves(by_stream(record, {}))) == 3


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "{}", '{"streams": []}', '{"streams": {"": [{}]}}', '{"streams": {"": [{"name": 3}]}}',
     '{"streams": {"": [{"name": "loss", "words": 7}]}}', '{"streams": {"": 5}}'],
)  # fmt: skip
def test_a_damaged_catalogue_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / catalogue.FILE).write_text(damage)
    with pytest.raises(UserError, match=r"catalogue\.json is damaged"):
        catalogue.read(tmp_path)


def test_what_a_later_version_adds_is_left_out(tmp_path: Path) -> None:
    catalogue.write(tmp_path, {"": CLASSIC})
    tree = json.loads((tmp_path / catalogue.FILE).read_text())
    tree["later"] = 1
    for metric in tree["streams"][""]:
        metric["later"] = "x"
        for base in metric.get("against", ()):
            base["later"] = "y"
    (tmp_path / catalogue.FILE).write_text(json.dumps(tree))
    assert catalogue.read(tmp_path) == {"": CLASSIC}


def test_a_declared_metric_may_not_pass_for_a_built_in_one() -> None:
    with pytest.raises(UserError, match=r"objectives\.symbols: .*choose another"):
        Catalogue.from_stats({"symbols": (Stat("bits", unit="bits"),)})


def test_objectives_with_the_same_words_are_told_apart_in_a_line() -> None:
    stat = Stat("accuracy", unit="share", short="acc")
    shorts = {
        names: [m.short for m in Catalogue.from_stats(dict.fromkeys(names, (stat,))).metrics if m.objective]
        for names in (("a",), ("a", "b_c"))
    }
    assert shorts == {("a",): ["acc"], ("a", "b_c"): ["a acc", "b c acc"]}


def test_a_task_that_explains_nothing_shows_its_losses() -> None:
    record = {"kind": "train", "step": 1, "loss": 1.5, "loss/ctc": 1.5, "odd/thing": 3.0, "note": "text"}
    assert describe(record, {"": Catalogue.from_stats({})}) == "train      1 | loss 1.500 | ctc 1.500"


def test_streams_are_told_by_the_catalogue_not_by_slashes() -> None:
    record = {"kind": "train", "step": 1, "loss": 2.0, "loss/a": 1.0, "s/loss": 3.0, "s/loss/a": 4.0}
    parts = {part.stream: dict(part.metrics) for part in by_stream(record, {"s": CLASSIC})}
    assert parts == {"": {"step": 1.0, "loss": 2.0, "loss/a": 1.0}, "s": {"loss": 3.0, "loss/a": 4.0}}


@pytest.mark.parametrize("name", [m.name.replace("*", "7") for m in (*LOSSES, *BUILT_IN)])
def test_each_built_in_metric_has_one_meaning(name: str) -> None:
    assert sum(metric.star(name) is not None for metric in (*LOSSES, *BUILT_IN)) == 1


@given(
    value=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just("nan")),
    name=st.text(max_size=12),
)
def test_any_record_can_be_described(value: object, name: str) -> None:
    record = {"kind": "train", "step": 1, name or "x": value}
    text = describe(record | {"kind": "train"}, {})  # type: ignore[dict-item, arg-type]
    assert text.startswith("train")


@given(value=st.floats(), unit=st.sampled_from(["share", "nats", "bits", "number", "count", "rate"]))
def test_every_value_can_be_printed(value: float, unit: str) -> None:
    printed = Metric(name="x", words="x", unit=unit).print(value)  # type: ignore[arg-type]
    assert printed and ("nan" in printed) == math.isnan(value)
