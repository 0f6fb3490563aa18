"""Which files a source has."""

import errno
import fcntl
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

import seqssl
from modalities.speech import Speech
from seqssl.data.files import locked
from seqssl.data.prepare import prepare


def names(source: Path) -> list[str]:
    return [path.relative_to(source).as_posix() for path in seqssl.list_files(source)]


def test_files_are_sorted_like_paths_and_links_are_followed(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    for path in (source / "b/1.txt", source / "a.txt", source / "b.txt", elsewhere / "x/2.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (source / "empty").mkdir()
    (source / "linked").symlink_to(elsewhere)
    (source / "alone.txt").symlink_to(elsewhere / "x/2.txt")
    (source / "dangling").symlink_to(elsewhere / "nowhere")
    assert names(source) == ["a.txt", "alone.txt", "b/1.txt", "b.txt", "linked/x/2.txt"]
    assert seqssl.list_files(source / "a.txt") == [source / "a.txt"]
    (tmp_path / "again").symlink_to(source)
    assert names(tmp_path / "again") == names(source)


def test_what_programs_keep_for_themselves_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / ".cache" / "__MACOSX" / "corpus"  # where the source lies does not count
    kept = ["a.txt", "s1/1.txt", "s1/MACOSX/2.txt", "s1/data.v1/3.txt"]
    hidden = [".a.txt", "__MACOSX/s1/1.txt", "s1/._1.txt", "s1/.ipynb_checkpoints/1-checkpoint.txt"]
    for name in kept + hidden:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    assert names(source) == sorted(kept)
    assert seqssl.list_files(source / ".a.txt") == [source / ".a.txt"]
    (source / "s2").symlink_to(source / "s1" / ".ipynb_checkpoints")
    assert "s2/1-checkpoint.txt" in names(source), "a link has a name of its own"
    with pytest.raises(seqssl.UserError, match="lies inside the raw data"):
        prepare(Speech(), source, source / ".out", modality="speech")


def test_links_in_circles_end(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "file").write_text("")
    (one / "self").symlink_to(one)
    (one / "other").symlink_to(two)
    (two / "back").symlink_to(one)
    assert names(one) == ["file", "other/file"]
    assert names(tmp_path) == ["one/file", "two/file"]


def test_many_links_to_one_another_are_no_more_than_their_folders(tmp_path: Path) -> None:
    folders = [tmp_path / f"f{number}" for number in range(9)]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_text("")
    for one in folders:
        for other in folders:
            if one != other:
                (one / other.name).symlink_to(other)
    assert names(tmp_path) == [f"f{number}/file" for number in range(9)]
    assert len(names(folders[0])) == 9


def test_what_is_prepared_never_lies_in_what_it_is_made_from(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(seqssl.UserError, match="lies inside the raw data"):
        prepare(Speech(), tmp_path / "source", tmp_path / "elsewhere" / "out", modality="speech")


def test_recordings_behind_a_link_are_found_under_their_speaker(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    noise = np.random.default_rng(0).normal(size=16000) * 0.1
    soundfile.write(tmp_path / "disk" / "a.wav", noise, 16000)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "anna").symlink_to(tmp_path / "disk")
    (record,) = Speech().records(tmp_path / "source", "all")
    assert isinstance(record, seqssl.Record)
    assert (record.key, record.group) == ("anna/a.wav", "anna")


def test_a_disk_without_locks_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EWOULDBLOCK]

    def refuse(*_: object) -> None:
        raise OSError(answers.pop(0), "no lock")

    monkeypatch.setattr(fcntl, "flock", refuse)
    while len(answers) > 1:
        with locked(tmp_path / "lock"):
            (tmp_path / "lock").read_text()
    with pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pass


def test_who_waits_for_a_lock_is_told(tmp_path: Path) -> None:
    held = (tmp_path / "lock").open("a")
    fcntl.flock(held, fcntl.LOCK_EX)
    late = threading.Timer(5, held.close)  # for a lock that waits without a word
    late.start()
    said: list[str] = []

    def progress(done: int, total: int, what: str) -> None:
        said.append(what)
        late.cancel()
        held.close()

    with locked(tmp_path / "lock", progress=progress):
        pass
    with locked(tmp_path / "lock", progress=progress):
        pass
    assert said == [f"waiting for another process, which holds {tmp_path / 'lock'}"]
