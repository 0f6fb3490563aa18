"""What a command on a run reads: a path, a demo corpus, or the run's own data."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import toy_config, write_waves

from seqssl.assembly import OpenStream, streams_of
from seqssl.data.prepare import open_or_prepare
from seqssl.data.shards import Corpus
from seqssl.runs.folder import write_config
from seqssl.runs.sources import open_source


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a demo corpus of two persons."""
    folder = write_waves(tmp_path / "others")
    for number in range(2):
        (folder / f"group{number}").rename(folder / f"person{number}")
    entry = SimpleNamespace(name="toys", split_by="record", valid_groups=())
    monkeypatch.setattr("seqssl.data.prepare.find_corpus", lambda name: entry)
    monkeypatch.setattr("seqssl.data.prepare.get", lambda name, progress: folder)
    monkeypatch.setattr("seqssl.runs.sources.list_corpora", lambda: [entry])
    return entry.name


def run_on(waves: Path, out: Path, *overrides: str) -> Path:
    """A run folder as `seqssl train` begins it."""
    config = toy_config(waves, out, *overrides)
    (stream,) = streams_of(config)
    corpus = open_or_prepare(stream.adapter, config.data, modality="toy:Toy")
    write_config(config, out, [OpenStream("", config, stream.adapter, corpus=corpus)])
    return out


def held_out(corpus: Corpus) -> set[str]:
    return set(corpus.groups[corpus.rows("valid")])


def test_another_demo_corpus_has_not_the_groups_of_the_run(waves: Path, tmp_path: Path, demo: str) -> None:
    run = run_on(waves, tmp_path / "run", "data.valid_groups=[group0]")
    assert held_out(open_source(run, None)[0]) == {"group0"}
    corpus, _ = open_source(run, demo)
    assert set(corpus.groups) == {"person0", "person1"}


def test_the_demo_corpus_of_the_run_has_them(waves: Path, tmp_path: Path, demo: str) -> None:
    own = ("data.source=null", f"data.demo={demo}", "data.valid_groups=[person1]")
    run = run_on(waves, tmp_path / "run", *own)
    for source in (None, demo):
        assert held_out(open_source(run, source)[0]) == {"person1"}
