"""A lost rank costs no more than the updates since the last checkpoint; a late one is named."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import launch
from safetensors.torch import load_file
from test_runs import comparable, quiet_train
from toy import toy_arguments, toy_config, write_waves

import seqssl
from seqssl.runs.folder import read_provenance, write_config
from seqssl.runs.sharing import shared_out
from seqssl.training.parallel import Replicated

SCRIPT = Path(__file__).with_name("disturbed.py")
# The third block lies above every tap: its weights take no part in a step. Diversity is a function of the
# whole batch, not a sum over micro-batches.
SETTINGS = ("encoder.num_layers=3", "objectives.diversity=null", "train.num_updates=9", "train.trackers=[]")


def disturbed(
    folder: Path, how: str, out: str, *settings: str, ranks: int = 2
) -> subprocess.CompletedProcess[str]:
    """A run that is disturbed as `how` says, and started again by the launcher."""
    arguments = toy_arguments(folder / "waves", folder / out, *SETTINGS, *settings)
    options = ("--max-restarts=2", "--monitor-interval=0.1")
    return launch(folder, str(SCRIPT), how, *arguments, ranks=ranks, options=options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restarts")
    os.environ["SEQSSL_CACHE"] = str(folder / "cache")
    write_waves(folder / "waves")
    return folder


@pytest.fixture(scope="module")
def calm(folder: Path) -> subprocess.CompletedProcess[str]:
    """A run of two ranks that nothing ends; one of them is late, once."""
    return disturbed(folder, "late:1@6", "calm")


def weights(run: Path, name: str = "step-00000009") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / name / "model.safetensors")


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_nothing_is_lost_with_a_rank(folder: Path, calm: subprocess.CompletedProcess[str]) -> None:
    """Whichever rank it is, and bit for bit; two are added up in any order."""
    done = disturbed(folder, "kill:1@5,0@8", "killed")
    for name in ("step-00000009", "step-00000006", "best"):
        expected, found = (weights(folder / run, name) for run in ("calm", "killed"))
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert comparable(folder / "killed") == comparable(folder / "calm")
    steps = [record["step"] for record in records(folder / "killed") if record["kind"] == "train"]
    assert steps == [2, 4, 6, 8, 9], "each update is told once"
    assert any("going on from" in str(record.get("message")) for record in records(folder / "killed"))
    assert "bug in seqssl" not in done.stderr
    assert "another process of this run is gone" in done.stderr


def test_a_late_rank_is_named(calm: subprocess.CompletedProcess[str]) -> None:
    # Where cores are busy, others may be late as well, at the start above all.
    said = [line for line in calm.stderr.splitlines() if " come to update 6" in line]
    first = r"seqssl: rank 1 of 2 has not come to update 6 for \d+ s: still waiting\. "
    assert re.match(first + r"Rank 1 is process \d+ on \S+, last at update 5[.,]", said[0]), calm.stderr
    assert re.match(r"seqssl: all ranks have come to update 6, after some \d+ s\.", said[-1])
    assert all("rank 0" not in line for line in said), "it was there"


def test_an_update_keeps_its_size_with_fewer_ranks(
    folder: Path, calm: subprocess.CompletedProcess[str]
) -> None:
    """Of two nodes, say, one may be lost for good."""
    run = folder / "fewer"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copytree(folder / "calm/checkpoints/step-00000006", run / "checkpoints/step-00000006")
    shutil.copy(folder / "calm/config.yaml", run)
    said = list[str]()
    seqssl.train(toy_config(folder / "waves", run, *SETTINGS), say=said.append)
    assert "an update has 2 micro-batches, as before: 2 on each rank" in said
    records_of_two = [each for each in comparable(folder / "calm") if each["step"] > 6]
    assert len(records_of_two) == len(comparable(run)) == 4
    for first, second in zip(comparable(run), records_of_two, strict=True):
        assert first.pop("kind") == second.pop("kind")
        assert first == pytest.approx(second, rel=2e-4, abs=1e-6)
    assert read_provenance(run)["micro_batches"] == 2


@pytest.mark.parametrize(
    ("began", "size", "share", "accumulate", "each", "words"),
    [
        (None, 4, 1, 2, 2, ""),  # a run of an older version
        (8, 4, 1, 2, 2, ""),
        (8, 2, 1, 2, 4, "an update has 8 micro-batches, as before: 4 on each rank"),
        (8, 16, 1, 2, 2, "an update has 32 micro-batches now, and 8 before, which 16 ranks cannot share out"),
        (2, 3, 3, 2, 2, ""),  # processes that share each batch
    ],
)
def test_micro_batches_are_shared_out_anew(
    began: int | None, size: int, share: int, accumulate: int, each: int, words: str, tmp_path: Path
) -> None:
    config = toy_config(tmp_path, tmp_path / "run", f"train.accumulate={accumulate}")
    ranks = Replicated(0, size)
    ranks.share = share
    write_config(config, tmp_path / "run", [], {} if began is None else {"micro_batches": began})
    (tmp_path / "run/checkpoints/step-00000003").mkdir(parents=True)
    found, number, text = shared_out(config, tmp_path / "run", ranks)
    assert (found.train.accumulate, text) == (each, words)
    assert number == (began or accumulate * size // share)


def test_four_ranks_give_what_one_does(folder: Path) -> None:
    """Two groups of two, each with all weights divided among them (HSDP)."""
    disturbed(folder, "none", "four", "train.shards=2", ranks=4)
    quiet_train(folder / "waves", folder / "one", *SETTINGS, "train.accumulate=4")
    one, four = comparable(folder / "one"), comparable(folder / "four")
    assert len(one) == len(four) > 5
    for first, second in zip(one, four, strict=True):
        assert first.pop("kind") == second.pop("kind")
        assert first == pytest.approx(second, rel=5e-4, abs=1e-6)
    expected, found = weights(folder / "one"), weights(folder / "four")
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-5)
