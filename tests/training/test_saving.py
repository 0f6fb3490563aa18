"""Checkpoints are written beside the training, and are what they would be without."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_runs import Killed, comparable, die_at, quiet_train
from toy import toy_arguments

from seqssl import cli
from seqssl.errors import UserError
from seqssl.training import checkpoint
from seqssl.training.loop import Trainer
from seqssl.training.parallel import Alone
from seqssl.training.saving import Saver

STATE = checkpoint.State(update=1, cursor=1, best=None, tally={})


def test_a_slow_disk_stops_nothing(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of update 3 is not written before update 5 is done, and holds what update 3 left."""
    unbroken = quiet_train(waves, tmp_path / "unbroken", "train.keep_last=4")
    reached, write, step = threading.Event(), checkpoint.save_file, Trainer.step

    def slow(tensors: Any, path: Path) -> None:
        if "step-00000003" in str(path):
            assert reached.wait(timeout=60), "training waits for the disk"
        write(tensors, path)

    def counted(self: Trainer, batches: list[Any]) -> None:
        step(self, batches)
        if self.update == 5:
            reached.set()

    monkeypatch.setattr(checkpoint, "save_file", slow)
    monkeypatch.setattr(Trainer, "step", counted)
    run = quiet_train(waves, tmp_path / "run", "train.keep_last=4")
    assert comparable(run.out) == comparable(unbroken.out)
    for path in checkpoint.numbered(unbroken.out / "checkpoints"):
        for name in ("model.safetensors", "optimizer.safetensors"):
            expected, found = load_file(path / name), load_file(run.out / "checkpoints" / path.name / name)
            assert expected.keys() == found.keys()
            assert all(torch.equal(found[key], expected[key]) for key in expected)
        states = [
            (out / "checkpoints" / path.name / "state.json").read_text() for out in (unbroken.out, run.out)
        ]
        assert json.loads(states[0]) == json.loads(states[1])


def test_the_order_and_the_number_of_copies_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two states wait at most, however slow the disk is; the oldest checkpoints go as before."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    written, free = list[str](), threading.Semaphore(0)
    save = checkpoint.save

    def slow(path: Path, *what: Any) -> None:
        assert free.acquire(timeout=60)
        save(path, *what)
        written.append(path.name)

    monkeypatch.setattr(checkpoint, "save", slow)
    with Saver(tmp_path, 2, Alone(), torch.device("cpu")) as saver:
        for number in range(2):
            saver.save(f"step-{number}", model, optimizer, STATE)
        assert not written
        threading.Timer(0.05, free.release).start()
        saver.save("step-2", model, optimizer, STATE)  # waits for the first one to be written
        assert written == ["step-0"]
        free.release(9)
        saver.save("best", model, None, STATE)
        saver.finish()
        assert written == ["step-0", "step-1", "step-2", "best"]
    assert {path.name for path in tmp_path.iterdir()} == {"step-1", "step-2", "best"}


def test_what_is_written_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    go, write = threading.Event(), checkpoint.save_file

    def late(tensors: Any, path: Path) -> None:
        assert go.wait(timeout=60)
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", late)
    with Saver(tmp_path, 2, Alone(), torch.device("cpu")) as saver:
        saver.save("best", model, None, STATE)
        model.weight.data += 1
        go.set()
    assert torch.equal(load_file(tmp_path / "best/model.safetensors")["weight"], before)


def test_a_disk_that_is_full_ends_the_run_at_the_next_update(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not at the next checkpoint, which may be hours away."""
    failed, step = threading.Event(), Trainer.step

    def full(tensors: Any, path: Path) -> None:
        failed.set()
        raise OSError(28, "No space left on device")

    def after(self: Trainer, batches: list[Any]) -> None:
        if self.update == 4:
            assert failed.wait(timeout=60)
            self.saver._thread.submit(lambda: None).result()  # the one before is done
        step(self, batches)

    monkeypatch.setattr(checkpoint, "save_file", full)
    monkeypatch.setattr(Trainer, "step", after)
    settings = ("train.eval_every=100", "train.save_every=3", "train.num_updates=30", "train.log_every=1")
    assert cli.main(["train", *toy_arguments(waves, tmp_path / "run", *settings)]) == 2
    assert "the disk is full" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) <= 5
    assert not [*(tmp_path / "run/checkpoints").glob("step-*")]


def test_a_run_that_fails_keeps_what_was_being_written(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, write = threading.Event(), checkpoint.save_file

    def late(tensors: Any, path: Path) -> None:
        dying.wait(timeout=0.2)
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", late)
    die_at(7, monkeypatch)
    with pytest.raises(Killed):
        quiet_train(waves, tmp_path / "run")
    saved, problems = checkpoint.latest(tmp_path / "run/checkpoints")
    assert saved is not None and saved.state["update"] == 6 and not problems


def test_an_error_is_raised_once_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    model = torch.nn.Linear(2, 2)
    with Saver(tmp_path, 2, Alone(), torch.device("cpu")) as saver:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_file", full)
            saver.save("best", model, None, STATE)
            with pytest.raises(UserError, match="the disk is full"):
                saver.finish()
        saver.save("best", model, None, STATE)
        saver.finish()
    assert (tmp_path / "best/model.safetensors").exists()


def full_for(name: str, patch: pytest.MonkeyPatch) -> None:
    """Let nothing be written for the checkpoint of this name."""
    write = checkpoint.save_file

    def full(tensors: Any, path: Path) -> None:
        if path.parent.name == f"{name}.partial":
            raise OSError(28, "No space left on device")
        write(tensors, path)

    patch.setattr(checkpoint, "save_file", full)


def test_nothing_is_written_after_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint would record a best that is not on disk, and a resumed run would not write it again."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    full_for("best", monkeypatch)
    with Saver(tmp_path, 2, Alone(), torch.device("cpu")) as saver:
        saver.save("best", model, None, STATE)
        saver.save("step-1", model, optimizer, STATE)
        with pytest.raises(UserError, match="best could not be written"):
            saver.finish()
        saver.finish()  # it has been raised
    assert not [*tmp_path.iterdir()]


def test_a_failure_is_told_where_something_else_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = torch.nn.Linear(2, 2)
    full_for("best", monkeypatch)
    with pytest.raises(Killed), Saver(tmp_path, 2, Alone(), torch.device("cpu")) as saver:
        saver.save("best", model, None, STATE)
        raise Killed
    assert capsys.readouterr().err.count("best could not be written: the disk is full") == 1
    with pytest.raises(UserError), Saver(tmp_path, 2, Alone(), torch.device("cpu")) as saver:
        saver.save("best", model, None, STATE)
        saver.save("best", model, None, STATE)
        saver.finish()
    assert not capsys.readouterr().err, "the error says it"


def weight_of(path: Path) -> float:
    return float(checkpoint.read(path).model["weight"])


def save_weight(path: Path, value: float) -> None:
    checkpoint.save(path, {"weight": torch.tensor(value)}, None, STATE)


def test_a_checkpoint_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the old one was left under another name, which `prune` deleted."""
    save_weight(tmp_path / "best", 1.0)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "best.partial":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(UserError, match="Input/output error"):
            save_weight(tmp_path / "best", 2.0)
    assert weight_of(tmp_path / "best") == 1
    checkpoint.prune(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    save_weight(tmp_path / "best", 2.0)
    assert weight_of(tmp_path / "best") == 2


def test_a_checkpoint_that_a_kill_left_without_its_name_gets_it_back(tmp_path: Path) -> None:
    """Between the two renames, or while the old one was being deleted."""
    save_weight(tmp_path / "best.old.partial", 1.0)
    save_weight(tmp_path / "best.partial", 2.0)
    checkpoint.prune(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["best"] and weight_of(tmp_path / "best") == 1
    save_weight(tmp_path / "best.old.partial", 0.0)
    save_weight(tmp_path / "best", 2.0)  # a folder that is not empty stands in the way
    assert [path.name for path in tmp_path.iterdir()] == ["best"] and weight_of(tmp_path / "best") == 2
    save_weight(tmp_path / "best.old.partial", 0.0)
    checkpoint.prune(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["best"] and weight_of(tmp_path / "best") == 2
