"""Tasks: what the one training loop runs."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from seqssl.model.joint import JointModel
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import HasWords, Summarizes, Task
from seqssl.model.types import Batch, Draws, Output, Plan
from seqssl.training.tally import Tally, code_metrics, symbol_metrics

HELD_OUT = 2**31  # in the place of the update in seeds of evaluation: no update has this number


class PretrainTask:
    """Masked pre-training of a model, of one kind of data or several."""

    def __init__(self, model: PretrainingModel | JointModel, seed: int = 0) -> None:
        self.model, self.seed = model, seed

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
        return held_out_metrics(self, batches, seed=self.seed)

    def summarize(self, sums: dict[str, Tensor], stream: str) -> dict[str, float]:
        """How codes are used and predicted, from the counts of chosen codes."""
        targets = self.model.of(stream).targets
        word = targets.ids_per_code if isinstance(targets, HasWords) else 1
        return summary(sums, word)


@torch.no_grad()
def held_out_metrics(task: Task, batches: Iterable[Batch], *, seed: int = 0) -> dict[str, float]:
    """Metrics of a task over batches, by its own `plan` and `step` in evaluation mode.

    Draws depend on `seed` and the number of the batch alone. A task's `evaluate` may be this and no more.
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
    """A task's step as a module, so that a parallel strategy can wrap it: ranks see its forward pass."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model  # whose parameters are shared
        self._task = task

    def forward(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """The task's step."""
        return self._task.step(batch, plan, draws)


def summary(sums: dict[str, Tensor], word: int) -> dict[str, float]:
    """TO BE REPLACED."""
    masked = sums["masked"].clamp(min=1)
    num_learned = sums["usage"].shape[0]
    metrics: dict[str, float] = {}
    if num_learned:
        counts = sums["codes"][:num_learned, : sums["usage"].shape[1]]
        metrics |= code_metrics(counts, sums["usage"] / masked)
    if "masked_prediction/accuracy" in sums:
        tops = (sums["codes"].max(dim=1).values / masked).tolist()
        metrics["masked_prediction/trivial"] = sum(tops) / len(tops)
        if len(tops) > 1:
            metrics |= {f"masked_prediction/trivial_{g}": top for g, top in enumerate(tops)}
        nats = (sums["masked_prediction/nats"] / masked).tolist()
        metrics |= symbol_metrics(sums["codes"][num_learned:], nats[num_learned:], word)
        if 0 < num_learned < len(tops):
            for kind, books in (("codes", range(num_learned)), ("symbols", range(num_learned, len(tops)))):
                found = [float(sums[f"masked_prediction/accuracy_{g}"] / masked) for g in books]
                metrics[f"{kind}/accuracy"] = sum(found) / len(found)
                metrics[f"{kind}/trivial"] = sum(tops[g] for g in books) / len(books)
    metrics["mask/share"] = float(sums["masked"] / sums["maskable"])
    return metrics
