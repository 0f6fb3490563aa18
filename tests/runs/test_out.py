"""The run folder: what it is called, who may write there, and what a damaged one says."""

import multiprocessing
from pathlib import Path

import pytest
from toy import Toy, toy_arguments, toy_config

import seqssl
from seqssl import cli
from seqssl.config.stages import run_folder
from seqssl.data.prepare import prepare
from seqssl.errors import UserError
from seqssl.runs import train as run


def test_own_data_has_a_folder_of_its_own(waves: Path) -> None:
    config = toy_config(waves, Path("x"))
    config.out = None
    assert run_folder(config) == Path("runs/w2vbert-tiny-waves")
    config.data.source = None
    assert run_folder(config) == Path("runs/w2vbert-tiny")


def test_a_mistake_leaves_nothing_behind(waves: Path, tmp_path: Path) -> None:
    arguments = toy_arguments(waves, tmp_path / "run", "train.num_updates=1")
    assert cli.main(["train", *arguments, "masking.start_prob=2"]) == 2
    assert not (tmp_path / "run").exists()
    assert cli.main(["train", *arguments]) == 0


@pytest.mark.parametrize("bad", ["seed=-1", "data.workers=-2", "optim.betas=[2,3]", "optim.weight_decay=-1",
                                 "temperature.decay=2", "objectives.contrastive.num_negatives=0",
                                 "objectives.contrastive.temperature=0"])  # fmt: skip
def test_impossible_settings(
    bad: str, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *toy_arguments(waves, tmp_path / "run"), bad]) == 2
    errors = capsys.readouterr().err
    assert bad.partition("=")[0].rpartition(".")[2] in errors and "Traceback" not in errors


def hold(
    folder: Path, ready: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event"
) -> None:
    with run.alone(folder):
        ready.set()
        done.wait(60)


def test_two_trainings_in_one_folder(waves: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(UserError, match="being trained by another process"):
            seqssl.train(toy_config(waves, tmp_path / "run"), say=lambda text: None)
    finally:
        done.set()
        other.join()


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_path_that_cannot_be(
    out: str, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    assert cli.main(["train", *toy_arguments(waves, tmp_path / out)]) == 2
    assert "file" in capsys.readouterr().err and (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("damage", ["", "{{{", "recipe: [", "just text", "\x00"])
def test_a_damaged_config(
    damage: str, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = toy_arguments(waves, tmp_path / "run", "train.num_updates=1")
    assert cli.main(["train", *arguments]) == 0
    (tmp_path / "run" / "config.yaml").write_text(damage)
    assert cli.main(["train", *arguments]) == 2
    assert "damaged" in capsys.readouterr().err


def test_an_older_checkpoint_is_not_taken_silently(waves: Path, tmp_path: Path) -> None:
    seqssl.train(toy_config(waves, tmp_path / "run"), say=lambda text: None)
    newest = tmp_path / "run" / "checkpoints" / "step-00000012"
    (newest / "model.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="damaged"):
        seqssl.load(tmp_path / "run")
    (newest / "state.json").write_text('{"format": 1}')
    with pytest.warns(UserWarning, match="damaged"):
        seqssl.load(tmp_path / "run")


def test_settings_of_splits_without_effect_are_told(waves: Path, tmp_path: Path) -> None:
    prepared, out = tmp_path / "prepared", tmp_path / "run"
    prepare(Toy(), waves, prepared, modality="toy:Toy", split_by="record", num_workers=1)
    with pytest.raises(UserError, match=r"data.split_by = record has no effect: .* is prepared already"):
        seqssl.train(toy_config(prepared, out, "train.num_updates=1"), say=None)
    assert not out.exists()
    said = list[str]()
    seqssl.train(toy_config(prepared, out, "train.num_updates=1", "data.split_by=null"), say=said.append)
    assert any(line.startswith("data.valid_share = 0.2 has no effect: ") for line in said)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("maximum:loss", "maximum:loss: expected min:NAME or max:NAME"),
        ("loss", "loss: expected min:NAME or max:NAME"),
        ("max:probe/rank_outptu", ".* task.probes gives probe/rank_contrastive, probe/rank_output"),
        ("max:probe/accuracy_output", ".*accuracy_output: there is no such .* metric; task.probes gives"),
    ],
)
def test_what_is_best_is_checked_before_the_first_update(
    setting: str, words: str, waves: Path, tmp_path: Path
) -> None:
    config = toy_config(waves, tmp_path / "run", f"train.keep_best={setting}", "task.probes=[rank]")
    with pytest.raises(UserError, match=f"train.keep_best = {words}"):
        seqssl.train(config, say=None)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
