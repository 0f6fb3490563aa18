"""metrics.jsonl and TensorBoard events of a run."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

Value = bool | int | float | str | list[str] | None  # what a record of metrics.jsonl holds


class MetricsLog:
    """metrics.jsonl and TensorBoard events of a run folder."""

    def __init__(self, run: Path, *, resume_at: int) -> None:
        self.path = run / "metrics.jsonl"
        self.kept = self._forget_after(resume_at)
        self._file = self.path.open("a", encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=resume_at + 1)

    def _forget_after(self, step: int) -> list[dict[str, Value]]:
        """Drop records that a killed run wrote after its last checkpoint: they will come again."""
        if not self.path.exists():
            return []
        kept = [
            line
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            if _step_of(line) <= step
        ]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept))
        partial.replace(self.path)
        return [json.loads(line) for line in kept]

    def write(self, record: Mapping[str, Value]) -> None:
        """Append one record; floats that JSON cannot hold become their names."""
        safe = {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        self._file.write(json.dumps(safe) + "\n")
        self._file.flush()
        if record["kind"] != "event":
            for key, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._board.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut by a kill
