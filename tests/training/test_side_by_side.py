"""Several processes share one run on a CPU: the same update, whatever becomes of one of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_runs import Killed, comparable, die_at, quiet_train, start
from toy import Toy, toy_arguments, toy_config, write_waves

import seqssl
from seqssl.assembly import streams_of
from seqssl.data.mixing import MixedLoader
from seqssl.errors import UserError
from seqssl.model.types import Batch
from seqssl.runs import processes
from seqssl.runs.folder import read_provenance
from seqssl.runs.processes import number_of
from seqssl.runs.streams import training_batches
from seqssl.training.parallel import SideBySide

TWO = "train.processes=2"
# Diversity is a function of the whole batch, not a sum over micro-batches: shares of one cannot be compared.
PLAIN = "objectives.diversity=null"


class DiesInHelpers(Toy):
    """An adapter that ends the process that reads with it, unless that is the first of its run."""

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> seqssl.Sample:
        if sys.argv[0].endswith("helper.py"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(row, rng)


class FailsInHelpers(Toy):
    """The same with an error of its own."""

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> seqssl.Sample:
        if sys.argv[0].endswith("helper.py"):
            raise ValueError("a typing error of the user's")
        return super().load(row, rng)


class BadInHelpers(Toy):
    """The same with a sample that no gradient survives."""

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> seqssl.Sample:
        sample = super().load(row, rng)
        return replace(sample, values=sample.values * np.nan) if "helper.py" in sys.argv[0] else sample


class WrongShapes(Toy):
    """An adapter whose feature encoder does not fit its data."""

    def feature_encoder(self, dim: int) -> seqssl.Conv1dStack:
        encoder = super().feature_encoder(dim)
        encoder.dim += 1
        return encoder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seqssl.Run]:
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQSSL_CACHE", str(folder / "cache"))
        yield quiet_train(write_waves(folder / "waves"), folder / "run", TWO, PLAIN)


class OneAfterTheOther:
    """The parts of each batch as micro-batches of one process."""

    def __init__(self, loader: MixedLoader) -> None:
        self.loader = loader
        self.epoch_of = loader.epoch_of

    def endless(self, cursor: int, rank: int, world_size: int) -> Iterator[Batch]:
        for parts in zip(*(self.loader.endless(cursor, part, 2) for part in (0, 1)), strict=False):
            yield from parts


def test_the_update_is_that_of_one_process(
    two: seqssl.Run, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divided(streams: Any, *, seed: int, group: int, share: int, **rest: Any) -> OneAfterTheOther:
        return OneAfterTheOther(training_batches(streams, seed=seed, group=1, share=2))

    monkeypatch.setattr("seqssl.runs.train.training_batches", divided)
    one = quiet_train(waves, tmp_path / "one", "train.accumulate=2", PLAIN)
    assert len(comparable(one.out)) == len(comparable(two.out)) > 8
    for first, second in zip(comparable(one.out), comparable(two.out), strict=True):
        assert first.pop("kind") == second.pop("kind")
        first.pop("epoch")  # counted in micro-batches
        second.pop("epoch")
        assert first == pytest.approx(second, rel=2e-4, abs=1e-6)


def test_it_hears_as_much_as_one_process(two: seqssl.Run, waves: Path, tmp_path: Path) -> None:
    """The same batches, epoch by epoch."""
    one = quiet_train(waves, tmp_path / "one", PLAIN)
    assert [each["epoch"] for each in comparable(one.out)] == [each["epoch"] for each in comparable(two.out)]


def test_a_killed_run_goes_on_bit_for_bit_with_as_many_processes(
    two: seqssl.Run, waves: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        die_at(7, patch)
        with pytest.raises(Killed):
            quiet_train(waves, tmp_path / "run", TWO, PLAIN)
    again = quiet_train(waves, tmp_path / "run", PLAIN)  # auto, which would be one here
    assert read_provenance(again.out)["processes"] == 2
    assert comparable(again.out) == comparable(two.out)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ("DiesInHelpers", "process 2 of 2 of this run died: signal 9, often for want of memory. The same"),
        ("FailsInHelpers", "cannot be loaded: a typing error of the user's"),
    ],
)
def test_what_ends_a_process_is_told(adapter: str, words: str, waves: Path, tmp_path: Path) -> None:
    config = toy_config(waves, tmp_path / "run", TWO, f"modality=test_side_by_side:{adapter}")
    with pytest.raises(UserError) as raised:
        seqssl.train(config, say=None)
    assert words in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_an_error_of_all_is_the_first_ones(waves: Path, tmp_path: Path) -> None:
    """A mistake in a part of the user's is no death of a process."""
    config = toy_config(waves, tmp_path / "run", TWO, "modality=test_side_by_side:WrongShapes", "health=off")
    with pytest.raises(RuntimeError, match="Given normalized_shape"):
        seqssl.train(config, say=None)


def test_what_the_first_finds_wrong_is_its_own_message(waves: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.augment: Toy has no 'loudness'"):
        quiet_train(waves, tmp_path / "run", TWO, "data.augment=[loudness]")


def test_one_goes_on_where_they_cannot_meet(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE_S", 0.0)
    with pytest.raises(UserError, match="they cannot meet: they did not all come within 0 s"):
        quiet_train(waves, tmp_path / "asked", TWO)
    threads(2, monkeypatch)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    said: list[str] = []
    config = toy_config(waves, tmp_path / "auto", "data.max_frames=80", "train.num_updates=2")
    seqssl.train(config, say=said.append)
    assert any("one process does all the work" in line for line in said)
    assert read_provenance(tmp_path / "auto")["processes"] == 1


def threads(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: number)
    monkeypatch.setattr(processes.hardware, "num_cores", lambda: number)


@pytest.mark.parametrize(
    ("settings", "there_are", "number"),
    [
        ((), 1, 1),
        ((), 2, 2),
        ((), 16, 4),  # a batch holds four rows of full length
        (("data.max_frames=null",), 16, 2),  # the longest has 66 of 160 steps
        (("data.max_frames=null", "data.batch_frames=60"), 16, 1),
        (("data.views=2", "objectives.invariance.target=invariance"), 16, 1),  # rows are compared
        (("data.views=2",), 16, 2),
        (("train.processes=3",), 1, 3),
        (("encoder.conv_norm=batch",), 16, 4),  # ours, which knows of ranks
    ],
)
def test_how_many_there_are(
    settings: tuple[str, ...],
    there_are: int,
    number: int,
    waves: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads(there_are, monkeypatch)
    config = toy_config(waves, tmp_path / "run", "data.max_frames=40", *settings)
    assert number_of(config, streams_of(config), tmp_path / "run", torch.device("cpu")) == number


def test_not_more_than_fit_into_memory(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads(16, monkeypatch)
    config = toy_config(waves, tmp_path / "run", "data.max_frames=40")
    streams = streams_of(config)
    parameters = sum(p.numel() for p in seqssl.build_model(config).parameters())
    monkeypatch.setattr(processes, "PROCESS_BYTES", 0)
    monkeypatch.setattr(processes.hardware, "main_memory", lambda: 2 * 28 * 3 * parameters)
    assert number_of(config, streams, tmp_path / "run", torch.device("cpu")) == 3


def test_several_are_for_a_cpu_that_torchrun_has_not_divided(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(waves, tmp_path / "run", TWO, "data.max_frames=40")
    with pytest.raises(UserError, match=r"train\.processes = 2: processes share a CPU"):
        number_of(config, streams_of(config), tmp_path / "run", torch.device("cuda"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun divides this run"):
        number_of(config, streams_of(config), tmp_path / "run", torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("data.views=2", "objectives.invariance.target=invariance"),
            "InvarianceLoss is a function of all rows",
        ),
        (("data.max_frames=100",), "a batch holds no more than 1 rows of full length"),
        (("task.target=classify",), "they are for pre-training"),
    ],
)
def test_a_number_that_cannot_be_had(
    settings: tuple[str, ...], words: str, waves: Path, tmp_path: Path
) -> None:
    config = toy_config(waves, tmp_path / "run", TWO, *settings)
    with pytest.raises(UserError, match=words):
        number_of(config, streams_of(config), tmp_path / "run", torch.device("cpu"))


def test_a_bad_row_is_named_whoever_has_it(waves: Path, tmp_path: Path) -> None:
    config = toy_config(waves, tmp_path / "run", TWO, "modality=test_side_by_side:BadInHelpers")
    seqssl.train(config, say=None)
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    (bad, *_) = [record for record in records if record.get("event") == "nonfinite"]
    assert len(bad["keys"]) >= 3, "the rows of both: one alone has two at most"


def test_a_gradient_that_one_process_lacks_counts_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    other = torch.tensor([4.0, 6.0, 0.0, 0.0, 1.0, 0.0])
    monkeypatch.setattr("seqssl.training.parallel.add_up", lambda value: value.add_(other))
    seen, unseen = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    SideBySide(0, 2).exchange([seen, unseen])
    assert seen.grad is not None and seen.grad.tolist() == [2.0, 3.0]
    assert unseen.grad is None  # in no process: an optimizer leaves it alone


def children_of(process: subprocess.Popen[str]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in text.split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are read from /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_none_outlives_the_first(number: signal.Signals, waves: Path, tmp_path: Path) -> None:
    many = ("train.num_updates=100000", "train.save_every=5", "train.eval_every=100000")
    process = start(toy_arguments(waves, tmp_path / "run", *many, TWO), tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("train"):
            break
    children = children_of(process)
    assert children
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    if number != signal.SIGKILL:
        assert process.returncode == 130 and "interrupted at update" in errors
    end = time.monotonic() + 20
    while any(is_alive(child) for child in children) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(is_alive(child) for child in children)


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
