"""docs/add-a-modality.md, word for word: a package of its own, installed, checked, trained, embedded."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-modality.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
SMALL = (
    "train.num_updates=2 train.log_every=1 encoder.dim=16 encoder.ffn_dim=16 mixer.num_heads=2 "
    "quantizer.dim=16 encoder.position_groups=4 quantizer.codebook_size=8"
)


def file_of(name: str) -> str:
    """The block that opens with a comment of the file's name."""
    return next(text for _, text in BLOCKS if text.startswith(f"# {name}\n"))


def command(word: str) -> str:
    lines = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
    return next(line for line in lines if line.startswith(f"seqssl {word} "))


def write_recordings(folder: Path) -> None:
    """Beats at 250 Hz of four patients; one file in microvolts, one empty, one of another lead."""
    rng = np.random.default_rng(0)
    for patient in range(4):
        (folder / f"p{patient}").mkdir(parents=True)
        for number in range(2):
            t = np.arange(250 * 21) / 250
            beat = np.exp(-(((t * (1 + 0.1 * patient)) % 1 - 0.3) ** 2) / 0.001)
            leads = np.stack([beat, 1.3 * beat], axis=1) + 0.02 * rng.normal(size=(len(t), 2))
            leads[100 + number] = np.nan
            pd.DataFrame(leads, columns=["I", "II"]).to_csv(
                folder / f"p{patient}" / f"{number}.csv", index=False
            )
    pd.DataFrame({"I": [900.0] * 3000, "II": [800.0] * 3000}).to_csv(folder / "p0" / "micro.csv", index=False)
    pd.DataFrame({"V1": [0.1] * 3000}).to_csv(folder / "p0" / "other.csv", index=False)
    (folder / "p1" / "empty.csv").touch()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory):
    """A working folder with recordings, and the package installed where only it can be found."""
    folder = tmp_path_factory.mktemp("ecg")
    package = folder / "heartbeats"
    package.mkdir()
    (package / "pyproject.toml").write_text(file_of("pyproject.toml"))
    (package / "heartbeats.py").write_text(file_of("heartbeats.py"))
    work = folder / "work"
    write_recordings(work / "recordings")
    options = "--quiet --no-deps --no-index --no-build-isolation --disable-pip-version-check".split()
    site = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(package)], check=True
    )
    paths = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": paths, "SEQSSL_CACHE": str(folder / "cache")}

    def run(line: str, cwd: Path = work) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            line.replace("seqssl", f"{sys.executable} -m seqssl", 1),
            shell=True, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    run.package = package  # type: ignore[attr-defined]
    run.work = work  # type: ignore[attr-defined]
    return run


def test_the_adapter_is_short() -> None:
    code = file_of("heartbeats.py")
    lines = [line for line in code[code.index("class ECG") :].splitlines() if line.strip()]
    assert len(lines) < 60


def test_the_page_holds(shell) -> None:
    checked = shell(command("check"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.strip() in PAGE
    trained = shell(f"{command('train')} {SMALL}")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    prepared = Path(re.search(r"data: (\S+) \|", trained.stdout).group(1))  # type: ignore[union-attr]
    reasons = (prepared / "rejected.jsonl").read_text()
    assert (
        "microvolts" in reasons and "the leads I, II are wanted, it has V1" in reasons and "empty" in reasons
    )
    assert '"num_bad": 1' in (prepared / "quality.jsonl").read_text()
    embedded = shell(command("embed"))
    assert embedded.returncode == 0, embedded.stdout + embedded.stderr
    table = pq.read_table(shell.work / "features.parquet").to_pylist()
    assert {row["key"] for row in table} == {
        f"p{p}/{n}.csv#{start}s" for p in range(4) for n in range(2) for start in (0, 10)
    }
    info = shell(command("info"))
    assert "mV" in info.stdout and "125 Hz" in info.stdout and "channel 1" in info.stdout


def test_the_class_itself_can_be_named(shell) -> None:
    checked = shell("seqssl check modality=heartbeats:ECG source=../work/recordings", cwd=shell.package)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_recipe(shell) -> None:
    (shell.work / "recipes").mkdir()
    (shell.work / "recipes" / "ecg.yaml").write_text(file_of("recipes/ecg.yaml"))
    trained = shell(f"seqssl train recipe=ecg size=tiny out=runs/recipe {SMALL}")
    assert trained.returncode == 0, trained.stdout + trained.stderr


def test_every_claim_of_the_table_is_a_name_that_exists() -> None:
    import seqssl

    for name in ("TokenEncoder", "ModalityAdapter", "SampleSpec", "Sample"):
        assert name in PAGE and hasattr(seqssl, name)
