"""Every health rule on made-up records; healthy ones must give no finding."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from records import NUM_UPDATES, healthy, run_with

from seqssl.doctor import Finding, Monitor, ailments, examine, together
from seqssl.errors import UserError
from seqssl.model.future import NextLatentLoss
from seqssl.model.objectives import RegressionLoss
from seqssl.training.catalogue import Catalogue


def observe(*records: dict[str, Any]) -> list[Finding]:
    monitor = Monitor(NUM_UPDATES)
    return [finding for record in records for finding in monitor.observe(record)]


def test_advice_names_what_the_run_has() -> None:
    """A run without a diversity term is not told to raise its weight."""
    names = {"objective": "masked_prediction", "words": "masked prediction", "besides": "the loss"}
    collapse = ailments.COLLAPSE.about({**names, "evening": ""})
    assert collapse.remedy_key == "objectives.diversity" and "quantizer.revive" in collapse.remedy
    assert ailments.COLLAPSE.about({**names, "evening": "spread"}).remedy_key == "objectives.spread.weight"
    assert "if the loss stands still" in ailments.TRIVIAL.about({**names, "evening": ""}).remedy
    assert ailments.DEAD_CODES.about({**names, "evening": ""}).remedy_key == "quantizer.codebook_size"


def test_healthy_run_gives_no_finding() -> None:
    valid = {**healthy(NUM_UPDATES), "kind": "valid", "loss": 5.6}
    assert observe(*run_with(), valid, valid, valid) == []


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_a_noisy_gradient_is_healthy(noise: float) -> None:
    records = [
        healthy(step, grad_norm=math.exp(noise * math.sin(step))) for step in range(20, NUM_UPDATES + 1, 20)
    ]
    assert observe(*records) == []


ILLNESSES: dict[str, tuple[dict[str, Any], int]] = {
    # name of a rule's case: (what the records hold, from which update on)
    "collapse": ({"perplexity/hard_1": 3.0, "codes/top1_1": 0.9, "codes/dead_1": 0.98}, 0),
    "dominant-code": ({"codes/top1_0": 0.55}, 0),
    "dead-codes": ({"codes/dead_0": 0.93}, 0),
    "empty-task": ({"contrastive/accuracy": 0.999, "perplexity/hard_0": 20.0}, 600),
    "too-good-too-early": ({"contrastive/accuracy": 0.97}, 0),
    "at-chance": ({"contrastive/accuracy": 0.03, "loss/contrastive": 4.6}, 0),
    "trivial-prediction": ({"masked_prediction/accuracy": 0.06}, 0),
    "low-variance": ({"features/std": 1e-5}, 0),
    "exploding-gradient": ({"grad_norm": 400.0}, 500),
    "vanishing-gradient": ({"grad_norm": 1e-9}, 300),
    "diverging-loss": ({"loss": 90.0}, 500),
    "not-finite": ({"loss": "nan"}, 500),
}


@pytest.mark.parametrize("rule", ILLNESSES)
def test_each_illness_is_found_once(rule: str) -> None:
    changes, start = ILLNESSES[rule]
    findings = observe(*run_with(start, **changes))
    assert [finding.rule for finding in findings] == [rule]
    (finding,) = findings
    assert start < finding.step
    for part in (rule, finding.symptom, finding.cause, finding.remedy_key, finding.remedy):
        assert part in str(finding)


@pytest.mark.parametrize(("accuracy", "rules"), [(0.10, ["at-chance"]), (0.13, [])])
def test_of_few_negatives_less_than_twice_chance_is_enough(accuracy: float, rules: list[str]) -> None:
    """vq-wav2vec has ten: at `tiny` it is at 13 % halfway, and ends at 20 %."""
    findings = observe(*run_with(**{"contrastive/accuracy": accuracy, "contrastive/chance": 0.095}))
    assert [finding.rule for finding in findings] == rules


@pytest.mark.parametrize("rule", [rule for rule in ILLNESSES if rule != "not-finite"])
def test_one_bad_record_is_no_finding(rule: str) -> None:
    changes, _ = ILLNESSES[rule]
    assert observe(*run_with(600, 620, **changes)) == []


def test_spans_are_no_remedy_where_nothing_is_hidden() -> None:
    (finding,) = observe(*run_with(0, **{"contrastive/accuracy": 0.97, "mask/share": 1.0}))
    assert finding.rule == "too-good-too-early"
    assert finding.remedy_key == "objectives.contrastive.num_negatives"
    (finding,) = observe(*run_with(0, **{"contrastive/accuracy": 0.97, "mask/share": 0.5}))
    assert finding.remedy_key == "masking.span"


def test_every_remedy_is_a_key_of_the_configuration() -> None:
    """Dots and names as in recipes: a fixed section's field, or a slot's keyword."""
    sections = {"data", "optim", "train", "masking", "quantizer", "objectives"}
    from seqssl.config.schema import DataConfig, OptimConfig, TrainConfig

    fields = {
        "data": vars(DataConfig()),
        "optim": vars(OptimConfig()),
        "train": vars(TrainConfig()),
        "masking": {"span"},
        "quantizer": {"codebook_size"},
        "objectives": {"diversity.weight", "mlm.num_negatives"},
    }
    names = {"objective": "mlm", "words": "mlm", "besides": "the loss", "evening": "diversity"}
    known = [value for value in vars(ailments).values() if isinstance(value, ailments.Ailment)]
    for key in {ailment.about(names).remedy_key for ailment in known}:
        section, _, name = key.partition(".")
        assert section in sections
        assert name in fields[section], key


def test_collapse_is_not_reported_while_warming_up() -> None:
    assert observe(*run_with(0, 80, **{"perplexity/hard_0": 1.0})) == []


def test_a_long_run_is_not_left_alone_for_a_tenth_of_it() -> None:
    monitor = Monitor(400_000)
    records = [healthy(100) | {"step": step, "perplexity/hard_0": 1.0} for step in (6_000, 6_050)]
    assert [f.rule for record in records for f in monitor.observe(record)] == ["collapse"]


def test_small_codebooks_can_be_healthy() -> None:
    """With two entries, a perplexity below 2 is no collapse."""
    changes = {"perplexity/size": 2.0, "perplexity/hard_0": 1.8, "perplexity/hard_1": 1.9}
    assert observe(*run_with(**changes, **{"codes/dead_0": 0.0})) == []


def test_constant_input_is_named_from_the_first_records() -> None:
    """One code, no negative left, loss 0: success that means failure."""
    changes: dict[str, Any] = {
        "loss/contrastive": 0.0,
        "contrastive/accuracy": 1.0,
        "contrastive/chance": 1.0,
        "masked_prediction/accuracy": 1.0,
        "masked_prediction/trivial": 1.0,
        "features/std": 0.0,
    }
    for book in range(2):
        changes |= {f"perplexity/hard_{book}": 1.0, f"codes/top1_{book}": 1.0, f"codes/dead_{book}": 0.997}
    findings = observe(*run_with(**changes))
    assert [finding.rule for finding in findings[:2]] == ["empty-task", "low-variance"]
    assert findings[0].step == 40
    assert {"collapse"} <= {finding.rule for finding in findings}
    assert "at-chance" not in {finding.rule for finding in findings}


def test_a_fall_of_variance_is_blamed_on_training_and_a_start_without_on_the_input() -> None:
    fell = observe(*run_with(500, **{"context/std": 0.01}))
    never = observe(*run_with(**{"features/std": 0.0}))
    assert [finding.remedy_key for finding in fell] == ["optim.lr"]
    assert [finding.remedy_key for finding in never] == ["data.source"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, "nan", "inf"])
@pytest.mark.parametrize("key", ["loss", "loss/contrastive", "grad_norm"])
def test_a_number_that_is_none_is_found_at_once_with_its_rows(key: str, bad: Any) -> None:
    event = {"kind": "event", "step": 39, "event": "nonfinite", "message": "", "keys": ["a/1.bin", "a/2.bin"]}
    findings = observe(healthy(20), event, healthy(40, **{key: bad}), healthy(60))
    assert [(finding.rule, finding.step) for finding in findings] == [("not-finite", 40)]
    assert "a/1.bin, a/2.bin" in findings[0].symptom


def test_dropped_updates_are_found() -> None:
    findings = observe(healthy(20), healthy(40, skipped_updates=3.0))
    assert [finding.rule for finding in findings] == ["not-finite"]
    assert "3 updates dropped" in findings[0].symptom


def test_an_illness_that_comes_back_is_reported_again() -> None:
    ill = {"perplexity/hard_0": 1.5}
    findings = observe(
        *(healthy(step, **(ill if step not in (600, 620) else {})) for step in range(500, 1000, 20))
    )
    assert [(finding.rule, finding.step) for finding in findings] == [("collapse", 520), ("collapse", 660)]


def test_overfitting_needs_held_out_records() -> None:
    valid = [{"kind": "valid", "step": step, "loss": 12.0} for step in (980, 1000)]
    findings = observe(*run_with(), *valid)
    assert [finding.rule for finding in findings] == ["overfitting"]


@given(st.lists(st.sampled_from(sorted(healthy(20))), unique=True), st.integers(1, NUM_UPDATES))
def test_missing_metrics_never_break_a_rule(missing: list[str], step: int) -> None:
    """Objectives are optional, so any of their metrics may be absent."""
    record = {key: value for key, value in healthy(step).items() if key not in missing}
    observe(*[record | {"kind": "train", "step": step}] * 3)


@given(
    st.dictionaries(
        st.sampled_from(sorted(set(healthy(20)) - {"kind", "step"})),
        st.floats(width=32) | st.sampled_from(["nan", "inf", "-inf"]),
    ),
    st.sampled_from(["train", "valid"]),
)
def test_no_value_breaks_a_rule(changes: dict[str, Any], kind: str) -> None:
    observe(*[healthy(step) | changes | {"kind": kind} for step in range(100, 1000, 100)])


def write_run(folder: Path, records: list[dict[str, Any]], num_updates: int | None = NUM_UPDATES) -> Path:
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if num_updates is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump({"train": {"num_updates": num_updates}}))
    return folder


def test_examine_a_healthy_run(tmp_path: Path) -> None:
    report = examine(write_run(tmp_path, run_with()))
    assert report.ok and report.step == NUM_UPDATES
    text = report.render()
    assert "healthy at update 1000 of 1000" in text
    for subject in ("codebook 0", "codebook 1", "contrastive task", "masked prediction", "gradient norm"):
        assert subject in text
    assert "160.0 of 320" in text and "at least 16.0" in text


def test_examine_an_ill_run(tmp_path: Path) -> None:
    report = examine(write_run(tmp_path, run_with(**{"perplexity/hard_0": 1.5})))
    assert not report.ok
    text = report.render()
    assert "1 finding " in text
    assert "FAILURE collapse" in text and "objectives.diversity.weight" in text
    assert "codebook 1" in text.partition("In order")[2]
    assert "codebook 0" not in text.partition("In order")[2]


def test_examine_says_what_has_recovered(tmp_path: Path) -> None:
    report = examine(write_run(tmp_path, run_with(400, 600, **{"perplexity/hard_0": 1.5})))
    assert not report.ok
    assert "in order since" in report.render()


def test_examine_looks_at_the_stages_before(tmp_path: Path) -> None:
    """A run on the codes of a collapsed quantizer may look well by itself."""
    stage = tmp_path / "stages" / "quantizer"
    stage.mkdir(parents=True)
    write_run(stage, run_with(400, 600, **{"perplexity/hard_0": 1.5}))
    report = examine(write_run(tmp_path, run_with()))
    assert [finding.subject for finding in report.findings] == ["stage quantizer: codebook 0"]
    text = report.render()
    assert "seen    stage quantizer: codebook 0: hard perplexity 1.5" in text
    assert "in order since" in text and "healthy" not in text


def test_examine_a_killed_run_without_its_configuration(tmp_path: Path) -> None:
    write_run(tmp_path, run_with()[:10], num_updates=None)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert examine(tmp_path).num_updates == 200


def test_examine_names_a_folder_without_metrics(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics"):
        examine(tmp_path)


def test_docs_name_every_rule_and_bar() -> None:
    from seqssl.doctor import bars

    text = (Path(__file__).parents[2] / "docs/health.md").read_text()
    for name, ailment in vars(ailments).items():
        if isinstance(ailment, ailments.Ailment):
            assert f"`{ailment.name}`" in text, name
    for name in vars(bars):
        if name.isupper():
            assert f"`{name}`" in text, name


def test_few_codes_are_seen_before_the_first_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that are all alike have few codes at the start: said at once, kept, and shown by the doctor."""
    from toy import TOY, write_waves

    from seqssl import cli

    waves = [f"data={write_waves(tmp_path / name, constant=name == 'alike')}" for name in ("alike", "waves")]
    plain = ["train", "recipe=base/w2vbert", "size=tiny", *TOY, "quantizer.codebook_size=64"]
    told = "set quantizer_norm=batch and objectives.diversity.weight=1.0"
    for number, (words, expected) in enumerate(
        [
            ([waves[0]], told),
            ([waves[1], "quantizer_norm=batch"], ""),
            ([waves[0], "health=off"], ""),
        ]
    ):
        out = tmp_path / f"run{number}"
        assert cli.main([*plain, *words, f"out={out}"]) == 0
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        first = [r["message"] for r in records if r["kind"] == "event" and r["step"] == 0]
        assert len(first) == bool(expected) and all(expected in text for text in first), words
        assert examine(out).notes == tuple(first)
        capsys.readouterr()
        cli.main(["doctor", str(out)])
        assert (expected in capsys.readouterr().out) or not expected
    before = (tmp_path / "run0/metrics.jsonl").read_text()
    assert cli.main([*plain, waves[0], f"out={tmp_path / 'run0'}"]) == 0
    assert (tmp_path / "run0/metrics.jsonl").read_text().count(told) == before.count(told)


def test_looking_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    from toy import toy_config

    from seqssl import Batch, build_model
    from seqssl.doctor.beginning import few_codes

    config = toy_config(tmp_path, tmp_path / "run", "quantizer_norm=batch")
    model = build_model(config)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    batch = Batch(torch.randn(3, 40, 2), torch.tensor([40, 30, 20]))
    alike = Batch(torch.ones(3, 40, 2), batch.lengths)
    assert few_codes(model, [batch] * 3) == ""
    assert "1.0 of 8 codes" in few_codes(model, [alike]) and "the same everywhere?" in few_codes(
        model, [alike]
    )
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items()) and model.training


@pytest.mark.parametrize("objective", [RegressionLoss(3, 2), NextLatentLoss(3, 2)])
@pytest.mark.parametrize(("distance", "ill"), [(0.97, False), (0.995, True), (1.4, True)])
def test_a_regression_that_knows_no_more_than_the_mean(
    objective: RegressionLoss | NextLatentLoss, distance: float, ill: bool
) -> None:
    catalogue = Catalogue.from_stats({"regression": objective.stats})
    monitor = Monitor(NUM_UPDATES, {"": catalogue})
    found = [
        finding
        for step in range(20, NUM_UPDATES + 1, 20)
        for finding in monitor.observe(
            {"kind": "train", "step": step, "loss": 1.0, "grad_norm": 1.0, "regression/target_std": 1.4,
             "regression/distance": 2 * distance, "regression/variance": 2.0}
        )
    ]  # fmt: skip
    assert [finding.rule for finding in found] == (["mean-prediction"] if ill else [])
    assert all(finding.step > NUM_UPDATES / 2 for finding in found)


def test_two_heads_with_one_finding_are_told_once() -> None:
    found = Finding(
        rule="trivial-prediction", subject="a", step=3, severity="warning",
        symptom="a: 5 % (should be: more)", cause="a knows nothing",
        remedy_key="train.num_updates", remedy="raise it",
    )  # fmt: skip
    twin = replace(found, subject="b", symptom="b: 6 % (should be: more)", cause="b knows nothing")
    other = replace(found, rule="collapse", remedy_key="optim.lr")
    told = together([found, other, twin])
    assert [each.rule for each in told] == ["trivial-prediction", "collapse"]
    assert "a: 5 % (should be: more); b: 6 % (should be: more)" in str(told[0])
    assert "a knows nothing; b knows nothing" in str(told[0])
    assert together([]) == [] and together([found]) == [found]
