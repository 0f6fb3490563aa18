"""The tally: sums of metrics over the steps between two records, turned into numbers once."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from seqssl.model.types import Batch, Output, Plan
from seqssl.training.checkpoint import Sums
from seqssl.training.parallel import Parallel

Summarize = Callable[[dict[str, Tensor], str], dict[str, float]]  # sums of a stream, its name -> metrics


class Tally:
    """Running sums. Tensors stay on their device until `close`, so that adding never waits for it.

    Names are `<stream>|term|<term>|<total, weighted or count>`, `<stream>|sum|<statistic>` and
    `<stream>|data|<count>`; those of sums about updates are plain.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def _add(self, name: str, value: Tensor | float) -> None:
        """Add to a sum, in float64: so counts stay exact and small values are not lost in large sums."""
        tensor = torch.as_tensor(value).detach().double()
        self.sums[name] = self.sums[name] + tensor if name in self.sums else tensor

    def add(self, output: Output, plan: Plan, batch: Batch) -> None:
        """Add one micro-batch: its loss terms, its statistics, and how much data it held."""
        stream = batch.stream
        for name, total in output.terms.items():
            self._add(f"{stream}|term|{name}|total", total)
            # Weights come with each output, and may change; `close` has nothing but sums.
            self._add(f"{stream}|term|{name}|weighted", output.weights[name] * total)
            self._add(f"{stream}|term|{name}|count", plan.counts[name])
        for name, value in output.sums.items():
            self._add(f"{stream}|sum|{name}", value)
        self._add(f"{stream}|data|steps", 1.0)
        self._add(f"{stream}|data|input", batch.lengths.sum())
        self._add(f"{stream}|data|padded", float(batch.inputs.shape[0] * batch.inputs.shape[1]))

    def add_update(self, grad_norm: Tensor) -> None:
        """Add one update; where its gradient was not finite it counts as skipped, with a norm of 0."""
        finite = torch.isfinite(grad_norm)
        self._add("updates", 1.0)
        self._add("skipped", (~finite).double())
        # Selected on the device: a branch would wait for it in every update.
        self._add("grad_norm", torch.where(finite, grad_norm, 0.0))

    def num_inputs(self) -> float:
        """Input steps added so far; waits for the device."""
        return sum(float(value) for name, value in self.sums.items() if name.endswith("|data|input"))

    def merged(self, parallel: Parallel, device: torch.device) -> "Tally":
        """The tally of all ranks, which have seen the same streams.

        `device` is where ranks can add: NCCL has no sums on a CPU. What is about updates is the same on all
        ranks, and is not added.
        """
        tally = Tally()
        # One exchange for each name, so all ranks must have the same names in the same order. They do: all
        # micro-batches of an update are of one stream.
        tally.sums = {
            name: parallel.sum(value.to(device)) if "|" in name else value
            for name, value in self.sums.items()
        }
        return tally

    def close(self, summarize: Summarize | None = None) -> dict[str, float]:
        """The metrics of these steps; waits for the device.

        With several streams, metrics are named `<stream>/<metric>`, and `loss` is the mean over streams, each
        weighted by the largest count among its terms. `summarize` makes metrics of statistics that are not
        single numbers; it is given all statistics, and as `<term>/count` what each term was summed over.
        """
        sums = {name: value.cpu() for name, value in self.sums.items()}
        found = {stream: _StreamSums.of(sums, stream) for stream in _streams_in(sums)}
        parts = {stream: own.metrics() for stream, own in found.items()}
        for stream, own in found.items():
            parts[stream] |= summarize(own.statistics | own.counts(), stream) if summarize is not None else {}
        metrics: dict[str, float] = {}
        if parts and "" not in parts:
            sizes = {stream: own.size() for stream, own in found.items()}
            total = sum(parts[stream]["loss"] * sizes[stream] for stream in parts)
            metrics["loss"] = total / max(1.0, sum(sizes.values()))
        for stream, part in parts.items():
            metrics |= {f"{stream}/{name}" if stream else name: value for name, value in part.items()}
        if "updates" in sums:
            # If all were skipped, this is 0 / 0: not a number, which the health rules look for.
            metrics["grad_norm"] = float(sums["grad_norm"] / (sums["updates"] - sums["skipped"]))
            metrics["skipped_updates"] = float(sums["skipped"])
        return metrics

    def state(self) -> Sums:
        """The sums as JSON can hold them; float64 survives the round trip bit for bit."""
        return {name: value.tolist() for name, value in self.sums.items()}

    @classmethod
    def restore(cls, state: Sums, device: torch.device, *, holds_sums: bool = True) -> "Tally":
        """A tally with the sums that `state` gave.

        They are those of all ranks: one rank `holds_sums`, the others go on from zero, or they would be added
        once for each rank.
        """
        tally = cls()
        tally.sums = {
            name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in state.items()
        }
        if not holds_sums:
            tally.sums = {name: x * 0 if "|" in name else x for name, x in tally.sums.items()}
        return tally


class _StreamSums:
    """The sums of one stream, sorted by what they are about."""

    def __init__(self) -> None:
        self.terms: dict[str, dict[str, Tensor]] = {}
        self.statistics: dict[str, Tensor] = {}
        self.data: dict[str, Tensor] = {}

    @classmethod
    def of(cls, sums: Mapping[str, Tensor], stream: str) -> "_StreamSums":
        """Pick the sums of a stream out of all, by their names."""
        found = cls()
        for key, value in sums.items():
            owner, _, rest = key.partition("|")
            kind, _, name = rest.partition("|")
            if owner != stream or not rest:
                continue
            if kind == "term":
                term, _, figure = name.rpartition("|")
                found.terms.setdefault(term, {})[figure] = value
            else:
                (found.statistics if kind == "sum" else found.data)[name] = value
        return found

    def counts(self) -> dict[str, Tensor]:
        """What each term was summed over, as `<term>/count`."""
        return {f"{name}/count": term["count"] for name, term in self.terms.items()}

    def size(self) -> float:
        """The largest count among the terms: the weight of this stream in the loss of a joint run."""
        return max(float(term["count"]) for term in self.terms.values())

    def metrics(self) -> dict[str, float]:
        """The mean of each term and of each statistic that is a single number."""
        metrics = {"loss": 0.0}
        for name, term in self.terms.items():
            count = term["count"].clamp(min=1)
            metrics["loss"] += float(term["weighted"] / count * (term["count"] > 0))
            # Seen frames are divided by the number of masked ones in the loss; people read their own mean.
            shown = self.statistics.get(f"{name}/frames", term["count"]).clamp(min=1)
            metrics[f"loss/{name}"] = float(term["total"] / shown)
        for key, value in self.statistics.items():
            owner, _, stat = key.partition("/")
            if value.dim() == 0 and stat != "frames":
                count = self.terms[owner]["count"].clamp(min=1) if owner in self.terms else self.data["steps"]
                metrics[key] = float(value / count)
        metrics["padding/share"] = float(1 - self.data["input"] / self.data["padded"])
        return metrics


def _streams_in(sums: Mapping[str, Tensor]) -> list[str]:
    """The names of the streams that were counted."""
    return sorted({key.partition("|")[0] for key in sums if "|" in key})
