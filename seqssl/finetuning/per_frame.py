"""Tasks about frames: the class of each, from labelled stretches of a row."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqssl.config.schema import FinetuneConfig
from seqssl.config.text import matches
from seqssl.errors import UserError
from seqssl.finetuning.facts import Facts, Labelled, names_in
from seqssl.finetuning.head_start import classifier
from seqssl.finetuning.heads import FrameHead
from seqssl.finetuning.scoring import CLASSES, Array, Scored, confusion
from seqssl.finetuning.supervised import Chosen, Columns, Said, Supervised, keys_and_groups
from seqssl.model import kmeans
from seqssl.model.alignment import NONE, labels_of_frames, runs
from seqssl.model.bounds import SHARE
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, Features

MAX_FRAMES = 10_000  # that a head is fitted to


def counted(data: Labelled) -> dict[str, int]:
    """How many segments each label has; UserError where rows have none at all."""
    counts: Counter[str] = Counter()
    given = False
    for _, sample in data.samples():
        given |= sample.segments is not None
        counts.update(str(segment.label) for segment in sample.segments or ())
    if not given:
        raise UserError(
            f"{data.corpus.folder} has no segments: task=tag wants labelled stretches of each row (see the "
            "page of the modality about alignments)."
        )
    return dict(counts)


class Tag(Supervised):
    """Tell the class of each frame, from the segment at its middle: cross-entropy over frames with a label.

    `labels`: shell patterns of segment labels. `background`: a name for frames without a segment; null leaves
    them out.
    """

    term = "tag"
    metrics = CLASSES

    def __init__(
        self,
        model: PretrainingModel,
        facts: Facts,
        tuning: FinetuneConfig,
        seed: int,
        *,
        labels: str = "*",
        background: str | None = None,
        dropout: Annotated[float, SHARE] = 0.0,
    ) -> None:
        self.labels = labels
        names = facts.get("segments", lambda data: self._names(data))
        self.names = [*names, background] if background is not None and background not in names else names
        if len(self.names) < 2:
            raise UserError(f"task.labels = {labels}: all segments have the label {self.names[0]!r}.")
        self.number = {name: number for number, name in enumerate(self.names)}
        self.none = NONE if background is None else self.number[background]
        self.stride = model.stride
        head = FrameHead(model.input_projection.out_features, len(self.names), dropout)
        super().__init__(model, facts, tuning, seed, head)

    def _names(self, data: Labelled) -> list[str]:
        counts = counted(data)
        return names_in([label for label, number in counts.items() for _ in range(number)], self.labels,
                        "labels of segments")  # fmt: skip

    def choose(self, data: Labelled) -> Chosen:
        """The rows with a segment of these labels; with a background, all rows that have been segmented."""
        found = []
        for _, sample in data.samples():
            labels = None if sample.segments is None else [str(segment.label) for segment in sample.segments]
            has_one = labels is not None and any(matches(label, self.labels) for label in labels)
            found.append(has_one or (labels is not None and self.none != NONE))
        return np.array(found, dtype=bool)

    def wanted(self, batch: Batch, num_frames: int) -> Array:
        """The number of each frame's class (b, s); -1 where it has none, and on padding."""
        assert batch.segments is not None
        lengths = self.model.pretrained.feature_encoder.output_lengths(batch.lengths.cpu()).tolist()
        table = np.full((len(lengths), num_frames), NONE)
        for line, length, segments in zip(table, lengths, batch.segments, strict=True):
            line[:length] = labels_of_frames(segments, length, self.stride, self.number, self.none)
        return table

    def start(self, batches: Iterable[Batch]) -> str:
        """Fit the head's linear map to frames with a label, drawn evenly."""
        groups: dict[str, int] = {}

        def described() -> Iterator[Tensor]:
            """Frames with a label, each with its class and the number of its group behind its values."""
            for batch, _, frames in self.predicted(batches):
                wanted = torch.from_numpy(self.wanted(batch, frames.x.shape[1]))
                own = [groups.setdefault(group, len(groups)) for _, group in keys_and_groups(batch)]
                more = torch.stack([wanted, torch.tensor(own)[:, None].expand_as(wanted)], -1)
                yield torch.cat([frames.x.float().cpu(), more], -1)[wanted != NONE]

        found, _ = kmeans.sample(described(), MAX_FRAMES, torch.Generator().manual_seed(self.seed))
        x, classes, owners = found[:, :-2], found[:, -2].long().tolist(), found[:, -1].long().tolist()
        fitted = classifier(x, classes, len(self.names), [str(owner) for owner in owners])
        head = self.model.head
        assert isinstance(head, FrameHead)
        head.begin_at(fitted)
        return f"its head starts as a linear fit to {len(x):,} frames (penalty {fitted.penalty:g})"

    def count(self, batch: Batch) -> int:
        """The number of frames with a label."""
        lengths = self.model.pretrained.feature_encoder.output_lengths(batch.lengths.cpu())
        return int((self.wanted(batch, int(lengths.max())) != NONE).sum())

    def loss(self, outputs: Tensor, frames: Features, batch: Batch) -> Tensor:
        """Cross-entropy, smoothed as the settings say."""
        wanted = torch.from_numpy(self.wanted(batch, outputs.shape[1])).to(outputs.device)
        smoothing = self.model.tuning.label_smoothing if self.model.training else 0.0
        return F.cross_entropy(
            outputs.transpose(1, 2), wanted, ignore_index=NONE, label_smoothing=smoothing, reduction="sum"
        )

    def said(self, outputs: Tensor, frames: Features, batch: Batch) -> Said:
        """The most probable class of each frame."""
        guesses = outputs.argmax(-1).cpu().numpy()
        return [line[:length] for line, length in zip(guesses, frames.lengths.tolist(), strict=True)]

    def scored(self, batch: Batch, said: Said) -> list[Scored]:
        """The confusion of the frames of each row."""
        table = self.wanted(batch, max(map(len, said)))
        rows = []
        for (key, group), wanted, guess in zip(keys_and_groups(batch), table, said, strict=True):
            known = wanted[: len(guess)] != NONE
            sums = confusion(wanted[: len(guess)][known], guess[known], len(self.names))
            rows.append(Scored(key, group, wanted[: len(guess)], guess, sums))
        return rows

    def columns(self, batch: Batch, said: Said) -> Columns:
        """Stretches of frames with one class, in input steps."""
        rows = []
        for guess, length in zip(said, batch.lengths.tolist(), strict=True):
            found = []
            for start, end in runs(guess):
                last = length if end == len(guess) else min(int(end * self.stride), length)
                label = self.names[int(guess[start])]
                found.append({"start": int(start * self.stride), "end": last, "label": label})
            rows.append({"segments": found})
        return rows
