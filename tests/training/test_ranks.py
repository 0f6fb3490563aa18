"""Two gloo ranks give what one rank gives with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from launching import launch
from test_runs import comparable, environment, quiet_train
from toy import toy_arguments, write_waves

from seqssl.model.norms import MaskedBatchNorm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    waves = write_waves(folder / "waves")
    os.environ["SEQSSL_CACHE"] = str(folder / "cache")
    # Diversity is a function of the whole batch, not a sum over micro-batches: it stays out of this. The
    # third block lies above every tap: its weights take no part in a step.
    settings = ("objectives.diversity=null", "encoder.num_layers=3", "train.num_updates=6")
    quiet_train(waves, folder / "one", *settings, "train.accumulate=2")
    arguments = toy_arguments(waves, folder / "two", *settings)
    script = Path(__file__).with_name("ranks.py")
    launch(folder, str(script), str(folder), *arguments)
    return folder


def test_losses_are_the_same(folder: Path) -> None:
    one, two = comparable(folder / "one"), comparable(folder / "two")
    assert len(one) == len(two) > 3
    for first, second in zip(one, two, strict=True):
        assert first.pop("kind") == second.pop("kind")
        assert first == pytest.approx(second, rel=2e-4, abs=1e-6)


def test_a_tuned_head_starts_alike(folder: Path) -> None:
    """The first rank fits it to all rows, and the other one takes it over."""
    found = []
    for number in (1, 2):
        out = folder / f"tuned{number}"
        command = [
            *("finetune", f"run={folder / 'one'}", f"out={out}", "task=forecast", "task.lookback=20"),
            *("task.horizon=4", "train.num_updates=3", "train.log_every=1", "optim.warmup_updates=1"),
            f"train.accumulate={2 // number}",
        ]
        launch(folder, str(Path(__file__).with_name("several.py")), json.dumps([command]), ranks=number)
        found.append([record for record in comparable(out) if record["kind"] == "train"])
    assert [one["loss"] for one in found[0]] == pytest.approx([two["loss"] for two in found[1]], rel=2e-4)
    assert found[0][0]["loss"] < 0.5


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the names of threads are read from /proc")
def test_no_thread_of_the_process_group_outlives_python(folder: Path) -> None:
    """A gloo thread that drops a tensor while Python ends aborts the process, some times in a hundred."""
    for rank in (0, 1):
        names = json.loads((folder / f"threads-{rank}.json").read_text())
        assert names and not [name for name in names if "gloo" in name]


def test_ranks_of_a_second_run_do_not_take_one_another_for_those_of_the_first(tmp_path: Path) -> None:
    """Before, the one that came first met the addresses of a group that had parted, and waited for hours."""
    store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)  # as torchrun's agent has one
    shared = environment(tmp_path) | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": "1",
    }
    script = Path(__file__).with_name("meet_twice.py")
    started = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env=shared | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said


def test_batch_statistics_are_shared(folder: Path) -> None:
    result = json.loads((folder / "shared.json").read_text())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 3, generator=generator).requires_grad_()
    valid = torch.arange(6) < torch.tensor([6, 2, 5, 1])[:, None]
    norm = MaskedBatchNorm(3).train()
    y = norm(x, valid)
    halves = (y[:2], y[2:])
    sum((half.square().sum() * half.detach().sum() for half in halves), torch.zeros(())).backward()
    torch.testing.assert_close(torch.tensor(result["y"]), y.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(result["mean"]), norm.running_mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(result["grad"]), x.grad, atol=1e-3, rtol=1e-3)


def test_a_run_that_is_ill_halts_on_all_ranks(tmp_path: Path) -> None:
    """Before, the first rank saved alone and waited for the others for ever."""
    waves = write_waves(tmp_path / "waves", constant=True)
    settings = ("health=halt", "train.num_updates=40", "train.log_every=1", "train.save_every=40")
    arguments = toy_arguments(waves, tmp_path / "run", *settings)
    done = launch(tmp_path, "-m", "seqssl", "train", *arguments, fails=True)
    assert "halted at update" in done.stderr, done.stderr[-2000:]
    (saved,) = (tmp_path / "run/checkpoints").glob("step-*")
    assert f"halted at update {int(saved.name[5:])} " in done.stderr


@pytest.mark.parametrize("mistake", ["data", "out"])
def test_what_the_first_rank_finds_wrong_ends_all_with_one_message(mistake: str, tmp_path: Path) -> None:
    waves = tmp_path / "nowhere" if mistake == "data" else write_waves(tmp_path / "waves")
    (tmp_path / "file").write_text("")
    out = tmp_path / "run" if mistake == "data" else tmp_path / "file" / "run"
    done = launch(tmp_path, "-m", "seqssl", "train", *toy_arguments(waves, out), fails=True)
    said = [line for line in done.stderr.splitlines() if line.startswith("seqssl:")]
    assert len(said) == 1 and str(waves if mistake == "data" else tmp_path / "file") in said[0]
    assert "bug in seqssl" not in done.stderr
    assert "exitcode  : 2 " in done.stderr  # of the rank that ended first; the launcher may end the other
