"""A joint run on two gloo ranks: each rank may see another kind of data in the same step."""

import os
from pathlib import Path

import pytest
from launching import launch
from test_joint import LETTERS, RECIPE, SHARED, WAVES
from test_runs import comparable
from toy import write_letters, write_waves

import seqssl
from seqssl import load_recipe


def test_two_ranks_give_the_losses_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    waves, letters = write_waves(tmp_path / "waves"), write_letters(tmp_path / "letters_data")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "waves.yaml").write_text(WAVES)
    (tmp_path / "recipes" / "letters.yaml").write_text(LETTERS)
    (tmp_path / "joint.yaml").write_text(RECIPE.format(waves=waves, letters=letters))
    # Diversity is a function of the whole batch, not a sum over micro-batches: it stays out of this.
    settings = [
        *SHARED, "train.num_updates=6", "streams.waves.objectives.diversity=null",
        "streams.letters.objectives.diversity=null",
    ]  # fmt: skip
    one = load_recipe("joint.yaml", "size=tiny", "out=one", "train.accumulate=2", *settings)
    seqssl.train(one, say=lambda text: None)
    more = {"SEQSSL_CACHE": os.environ["SEQSSL_CACHE"]}
    arguments = ("train", "recipe=joint.yaml", "size=tiny", "out=two", *settings)
    launch(tmp_path, "-m", "seqssl", *arguments, more=more)
    first, second = comparable(Path("one")), comparable(Path("two"))
    assert len(first) == len(second) > 3
    for a, b in zip(first, second, strict=True):
        assert a.pop("kind") == b.pop("kind")
        assert a.keys() == b.keys()
        assert a == pytest.approx(b, rel=5e-4, abs=1e-6)
