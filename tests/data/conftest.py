"""An object store with raw and prepared data: a small S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from numbers_adapter import Numbers, write_numbers
from s3_server import Server, serving
from stored import put_all

from seqssl.data import writing
from seqssl.data.prepare import prepare


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def store(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """An empty server, with the bucket `mine`."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(writing, "SHARD_BYTES", 600)
    for part in (running.buckets, running.uploads, running.closed, running.unwritable):
        part.clear()
    running.buckets["mine"] = {}
    running.asked.clear()
    running.broken.clear()
    running.most = 1000
    return running


@pytest.fixture
def raw(tmp_path: Path, store: Server) -> Path:
    """Raw files, which are stored as mine/raw, too."""
    folder = tmp_path / "raw"
    write_numbers(folder)
    (folder / "group0" / "ä b.num").write_text("1 2 three")
    put_all(store, folder, "mine/raw")
    return folder


@pytest.fixture
def prepared(raw: Path, store: Server, tmp_path: Path) -> Path:
    """A prepared folder, which is stored as mine/prepared, too."""
    prepare(Numbers(), raw, tmp_path / "whole", modality="numbers_adapter:Numbers", num_workers=1)
    put_all(store, tmp_path / "whole", "mine/prepared")
    store.asked.clear()
    return tmp_path / "whole"
