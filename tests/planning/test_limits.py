"""What a container may use counts, not what its host has."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from seqssl.data import workers
from seqssl.model.features import convolve
from seqssl.planning import hardware
from seqssl.studies import steps


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 16), ("9900000 100000", 16), ("", 16)],
)
def test_cores(limit: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    assert hardware.num_cores() == cores


def test_a_pool_has_a_worker_for_each_cpu_of_its_own_and_on_windows_61_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before, a container got one for each core of its host, and Windows an error."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(3)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    assert workers.num_cpus() == 3 and workers.most_workers(128) == 128
    monkeypatch.setattr(workers, "os", SimpleNamespace(name="nt", cpu_count=lambda: 128))
    assert workers.most_workers(workers.num_cpus()) == 61


def test_a_system_that_does_not_tell_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "Path", lambda name: tmp_path / "nothing")
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert steps.resident_mib("VmRSS") == 0


def test_an_older_torch_does_not_say_what_the_cpu_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not hardware.has_fast_bfloat16()
    monkeypatch.delattr(torch.compiler, "is_exporting", raising=False)
    conv, x = torch.nn.Conv1d(2, 3, 4, 2), torch.randn(1, 9, 2)
    torch.testing.assert_close(convolve(conv, x), conv(x.transpose(1, 2)).transpose(1, 2))


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path)
    whole = hardware.main_memory()
    assert whole > 2**28
    for text, expected in (("1048576", 2**20), ("max", whole), (str(2**62), whole)):
        (tmp_path / "memory.max").write_text(text + "\n")
        assert hardware.main_memory() == expected
