"""Metrics: sums over a window of steps, turned into numbers once, at its end."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seqssl.model.objectives import perplexity
from seqssl.model.pretraining import Output
from seqssl.model.types import Batch, MaskedFrames


class Window:
    """Running sums. Tensors stay on their device until `close`, so adding never waits for it.

    A name is `<stream>|<objective>:<statistic>`, or `<stream>|<count>`, or plain where it is about updates.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def _add(self, name: str, value: Tensor | float) -> None:
        tensor = torch.as_tensor(value).detach().double()
        self.sums[name] = self.sums[name] + tensor if name in self.sums else tensor

    def add(self, output: Output, batch: Batch, frames: MaskedFrames) -> None:
        """Count one micro-step in."""
        add = partial(self._add_to, batch.stream)
        for name, term in output.terms.items():
            add(f"{name}:count", term.count)
            add(f"{name}:total", term.total)
            if term.num_frames is not None:
                add(f"{name}:frames", term.num_frames)
            add(f"{name}:weighted", output.weights[name] * term.total)
            for stat, value in term.stats.items():
                add(f"{name}:{stat}", value)
        num_masked = frames.mask.sum()
        codes, size = output.targets.codes, output.codebook_size
        counts = torch.zeros(codes.shape[1], size, dtype=torch.long, device=codes.device)
        add("codes", counts.scatter_add_(1, codes.T, torch.ones_like(codes.T)))  # bincount waits for a GPU
        add("usage", output.targets.usage * num_masked.to(codes.device))
        add("masked", num_masked)
        add("word", float(output.word))
        for name, value in output.diagnostics.items():
            add(f"mean:{name}", value)
        add("steps", 1.0)
        add("input", batch.lengths.sum())
        add("padded", float(batch.inputs.shape[0] * batch.inputs.shape[1]))
        add("maskable", output.num_frames)

    def _add_to(self, stream: str, name: str, value: Tensor | float) -> None:
        self._add(f"{stream}|{name}", value)

    def add_update(self, grad_norm: Tensor) -> None:
        """Count one optimizer update in; an update that was skipped for a bad gradient has no norm."""
        finite = torch.isfinite(grad_norm)
        self._add("updates", 1.0)
        self._add("skipped", (~finite).double())
        self._add("grad_norm", torch.where(finite, grad_norm, 0.0))

    def num_inputs(self) -> float:
        """Input steps counted so far."""
        return sum(float(value) for name, value in self.sums.items() if name.endswith("|input"))

    def merge(self, ranks: Any, device: torch.device) -> None:
        """Add the sums of the other ranks, which have seen the same kinds of data.

        `device`: where ranks can add; NCCL knows nothing of a CPU.
        """
        self.sums = {name: ranks.sum(value.to(device)) for name, value in self.sums.items()}

    def close(self) -> dict[str, float]:
        """The window's metrics; the one place that waits for the device.

        Those of a joint run are named `<stream>/<metric>`; its loss is the mean over masked frames.
        """
        sums = {name: value.cpu() for name, value in self.sums.items()}
        streams: dict[str, dict[str, Tensor]] = {}
        for key, value in sums.items():
            stream, bar, name = key.partition("|")
            if bar:
                streams.setdefault(stream, {})[name] = value
        metrics: dict[str, float] = {}
        parts = {stream: stream_metrics(streams[stream]) for stream in sorted(streams)}
        if "" not in parts:
            masked = {stream: float(streams[stream]["masked"]) for stream in parts}
            total = sum(parts[stream]["loss"] * masked[stream] for stream in parts)
            metrics["loss"] = total / max(1.0, sum(masked.values()))
        for stream, part in parts.items():
            metrics |= {f"{stream}/{name}" if stream else name: value for name, value in part.items()}
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


def stream_metrics(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The metrics of one kind of data from its sums."""
    metrics = {"loss": 0.0}
    means = {}
    for key, value in sums.items():
        name, _, stat = key.partition(":")
        if not stat or name == "mean" or stat in ("count", "frames"):
            continue
        count = sums[f"{name}:count"]
        mean = float(value / count.clamp(min=1))
        if stat == "total":
            metrics[f"loss/{name}"] = float(value / sums.get(f"{name}:frames", count).clamp(min=1))
        elif stat == "weighted":
            metrics["loss"] += mean
        else:
            means[f"{name}/{stat}"] = mean
    masked = sums["masked"].clamp(min=1)
    num_learned = sums["usage"].shape[0]
    metrics |= {name: value for name, value in means.items() if "/nats_" not in name}
    if num_learned:
        counts = sums["codes"][:num_learned, : sums["usage"].shape[1]]
        metrics |= code_metrics(counts, sums["usage"] / masked)
    if "masked_prediction:count" in sums:
        tops = (sums["codes"].max(dim=1).values / masked).tolist()
        metrics["masked_prediction/trivial"] = sum(tops) / len(tops)
        if len(tops) > 1:
            metrics |= {f"masked_prediction/trivial_{g}": top for g, top in enumerate(tops)}
        nats = [means.get(f"masked_prediction/nats_{g}") for g in range(len(tops))]
        if num_learned == 0 and len(tops) == 1:
            nats = [metrics["loss/masked_prediction"]]
        word = max(1, round(float(sums.get("word", sums["steps"]) / sums["steps"])))
        metrics |= symbol_metrics(sums["codes"][num_learned:], nats[num_learned:], word)
        if 0 < num_learned < len(tops):  # learned codes and ids: each for itself, too
            for kind, books in (("codes", range(num_learned)), ("symbols", range(num_learned, len(tops)))):
                found = [means[f"masked_prediction/accuracy_{g}"] for g in books]
                metrics[f"{kind}/accuracy"] = sum(found) / len(found)
                metrics[f"{kind}/trivial"] = sum(tops[g] for g in books) / len(books)
    metrics |= {
        key.removeprefix("mean:"): float(value / sums["steps"])
        for key, value in sums.items()
        if key.startswith("mean:")
    }
    metrics["mask/share"] = float(sums["masked"] / sums["maskable"])
    metrics["padding/share"] = float(1 - sums["input"] / sums["padded"])
    return metrics


def symbol_metrics(counts: Tensor, nats: Sequence[float | None], word: int) -> dict[str, float]:
    """How well ids that the data give are predicted: bits for each, beside the entropy of their counts.

    `word`: the ids that one code stands for.
    """
    known = [value for value in nats if value is not None]
    if not known:
        return {}
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return {
        "symbols/bits": sum(known) / len(known) / math.log(2) / word,
        "symbols/entropy_bits": float(perplexity(shares).log2().mean()) / word,
    }


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
