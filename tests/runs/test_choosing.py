"""recipe=auto: data of each kind, of several, and of none."""

from pathlib import Path

import numpy as np
import pytest
from little_data import SOURCES, speech

from seqssl import UserError, cli, load_recipe
from seqssl.runs.choosing import choose_recipe

KINDS = {**SOURCES, "speech": speech}
RECOMMENDED = {
    "dna": "dna_masked_symbols",
    "music": "music_w2vbert",
    "speech": "speech_clusters",
    "wearables": "wearables_views",
    "weather": "weather_next_latent",
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_each_kind(kind: str, tmp_path: Path) -> None:
    if kind == "wearables":
        write_watches(tmp_path)
    else:
        KINDS[kind](tmp_path)
    (tmp_path / "README.txt").write_text("what this is\n")
    (tmp_path / "labels.csv").write_text("file,label\na,b\n")
    recipe, settings, sentence = choose_recipe(tmp_path)
    assert recipe == RECOMMENDED[kind]
    assert f"The same as recipe={recipe}" in sentence
    long, *_ = choose_recipe(tmp_path, long=True)
    assert long == {"speech": "speech_reclusters"}.get(kind, recipe)
    config = load_recipe(recipe, "size=tiny", f"data={tmp_path}", *settings)
    if kind == "weather":
        assert [*config.modality["columns"]] == ["temp_air", "ghi"] and config.modality["freq"] == "1h"


def write_watches(folder: Path, *, suffix: str = ".csv") -> None:
    rng = np.random.default_rng(0)
    for person in "ab":
        times = np.arange(1500) / 50
        values = [0, 0, 1] + 0.2 * rng.normal(size=(1500, 3))
        lines = [f"{t:.2f},{x:.4f},{y:.4f},{z:.4f}" for t, (x, y, z) in zip(times, values, strict=True)]
        (folder / f"{person}{suffix}").write_text("time,x,y,z\n" + "\n".join(lines) + "\n")


def test_series_at_any_step(tmp_path: Path) -> None:
    lines = [
        f"2024-01-{1 + n // 144:02d} {n // 6 % 24:02d}:{n % 6}0;{n % 7};{n % 11 / 2};7" for n in range(1440)
    ]
    (tmp_path / "plant.csv").write_text("Datum;Flow rate [m3/h];level;constant\n" + "\n".join(lines) + "\n")
    recipe, settings, sentence = choose_recipe(tmp_path)
    config = load_recipe(recipe, "size=tiny", f"data={tmp_path}", *settings)
    assert config.modality["freq"] == "10min"
    assert [*config.modality["columns"]] == ["Flow rate [m3/h]", "level"], (
        "what never changes teaches nothing"
    )
    assert "a value every 10min" in sentence


def test_one_command_trains_on_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "watches"
    source.mkdir()
    write_watches(source)
    small = ["size=tiny", "train.num_updates=1", "data.batch_seconds=60", "data.split_by=record"]
    assert cli.main(["train", f"data={source}", *small]) == 0
    told = capsys.readouterr().err
    assert "recipe=auto: acceleration in 2 files (.csv). The same as recipe=wearables_views" in told
    assert (tmp_path / "runs/wearables_views-tiny-watches/report.html").exists()
    assert cli.main(["train", "recipe=auto", f"data={source}", *small]) == 0, "a finished run"
    assert cli.main(["train", "recipe=auto"]) == 2
    assert "say data=FOLDER" in capsys.readouterr().err


def test_what_fits_nothing_or_several_kinds_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file or folder"):
        choose_recipe(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"no kind of data fits it\. Say which it is: recipe=dna_masked_symbols for dna"
    ):
        choose_recipe(tmp_path)
    write_watches(tmp_path)
    table = (tmp_path / "a.csv").read_text().replace("time,x", "t,u")
    (tmp_path / "a.csv").write_text(table)
    (tmp_path / "b.csv").unlink()
    with pytest.raises(UserError, match=r"no kind of data fits it(.|\n)*- wearables: a\.csv"):
        choose_recipe(tmp_path)
    both = tmp_path / "both"
    both.mkdir()
    speech(both)
    (both / "chr1.fa").write_text(">chr1\n" + "ACGT" * 100 + "\n")
    seems = r"several kinds of data \(dna: nucleotide sequences in 1 file \(\.fa\); speech: sound in 4 files"
    with pytest.raises(UserError, match=seems):
        choose_recipe(both)
