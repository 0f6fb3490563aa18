"""`out` in an object store: what is sent, and what an interruption leaves there."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from numbers_adapter import Numbers
from s3_server import Server
from stored import command, files_in, rows, sent

from seqssl import UserError, cli
from seqssl.data import writing
from seqssl.data.mirrors import bring
from seqssl.data.prepare import prepare
from seqssl.data.remote import PART_BYTES, Remote
from seqssl.data.shards import Manifest


def test_out_may_be_in_a_store(
    prepared: Path, store: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = store.uri("mine/made")
    assert cli.main(command(tmp_path / "raw", out)) == 0
    said = capsys.readouterr().out
    assert "look at it: s3://mine/made/prepare.html" in said and "rejected: 1 " in said
    found = sent(store, "made")
    assert b"<html" in found.pop("prepare.html")
    kept = {name: content for name, content in files_in(prepared).items() if name != ".lock"}
    assert found == kept
    assert not [*(tmp_path / "cache" / "outgoing").iterdir()]
    order = [path.rpartition("/")[2] for method, path in store.asked if method == "PUT"]
    assert [name for name in order if name][-1] == "manifest.json"
    store.asked.clear()
    assert cli.main(command(tmp_path / "raw", out)) == 0
    assert not any(store.count("PUT", name) for name in kept), "what is there is not sent again"
    assert "train: " in capsys.readouterr().out
    assert cli.main(command(tmp_path / "raw", out, "seed=1")) == 2
    assert "another prepared corpus" in capsys.readouterr().err
    store.put("mine", "made2/thesis.txt", b"precious")
    assert cli.main(command(tmp_path / "raw", store.uri("mine/made2"))) == 2
    assert "holds something else (thesis.txt)" in capsys.readouterr().err
    assert store.buckets["mine"]["made2/thesis.txt"].content == b"precious"


def test_what_could_not_be_sent_is_sent_by_the_same_command(
    prepared: Path, store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, upload, names = store.uri("mine/made"), Remote.upload, list[str]()

    def fail(self: Remote, path: Path, name: str) -> None:
        names.append(name)
        if len(names) == 4:
            raise UserError("the line is dead")
        upload(self, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "upload", fail)
        assert cli.main(command(tmp_path / "raw", out)) == 2
    assert "manifest.json" not in sent(store, "made") and len(sent(store, "made")) == 3
    monkeypatch.setattr(writing, "_read_record", None)  # nothing is read again
    store.asked.clear()
    assert cli.main(command(tmp_path / "raw", out)) == 0
    assert sent(store, "made").keys() >= files_in(prepared).keys() - {".lock"}
    assert not any(store.count("PUT", f"/{name}") for name in names[:3] if name.endswith(".parquet"))


def test_parts_from_several_machines_are_joined_in_a_store(
    prepared: Path, store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    source, out = store.uri("mine/raw"), store.uri("mine/made")
    for number in (2, 3):
        monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / f"machine{number}"))
        assert cli.main(command(source, out, f"part={number}/3")) == 0
        assert not [*(tmp_path / f"machine{number}" / "outgoing").iterdir()]
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "head"))
    capsys.readouterr()
    assert cli.main(command(source, out)) == 2
    assert "of which 1 are missing: 1 (not done)" in capsys.readouterr().err
    assert cli.main(command(source, out, "part=1/3")) == 0
    store.asked.clear()
    assert cli.main(command(source, out, "part=2/3")) == 0, "what another machine has done is done"
    assert not store.count("PUT", ".parquet") and not store.count("PUT", ".json")
    assert cli.main(command(source, out)) == 0
    assert not store.count("GET", ".parquet") and "joined: " in capsys.readouterr().out
    names = {*sent(store, "made")}
    assert not [name for name in names if name.startswith(("part-", "plan-"))]
    assert rows(bring(out)).equals(rows(prepared))
    assert {"manifest.json", "rejected.jsonl"} < names == {
        *(shard.name for shard in Manifest.read(bring(out)).shards), "manifest.json", "rejected.jsonl",
    }  # fmt: skip
    assert cli.main(command(source, out)) == 0 == cli.main(command(source, out, "part=1/3"))


@pytest.mark.parametrize("many", [True, False], ids=["many parts", "one part"])
def test_an_interrupted_upload_leaves_nothing(
    store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    class Cut(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= (12 * PART_BYTES if many else PART_BYTES):
                raise KeyboardInterrupt
            return super().read(size)

    remote = Remote.of(store.uri("mine/made"))
    monkeypatch.setattr(Path, "open", lambda self, mode: Cut(b"x" * 13 * PART_BYTES))
    with pytest.raises(KeyboardInterrupt):
        remote.upload(tmp_path / "a", "a")
    assert not sent(store, "made")


def test_an_upload_that_is_interrupted_when_it_begins_leaves_nothing(store: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    real = Remote.of(store.uri("mine/made"))

    def begun(path: str) -> None:
        real.store.open_output_stream(path).close()
        raise KeyboardInterrupt

    slow: Any = SimpleNamespace(open_output_stream=begun, delete_file=real.store.delete_file)
    with pytest.raises(KeyboardInterrupt):
        Remote(real.address, slow, real.path).upload(tmp_path / "a", "a")
    assert not sent(store, "made")


def test_an_upload_that_is_refused_leaves_what_is_there(store: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    store.put("mine", "made/a", b"old")
    real = Remote.of(store.uri("mine/made"))

    def refuse(path: str) -> None:
        raise OSError("ACCESS_DENIED")

    closed: Any = SimpleNamespace(open_output_stream=refuse, delete_file=real.store.delete_file)
    with pytest.raises(UserError, match="no permission"):
        Remote(real.address, closed, real.path).upload(tmp_path / "a", "a")
    assert sent(store, "made") == {"a": b"old"}


def interrupted(store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> bytes:
    """Prepare for mine/made, all but the manifest; what that would be."""
    upload = Remote.upload

    def fail(self: Remote, path: Path, name: str) -> None:
        if name == "manifest.json":
            raise UserError("the line is dead")
        upload(self, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "upload", fail)
        assert cli.main(command(tmp_path / "raw", store.uri("mine/made"), *more)) == 2
    (manifest,) = (tmp_path / "cache" / "outgoing").glob("*/made/manifest.json")
    return manifest.read_bytes()


def test_a_cut_manifest_in_a_store_is_sent_again(
    raw: Path, store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end in (60, 0):
        whole = interrupted(store, tmp_path, monkeypatch)
        store.put("mine", "made/manifest.json", whole[:end])
        assert cli.main(command(raw, store.uri("mine/made"))) == 0
        assert sent(store, "made")["manifest.json"] == whole
        store.buckets["mine"] = {}


def test_a_cut_file_in_a_store_is_sent_again(
    raw: Path, store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(store, tmp_path, monkeypatch)
    whole = sent(store, "made")["shard-00000.parquet"]
    store.put("mine", "made/shard-00000.parquet", whole[:60])
    assert cli.main(command(raw, store.uri("mine/made"))) == 0
    assert sent(store, "made")["shard-00000.parquet"] == whole


@pytest.mark.parametrize("content", [b'{"audio": "a.wav"}\n{"audio": "b.wav"}\n', b"\xff", b'{"audio": 1}'])
def test_nothing_is_prepared_over_the_manifest_of_another_program(
    raw: Path, store: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    store.put("mine", "made/manifest.json", content)
    assert cli.main(command(raw, store.uri("mine/made"))) == 2
    said = capsys.readouterr().err
    assert "s3://mine/made/manifest.json is none that seqssl has written" in said and "remove" not in said
    assert sent(store, "made") == {"manifest.json": content}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_bytes(content)
    assert cli.main(command(raw, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "holds something else (manifest.json)" in said and "remove" not in said
    assert files_in(tmp_path / "out") == {"manifest.json": content}


def test_settings_may_change_after_an_interruption(
    raw: Path, store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(store, tmp_path, monkeypatch)
    (made,) = (tmp_path / "cache" / "outgoing").glob("*/made")
    for name in ("quality.jsonl", "prepare.html"):
        (made / name).write_text("of the old settings")
        store.put("mine", f"made/{name}", b"of the old settings")
    assert cli.main(command(raw, store.uri("mine/made"), "seed=1")) == 0
    found = sent(store, "made")
    assert "quality.jsonl" not in found and b"<html" in found["prepare.html"]
    prepare(Numbers(), raw, tmp_path / "b", modality="numbers_adapter:Numbers", num_workers=1, seed=1)
    assert found["manifest.json"] == (tmp_path / "b" / "manifest.json").read_bytes()
    assert rows(bring(store.uri("mine/made"))).equals(rows(tmp_path / "b"))


def test_a_folder_that_was_removed_from_a_store_is_made_anew(raw: Path, store: Server) -> None:
    out = store.uri("mine/made")
    assert cli.main(command(raw, out)) == 0
    first = sent(store, "made")
    assert cli.main(command(raw, out, "seed=1")) == 2, "another one is there"
    store.buckets["mine"] = {}
    assert cli.main(command(raw, out)) == 0 and sent(store, "made") == first
