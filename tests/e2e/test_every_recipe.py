"""Each shipped recipe as it is, at tiny size, on a little data of its kind."""

from pathlib import Path

import numpy as np
import pytest
from little_data import SOURCES, speech

from seqssl import cli
from seqssl.config.files import list_recipes
from seqssl.planning.plan import resolve
from seqssl.runs.folder import load
from seqssl.training.log import read_records

OWN = [name for name in list_recipes() if "/" not in name and not name.startswith("joint")]
FEW = {  # what a few seconds of input are too little for
    "speech_hubert": ["stages.first.targets.num_clusters=8", "targets.num_clusters=8"],
    "speech_dinosr": ["targets.num_clusters=8"],
}


@pytest.mark.parametrize("recipe", OWN)
def test_a_recipe_as_it_is(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    kind, source = recipe.partition("_")[0], tmp_path / "source"
    source.mkdir()
    settings = [*{**SOURCES, "speech": speech}[kind](source), *FEW.get(recipe, [])]
    short = ["train.num_updates=2", "train.log_every=1", "train.eval_every=2"]
    for stage in resolve(recipe, "size=tiny").stages:
        short.append(f"stages.{stage}.train.num_updates=2")
    command = ["train", f"recipe={recipe}", "size=tiny", f"data={source}", "out=run", *short, *settings]
    assert cli.main(command) == 0, capsys.readouterr().err
    losses = [record["loss"] for record in read_records(Path("run/metrics.jsonl")) if "loss" in record]
    assert len(losses) == 3 and np.isfinite(np.array(losses, dtype=float)).all()
    capsys.readouterr()
    assert cli.main(["doctor", "run"]) in (0, 3)
    assert cli.main(["embed", "run=run", f"source={source}", "out=rows.parquet"]) == 0
    has_codes = bool(load(Path("run")).model.targets.codebook_sizes)
    assert ("codes and mask" in Path("run/report.html").read_text()) == has_codes
