"""Series to test with: tables, and what the adapter makes of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from modalities.weather import Weather
from seqssl import Rejected

COLUMNS = ("a", "b")
HOUR = 3600.0


def sensor(**settings) -> Weather:
    return Weather(**{"columns": COLUMNS, **settings})


def frame(n=100, start="2020-01-01", freq="1h", seed=0) -> pd.DataFrame:
    """`time` and two channels that never repeat a value."""
    rng = np.random.default_rng(seed)
    times = pd.date_range(start, periods=n, freq=freq)
    return pd.DataFrame({"time": times, "a": np.cumsum(rng.random(n) + 0.1), "b": rng.normal(size=n)})


def write(path: Path, table: pd.DataFrame, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, **options)
    return path


class Rest:
    """What an adapter makes of a source: rows by key, reasons by path, quality by key."""

    def __init__(self, adapter: Weather, source: Path) -> None:
        self.rows, self.reasons, self.quality, self.splits = {}, {}, {}, {}
        for found in adapter.records(source, "all"):
            if isinstance(found, Rejected):
                self.reasons[found.path] = found.reason
                continue
            try:
                read = found.read()
            except ValueError as error:
                self.reasons[found.key] = str(error)
                continue
            self.quality[found.key] = json.loads(json.dumps(read.quality))
            for row in read.rows:
                key = f"{found.key}#{row['part']}"
                assert key not in self.rows, key
                self.rows[key] = {"group": found.group, **row}
                self.splits[key] = found.split
        self.samples = {key: adapter.load(row, None) for key, row in self.rows.items()}

    @property
    def sample(self):
        (sample,) = self.samples.values()
        return sample


def read_alone(path: Path, **settings) -> Rest:
    """One series, not cut for a held-out part: a second series stands beside it, and is left out here."""
    beside = write(path.parent / "zzz.csv", frame(30, seed=9))
    rest = Rest(sensor(**settings), path.parent)
    beside.unlink()
    for things in (rest.rows, rest.samples, rest.quality, rest.reasons, rest.splits):
        for key in [key for key in things if key.startswith("zzz")]:
            del things[key]
    return rest
