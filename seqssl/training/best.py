"""Which held-out metric decides what weights are kept as best: `train.keep_best`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from seqssl.errors import UserError


@dataclass
class Best:
    """The metric, and the names of all held-out metrics so far."""

    direction: str  # min or max
    name: str
    seen: set[str] = field(default_factory=lambda: {"loss"})  # a task may have no loss, and then no best

    @classmethod
    def read(cls, keep_best: str) -> "Best":
        """From min:NAME or max:NAME; UserError for anything else."""
        direction, _, name = keep_best.partition(":")
        if direction not in ("min", "max") or not name:
            raise UserError(f"train.keep_best = {keep_best}: expected min:NAME or max:NAME, as in min:loss.")
        return cls(direction, name)

    def cost(self, metrics: Mapping[str, float]) -> float:
        """The figure by which weights are kept: the lower, the better; infinite where it is missing."""
        if self.name not in metrics:
            return math.inf
        return -metrics[self.name] if self.direction == "max" else metrics[self.name]

    def is_unknown(self, metrics: Mapping[str, float]) -> bool:
        """Whether no evaluation has given the metric, the latest included, whose metrics these are."""
        self.seen |= metrics.keys()
        return self.name not in self.seen
