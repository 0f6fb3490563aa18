"""Objectives with one mistake each; `fails` names the checks that must find it."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from seqssl.model.objectives import MaskedPredictionLoss
from seqssl.model.types import Context, LossTerm, Quantized
from seqssl.testing.objectives import Sizes


class BrokenObjective(MaskedPredictionLoss):
    """By itself nothing is wrong with it."""

    fails: ClassVar[set[str]] = set()

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes.context_dim, sizes.num_codebooks, sizes.codebook_size, tap="output")


class MeanNotSum(BrokenObjective):
    """The total is a mean over frames, and empty batches are 0 / 0."""

    fails: ClassVar = {"totals_are_sums", "no_frames_cost_nothing"}

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Divide once too often."""
        term = super().forward(context, targets, generator)
        return replace(term, total=term.total / term.count)


class CountOfBatches(BrokenObjective):
    """The mean, with a count of 1."""

    fails: ClassVar = {"totals_are_sums", "no_frames_cost_nothing", "count_is_as_announced"}

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Micro-steps of unequal size would weigh the same."""
        term = super().forward(context, targets, generator)
        return replace(term, total=term.total / term.count, count=torch.ones(()))


class GradientInStats(BrokenObjective):
    """A statistic keeps the graph alive."""

    fails: ClassVar = {"gives_scalars"}

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """The loss as its own statistic."""
        term = super().forward(context, targets, generator)
        return replace(term, stats={"loss": term.total})


class GlobalDropout(BrokenObjective):
    """Dropout draws from the global random state."""

    fails: ClassVar = {"draws_only_from_its_generator"}

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Next to nothing is dropped, but it is drawn."""
        dropped = F.dropout(context.x, 1e-6)
        return super().forward(replace(context, x=dropped), targets, generator)


class DetachedContexts(BrokenObjective):
    """Only the head learns."""

    fails: ClassVar = {"something_is_trained"}

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """A probe, not an objective."""
        return super().forward(replace(context, x=context.x.detach()), targets, generator)


class UnusedHead(BrokenObjective):
    """A layer that nothing reads."""

    fails: ClassVar = {"gradient_reaches_every_parameter"}

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.spare = torch.nn.Linear(2, 2)


class NaiveLogSoftmax(BrokenObjective):
    """log of a softmax."""

    fails: ClassVar = {"extreme_contexts_stay_finite"}

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Minus infinity at 1e4."""
        probs = self.head(context.x).view(-1, self.codebook_size).softmax(-1)
        total = F.nll_loss(probs.log(), targets.codes.flatten(), reduction="sum") / self.num_codebooks
        return LossTerm(total, context.frames.mask.sum())


class DividesByVariety(BrokenObjective):
    """Divides by the number of different codes less one."""

    fails: ClassVar = {"collapsed_targets_stay_finite", "no_frames_cost_nothing"}

    def forward(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """0 / 0 after a collapse."""
        term = super().forward(context, targets, generator)
        variety: Tensor = (targets.codes != targets.codes.roll(1, 0)).any(-1).float().mean()
        return replace(term, total=term.total / variety * variety.detach())
