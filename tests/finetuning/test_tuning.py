"""Every task from a pre-trained run to a file of predictions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from toy import TOY, write_waves
from tuned_toys import FAST, pretrain, tune, write_labelled

import seqssl
from seqssl import build_model, cli, load_recipe
from seqssl.config.schema import FinetuneConfig
from seqssl.errors import Interrupted, UserError
from seqssl.finetuning.facts import names_in
from seqssl.finetuning.tuned import Tuned
from seqssl.model.types import Batch
from seqssl.runs.finetune import configuration
from seqssl.runs.folder import load, load_task
from seqssl.runs.predict import predict
from seqssl.runs.sources import open_source
from seqssl.testing.harness import seeded
from seqssl.training import checkpoint
from seqssl.training.log import read_records

TASKS: list[tuple[str, str, list[str], tuple[str, float]]] = [
    ("classify", "tuned_toys:Labelled", [], ("classify/accuracy", 0.75)),
    (
        "regress",
        "{target: tuned_toys:Labelled, kind: number}",
        ["task.pool=statistics"],
        ("regress/mae", -1.0),
    ),
    ("tag", "tuned_toys:Segmented", [], ("tag/accuracy", 0.9)),
    ("forecast", "toy:Toy", ["task.lookback=20", "task.horizon=4"], ("forecast/mse", -0.9)),
    ("ctc", "{target: tuned_toys:Labelled, kind: text}", ["task.width=24"], ("ctc/cer", -0.95)),
    ("transducer", "{target: tuned_toys:Labelled, kind: text}", ["task.width=24"], ("transducer/cer", -0.95)),
]
COLUMNS = {
    "classify": {"label", "scores"},
    "regress": {"value"},
    "tag": {"segments"},
    "forecast": {"channels", "forecast"},
    "ctc": {"text"},
    "transducer": {"text"},
}


@pytest.mark.parametrize(("task", "modality", "settings", "bar"), TASKS, ids=[each[0] for each in TASKS])
def test_a_task_learns_is_opened_again_and_predicts(
    labelled: Path, tmp_path: Path, task: str, modality: str, settings: list[str], bar: tuple[str, float]
) -> None:
    run = pretrain(labelled, tmp_path / "run", modality=modality)
    tuned = tune(run, task, tmp_path / "tuned", "train.num_updates=80", *settings)
    name, least = bar
    value = tuned.metrics[name]
    assert (value if least > 0 else -value) >= least, tuned.metrics
    assert load(tuned.out).embed([np.zeros((30, 2), np.float32)]).shape == (1, 16)
    assert cli.main(["info", str(tuned.out)]) == 0
    assert cli.main(["doctor", str(tuned.out)]) in (0, 3)
    out = tmp_path / "said.parquet"
    assert cli.main(["predict", f"run={tuned.out}", f"source={labelled}", f"out={out}"]) == 0
    table = pq.read_table(out)
    assert {*table.column_names} == {"key", "group"} | COLUMNS[task]
    assert len(table) == 24
    for ending in ("csv", "jsonl"):
        again = tmp_path / f"said.{ending}"
        assert cli.main(["predict", f"run={tuned.out}", f"source={labelled}", f"out={again}"]) == 0
        assert len(again.read_text().splitlines()) == 24 + (ending == "csv")


def test_imputation_fills_what_is_missing(tmp_path: Path) -> None:
    source = write_waves(tmp_path / "waves")
    patch = "feature_encoder={target: patch, dim: 12, patch: 4}"
    run = pretrain(source, tmp_path / "run", patch, modality="toy:Toy")
    tuned = tune(run, "impute", tmp_path / "tuned", "train.num_updates=60")
    assert tuned.metrics["impute/mse"] < 1.0, "the mean of the channel gives about 1"
    task = load_task(tuned.out)
    corpus, adapter = open_source(tuned.out, None)
    rows = predict(task, corpus, adapter)
    first = next(iter(rows))
    wanted = adapter.load(corpus.row(list(corpus.keys).index(first["key"])), None).values
    np.testing.assert_allclose(first["filled"], wanted, atol=1e-4, err_msg="nothing was missing")


def test_imputation_wants_an_encoder_that_reads_what_is_observed(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"that reads `observed`"):
        tune(run, "impute", tmp_path / "tuned")


def test_an_interrupted_run_ends_as_an_unbroken_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("finetune.average=0.9", "finetune.time_share=0.2", "finetune.channel_share=0.1")
    settings += ("finetune.channel_span=2", "finetune.label_smoothing=0.1", "finetune.freeze=10")
    unbroken = tune(run, "classify", tmp_path / "unbroken", *settings)
    from seqssl.training.loop import Trainer

    step, calls = Trainer.step, []

    def interrupted(self: Trainer, batches: Any) -> None:
        calls.append(1)
        if len(calls) == 27:
            raise Interrupted("stopped")
        step(self, batches)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(Interrupted):
        tune(run, "classify", tmp_path / "broken", *settings)
    broken = tune(run, "classify", tmp_path / "broken", *settings)
    assert broken.metrics == unbroken.metrics
    saved = [checkpoint.latest(each.out / "checkpoints")[0] for each in (unbroken, broken)]
    assert saved[0] is not None and saved[1] is not None
    for name, x in saved[0].model.items():
        assert torch.equal(x, saved[1].model[name]), name


def weights(out: Path) -> dict[str, torch.Tensor]:
    saved, _ = checkpoint.latest(out / "checkpoints")
    assert saved is not None
    return saved.model


def moved(run: Path, out: Path) -> set[str]:
    """The first parts of the names of the encoder's parameters that differ from the pre-trained ones."""
    before, after = weights(run), weights(out)
    names = {
        name.removeprefix("pretrained."): x for name, x in after.items() if name.startswith("pretrained.")
    }
    return {
        name.split(".")[0] for name, x in before.items() if name in names and not torch.equal(x, names[name])
    }


@pytest.mark.parametrize(
    ("freeze", "learns"),
    [
        ("none", {"feature_encoder", "input_projection", "encoder"}),
        ("features", {"input_projection", "encoder"}),
        ("encoder", set()),
        ("40", set()),
        ("20", {"feature_encoder", "input_projection", "encoder"}),
    ],
)
def test_what_is_frozen_stays(run: Path, tmp_path: Path, freeze: str, learns: set[str]) -> None:
    tuned = tune(run, "classify", tmp_path / "tuned", f"finetune.freeze={freeze}")
    assert moved(run, tuned.out) == learns


def test_lora_leaves_the_encoder_and_can_be_opened(run: Path, tmp_path: Path) -> None:
    tuned = tune(run, "classify", tmp_path / "tuned", "finetune.lora_rank=2")
    after = weights(tuned.out)
    added = [name for name in after if "lora_" in name]
    assert len(added) == 8, "two blocks, two maps each, two matrices"
    assert all(after[name].abs().max() > 0 for name in added)
    assert moved(run, tuned.out) == set()
    array = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    assert not np.allclose(load(tuned.out).embed([array]), load(run).embed([array]))
    with pytest.raises(UserError, match=r"the encoder has .*query_key_value"):
        tune(run, "classify", tmp_path / "x", "finetune.lora_rank=2", "finetune.lora_modules=[nothing]")


def test_rates_fall_from_block_to_block(run: Path, tmp_path: Path) -> None:
    tuned = tune(run, "classify", tmp_path / "t", "finetune.layer_decay=0.5", "finetune.head_rate=30")
    task = load_task(tuned.out)
    names = {id(p): name for name, p in task.model.named_parameters()}
    scales = {names[id(p)]: group["lr_scale"] for group in task.parameter_groups() for p in group["params"]}
    assert scales["head.linear.weight"] == 3 == scales["mix.logits"]
    found = {scale for name, scale in scales.items() if ".blocks.1." in name}
    assert found == {1.0}
    assert {scale for name, scale in scales.items() if ".blocks.0." in name} == {0.5}
    assert {scale for name, scale in scales.items() if "feature_encoder" in name} == {0.25}
    assert not any(".targets." in name or ".objectives." in name for name in scales)


def test_scratch_begins_elsewhere(run: Path, tmp_path: Path) -> None:
    told: list[str] = []
    for init in ("pretrained", "scratch"):
        config = configuration(
            run, "classify", *FAST, "train.num_updates=1", out=str(tmp_path / init), init=init
        )
        assert (config.init is None) == (init == "scratch")
        seqssl.train(config, say=told.append)
    assert sum(line.startswith("init: ") for line in told) == 1
    with pytest.raises(UserError, match="expected pretrained or scratch"):
        configuration(run, "classify", init="nothing")


def test_the_best_checkpoint_is_chosen_by_the_metric(run: Path, tmp_path: Path) -> None:
    tuned = tune(run, "classify", tmp_path / "t")
    values = [
        r["classify/accuracy"] for r in read_records(tuned.out / "metrics.jsonl") if r["kind"] == "valid"
    ]
    state = json.loads((tuned.out / "checkpoints" / "best" / "state.json").read_text())
    assert state["best"] == -max(float(str(value)) for value in values)
    with pytest.raises(UserError, match=r"train.keep_best = max:nothing: there is no such held-out metric"):
        tune(run, "classify", tmp_path / "u", "train.keep_best=max:nothing")


@pytest.mark.parametrize(
    ("task", "modality", "settings", "words"),
    [
        ("classify", "{target: tuned_toys:Labelled, kind: two}", [], "belong to several tasks: .*kind/\\*"),
        (
            "classify",
            "tuned_toys:Labelled",
            ["task.labels=z"],
            "no row has such a label; the labels are a, b",
        ),
        ("classify", "tuned_toys:Labelled", ["task.labels=a"], "all rows have the label 'a'"),
        ("regress", "{target: tuned_toys:Labelled, kind: word}", [], "'no number' is no number"),
        ("tag", "{target: tuned_toys:Segmented, kinds: true}", [], "belong to several tasks: .*x/\\*"),
        ("tag", "tuned_toys:Labelled", [], "has no segments"),
        (
            "ctc",
            "{target: tuned_toys:Labelled, kind: long}",
            ["task.width=8"],
            "transcript longer than the input",
        ),
        ("ctc", "tuned_toys:Labelled", ["task.tokens=wordpieces"], "task.vocab_size = 1024"),
        ("forecast", "toy:Toy", ["task.lookback=400"], "lower task.lookback or task.horizon"),
        ("forecast", "toy:Toy", ["task.channels=x"], "no channel matches; there is 0, 1"),
    ],
)
def test_what_cannot_be_learned_is_said(
    labelled: Path, tmp_path: Path, task: str, modality: str, settings: list[str], words: str
) -> None:
    run = pretrain(labelled, tmp_path / "run", "train.num_updates=1", modality=modality)
    with pytest.raises(UserError, match=words):
        tune(run, task, tmp_path / "tuned", *settings)
    assert not (tmp_path / "tuned" / "config.yaml").exists(), "the next try may use the folder"


def test_a_ratio_is_no_kind_of_label() -> None:
    """Metres: 3/4 and 6/8 are labels of one task."""
    assert names_in(["3/4", "6/8", "4/4", ""], "*") == ["3/4", "4/4", "6/8"]
    with pytest.raises(UserError, match="belong to several tasks"):
        names_in(["a/1", "3/4"], "*")


def test_segments_beyond_the_row_are_said(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the segment 'loud' at \[18, 41\) is empty or outside the 36 steps"):
        pretrain(labelled, tmp_path / "run", modality="{target: tuned_toys:Segmented, beyond: true}")


def test_a_class_with_one_row_or_without_training_rows_is_said(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves")
    lone = source / "group0" / "z_99.npy"
    np.save(lone, np.zeros((40, 2), np.float32))
    run = pretrain(source, tmp_path / "run", "train.num_updates=1")
    with pytest.raises(UserError, match=r"the label z \(1 rows\): a class with one row"):
        tune(run, "classify", tmp_path / "a")
    tune(run, "classify", tmp_path / "b", "task.min_rows=2", "train.num_updates=1")
    np.save(source / "group0" / "z_98.npy", np.zeros((40, 2), np.float32))
    held_out = ("data.valid_groups=[group0]", "data.split_by=group")
    run = pretrain(source, tmp_path / "other", "train.num_updates=1", *held_out)
    with pytest.raises(UserError, match=r"the label z \(2 rows\): no row of the training split has it"):
        tune(run, "classify", tmp_path / "c")


def test_empty_transcripts_are_left_out_and_said(labelled: Path, tmp_path: Path) -> None:
    run = pretrain(labelled, tmp_path / "run", "train.num_updates=1",
                   modality="{target: tuned_toys:Labelled, kind: gaps}")  # fmt: skip
    told: list[str] = []
    config = configuration(run, "ctc", *FAST, "train.num_updates=1", "task.width=8", out=str(tmp_path / "t"))
    seqssl.train(config, say=told.append)
    assert any("6 of 24 rows have an empty transcript, or none, and are left out" in line for line in told)


def test_predictions_want_a_tuned_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", f"run={run}", "source=x", "out=y.csv"]) == 2
    assert "was not fine-tuned" in capsys.readouterr().err
    assert cli.main(["predict", f"run={run}", "source=x", "out=y.txt"]) == 2
    assert "name a file that ends in .parquet, .csv, .jsonl" in capsys.readouterr().err


def test_facts_that_were_edited_are_refused(
    run: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tune(run, "classify", tmp_path / "t", "train.num_updates=1").out
    path = tuned / "facts.json"
    stored = json.loads(path.read_text())
    assert stored["facts"]["classes"] == ["a", "b", "c", "d"]
    stored["facts"]["classes"] = ["b", "a", "c", "d"]  # as valid as before, and every prediction wrong
    for text in (json.dumps(stored), json.dumps(stored["facts"]), "[1]", "{", '{"facts": 3, "sha256": null}'):
        path.write_text(text)
        for command in ("info", "doctor", "embed", "predict"):
            arguments = {"embed": [f"source={labelled}", f"out={tmp_path / 'e.parquet'}"],
                         "predict": [f"source={labelled}", f"out={tmp_path / 'p.csv'}"]}  # fmt: skip
            first = [f"run={tuned}"] if command in arguments else [str(tuned)]
            code = cli.main([command, *first, *arguments.get(command, [])])
            assert code == 2 or command in ("info", "doctor"), (command, text)
            if code == 2:
                assert "it says what the labels are" in capsys.readouterr().err


def test_a_class_that_is_no_task_is_refused_before_the_folder_is_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'toy:Toy' is no Task: it lacks evaluate, model, plan, step\."):
        tune(run, "toy:Toy", tmp_path / "t")
    assert not (tmp_path / "t" / "config.yaml").exists()


def test_labels_may_be_the_names_of_files(labelled: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the labels a_00 \(1 rows\)"):
        tune(run, "classify", tmp_path / "t", "finetune.labels_from=files")


def test_predictions_never_replace_their_source(
    run: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tune(run, "classify", tmp_path / "t", "train.num_updates=1")
    source = tmp_path / "x.csv"
    source.write_text("mine")
    assert cli.main(["predict", f"run={tuned.out}", f"source={source}", f"out={source}"]) == 2
    assert source.read_text() == "mine"
    assert cli.main(["predict", f"run={tuned.out}", f"source={labelled}", "out=y.csv", "weights=random"]) == 2
    assert "expected last or best" in capsys.readouterr().err


def test_settings_that_look_like_keys_are_taken(run: Path, tmp_path: Path) -> None:
    command = ["finetune", f"run={run}", "task=classify", "task.pool=statistics", "train.num_updates=1"]
    assert cli.main([*command, f"out={tmp_path / 'out'}"]) == 0


def test_a_run_that_compared_views_is_tuned_on_rows_as_they_are(labelled: Path, tmp_path: Path) -> None:
    views = ["data.views=2", "objectives.invariance={target: invariance, hidden_dim: 8, final_dim: 8}"]
    run = pretrain(labelled, tmp_path / "views", *views)
    tuned = tune(run, "classify", tmp_path / "t", "train.num_updates=1")
    assert load_recipe(str(tuned.out)).data.views == 1
    with pytest.raises(UserError, match=r"set data\.views=2 or more"):
        pretrain(labelled, tmp_path / "one", views[1])


@pytest.mark.parametrize("recipe", ["base/wav2vec", "base/wav2vec2"])
def test_frames_are_hidden_whether_or_not_pre_training_hid_any(recipe: str, tmp_path: Path) -> None:
    body = [text for text in TOY if not text.startswith(("quantizer", "encoder.", "masking"))]
    small = ["encoder.dim=16", "encoder.num_layers=2", "encoder.taps={output: 2}", "size=tiny", "data=."]
    model = build_model(load_recipe(recipe, *body, *small)).eval()
    batch = Batch(torch.randn(2, 60, 2, generator=seeded(0)), torch.tensor([60, 40]))
    taps = []
    for share in (0.0, 0.5):
        tuned = Tuned(model, nn.Identity(), replace(FinetuneConfig(), time_share=share, time_span=2)).eval()
        taps.append(tuned._taps(batch, seeded(1))[1]["output"])
    assert not torch.allclose(*taps)
