"""A tuned run as a start: of another tuning, and of a run of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_tuning import moved
from torch import nn
from toy import toy_config
from tuned_toys import FAST, pretrain, tune, write_labelled

from seqssl import build_model, train
from seqssl.config.schema import FinetuneConfig
from seqssl.errors import UserError
from seqssl.finetuning.tuned import Tuned
from seqssl.runs.finetune import configuration
from seqssl.runs.folder import load
from seqssl.runs.starting import starting_weights
from seqssl.training.log import read_records

ARRAY = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)


@pytest.mark.parametrize("how", ["finetune.lora_rank=2", "finetune.average=0.9", ""])
def test_a_start_is_what_opens(run: Path, tmp_path: Path, how: str) -> None:
    tuned = tune(run, "classify", tmp_path / "tuned", *([how] if how else []))
    encoder = load(run)
    assert not np.allclose(encoder.embed([ARRAY]), load(tuned.out).embed([ARRAY]), atol=1e-4)
    lines = starting_weights(encoder.model, str(tuned.out))
    np.testing.assert_allclose(encoder.embed([ARRAY]), load(tuned.out).embed([ARRAY]), atol=1e-5)
    assert not any("drawn anew" in line for line in lines), lines


def test_how_a_run_was_tuned_is_no_default_of_the_next_tuning(run: Path, tmp_path: Path) -> None:
    settings = (
        "finetune.freeze=encoder",
        "finetune.average=0.9",
        "task.pool=statistics",
        "task.labels='a,b'",
    )
    tuned = tune(run, "classify", tmp_path / "tuned", *settings, "train.num_updates=1")
    again = configuration(tuned.out, "classify")
    assert again.finetune == FinetuneConfig()
    assert again.task == configuration(run, "classify").task
    assert configuration(tuned.out, "classify", "finetune.freeze=features").finetune.freeze == "features"


@pytest.mark.parametrize(
    ("task", "setting"),
    [("ctc", "data.max_seconds=1"), ("tag", "data.max_frames=9"), ("classify", "data.join_frames=40")],
)
def test_rows_are_not_cut_or_joined_away_from_their_labels(run: Path, task: str, setting: str) -> None:
    with pytest.raises(UserError, match=rf"{setting.partition('=')[0]}: task={task} reads whole rows"):
        configuration(run, task, setting)


@pytest.mark.parametrize("settings", [("finetune.lora_rank=2",), ("finetune.freeze=100000",)])
def test_running_figures_stay_where_the_encoder_does(tmp_path: Path, settings: tuple[str, ...]) -> None:
    run = pretrain(write_labelled(tmp_path / "waves"), tmp_path / "run", "encoder.block.conv_norm=batch")
    assert moved(run, tune(run, "classify", tmp_path / "tuned", *settings).out) == set()


def test_codes_that_the_encoder_reads_learn(tmp_path: Path) -> None:
    def learning(*settings: str) -> set[str]:
        model = build_model(toy_config(tmp_path, tmp_path / "run", *settings))
        tuned = Tuned(model, nn.Identity(), FinetuneConfig())
        return {name for name, p in tuned.named_parameters() if p.requires_grad and "targets" in name}

    assert learning("context=quantized", "objectives.contrastive=null")
    assert not learning()


def test_a_channel_that_never_changes_in_training_is_no_measure(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves")
    for path in source.rglob("*.npy"):
        x = np.load(path)
        if path.parent.name != "group1":
            x[:, 1] = 0
        np.save(path, x)
    split = ("data.split_by=group", "data.valid_groups=[group1]", "train.num_updates=2")
    run = pretrain(source, tmp_path / "run", *split)
    window = ("task.lookback=16", "task.horizon=4")
    told: list[str] = []
    tuned = train(configuration(run, "forecast", *FAST, *window, out=str(tmp_path / "t")), say=told.append)
    records = [r for r in read_records(tuned.out / "metrics.jsonl") if r["kind"] == "valid"]
    assert all(float(str(record["forecast/mse"])) < 100 for record in records)
    assert "task: 1 never change in the training rows, and are left out" in told
    with pytest.raises(UserError, match=r"task.channels = 1: 1 never change in the training rows"):
        tune(run, "forecast", tmp_path / "none", *window, "task.channels='1'")
    assert torch.isfinite(torch.tensor([float(str(record["loss"])) for record in records])).all()
