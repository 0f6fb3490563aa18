"""Files that are read and lie outside of a source: their change makes another corpus."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modalities.speech import Speech
from modalities.wearables import Wearables
from seqssl.data.fingerprint import listing


def write_sound(path: Path, seed: int = 0) -> None:
    soundfile.write(path, 0.1 * np.random.default_rng(seed).normal(size=16_000), 16_000)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: write_sound(folder / "b.wav"),  # was missing
        lambda folder: soundfile.write(folder / "a.wav", np.ones(20_000) / 3, 16_000),
        lambda folder: (folder / "a.lab").write_text("0.0 0.5 x\n"),
        lambda folder: (folder / "list.csv").write_text("file,text\na.wav,other\n"),
    ],
    ids=["appears", "changes", "aligned", "list"],
)
def test_a_list_depends_on_what_it_names(tmp_path: Path, change: Callable[[Path], object]) -> None:
    write_sound(tmp_path / "a.wav")
    (tmp_path / "list.csv").write_text("file,text\na.wav,one\nb.wav,two\n")
    before = listing(Speech(), tmp_path / "list.csv")
    (tmp_path / "unrelated.wav").write_bytes(b"x")
    assert listing(Speech(), tmp_path / "list.csv") == before
    change(tmp_path)
    assert listing(Speech(), tmp_path / "list.csv") != before


def test_an_array_depends_on_its_labels(tmp_path: Path) -> None:
    adapter = Wearables(source_rate_hz=30.0)
    np.save(tmp_path / "X.npy", np.zeros((3, 90, 3), np.float32))
    before = listing(adapter, tmp_path / "X.npy")
    np.save(tmp_path / "y.npy", np.arange(3))
    assert listing(adapter, tmp_path / "X.npy") != before


def test_a_damaged_list_is_for_others_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 and no more")
    assert len(listing(Speech(), tmp_path / "list.parquet")) == 1
