"""A task of a user's own: pre-training that hides groups from a critic (gradient reversal)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl import Batch, Draws, Output, Plan, PretrainingModel, PretrainTask, held_out_metrics


class WithCritic(nn.Module):
    """The model, and a critic that guesses the group of a row from the mean of its frames."""

    def __init__(self, encoder: PretrainingModel, dim: int, num_groups: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.critic = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 32), nn.ReLU(), nn.Linear(32, num_groups)
        )


class Fair:
    """The critic learns to tell groups; the encoder gets the reverse of its gradient, `strength` times."""

    def __init__(
        self, model: PretrainingModel, groups: tuple[str, ...], seed: int, *, strength: float = 1.0
    ) -> None:
        self.pretrain, self.strength = PretrainTask(model, seed), strength
        self.model = WithCritic(model, model.input_projection.out_features, len(groups))

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        plan = self.pretrain.plan(batch, draws)
        return Plan({**plan.counts, "critic": torch.tensor(len(batch.lengths))}, plan.frames)

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        output = self.pretrain.step(batch, plan, draws)
        frames = self.model.encoder.encode(batch)
        weights = frames.valid[..., None].float()
        pooled = (frames.x * weights).sum(1) / weights.sum(1)
        logits = self.model.critic(reverse(pooled, self.strength))
        loss = F.cross_entropy(logits, batch.groups, reduction="sum")
        sums = {**output.sums, "critic/accuracy": (logits.argmax(-1) == batch.groups).sum()}
        return Output({**output.terms, "critic": loss}, {**output.weights, "critic": 1.0}, sums)

    def summarize(self, sums: dict[str, Tensor], stream: str) -> dict[str, float]:
        return self.pretrain.summarize(sums, stream)

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        return held_out_metrics(self, batches)


def reverse(x: Tensor, strength: float) -> Tensor:
    """`x`, whose gradient is multiplied by -strength."""
    return x.detach() * (1 + strength) - x * strength
