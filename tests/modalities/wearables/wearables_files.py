"""Recordings to test with: an arm in motion, files of it, and what the adapter makes of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modalities.wearables import Wearables
from seqssl import Record, Rejected, Rows
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus

GRAVITY = np.array([0.6, -0.2, 0.75])
START = "2014-05-07T13:29:50"


def truth(times, seed: int = 0) -> np.ndarray:
    """Acceleration in g of an arm in motion: gravity, and movement slower than 5 Hz."""
    rng = np.random.default_rng(seed)
    times = np.asarray(times, dtype=float)[:, None]
    hz, phase = rng.uniform(0.5, 4, (4, 1, 3)), rng.uniform(0, 2 * np.pi, (4, 1, 3))
    return GRAVITY + 0.1 * np.sin(2 * np.pi * hz * times + phase).sum(axis=0)


def turning(times) -> np.ndarray:
    """Rotation in rad/s of the same arm."""
    return 3 * (truth(times, seed=9) - GRAVITY)


def clock(seconds: float = 40.0, rate_hz: float = 50.0) -> np.ndarray:
    return np.arange(round(seconds * rate_hz)) / rate_hz


def steps(count: int, rate_hz: float = 30.0) -> np.ndarray:
    return np.arange(count) / rate_hz


def frame(times=None, values=None, gyroscope: bool = False) -> pd.DataFrame:
    times = clock() if times is None else times
    values = truth(times) if values is None else values
    columns = {"time": times, "x": values[:, 0], "y": values[:, 1], "z": values[:, 2]}
    if gyroscope:
        columns |= {f"gyro_{axis}": column for axis, column in zip("xyz", turning(times).T, strict=True)}
    return pd.DataFrame(columns)


def with_actipy(samples: np.ndarray, rate_hz: float = 30.0) -> pd.DataFrame:
    index = pd.Timestamp(START) + pd.to_timedelta(np.arange(len(samples)) / rate_hz, unit="s")
    return pd.DataFrame(samples, columns=["x", "y", "z"], index=pd.DatetimeIndex(index, name="time"))


def write(path: Path, table: pd.DataFrame | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (frame() if table is None else table).to_csv(path, index=False, **options)
    return path


def beside(path: Path) -> Path:
    return path.with_name(f"{path.name}-prepared")


def found(path: Path, **settings) -> list[Record | Rejected]:
    return [*Wearables(**settings).records(path, "all")]


def read(path: Path, **settings) -> Rows:
    """The one recording of a file."""
    (record,) = found(path, **settings)
    assert isinstance(record, Record), record
    return record.read()


def refused(path: Path, **settings) -> str:
    """Why the one recording of a file cannot be used."""
    (record,) = found(path, **settings)
    if isinstance(record, Rejected):
        return record.reason
    with pytest.raises(ValueError) as caught:
        record.read()
    return str(caught.value)


def values(rows: Rows) -> np.ndarray:
    """The windows end to end."""
    return np.concatenate([row["values"] for row in rows.rows])


def assert_true(found: np.ndarray, seed: int = 0, columns: int = 3, atol: float = 2e-3) -> None:
    """Windows end to end are the truth from time 0 on."""
    assert found.shape[1] == columns, found.shape
    np.testing.assert_allclose(found[:, :3], truth(steps(len(found)), seed), atol=atol)


def prepared(source: Path, out: Path, **settings) -> tuple[dict[str, dict], dict[str, str], dict[str, dict]]:
    """Rows by key, reasons by path, and reports by path."""
    prepare(Wearables(**settings), source, out, modality="wearables", num_workers=1)
    corpus = Corpus(out)
    rows = {row["key"]: row for row in map(corpus.row, range(len(corpus)))}
    rejected, quality = (
        [json.loads(line) for line in (out / name).read_text().splitlines()] if (out / name).exists() else []
        for name in ("rejected.jsonl", "quality.jsonl")
    )
    return rows, {e["path"]: e["reason"] for e in rejected}, {e["path"]: e for e in quality}
