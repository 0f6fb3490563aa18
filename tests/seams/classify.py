"""A task of a user's own: tell the label of a whole row from the mean of its frames."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from seqssl import Batch, Draws, Output, Plan, PretrainingModel, held_out_metrics


class Classifier(nn.Module):
    """The pre-trained encoder, and a linear head on the mean of its frames."""

    def __init__(self, encoder: PretrainingModel, dim: int, num_labels: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(dim, num_labels)


class Classify:
    """Cross-entropy over rows; the labels are those of the corpus."""

    def __init__(self, model: PretrainingModel, labels: tuple[str, ...]) -> None:
        self.labels = {label: number for number, label in enumerate(labels)}
        self.model = Classifier(model, model.input_projection.out_features, len(labels))

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        return Plan({"cross_entropy": torch.tensor(len(batch.lengths))})

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        frames = self.model.encoder.encode(batch)
        weights = frames.valid[..., None].float()
        logits = self.model.head((frames.x * weights).sum(1) / weights.sum(1))
        assert batch.labels is not None
        wanted = torch.tensor([self.labels[str(label)] for label in batch.labels], device=logits.device)
        loss = F.cross_entropy(logits, wanted, reduction="sum")
        correct = (logits.argmax(-1) == wanted).sum()
        return Output({"cross_entropy": loss}, {"cross_entropy": 1.0}, {"cross_entropy/accuracy": correct})

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        return held_out_metrics(self, batches)
