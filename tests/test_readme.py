"""What the README shows is what happens."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import seqssl
from seqssl import cli
from seqssl.cli.main import COMMANDS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
SMALL = (
    "train.num_updates=2 encoder.dim=16 encoder.ffn_dim=16 mixer.num_heads=2 quantizer.dim=16 "
    "encoder.position_groups=4 quantizer.codebook_size=8 train.log_every=1 data.valid_share=0.3"
).split()


def commands(word: str) -> list[list[str]]:
    """Every `seqssl WORD ...` line of the README's code blocks, as arguments."""
    lines = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"seqssl {word}")]


def test_every_command_is_listed() -> None:
    names = {command.name for command in COMMANDS}
    assert {name for name in names if f"`seqssl {name}" in README} == names


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    missing = [link for link in links if not (Path(__file__).parents[1] / link).exists()]
    assert links and not missing


def test_the_adapter_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(text for kind, text in BLOCKS if kind == "python" and "class Motion" in text)
    (tmp_path / "my_motion.py").write_text(code)
    rng = np.random.default_rng(0)
    for number in range(10):
        path = tmp_path / "FOLDER" / f"person{number % 3}" / f"{number // 3}.npy"  # names come again
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.normal(size=(400 + 10 * number, 3)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (check,), train = commands("check"), next(c for c in commands("train") if "base/w2vbert" in c[1])
    assert cli.main(check) == 0
    assert cli.main([*train, *SMALL, "out=run"]) == 0
    assert seqssl.load("run").embed([np.zeros((100, 3), np.float32)]).shape == (1, 16)
