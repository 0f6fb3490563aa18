"""What the tests of this folder share: commands as a user gives them, and what they leave behind."""

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from seqssl.cli.main import main


@dataclass(frozen=True)
class Said:
    """How a command ended, and all that it printed."""

    code: int
    said: str


def seqssl(*words: str) -> Said:
    """Run a command in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(words)
    return Said(code, said.getvalue())


@dataclass(frozen=True)
class Prepared:
    """A `prepare` that ended: its rows by key, its rejections by path, what it printed."""

    code: int
    said: str
    rows: Sequence[dict[str, Any]]
    rejected: dict[str, str]
    quality: dict[str, dict[str, Any]]
    manifest: dict[str, Any]

    @property
    def message(self) -> str:
        """All that a person is told."""
        return " ".join([self.said, *self.rejected.values()])

    def split(self, name: str) -> set[str]:
        """The groups of a split."""
        return {row["group"] for row in self.rows if row["split"] == name}


def prepare(modality: str, source: Path, *settings: str, out: Path | None = None) -> Prepared:
    """Prepare a source as a user does; exit codes other than 0 and 2 fail the test, and so does a trace."""
    out = out or source.parent / f"{source.name}-out{len([*source.parent.glob('*-out*')])}"
    done = seqssl("prepare", f"modality={modality}", f"source={source}", f"out={out}", *settings)
    assert done.code in (0, 2) and "Traceback" not in done.said, done.said
    shards = sorted(out.glob("shard-*.parquet"))
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    lines = {
        name: [json.loads(line) for line in (out / name).read_text("utf-8").splitlines()]
        for name in ("rejected.jsonl", "quality.jsonl")
        if (out / name).exists()
    }
    manifest = out / "manifest.json"
    return Prepared(
        done.code,
        done.said,
        rows,
        {line["path"]: line["reason"] for line in lines.get("rejected.jsonl", [])},
        {line["path"]: line for line in lines.get("quality.jsonl", [])},
        json.loads(manifest.read_text("utf-8")) if manifest.exists() else {},
    )


def values_of(row: dict[str, Any]) -> np.ndarray:
    """The values of a stored row as (t, c), NaN where `observed` says that nothing was."""
    values = np.array(row["values"], dtype=np.float64)
    if "observed" in row:
        values[~np.array(row["observed"], dtype=bool)] = np.nan
    return values


def write_abc(path: Path, body: str = "CDEF|GABc|cBAG|FEDC|]") -> Path:
    """A file of one tune in quarters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"X:1\nT:t\nM:4/4\nL:1/4\nK:C\n{body}\n", encoding="utf-8")
    return path
