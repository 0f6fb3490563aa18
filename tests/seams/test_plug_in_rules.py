"""Plug-ins are what strangers write: short, and by public names only."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
PLUG_INS = sorted(
    path
    for path in HERE.glob("*.py")
    if path.stem not in ("conftest", "helpers") and not path.stem.startswith("test_")
)


def test_there_are_eleven() -> None:
    assert len(PLUG_INS) == 11


@pytest.mark.parametrize("path", PLUG_INS, ids=lambda path: path.stem)
def test_a_plug_in_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert ast.get_docstring(ast.parse(text))


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_plug_ins_import_public_names_only(tmp_path: Path) -> None:
    """The contract of adapters, which import-linter checks, holds for plug-ins that stand beside them."""
    for package in ("seqssl", "modalities"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path in PLUG_INS:
        shutil.copy(path, tmp_path / "modalities" / path.name)
    done = lint(tmp_path)
    assert done.returncode == 0, done.stdout
    (tmp_path / "modalities/rude.py").write_text("from seqssl.training import loop\n")
    assert "only public names of seqssl BROKEN" in lint(tmp_path).stdout, "and it would be found"
