"""What all tasks with labels share: the step, the held-out scores, and what becomes of an update."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor, nn

from seqssl.config.schema import FinetuneConfig
from seqssl.finetuning.facts import Facts, Labelled
from seqssl.finetuning.scoring import Metric, Scored
from seqssl.finetuning.tuned import Tuned
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, Draws, Features, Output, Plan, Stat
from seqssl.training.optim import ParameterGroup
from seqssl.training.tally import Tally
from seqssl.training.tasks import HELD_OUT

FITTED_SHARE = 0.1  # of the learning rate of a head: one that starts at a fit has not far to go
Chosen = npt.NDArray[np.bool_]
Said = list[Any]  # what is said of each row: of a kind of its own for each task
Columns = list[dict[str, Any]]  # the same as columns of a file


class Supervised(ABC):
    """A task with labels on a pre-trained encoder, for the one training loop.

    A task says what a row's label is (`choose`, `count`), what the head gives for it (`outputs`, `loss`), and
    what is said of it in the end (`said`, `scored`).
    """

    term: ClassVar[str]  # the name of its loss
    examples: ClassVar[str] = "labels"  # what is learned from, in a word
    metrics: tuple[Metric, ...]  # the first is the one that decides
    model: Tuned

    def __init__(
        self, model: PretrainingModel, facts: Facts, tuning: FinetuneConfig, seed: int, head: nn.Module
    ) -> None:
        self.facts, self.seed = facts, seed
        self.notes: list[str] = []  # what a person should know of the rows chosen
        self.rows: list[Scored] = []  # of the last evaluation
        self.model = Tuned(model, head, tuning)

    @abstractmethod
    def choose(self, data: Labelled) -> Chosen:
        """Which rows have a label of this task; UserError for one that cannot be used."""

    def has_label(self, data: Labelled) -> Chosen:
        """The same without checks that are about the data's own splits: others will be made."""
        return self.choose(data)

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """What the loss of a batch is a sum over."""

    @abstractmethod
    def loss(self, outputs: Tensor, frames: Features, batch: Batch) -> Tensor:
        """The loss, summed."""

    @abstractmethod
    def said(self, outputs: Tensor, frames: Features, batch: Batch) -> Said:
        """What the model says of each row."""

    @abstractmethod
    def scored(self, batch: Batch, said: Said) -> list[Scored]:
        """Each row's label beside what was said of it."""

    @abstractmethod
    def columns(self, batch: Batch, said: Said) -> Columns:
        """What was said of each row, as the columns of a file."""

    def outputs(self, frames: Features, batch: Batch) -> Tensor:
        """What the head makes of the frames."""
        made: Tensor = self.model.head(frames.x, frames.valid)
        return made

    def read(self, batch: Batch) -> Batch:
        """What the encoder may read of a batch."""
        return batch

    def sums(self, outputs: Tensor, frames: Features, batch: Batch) -> dict[str, Tensor]:
        """Statistics of training that cost next to nothing."""
        return {}

    def start(self, batches: Iterable[Batch]) -> str:
        """Give the head a start by the rows that are learned from; a sentence about it, "" for no start."""
        return ""

    @property
    def is_fitted(self) -> bool:
        """Whether the head starts at a fit."""
        return self.model.tuning.head_start == "fitted" and type(self).start is not Supervised.start

    def parts(self, data: Labelled) -> Labelled:
        """The rows to learn from and to be scored on: parts of the given ones, for tasks about parts."""
        return data

    def parts_to_predict(self, data: Labelled) -> Labelled:
        """The rows that something is said of in a prediction."""
        return data

    def forward(self, batch: Batch, update: int, generator: Generator | None) -> tuple[Tensor, Features]:
        """Outputs and frames; with a generator, as in training."""
        frames = self.model.frames(self.read(batch), update, generator)
        return self.outputs(frames, batch), frames

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """The count of the loss."""
        return Plan({self.term: torch.tensor(self.count(batch))})

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """The forward pass of one micro-batch."""
        update = draws.seed[1]
        training = self.model.training and update != HELD_OUT
        generator = draws.generator(batch.inputs.device) if training else None
        outputs, frames = self.forward(batch, update, generator)
        loss = self.loss(outputs, frames, batch)
        return Output({self.term: loss}, {self.term: 1.0}, self.sums(outputs, frames, batch))

    def after_update(self) -> None:
        """Called by the loop after each optimizer update."""
        self.model.follow()

    def parameter_groups(self) -> list[ParameterGroup]:
        """The head at its rate, the encoder's layers at theirs."""
        return self.model.groups(self.model.tuning.head_rate * (FITTED_SHARE if self.is_fitted else 1.0))

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The loss and all metrics over all rows."""
        tally, rows = Tally(), self.rows
        rows.clear()
        for batch, outputs, frames in self.predicted(batches):
            plan = self.plan(batch, Draws((self.seed, HELD_OUT, 0)))
            loss = self.loss(outputs, frames, batch)
            tally.add(Output({self.term: loss}, {self.term: 1.0}), plan, batch)
            rows += self.scored(batch, self.said(outputs, frames, batch))
        values = {f"{self.term}/{metric.name}": metric(rows) for metric in self.metrics}
        return tally.close() | values

    def score(self, batches: Iterable[Batch]) -> list[Scored]:
        """Every row with what was said of it."""
        return [
            row
            for batch, outputs, frames in self.predicted(batches)
            for row in self.scored(batch, self.said(outputs, frames, batch))
        ]

    @torch.no_grad()
    def predicted(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor, Features]]:
        """Outputs and frames of every batch, in evaluation mode, by the running mean of the weights."""
        device = next(self.model.parameters()).device
        self.model.eval()
        with self.model.averaged():
            for batch in batches:
                moved = batch.to(device)
                outputs, frames = self.forward(moved, HELD_OUT, None)
                yield moved, outputs.float(), frames
        self.model.train()

    def stats(self, stream: str) -> dict[str, tuple[Stat, ...]]:
        """What the metrics mean."""
        stats = [Stat(metric.name, metric.words, metric.unit, short=metric.name) for metric in self.metrics]
        return {self.term: tuple(stats)}


def keys_and_groups(batch: Batch) -> list[tuple[str, str]]:
    """The key of each row and the number of its group, as texts."""
    groups = [-1] * len(batch.keys) if batch.groups is None else batch.groups.tolist()
    return [(key, str(group)) for key, group in zip(batch.keys, groups, strict=True)]
