"""What a container may use counts, not what its host has."""

import os
from pathlib import Path

import pytest

from seqssl.planning import hardware


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 16), ("9900000 100000", 16), ("", 16)],
)
def test_cores(limit: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    assert hardware.num_cores() == cores


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path)
    whole = hardware.main_memory()
    assert whole > 2**28
    for text, expected in (("1048576", 2**20), ("max", whole), (str(2**62), whole)):
        (tmp_path / "memory.max").write_text(text + "\n")
        assert hardware.main_memory() == expected
