"""A task of a user's own: write the label of a row, letter by letter (CTC)."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from seqssl import Batch, Draws, Output, Plan, PretrainingModel, held_out_metrics


class Transcriber(nn.Module):
    """The encoder, and a softmax over letters and the blank for each frame."""

    def __init__(self, encoder: PretrainingModel, dim: int, num_letters: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(dim, 1 + num_letters)


class Ctc:
    """The loss is a sum over letters: not over frames, nor over rows."""

    def __init__(self, model: PretrainingModel, labels: tuple[str, ...]) -> None:
        self.letters = sorted({letter for label in labels for letter in label})
        self.model = Transcriber(model, model.input_projection.out_features, len(self.letters))

    def tokens(self, batch: Batch) -> list[list[int]]:
        assert batch.labels is not None
        return [[1 + self.letters.index(letter) for letter in str(label)] for label in batch.labels]

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        return Plan({"ctc": torch.tensor(sum(map(len, self.tokens(batch))))})

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        frames, tokens = self.model.encoder.encode(batch), self.tokens(batch)
        chances = self.model.head(frames.x).float().log_softmax(-1).transpose(0, 1)
        flat = torch.tensor([token for row in tokens for token in row])
        sizes = torch.tensor([len(row) for row in tokens])
        loss = F.ctc_loss(chances, flat, frames.lengths.cpu(), sizes, reduction="sum")
        return Output({"ctc": loss}, {"ctc": 1.0})

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        return held_out_metrics(self, batches)
