"""Sources and prepared folders in an object store: a small S3 server, and pyarrow's own client."""

import errno
import fcntl
import io
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numbers_adapter import Numbers
from s3_server import Server
from stored import command, files_in, put_all, rows
from toy import TOY, Toy, write_waves

from seqssl import UserError, cli, load_recipe, train
from seqssl.config.addresses import inside, is_remote, name_of, stem_of
from seqssl.config.schema import DataConfig
from seqssl.config.stages import run_folder
from seqssl.data import mirrors
from seqssl.data.files import Progress, cache_root
from seqssl.data.index import INDEX
from seqssl.data.mirrors import bring, manifest_at
from seqssl.data.prepare import fixed_split, open_or_prepare, prepare, prepared_steps
from seqssl.data.remote import Entry, Remote, place_of, remote_errors, size_in_words
from seqssl.data.shards import Corpus, Manifest
from seqssl.data.staging import staged
from seqssl.runs.sources import is_own, located


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
        (
            OSError("HTTP status 400: AuthorizationHeaderMalformed: the region 'us-east-1' is wrong"),
            r"s3://b/x: HTTP status 400.* is wrong\.",
        ),
        (OSError("AuthorizationPermissionMismatch: This request is not authorized"), "no permission"),
        (pa.ArrowInvalid("an odd answer"), r"s3://b/x: an odd answer\."),
        (FileNotFoundError(errno.ENOENT, "no such object"), "there is no such file or folder"),
    ],
)
def test_what_a_store_answers_is_understood(error: Exception, words: str) -> None:
    with pytest.raises(UserError, match=words), remote_errors("s3://b/x"):
        raise error


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "is full"), (errno.EDQUOT, "is full"), (errno.EIO, "broken"), (errno.EROFS, "broken")],
)
def test_errors_of_a_disk_are_no_errors_of_a_store(
    raw: Path, store: Server, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    class Failing(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(number, "broken")

    plain = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", **more: Failing() if mode == "wb" else plain(self, mode, **more)
    )
    with pytest.raises(UserError, match=words) as caught:
        bring(store.uri("mine/raw"))
    assert str(cache_root()) in str(caught.value) and "s3://" not in str(caught.value)


def test_a_bug_is_no_error_of_a_store() -> None:
    with pytest.raises(KeyError), remote_errors("s3://b/x"):
        raise KeyError("a bug")


def test_a_file_that_has_gone_since_the_listing_is_named(
    raw: Path, store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Remote.listing
    monkeypatch.setattr(Remote, "listing", lambda self: [*listing(self), Entry("group0/gone.num", 1, 0)])
    with pytest.raises(UserError, match=r"^s3://mine/raw/group0/gone\.num: there is no such file"):
        bring(store.uri("mine/raw"))


@pytest.mark.parametrize(
    "content",
    [
        b'{"audio": "a.wav"}\n{"audio": "b.wav"}\n',
        b"\xff\xfe",
        b"[1]",
        b'{"schema_version": 2}',
        b"[" * 10**5,
    ],
    ids=["lines", "no text", "a list", "an object", "deep"],
)
def test_a_manifest_of_another_program_is_a_file_like_others(
    raw: Path, store: Server, content: bytes
) -> None:
    store.put("mine", "raw/manifest.json", content)
    (raw / "manifest.json").write_bytes(content)
    for source in (store.uri("mine/raw"), str(raw)):
        config = DataConfig(source=source)
        assert manifest_at(source) is None and prepared_steps(config) is None and not fixed_split(config)
        assert (bring(source) / "manifest.json").read_bytes() == content
        assert len(open_or_prepare(Numbers(), config, modality="numbers")) == 24


def test_a_damaged_manifest_beside_shards_is_told(prepared: Path, store: Server) -> None:
    whole = (prepared / "manifest.json").read_bytes()
    for content in (whole[:60], b"\xff"):
        store.put("mine", "prepared/manifest.json", content)
        (prepared / "manifest.json").write_bytes(content)
        for source in (store.uri("mine/prepared"), str(prepared)):
            where = f"^{source.partition('?')[0]}/manifest.json cannot be read, and shards lie beside it"
            for ask in (bring, manifest_at) if "://" in source else (manifest_at,):
                with pytest.raises(UserError, match=where) as caught:
                    ask(source)
                assert "remove" not in str(caught.value)
            with pytest.raises(UserError, match=where):
                open_or_prepare(Numbers(), DataConfig(source=source), modality="numbers")
    store.put("mine", "prepared/manifest.json", whole.replace(b'"schema_version": 2', b'"schema_version": 3'))
    for ask in (bring, manifest_at):
        with pytest.raises(UserError, match=r"^s3://mine/prepared/manifest\.json has schema version 3"):
            ask(store.uri("mine/prepared"))


def test_long_names_come_as_far_as_a_disk_has_them(store: Server) -> None:
    longest, wide = f"{'n' * 251}.num", f"{'ä' * 126}.num"
    for name in (longest, f"x{longest}", f"x{longest}/a", wide):
        store.put("mine", f"raw/{name}", name.encode())
    said: list[str] = []
    folder = bring(store.uri("mine/raw"), lambda done, total, what: said.append(what))
    assert files_in(folder) == {longest: longest.encode()}
    told = [text for text in said if text.endswith("its name is longer than 255 bytes")]
    assert len(told) == 3 and any("ä" in text for text in told)


def test_names_that_a_disk_takes_for_the_same_come_once(store: Server, tmp_path: Path) -> None:
    for name in ("a/B.num", "a/b.num", "C", "c/d"):
        store.put("mine", f"raw/{name}", name.encode())
    assert len(files_in(bring(store.uri("mine/raw")))) == 4
    (tmp_path / "cache" / "LOCKS").mkdir()  # what a disk without capital letters would say is there
    said: list[str] = []
    folder = bring(store.uri("mine/raw"), lambda done, total, what: said.append(what))
    assert {*files_in(folder)} == {"a/B.num", "c/d"}
    assert "left out: a/b.num, the disk of the cache takes it for a/B.num" in said
    assert "left out: C, a folder has the same name" in said


def test_names_that_windows_cannot_have_are_left_out_there(
    store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("c:/x", "c:y", "a\\b", "a/12:30.num", "good"):
        store.put("mine", f"raw/{name}", b"x")
    assert len(files_in(bring(store.uri("mine/raw")))) == 5
    monkeypatch.setattr(mirrors, "IS_WINDOWS", True)
    assert {*files_in(bring(store.uri("mine/raw")))} == {"good"}


def test_times_that_a_disk_has_rounded_are_the_same(raw: Path, store: Server) -> None:
    folder = bring(store.uri("mine/raw"))
    for path in folder.rglob("*.num"):
        rounded = path.stat().st_mtime_ns // 2_000_000_000 * 2
        os.utime(path, (rounded, rounded))
    store.asked.clear()
    bring(store.uri("mine/raw"))
    assert not store.count("GET", ".num")


def until_told(lock: Path, said: list[str]) -> Progress:
    """Hold a lock until somebody says to wait for it, or a few seconds."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = lock.open("a")
    fcntl.flock(held, fcntl.LOCK_EX)
    late = threading.Timer(5, held.close)
    late.start()

    def progress(done: int, total: int, what: str) -> None:
        if what == f"waiting for another process, which holds {lock}":
            said.append(what)
            late.cancel()
            held.close()

    return progress


def test_waiting_for_another_process_is_told(prepared: Path, store: Server) -> None:
    locks, said = cache_root() / "locks", list[str]()
    bring(store.uri("mine/raw"), until_told(locks / place_of(store.uri("mine/raw")), said))
    folder = bring(store.uri("mine/prepared"))
    bring(store.uri("mine/prepared"), until_told(locks / folder.name, said))
    out = store.uri("mine/made")
    with staged(out, progress=until_told(locks / f"{place_of(out)}-whole", said)):
        pass
    assert len(said) == 3


def test_a_slash_at_the_end_makes_no_difference(raw: Path, store: Server) -> None:
    assert bring(store.uri("mine/raw/")) == bring(store.uri("mine/raw"))
    places = []
    for path in ("mine/made", "mine/made/"):
        with staged(store.uri(path)) as stage:
            places.append(stage.folder)
    assert places[0] == places[1]
    assert place_of("s3://b/x/") == place_of("s3://b/x") != place_of("s3://b/x?region=y")


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
