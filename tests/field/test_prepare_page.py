"""What `prepare` says at its end, and prepare.html: a wrong reading has to be visible there."""

import re
from pathlib import Path

import mutants
import numpy as np
import pandas as pd
import pytest
from field import prepare

from modalities.weather import Weather
from seqssl.data.shards import Corpus
from seqssl.report import prepared
from seqssl.report.prepared import duration, evenly


@pytest.mark.parametrize("modality", [*mutants.MODALITIES])
def test_every_modality_has_a_page_with_pictures(tmp_path: Path, modality: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for suffix, data in mutants.MODALITIES[modality]().items():
        (folder / f"good-{suffix.replace('.', '_')}.{suffix.removeprefix('semicolon.')}").write_bytes(data)
    found = prepare(modality, folder, *mutants.SETTINGS[modality], out=tmp_path / "out")
    page = (tmp_path / "out" / "prepare.html").read_text("utf-8")
    assert "look at it: " in found.said and "train: " in found.said
    assert len(re.findall("<h2><code>", page)) == min(3, len(found.rows))
    assert "<pre" in page if modality == "dna" else "data:image/png;base64," in page
    assert "http" not in re.sub(r"base64,[^\"]+", "", page), "it needs no network"


def test_the_page_shows_what_was_dropped_and_why(tmp_path: Path) -> None:
    folder = tmp_path / "<in>"
    folder.mkdir()
    times = pd.date_range("2020-01-01", periods=480, freq="h")
    values = np.where(np.arange(480) % 20 == 0, -999, np.arange(480) % 24)
    for number in range(7):
        pd.DataFrame({"time": times, "T2M": values + 0.1}).to_csv(folder / f"s{number}.csv", index=False)
    (folder / "bad.csv").write_text("no table\n")
    found = prepare("weather", folder, "modality.columns=[T2M]", out=tmp_path / "out")
    page = (tmp_path / "out" / "prepare.html").read_text("utf-8")
    for words in (
        "24 of 480 values are -998.9",
        "from 2020-01-01T01:00 to 2020-01-20T23:00",
        "6 groups",
        "rejected: 1",
    ):
        assert words in found.said or words in page, (words, found.said)
    for words in (
        "values are -998.9",
        "2020-01-20",
        "bad.csv",
        "0.1 to 23.1, median 11.6; 95.2% observed",
        "&lt;in&gt;",
    ):
        assert words in page, words
    assert "of 6 groups (s" in found.said or "of 7 groups (s" in found.said


def test_words_for_amounts() -> None:
    assert [duration(hours) for hours in (1e-3, 0.5, 3, 100, 5000)] == [
        "3.6 seconds", "30.0 minutes", "3.0 hours", "100 hours (4.2 days)", "5,000 hours",
    ]  # fmt: skip
    assert evenly(0, 3) == [] and evenly(1, 3) == [0] and evenly(10, 3) == [0, 4, 9]


def test_of_long_rows_fewer_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred of an hour each were held at once."""
    folder = tmp_path / "in"
    folder.mkdir()
    times = pd.date_range("2020-01-01", periods=48, freq="h")
    for number in range(20):
        table = pd.DataFrame({"time": times, "T2M": np.arange(48) % 24 + 0.5, "station": f"s{number}"})
        table.to_csv(folder / f"s{number}.csv", index=False)
    prepare("weather", folder, "modality.columns=[T2M]", out=tmp_path / "out")
    corpus, adapter = Corpus(tmp_path / "out"), Weather(columns=("T2M",))
    assert len(prepared.sampled(corpus, adapter)) == len(corpus) == 20
    for most, number in ((20 * 48, 20), (10 * 48, 10), (1, 3)):
        monkeypatch.setattr(prepared, "MOST_SAMPLED", most)
        assert len(prepared.sampled(corpus, adapter)) == number
