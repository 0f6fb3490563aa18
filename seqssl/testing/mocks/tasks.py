"""Tasks with one mistake each; `fails` names the checks that must find it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from seqssl.model.types import Batch, Draws, Output, Plan, length_mask


class BrokenTask:
    """Tells the mean of a row from its values (b, t, 2); by itself nothing is wrong with it."""

    fails: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model: nn.Module = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """Rows."""
        return Plan({"rows": torch.tensor(len(batch.lengths))})

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """The squared error of each row."""
        valid = length_mask(batch.lengths, batch.inputs.shape[1])[..., None]
        wanted = (batch.inputs * valid).sum((1, 2)) / valid.sum((1, 2))
        guess = (self.model(batch.inputs) * valid).sum((1, 2)) / valid.sum((1, 2))
        error = (guess - wanted).square().sum()
        return Output({"rows": error}, {"rows": 1.0}, {"rows/error": error.detach()})

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The mean over rows."""
        draws, total, count = Draws((0,)), 0.0, 0
        self.model.eval()
        with torch.no_grad():
            for batch in batches:
                total += float(self.step(batch, self.plan(batch, draws), draws).terms["rows"])
                count += len(batch.lengths)
        self.model.train()
        return {"loss": total / count}


class CountsARowEach(BrokenTask):
    """A count for each row."""

    fails: ClassVar = {"counts_are_single_numbers", "terms_are_finite_numbers"}

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """Not their sum."""
        return Plan({"rows": torch.ones(len(batch.lengths))})


class Unplanned(BrokenTask):
    """A term that nobody planned, and no weight for it."""

    fails: ClassVar = {"every_term_is_planned_and_weighed"}

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """One more."""
        output = super().step(batch, plan, draws)
        return replace(output, terms={**output.terms, "more": output.terms["rows"]})


class NotANumber(BrokenTask):
    """A division by the number of masked frames, of which there are none."""

    fails: ClassVar = {
        "terms_are_finite_numbers",
        "a_step_depends_on_its_draws_alone",
        "something_is_trained",
        "evaluation_gives_numbers",
    }

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """0 / 0."""
        output = super().step(batch, plan, draws)
        return replace(output, terms={name: term * 0 / 0 for name, term in output.terms.items()})


class DrawsElsewhere(BrokenTask):
    """Noise from a generator of its own."""

    fails: ClassVar = {"a_step_depends_on_its_draws_alone", "evaluation_gives_numbers"}

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """Each step goes on where the last one stopped."""
        noise = torch.randn(batch.inputs.shape, generator=self.generator)
        return super().step(replace(batch, inputs=batch.inputs + noise), plan, draws)


class TrainsItself(BrokenTask):
    """A step of an optimizer of its own."""

    fails: ClassVar = {
        "a_step_keeps_the_weights",
        "a_step_depends_on_its_draws_alone",
        "evaluation_leaves_no_trace",
        "evaluation_gives_numbers",
    }

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """Weights shrink."""
        with torch.no_grad():
            for p in self.model.parameters():
                p.mul_(0.5)
        return super().step(batch, plan, draws)


class Detached(BrokenTask):
    """Nothing can be learned."""

    fails: ClassVar = {"something_is_trained"}

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """The terms have no gradient."""
        output = super().step(batch, plan, draws)
        return replace(output, terms={name: term.detach() for name, term in output.terms.items()})


class NoLoss(BrokenTask):
    """Evaluation says something else."""

    fails: ClassVar = {"evaluation_gives_numbers"}

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """An error by another name."""
        return {"error": super().evaluate(batches)["loss"]}


class StaysInEvaluation(BrokenTask):
    """After evaluation dropout is off for ever."""

    fails: ClassVar = {"evaluation_leaves_no_trace"}

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The model stays as evaluation wants it."""
        found = super().evaluate(batches)
        self.model.eval()
        return found
