"""The documentation builds without a warning: no broken link, no page that is not in the navigation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    python = (tmp_path / "site" / "reference" / "python" / "index.html").read_text("utf-8")
    assert "GumbelProductQuantizer" in python and "ModalityAdapter" in python


def test_the_readme_is_one_screen_or_two() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 120


def test_every_setting_of_an_adapter_is_in_its_page() -> None:
    """What a user may set is explained where the modality is."""
    import inspect

    from seqssl.config import components

    for name, target in components.names("modality").items():
        page = (ROOT / "docs" / f"{name}.md").read_text("utf-8") + (ROOT / "docs" / "own-files.md").read_text(
            "utf-8"
        )
        for key in inspect.signature(components.load(target, "modality")).parameters:
            assert re.search(rf"`(modality)?\.{key}|`{key}[`=]|modality\.{key}", page), (
                f"docs/{name}.md lacks modality.{key}"
            )
