"""Metrics: sums over a window of steps, turned into numbers once, at its end."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqssl.model.objectives import perplexity
from seqssl.model.pretraining import Output, PretrainingModel
from seqssl.model.types import Batch, MaskedFrames


class Window:
    """Running sums. Tensors stay on their device until `close`, so adding never waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def _add(self, name: str, value: Tensor | float) -> None:
        tensor = torch.as_tensor(value).detach().double()
        self.sums[name] = self.sums[name] + tensor if name in self.sums else tensor

    def add(self, output: Output, batch: Batch, frames: MaskedFrames) -> None:
        """Count one micro-step in."""
        for name, term in output.terms.items():
            self._add(f"{name}:count", term.count)
            self._add(f"{name}:total", term.total)
            for stat, value in term.stats.items():
                self._add(f"{name}:{stat}", value)
        num_masked = frames.mask.sum()
        codes = output.targets.codes
        size = output.targets.usage.shape[1]
        histogram = torch.stack([torch.bincount(column, minlength=size) for column in codes.unbind(1)])
        self._add("codes", histogram)
        self._add("usage", output.targets.usage * num_masked.to(codes.device))
        self._add("masked", num_masked)
        for name, value in output.diagnostics.items():
            self._add(f"mean:{name}", value)
        self._add("steps", 1.0)
        self._add("input", batch.lengths.sum())
        self._add("padded", float(batch.inputs.shape[0] * batch.inputs.shape[1]))
        self._add("maskable", output.num_frames)

    def add_update(self, grad_norm: Tensor) -> None:
        """Count one optimizer update in; an update that was skipped for a bad gradient has no norm."""
        finite = torch.isfinite(grad_norm)
        self._add("updates", 1.0)
        self._add("skipped", (~finite).double())
        self._add("grad_norm", torch.where(finite, grad_norm, 0.0))

    def merge(self, ranks: Any) -> None:
        """Add the sums of the other ranks."""
        self.sums = {name: ranks.sum(value) for name, value in self.sums.items()}

    def close(self, model: PretrainingModel) -> dict[str, float]:
        """The window's metrics; the one place that waits for the device."""
        sums = {name: value.cpu() for name, value in self.sums.items()}
        metrics = {"loss": 0.0}
        for name, objective in model.objectives.items():
            count = sums[f"{name}:count"].clamp(min=1)
            metrics[f"loss/{name}"] = float(sums[f"{name}:total"] / count)
            metrics["loss"] += float(objective.weight) * metrics[f"loss/{name}"]  # type: ignore[arg-type]
            for key, value in sums.items():
                prefix, _, stat = key.partition(":")
                if prefix == name and stat not in ("count", "total"):
                    metrics[f"{name}/{stat}"] = float(value / count)
        metrics |= code_metrics(sums["codes"], sums["usage"] / sums["masked"].clamp(min=1))
        if "masked_prediction" in model.objectives:
            top = sums["codes"].max(dim=1).values.mean() / sums["masked"].clamp(min=1)
            metrics["masked_prediction/trivial"] = float(top)
        for key, value in sums.items():
            if key.startswith("mean:"):
                metrics[key.removeprefix("mean:")] = float(value / sums["steps"])
        metrics["mask/share"] = float(sums["masked"] / sums["maskable"])
        metrics["padding/share"] = float(1 - sums["input"] / sums["padded"])
        if "updates" in sums:
            metrics["grad_norm"] = float(sums["grad_norm"] / (sums["updates"] - sums["skipped"]))
            metrics["skipped_updates"] = float(sums["skipped"])
        return metrics

    def state(self) -> dict[str, Any]:
        """The sums as JSON can hold them: float64 survives the round trip bit for bit."""
        return {name: value.tolist() for name, value in self.sums.items()}

    @classmethod
    def restore(cls, state: Mapping[str, Any], device: torch.device) -> "Window":
        """A window from `state`."""
        window = cls()
        window.sums = {
            name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in state.items()
        }
        return window


def code_metrics(codes: Tensor, usage: Tensor) -> dict[str, float]:
    """How the codebooks are used, from the counts of chosen codes (g, v) and the mean soft use (g, v)."""
    shares = codes / codes.sum(dim=1, keepdim=True).clamp(min=1)
    hard, soft = perplexity(shares), perplexity(usage)
    metrics = {"perplexity/size": float(codes.shape[1])}
    for g in range(codes.shape[0]):
        metrics[f"perplexity/hard_{g}"] = float(hard[g])
        metrics[f"perplexity/soft_{g}"] = float(soft[g])
        metrics[f"codes/dead_{g}"] = float((codes[g] == 0).double().mean())
        metrics[f"codes/top1_{g}"] = float(shares[g].max())
    return metrics


class MetricsLog:
    """metrics.jsonl and TensorBoard events of a run folder."""

    def __init__(self, run: Path, *, resume_at: int) -> None:
        self.path = run / "metrics.jsonl"
        self.kept = self._forget_after(resume_at)
        self._file = self.path.open("a", encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=resume_at + 1)

    def _forget_after(self, step: int) -> list[dict[str, Any]]:
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

    def write(self, record: Mapping[str, Any]) -> None:
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
