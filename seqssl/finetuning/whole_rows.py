"""Tasks about whole rows: a class, or a number."""

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqssl.config.schema import FinetuneConfig
from seqssl.config.text import matches
from seqssl.data.joining import shared_label
from seqssl.errors import UserError
from seqssl.finetuning.facts import Facts, Labelled, names_in
from seqssl.finetuning.head_start import Linear, classifier, regressor
from seqssl.finetuning.heads import Pool, PooledHead
from seqssl.finetuning.scoring import AUROC, CLASSES, ERRORS, Scored, sums_of_errors
from seqssl.finetuning.supervised import Chosen, Columns, Said, Supervised, keys_and_groups
from seqssl.model.alignment import known_frames
from seqssl.model.bounds import POSITIVE, SHARE
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, Features


class WholeRows(Supervised):
    """A task about rows: its head pools the frames that are not mostly missing."""

    def outputs(self, frames: Features, batch: Batch) -> Tensor:
        """What the head makes of the known frames."""
        known = known_frames(batch, frames.valid, self.model.pretrained.stride)
        made: Tensor = self.model.head(frames.x, known)
        return made

    @torch.no_grad()
    def start(self, batches: Iterable[Batch]) -> str:
        """Fit the head's linear map to the pooled frames of rows."""
        head, vectors, groups = self.model.head, [], []
        wanted: list[float] = []
        assert isinstance(head, PooledHead)
        for batch, _, frames in self.predicted(batches):
            known = known_frames(batch, frames.valid, self.model.pretrained.stride)
            vectors.append(head.pool(frames.x.float(), known).cpu())
            wanted += self.wanted(batch)
            groups += [group for _, group in keys_and_groups(batch)]
        fitted = self.fitted(torch.cat(vectors), wanted, groups)
        head.begin_at(fitted)
        return f"its head starts as a linear fit to {len(groups):,} rows (penalty {fitted.penalty:g})"

    @abstractmethod
    def wanted(self, batch: Batch) -> Sequence[float]:
        """What is to be said of each row, as a number."""

    @abstractmethod
    def fitted(self, vectors: Tensor, wanted: Sequence[float], groups: list[str]) -> Linear:
        """A linear fit to vectors (n, d) of rows."""


class Classify(WholeRows):
    """Tell the class of a row: cross-entropy over the classes of the labels chosen.

    `labels`: shell patterns, separated by commas; one with fewer rows than `min_rows` is left out. `pool`:
    what the frames of a row become.
    """

    term = "classify"
    metrics = (*CLASSES, AUROC)

    def __init__(
        self,
        model: PretrainingModel,
        facts: Facts,
        tuning: FinetuneConfig,
        seed: int,
        *,
        labels: str = "*",
        min_rows: Annotated[int, POSITIVE] = 1,
        pool: Pool = "statistics",
        dropout: Annotated[float, SHARE] = 0.0,
    ) -> None:
        self.names = facts.get("classes", lambda data: names_in(data.labels(), labels, min_rows=min_rows))
        self.number = {name: number for number, name in enumerate(self.names)}
        if len(self.names) < 2:
            raise UserError(f"task.labels = {labels}: all rows have the label {self.names[0]!r}.")
        head = PooledHead(model.input_projection.out_features, len(self.names), pool, dropout)
        super().__init__(model, facts, tuning, seed, head)

    def choose(self, data: Labelled) -> Chosen:
        """The rows with one of the classes; every class must be there to learn from."""
        labels = data.labels()
        learned = {label for label, split in zip(labels, data.corpus.splits, strict=True) if split == "train"}
        check_classes(labels, data.corpus.splits.tolist(), self.names, learned)
        return self.has_label(data)

    def has_label(self, data: Labelled) -> Chosen:
        """The rows with one of the classes."""
        return np.array([label in self.number for label in data.labels()], dtype=bool)

    def wanted(self, batch: Batch) -> list[int]:
        """The number of each row's class; -1 for a label that is none."""
        assert batch.labels is not None
        return [self.number.get(str(shared_label(label)), -1) for label in batch.labels]

    def fitted(self, vectors: Tensor, wanted: Sequence[float], groups: list[str]) -> Linear:
        """Logistic regression."""
        return classifier(vectors, [int(number) for number in wanted], len(self.names), groups)

    def count(self, batch: Batch) -> int:
        """The number of rows."""
        return len(batch.lengths)

    def loss(self, outputs: Tensor, frames: Features, batch: Batch) -> Tensor:
        """Cross-entropy, smoothed as the settings say."""
        wanted = torch.tensor(self.wanted(batch), device=outputs.device)
        smoothing = self.model.tuning.label_smoothing if self.model.training else 0.0
        return F.cross_entropy(outputs, wanted, ignore_index=-1, label_smoothing=smoothing, reduction="sum")

    def said(self, outputs: Tensor, frames: Features, batch: Batch) -> Said:
        """The probability of each class."""
        return list(outputs.softmax(-1).cpu().numpy())

    def scored(self, batch: Batch, said: Said) -> list[Scored]:
        """The class of each row beside the most probable one."""
        return [
            Scored(key, group, wanted, int(scores.argmax()), None, scores)
            for (key, group), wanted, scores in zip(
                keys_and_groups(batch), self.wanted(batch), said, strict=True
            )
        ]

    def columns(self, batch: Batch, said: Said) -> Columns:
        """The label, and the probability of each class."""
        return [
            {
                "label": self.names[int(scores.argmax())],
                "scores": dict(zip(self.names, scores.tolist(), strict=True)),
            }
            for scores in said
        ]


def check_classes(labels: list[str], splits: list[str], names: list[str], learned: set[str]) -> None:
    """UserError where a class has one member, or is missing in what is learned from."""
    known = {*names}
    counts = Counter(label for label in labels if label in known)
    single = [name for name in names if counts[name] < 2]
    if single:
        raise UserError(
            f"{_listed(single, counts)}: a class with one row cannot be both learned and tested. "
            "task.min_rows=2 leaves it out; or choose with task.labels, or label more rows."
        )
    missing = [name for name in names if name not in learned]
    if missing:
        where = Counter(split for label, split in zip(labels, splits, strict=True) if label in missing)
        raise UserError(
            f"{_listed(missing, counts)}: no row of the training split has it (they are all in "
            f"{', '.join(where)}). Leave it out with task.labels, or split otherwise: data.valid_groups, "
            "data.split_by=record."
        )


def _listed(names: list[str], counts: Counter[str]) -> str:
    shown = ", ".join(f"{name} ({counts[name]} rows)" for name in names[:6])
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"the label{'s' if len(names) > 1 else ''} {shown}{more}"


class Regress(WholeRows):
    """Tell a number that is the label of a row: squared error, in standard deviations of the training rows.

    `labels`: shell patterns; what they say before a `*` is taken off ("age/*" reads "age/34" as 34).
    """

    term = "regress"
    metrics = ERRORS

    def __init__(
        self,
        model: PretrainingModel,
        facts: Facts,
        tuning: FinetuneConfig,
        seed: int,
        *,
        labels: str = "*",
        pool: Pool = "statistics",
        dropout: Annotated[float, SHARE] = 0.0,
    ) -> None:
        self.labels = labels
        values = facts.get("numbers", lambda data: self._statistics(data.labels("train")))
        self.mean, self.std = values
        head = PooledHead(model.input_projection.out_features, 1, pool, dropout)
        super().__init__(model, facts, tuning, seed, head)

    def value_of(self, label: str) -> float:
        """The number that a label says; NaN for a row without one, UserError for a label that is none."""
        if not matches(label, self.labels):
            return math.nan
        text = label.rpartition("/")[2] if "/" in self.labels else label
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"task=regress: the label {label!r} is no number. Choose rows with task.labels, or say "
                "task=classify."
            )
        return value

    def _statistics(self, labels: list[str]) -> list[float]:
        values = [value for value in map(self.value_of, labels) if math.isfinite(value)]
        if not values:
            raise UserError(f"task.labels = {self.labels}: no training row has such a label.")
        return [float(np.mean(values)), float(np.std(values)) or 1.0]

    def choose(self, data: Labelled) -> Chosen:
        """The rows with a number."""
        return np.array([math.isfinite(self.value_of(label)) for label in data.labels()], dtype=bool)

    def wanted(self, batch: Batch) -> list[float]:
        """The number of each row."""
        assert batch.labels is not None
        return [self.value_of(str(shared_label(label))) for label in batch.labels]

    def fitted(self, vectors: Tensor, wanted: Sequence[float], groups: list[str]) -> Linear:
        """Ridge."""
        return regressor(vectors, (np.array(wanted)[:, None] - self.mean) / self.std, groups)

    def count(self, batch: Batch) -> int:
        """The number of rows."""
        return len(batch.lengths)

    def loss(self, outputs: Tensor, frames: Features, batch: Batch) -> Tensor:
        """Squared error of the scaled numbers."""
        wanted = torch.tensor(self.wanted(batch), device=outputs.device)
        return (outputs[:, 0] - (wanted - self.mean) / self.std).square().sum()

    def said(self, outputs: Tensor, frames: Features, batch: Batch) -> Said:
        """The number of each row, in the label's unit."""
        return [float(value) for value in outputs[:, 0].cpu().double() * self.std + self.mean]

    def scored(self, batch: Batch, said: Said) -> list[Scored]:
        """Each number beside what was said."""
        return [
            Scored(key, group, wanted, guess, sums_of_errors(np.array([wanted]), np.array([guess])))
            for (key, group), wanted, guess in zip(
                keys_and_groups(batch), self.wanted(batch), said, strict=True
            )
        ]

    def columns(self, batch: Batch, said: Said) -> Columns:
        """The number."""
        return [{"value": value} for value in said]
