import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile

import pytest
from omegaconf import OmegaConf

from seqssl.data import catalog
from seqssl.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archives(tmp_path):
    """A zip and a tar file, each with one data file and one license."""
    names = {"pack/data/a/1.txt": b"one", "pack/LICENSE": b"free"}
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    with tarfile.open(tmp_path / "pack.tar.gz", "w:gz") as archive:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return {path.name: path for path in (tmp_path / "pack.zip", tmp_path / "pack.tar.gz")}


def url_source(*paths, sha256=None):
    files = [
        {"name": path.as_uri(), "sha256": sha256 or hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in paths
    ]
    return {"kind": "url", "keep": {"pack/data": ".", "pack/LICENSE": "LICENSES/pack"}, "files": files}


@pytest.fixture
def use(monkeypatch):
    """Set the catalog's one entry, `toy`, to have these sources."""

    def set_sources(*sources):
        about = ("description", "license", "size", "modality", "split_by")
        entry = {**dict.fromkeys(about, "x"), "sources": list(sources)}
        monkeypatch.setattr(catalog, "_catalog", lambda: {"toy": entry})

    return set_sources


def test_the_shipped_catalog_is_complete():
    entries = catalog.list_corpora()
    assert "speech" in [entry.name for entry in entries]
    for entry in entries:
        assert entry.description and entry.license and entry.modality and entry.sources
        assert not set(entry.valid_groups) or entry.split_by == "group"
        assert entry.split_by in ("group", "record")
        for source in entry.sources:
            assert source.kind in ("apt", "pip", "sdist", "url")
            assert source.keep
            for file in source.files:
                assert len(file.sha256) == 64
                assert bool(file.version) == (source.kind != "url")


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar.gz"])
def test_get_keeps_what_is_asked_and_is_done_once(use, archives, cache, name):
    use(url_source(archives[name]))
    said = []
    folder = catalog.get("toy", lambda *now: said.append(now))
    files = {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }
    assert files == {"a/1.txt": "one", "LICENSES/pack": "free"}
    assert said[0][:2] == (0, 1) and said[-1][:2] == (1, 1)
    assert not list((cache / "downloads").iterdir())
    archives[name].unlink()
    assert catalog.get("toy") == folder


def test_a_wrong_checksum_is_refused_and_the_next_source_is_tried(use, archives):
    use(url_source(archives["pack.zip"], sha256="0" * 64), url_source(archives["pack.tar.gz"]))
    assert (catalog.get("toy") / "a" / "1.txt").exists()


def test_when_nothing_works_all_that_was_tried_is_named(use, archives, cache):
    nowhere = {
        "kind": "apt",
        "keep": {"x": "."},
        "files": [{"name": "no", "version": "1", "sha256": "0" * 64}],
    }
    use(nowhere, url_source(archives["pack.zip"], sha256="0" * 64))
    with pytest.raises(UserError) as caught:
        catalog.get("toy")
    assert "apt: " in str(caught.value)
    assert "url: pack.zip has SHA-256" in str(caught.value)
    assert not list((cache / "raw").iterdir())


def test_a_package_without_the_promised_folder_leaves_nothing(use, archives, cache):
    source = url_source(archives["pack.zip"])
    use({**source, "keep": {"pack/other": "."}})
    with pytest.raises(UserError, match="holds no other"):
        catalog.get("toy")
    assert not list((cache / "raw").iterdir())


def test_finished_downloads_survive_an_interruption(use, archives, monkeypatch):
    use(url_source(archives["pack.zip"], archives["pack.tar.gz"]))
    fetched = []
    fetch = catalog._FETCHERS["url"]

    def fetch_once(file, folder):
        fetched.append(file.name)
        if len(fetched) == 2:
            raise KeyboardInterrupt
        return fetch(file, folder)

    monkeypatch.setitem(catalog._FETCHERS, "url", fetch_once)
    with pytest.raises(KeyboardInterrupt):
        catalog.get("toy")
    assert (catalog.get("toy") / "a" / "1.txt").exists()
    assert [name.rpartition("/")[2] for name in fetched] == ["pack.zip", "pack.tar.gz", "pack.tar.gz"]


def test_package_managers_are_asked_for_exact_versions(use, archives, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        if command[0] == "dpkg-deb":
            return subprocess.CompletedProcess(command, 0)
        return subprocess.CompletedProcess(command, 100, "", "W: warning\nE: Unable to locate package thing")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("shutil.which", lambda name: name)
    file = {"name": "thing", "version": "1.2-3", "sha256": "0" * 64}
    use(*({"kind": kind, "keep": {"x": "."}, "files": [file]} for kind in ("apt", "pip")))
    with pytest.raises(UserError, match=r"Unable to locate package thing.*apt-get update"):
        catalog.get("toy")
    assert commands[0] == ["apt-get", "download", "thing=1.2-3"]
    assert commands[1][:5] == [sys.executable, "-m", "pip", "download", "--no-deps"]
    assert commands[1][-1] == "thing==1.2-3"


def test_an_unknown_corpus_is_told():
    with pytest.raises(UserError, match=r"no demo corpus 'speeech'.*speech"):
        catalog.get("speeech")


def test_no_index_host_is_named():
    text = OmegaConf.to_yaml(OmegaConf.load(catalog.Path(catalog.__file__).with_name("catalog.yaml")))
    assert "pypi" not in text.lower()
    assert "debian.org" not in text.lower()
