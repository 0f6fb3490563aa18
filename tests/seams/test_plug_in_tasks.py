"""Tasks that users write: the loop trains them as it trains its own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classify import Classify
from helpers import batch_of, config_of, records, rows_of, train, train_on, weights
from layerwise import LayerWise
from transcribe import Ctc

from seqssl import PretrainTask, build_model
from seqssl.testing import check_task

FAST = ("optim.lr=0.01", "train.num_updates=40", "train.eval_every=40", "train.save_every=40")


def test_classification_learns_the_labels(waves: Path, tmp_path: Path) -> None:
    told = train(waves, tmp_path / "run", "task=classify:Classify", *FAST)
    assert told[-1]["loss"] < 0.5 * told[0]["loss"]
    assert told[0]["loss"] == pytest.approx(math.log(4), abs=0.5)
    (valid,) = records(tmp_path / "run", "valid")
    assert valid["cross_entropy/accuracy"] > 0.5, "one of four labels"


@pytest.mark.parametrize("task", [Classify, Ctc, PretrainTask])
def test_tasks_pass_the_public_checks(waves: Path, tmp_path: Path, task: Any) -> None:
    config = config_of(waves, tmp_path / "run", "data.batch_frames=900", "data.valid_share=0.5")
    batch = batch_of(config)
    last = 0 if task is PretrainTask else ("a", "b", "c", "d")
    check_task(lambda: task(build_model(config), last), [batch, *rows_of(batch, 1, 2)])


def test_classification_in_two_micro_steps_is_one_big_step(waves: Path, tmp_path: Path) -> None:
    config = config_of(waves, tmp_path / "run", "data.batch_frames=900", "data.valid_share=0.5")
    batch, found = batch_of(config), []
    for number, sizes in enumerate([(3,), (1, 2)]):
        task = Classify(build_model(config), ("a", "b", "c", "d"))
        torch.manual_seed(0)
        task.model.head.reset_parameters()
        found.append(train_on(task, rows_of(batch, *sizes), tmp_path / str(number)))
    for name, x in found[0].items():
        torch.testing.assert_close(found[1][name], x, rtol=1e-4, atol=1e-5)


def test_the_loss_of_ctc_falls(waves: Path, tmp_path: Path) -> None:
    told = train(waves, tmp_path / "run", "modality=helpers:Spelled", "task=transcribe:Ctc", *FAST)
    assert told[-1]["loss/ctc"] < 0.6 * told[0]["loss/ctc"]


def test_ctc_in_two_micro_steps_is_one_big_step(waves: Path, tmp_path: Path) -> None:
    """The loss is a mean over letters: rows of one, two and three letters weigh by them."""
    config = config_of(waves, tmp_path / "run", "data.batch_frames=900", "data.valid_share=0.5")
    batch, found, losses = batch_of(config), [], []
    labels = ("ab", "a", "bab")
    for number, sizes in enumerate([(3,), (1, 2)]):
        task = Ctc(build_model(config), labels)
        torch.manual_seed(0)
        task.model.head.reset_parameters()
        parts = rows_of(batch, *sizes)
        for part in parts:
            object.__setattr__(part, "labels", tuple(labels[batch.keys.index(key)] for key in part.keys))
        run = tmp_path / str(number)
        found.append(train_on(task, parts, run))
        losses.append(records(run, "train")[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, x in found[0].items():
        torch.testing.assert_close(found[1][name], x, rtol=1e-4, atol=1e-5)


def write_two_kinds(folder: Path) -> Path:
    """Waves alike in both groups, but for a hum that gives one of them away."""
    rng = np.random.default_rng(0)
    for row in range(60):
        steps = np.arange(40)[:, None]
        wave = np.sin(steps * (0.2 + 0.2 * (row % 4))) + 0.1 * rng.normal(size=(40, 2))
        wave += 0.8 * (row % 2) * np.sin(2.5 * steps)
        path = folder / f"group{row % 2}" / f"a{row:02}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, wave.astype(np.float32))
    return folder


def test_gradient_reversal_lowers_the_accuracy_of_the_critic(tmp_path: Path) -> None:
    source, found = write_two_kinds(tmp_path / "two"), {}
    for strength in (0.0, 3.0):
        out = tmp_path / f"run{strength}"
        slot = f"task={{target: reversal:Fair, strength: {strength}}}"
        train(source, out, slot, "data.batch_frames=400", *FAST, "train.num_updates=160")
        found[strength] = records(out, "valid")[-1]["critic/accuracy"]
    assert found[0.0] > 0.9
    assert found[3.0] < 0.7


def test_lora_trains_its_own_weights_alone(waves: Path, tmp_path: Path) -> None:
    train(waves, tmp_path / "first")
    told = train(waves, tmp_path / "second", f"init={tmp_path / 'first'}", "task=lora:Lora", *FAST)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    own = {name for name in after if name.rpartition(".")[2] in ("up", "down")}
    assert len(own) == 4, "two blocks"
    assert all(after[name].abs().max() > 0 for name in own)
    kept = {name.replace(".frozen.", "."): x for name, x in after.items() if name not in own}
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[name], before[name]) for name in before)
    assert all(math.isfinite(each["loss"]) for each in told)


def test_lower_layers_learn_more_slowly(waves: Path, tmp_path: Path) -> None:
    config = config_of(waves, tmp_path / "run", "task={target: layerwise:LayerWise, decay: 0.5}")
    model, batch = build_model(config), batch_of(config)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    after = train_on(LayerWise(model, 0, decay=0.5), [batch], tmp_path / "steps")
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}

    def largest(start: str) -> float:
        return max(size for name, size in moved.items() if name.startswith(start))

    top = largest("encoder.blocks.1.")
    assert top == pytest.approx(0.01, rel=0.15), "Adam's first step is the rate itself"
    assert largest("encoder.blocks.0.") == pytest.approx(top / 2, rel=0.15)
    assert largest("feature_encoder.") == pytest.approx(top / 4, rel=0.15)
    assert train(waves, tmp_path / "run", "task={target: layerwise:LayerWise, decay: 0.5}")
