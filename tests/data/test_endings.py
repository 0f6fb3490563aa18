"""What is said of a source in which an adapter finds nothing."""

from pathlib import Path

import pytest
from numbers_adapter import Numbers

from seqssl import UserError
from seqssl.config import components
from seqssl.data.files import endings_of
from seqssl.data.prepare import prepare
from seqssl.runs.choosing import choose_recipe


def source_of(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("x")
    return folder


def test_endings_are_counted(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in", "a.pdf", "b.PDF", "c.docx", "Makefile")
    assert endings_of(source) == "2 .pdf, 1 without an ending, 1 .docx"
    for number in range(9):
        (source / f"x.e{number}").write_text("x")
    assert endings_of(source).endswith(" and 6 others")
    assert endings_of(source_of(tmp_path / "none")) == "no files"


def test_what_is_there_and_what_is_read_is_said(tmp_path: Path) -> None:
    class Named(Numbers):
        endings = (".num", ".numbers")

    source = source_of(tmp_path / "in", "a.pdf", "b.pdf")
    for adapter, more in ((Numbers(), ""), (Named(), "; Named reads .num .numbers")):
        with pytest.raises(UserError) as caught:
            prepare(adapter, source, tmp_path / "out", modality="numbers", num_workers=1)
        assert str(caught.value) == (
            f"Nothing in {source} looks like data of this modality: it holds 2 .pdf{more}."
        )
    with pytest.raises(UserError, match=r"no kind of data fits it \(it holds 2 \.pdf\)\. Say"):
        choose_recipe(source)


@pytest.mark.parametrize("name", ["dna", "music", "speech", "wearables", "weather"])
def test_adapters_name_what_they_read(tmp_path: Path, name: str) -> None:
    adapter = components.load(name, "modality")()
    source = source_of(tmp_path / "in", "a.pdf")
    with pytest.raises(UserError, match=rf"it holds 1 \.pdf; {type(adapter).__name__} reads \.\w+ "):
        prepare(adapter, source, tmp_path / "out", modality=name, num_workers=1)
