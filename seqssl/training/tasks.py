"""Tasks: what the one training loop runs."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from seqssl.model.joint import JointModel
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import FollowsUpdates, HasWords, Summarizes, Task
from seqssl.model.types import Batch, Draws, Output, Plan, Stat
from seqssl.training.catalogue import stats_of
from seqssl.training.codes import code_summary
from seqssl.training.probing import Probe, names_of, probe
from seqssl.training.tally import Tally

HELD_OUT = 2**31  # stands for the update in seeds of evaluation; no update has this number


class PretrainTask:
    """Masked pre-training of a model, of one stream or several.

    `probes`: what is measured of the frames at each evaluation, beside the losses; `labels`: shell patterns
    of the labels that they tell apart. See `seqssl.training.probing`.
    """

    def __init__(
        self,
        model: PretrainingModel | JointModel,
        seed: int = 0,
        *,
        probes: tuple[Probe, ...] | None = None,
        labels: str = "*",
    ) -> None:
        self.model, self.seed, self.probes, self.labels = model, seed, probes or (), labels

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """The masked frames of a batch that is still on the CPU, and the counts of all terms."""
        return self.model.plan(batch, draws)

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """Forward pass of one micro-batch on the device."""
        generator = draws.generator(batch.inputs.device)
        assert plan.frames is not None
        output: Output = self.model(batch, plan.frames, temperature=draws.temperature, generator=generator)
        return output

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics over all batches, without noise, with the same masks and negatives every time."""
        if not self.probes:
            return held_out_metrics(self, batches, seed=self.seed)
        kept = list(batches)
        metrics = held_out_metrics(self, kept, seed=self.seed)
        for stream in sorted({batch.stream for batch in kept}):
            own = [batch for batch in kept if batch.stream == stream]
            found = probe(self.model.of(stream), own, self.probes, self.labels)
            metrics |= {f"{stream}/{name}" if stream else name: value for name, value in found.items()}
        return metrics

    def probe_names(self) -> list[str]:
        """The names of the probes among the held-out metrics, as far as all of them can be measured."""
        streams = [*self.model.streams] if isinstance(self.model, JointModel) else [""]
        return [
            f"{stream}/{name}" if stream else name
            for stream in streams
            for name in names_of(self.model.of(stream), self.probes)
        ]

    def after_update(self) -> None:
        """Parts that follow the weights, or move on without a gradient, do so now."""
        for part in _moving(self.model):
            if isinstance(part, FollowsUpdates):
                part.after_update()

    def summarize(self, sums: dict[str, Tensor], stream: str) -> dict[str, float]:
        """How codes are used and predicted, from the counts of chosen codes."""
        targets = self.model.of(stream).targets
        word = targets.ids_per_code if isinstance(targets, HasWords) else 1
        stats = self.stats(stream)
        predicting = [name for name in stats if any(stat.rule == "prediction" for stat in stats[name])]
        return code_summary(sums, predicting, word=word)

    def stats(self, stream: str) -> dict[str, tuple[Stat, ...]]:
        """The statistics that each objective declares."""
        objectives = self.model.of(stream).objectives.named
        return {name: stats_of(objective) for name, objective in objectives.items()}


def _moving(part: nn.Module) -> Iterator[nn.Module]:
    """A module and its parts, but for those that are marked to stand still, and theirs."""
    yield part
    for child in part.children():
        if not getattr(child, "stands_still", False):
            yield from _moving(child)


@torch.no_grad()
def held_out_metrics(task: Task, batches: Iterable[Batch], *, seed: int = 0) -> dict[str, float]:
    """Metrics of a task over batches, by its own `plan` and `step` in evaluation mode.

    Draws depend on `seed` and the number of the batch alone. A task's `evaluate` need not do more than call
    this.
    """
    tally = Tally()
    device = next(task.model.parameters()).device
    task.model.eval()
    for index, batch in enumerate(batches):
        draws = Draws((seed, HELD_OUT, index))
        plan = task.plan(batch, draws)
        tally.add(task.step(batch.to(device), plan.to(device), draws), plan, batch)
    task.model.train()
    return tally.close(task.summarize if isinstance(task, Summarizes) else None)


class StepModule(nn.Module):
    """A task's step as a module's forward pass, which a parallel strategy can wrap."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model  # its parameters are shared with the wrapper
        self._task = task

    def forward(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """The task's step."""
        return self._task.step(batch, plan, draws)
