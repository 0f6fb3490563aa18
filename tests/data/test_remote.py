"""Sources, prepared folders and `out` in an object store: a small S3 server, and pyarrow's own client."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numbers_adapter import Numbers, write_numbers
from s3_server import Server, serving
from toy import TOY, Toy, write_waves

from seqssl import UserError, cli, load_recipe, train
from seqssl.config.addresses import inside, is_remote, name_of, stem_of
from seqssl.config.schema import DataConfig
from seqssl.config.stages import run_folder
from seqssl.data import mirrors, writing
from seqssl.data.index import INDEX
from seqssl.data.mirrors import bring, manifest_at
from seqssl.data.prepare import fixed_split, open_or_prepare, prepare, prepared_steps
from seqssl.data.remote import Remote, remote_errors, size_in_words
from seqssl.data.shards import Corpus, Manifest
from seqssl.runs.sources import is_own, located


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


def put_all(store: Server, folder: Path, path: str) -> None:
    """Store the files of a folder."""
    bucket, _, key = path.partition("/")
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            store.put(bucket, f"{key}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(folder / shard.name) for shard in Manifest.read(folder).shards)


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


@pytest.mark.parametrize(
    ("text", "remote", "name", "stem"),
    [
        ("s3://bucket/folder", True, "folder", "folder"),
        ("s3://bucket/a/b.tar?scheme=http&endpoint_override=h:1", True, "b.tar", "b"),
        ("gs://anonymous@bucket", True, "bucket", "bucket"),
        ("abfs://box@account.dfs.core.windows.net/a%20b/", True, "a b", "a b"),
        ("folder/s3", False, "s3", "s3"),
        ("http://host/file", False, "file", "file"),
        ("s3:/bucket", False, "bucket", "bucket"),
        ("~/x.v1", False, "x.v1", "x"),
    ],
)
def test_addresses_are_told_from_paths(text: str, remote: bool, name: str, stem: str) -> None:
    assert (is_remote(text), name_of(text), stem_of(text)) == (remote, name, stem)


def test_files_are_told_of_where_they_are() -> None:
    assert inside("s3://b/x/?scheme=http", "page") == "s3://b/x/page"
    assert inside("~/x/", "page") == str(Path("~/x/page").expanduser())
    config = SimpleNamespace(out=None, data=DataConfig(source="s3://b/corpus?x=y"), recipe="r", size="tiny")
    assert run_folder(config) == Path("runs/r-tiny-corpus")  # type: ignore[arg-type]
    assert [*map(size_in_words, (0, 999, 1000, 2_500_000, 7 * 10**15))] == [
        "0 bytes", "999 bytes", "1 kB", "2.5 MB", "7e+03 TB",
    ]  # fmt: skip


def test_a_source_comes_once_and_again_where_it_has_changed(raw: Path, store: Server) -> None:
    store.most = 3  # keys on a page: there are ten pages
    store.put("mine", "raw/.hidden", b"x")
    store.put("mine", "raw/__MACOSX/a", b"x")
    store.put("mine", "raw2/other", b"x")
    said: list[str] = []
    folder = bring(store.uri("mine/raw"), lambda done, total, what: said.append(what))
    assert folder.name == "raw" and files_in(folder) == files_in(raw)
    assert said[0].startswith("downloading 25 of 25 files (") and store.count("GET", ".num") == 25
    stored = store.buckets["mine"]["raw/group0/row0.num"]
    assert (folder / "group0" / "row0.num").stat().st_mtime == stored.time
    store.asked.clear()
    assert bring(store.uri("mine/raw")) == folder and not store.count("GET", ".num")
    store.put("mine", "raw/group1/row1.num", stored.content)
    store.put("mine", "raw/group1/new.num", b"5")
    del store.buckets["mine"]["raw/group2/row2.num"]
    bring(store.uri("mine/raw"))
    assert store.count("GET", ".num") == 2 and (folder / "group1" / "row1.num").read_bytes() == stored.content
    assert not (folder / "group2" / "row2.num").exists() and len(files_in(folder)) == 25
    assert bring(str(raw)) == raw == bring(raw)
    alone = bring(store.uri("mine/raw/group1/new.num"))
    assert alone.name == "new.num" and alone.read_text() == "5"
    spaced = bring(store.uri("mine/raw/group0/ä b.num"))
    assert spaced.name == "ä b.num" and spaced.read_text() == "1 2 three"


def test_what_has_come_is_kept_where_a_file_fails(raw: Path, store: Server) -> None:
    store.broken.append("raw/group2/row7.num")
    with pytest.raises(UserError, match="mine/raw"):
        bring(store.uri("mine/raw"))
    store.asked.clear()
    assert files_in(bring(store.uri("mine/raw"))) == files_in(raw)
    assert 1 <= store.count("GET", ".num") < 12


def test_names_that_no_disk_can_have_are_left_out(store: Server) -> None:
    for name in ("a", "a/b", "c//d", "../e", "f/../../g", "h"):
        store.put("mine", f"raw/{name}", name.encode())
    said: list[str] = []
    folder = bring(store.uri("mine/raw"), lambda done, total, what: said.append(what))
    assert {*files_in(folder)} <= {"a/b", "h", "g"} and {"a/b", "h"} <= {*files_in(folder)}
    assert "left out: a, a folder has the same name" in said
    assert any(text.startswith("left out: c//d") for text in said)


def test_a_source_in_a_store_is_prepared_as_one_on_a_disk(
    raw: Path, store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in raw.rglob("*.num"):
        stored = store.buckets["mine"][f"raw/{path.relative_to(raw).as_posix()}"]
        os.utime(path, (stored.time, stored.time))
    local = prepare(Numbers(), raw, tmp_path / "local", modality="numbers", num_workers=1)
    config = DataConfig(source=store.uri("mine/raw"))
    corpus = open_or_prepare(Numbers(), config, modality="numbers")
    assert rows(corpus.folder).equals(rows(tmp_path / "local"))
    assert corpus.manifest.source == store.uri("mine/raw") and corpus.manifest.plan == local.plan
    assert open_or_prepare(Numbers(), config, modality="numbers").folder == corpus.folder
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "elsewhere"))
    again = open_or_prepare(Numbers(), config, modality="numbers")
    assert again.manifest == corpus.manifest, "the same on another machine"
    store.put("mine", "raw/group0/row0.num", store.buckets["mine"]["raw/group0/row0.num"].content)
    changed = open_or_prepare(Numbers(), config, modality="numbers")
    assert changed.folder != again.folder, "an object that was written again is another one"
    assert (fixed_split(config), prepared_steps(config)) == ("", None)


def test_a_prepared_folder_comes_with_what_training_reads(prepared: Path, store: Server) -> None:
    config, told = DataConfig(source=store.uri("mine/prepared")), Manifest.read(prepared)
    assert manifest_at(store.uri("mine/prepared")) == told == manifest_at(prepared)
    assert prepared_steps(config) == told.splits["train"].length
    assert "is prepared already" in fixed_split(config)
    assert {path for _, path in store.asked} == {"/mine/prepared/manifest.json"}
    corpus = open_or_prepare(Numbers(), config, modality="numbers")
    assert corpus.manifest == told and rows(corpus.folder).equals(rows(prepared))
    assert (corpus.folder / "rejected.jsonl").read_bytes() == (prepared / "rejected.jsonl").read_bytes()
    store.asked.clear()
    assert open_or_prepare(Numbers(), config, modality="numbers").folder == corpus.folder
    assert not store.count("GET", ".parquet")
    shutil.rmtree(corpus.folder)
    del store.buckets["mine"][f"prepared/{INDEX}"]
    folder = bring(store.uri("mine/prepared"))
    assert (folder / INDEX).read_bytes() == (prepared / INDEX).read_bytes()


def test_a_damaged_shard_is_not_taken(prepared: Path, store: Server) -> None:
    (name, *_) = (shard.name for shard in Manifest.read(prepared).shards)
    good = store.buckets["mine"][f"prepared/{name}"].content
    store.put("mine", f"prepared/{name}", good[:50] + bytes([good[50] ^ 1]) + good[51:])
    for _ in range(2):
        with pytest.raises(UserError, match=f"{name} is damaged, by its SHA-256"):
            bring(store.uri("mine/prepared"))
    store.put("mine", f"prepared/{name}", good[:-1])
    with pytest.raises(UserError, match=f"{name} is missing or cut short"):
        bring(store.uri("mine/prepared"))
    store.put("mine", f"prepared/{name}", good)
    assert len(Corpus(bring(store.uri("mine/prepared")))) == 24


def command(source: object, out: object, *more: str) -> list[str]:
    own = ["modality=numbers_adapter:Numbers", f"source={source}", f"out={out}", "workers=1"]
    return ["prepare", *own, *more]


def sent(store: Server, folder: str) -> dict[str, bytes]:
    start = f"{folder}/"
    return {
        key.removeprefix(start): stored.content
        for key, stored in store.buckets["mine"].items()
        if key.startswith(start) and key != start
    }


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


def test_errors_are_one_sentence(
    raw: Path, store: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.buckets["closed"] = {}
    store.closed.add("closed")
    store.buckets["read"] = {}
    store.unwritable.add("read")
    out = tmp_path / "out"
    for source, target, words in (
        (store.uri("none/raw"), out, "there is no such bucket"),
        (store.uri("mine/nothing"), out, "there is no such file or folder"),
        (store.uri("closed/raw"), out, "no permission, with the credentials of this environment"),
        (raw, store.uri("read/out"), "no permission"),
        (raw, store.uri("none/out"), "no such bucket"),
        ("s3://mine/raw?regoin=x", out, "no address of an object store"),
        ("s3://key:hidden@mine/raw", out, "a secret in an address would be stored"),
        ("abfs://box@account.dfs.core.windows.net/raw?sas_token=hidden", out, "a secret in an address would"),
        ("s4://mine/raw", out, "no file or folder s4:/mine/raw"),
    ):
        assert cli.main(command(source, target)) == 2, words
        said = capsys.readouterr().err
        assert words in said and "hidden" not in said and "Traceback" not in said
        assert len(said.splitlines()) == 1 and not out.exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError("AWS Error NETWORK_CONNECTION during ListObjectsV2 operation: curlCode: 7"),
            "cannot be reached",
        ),
        (OSError("AWS Error INVALID_ACCESS_KEY_ID during HeadObject operation"), "credentials of this envi"),
        (OSError("google::cloud::Status(PERMISSION_DENIED: ... )"), "no permission"),
        (OSError("an odd answer"), r"s3://b/x: an odd answer\."),
        (pa.ArrowInvalid("an odd answer"), r"s3://b/x: an odd answer\."),
        (FileNotFoundError(errno.ENOENT, "no such object"), "there is no such file or folder"),
    ],
)
def test_what_a_store_answers_is_understood(error: Exception, words: str) -> None:
    with pytest.raises(UserError, match=words), remote_errors("s3://b/x"):
        raise error


def test_errors_of_a_disk_are_no_errors_of_a_store() -> None:
    for error in (
        OSError(errno.ENOSPC, "full"),
        PermissionError(errno.EACCES, "no", "/x"),
        KeyError("a bug"),
    ):
        with pytest.raises(type(error)) as caught, remote_errors("s3://b/x"):
            raise error
        assert caught.value is error


def test_that_the_disk_is_too_small_is_said_before(
    raw: Path, store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=mirrors.SPARE_BYTES + 10)
    monkeypatch.setattr(mirrors.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"25 of 25 files .* do not fit on the disk of the .*1 GB are free"):
        bring(store.uri("mine/raw"))
    assert not store.count("GET", ".num")


def test_a_public_bucket_needs_no_credentials(
    raw: Path, store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert files_in(bring(f"{store.uri('mine/raw')}&anonymous=true")) == files_in(raw)


def test_a_run_learns_from_a_store(store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_waves(tmp_path / "waves")
    options: dict[str, Any] = {"modality": "toy:Toy", "split_by": "record", "num_workers": 1}
    prepare(Toy(), tmp_path / "waves", tmp_path / "prepared", **options)
    put_all(store, tmp_path / "prepared", "mine/prepared")
    source, out = store.uri("mine/prepared"), tmp_path / "run"
    own = [
        *(text for text in TOY if not text.startswith(("data.valid", "data.split"))),
        "train.num_updates=2",
    ]
    run = train(load_recipe("base/w2vbert", "size=tiny", f"data={source}", f"out={out}", *own))
    assert run.metrics["loss"] > 0
    config = load_recipe(str(out))
    assert config.data.source == source == located(source)
    assert is_own(source, config.data) and not is_own(store.uri("mine/other"), config.data)
    put_all(store, tmp_path / "waves", "mine/waves")
    features = tmp_path / "features.parquet"
    given = [f"run={out}", f"source={store.uri('mine/waves')}", f"out={features}"]
    assert cli.main(["embed", *given]) == 0 and pq.read_metadata(features).num_rows == 20
