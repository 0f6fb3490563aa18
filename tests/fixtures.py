"""Fixtures that several folders share; their conftest.py imports them."""

from pathlib import Path

import pytest
from toy import write_waves


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    return write_waves(tmp_path / "waves")
