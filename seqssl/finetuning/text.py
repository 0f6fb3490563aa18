"""Tasks that write the text of a row: CTC and the transducer."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl.config.schema import FinetuneConfig
from seqssl.config.text import matches
from seqssl.errors import UserError
from seqssl.finetuning import tokens as symbols_of
from seqssl.finetuning.facts import Facts, Labelled, common_prefix, refuse_several
from seqssl.finetuning.scoring import TEXTS, Scored, sums_of_texts
from seqssl.finetuning.supervised import Chosen, Columns, Said, Supervised, keys_and_groups
from seqssl.finetuning.tokens import BLANK
from seqssl.model import ctc
from seqssl.model.bounds import POSITIVE
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.transducer import JointNetwork, PredictionNetwork, search, transducer_loss
from seqssl.model.types import Batch, Features

TokenKind = Literal["characters", "wordpieces"]


class Projection(nn.Module):
    """A linear map, swish and batch norm: what stands between encoder and decoder in w2v-BERT (3.3)."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(dim, size), MaskedBatchNorm(size)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Frames (b, s, size)."""
        projected: Tensor = self.norm(F.silu(self.linear(x)), valid)
        return projected


class CtcHead(nn.Module):
    """The projection, and scores of the symbols and the blank for each frame."""

    def __init__(self, dim: int, width: int, size: int) -> None:
        super().__init__()
        self.projection, self.linear = Projection(dim, width), nn.Linear(width, size)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Scores (b, s, size)."""
        scores: Tensor = self.linear(self.projection(x, valid))
        return scores


class TransducerHead(nn.Module):
    """The projection, the prediction network over what was written, and the joint network."""

    def __init__(self, dim: int, width: int, size: int, num_layers: int) -> None:
        super().__init__()
        self.projection = Projection(dim, width)
        self.prediction = PredictionNetwork(size, width, num_layers)
        self.joint = JointNetwork(width, width, size, width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Projected frames (b, s, width); scores need the text, too."""
        projected: Tensor = self.projection(x, valid)
        return projected


class Transcribe(Supervised):
    """What CTC and transducer share: transcripts, symbols, word and character error rates."""

    metrics = TEXTS
    needs_frames: bool  # whether a text may have no more symbols than there are frames

    def _learn_tokens(self, facts: Facts, labels: str, kind: TokenKind, vocab_size: int) -> None:
        self.labels, self.prefix = labels, common_prefix(labels)
        if find_spec("jiwer") is None:
            raise UserError("error rates of texts want jiwer: pip install 'seqssl[text]'")

        def found(data: Labelled) -> Any:
            texts = [self.transcript(label) for label in data.labels("train")]
            texts = [text for text in texts if text]
            if not texts:
                raise UserError(f"task.labels = {labels}: no training row has a transcript.")
            if labels == "*" and all("/" in label and " " not in label for label in data.labels() if label):
                refuse_several(
                    {label: data.labels().count(label) for label in {*data.labels()} - {""}}, "labels"
                )
            return symbols_of.learn(kind, texts, vocab_size)

        self.tokens = symbols_of.open_tokens(kind, facts.get(f"symbols_{kind}", found))

    def transcript(self, label: object) -> str:
        """The text of a label, "" where it has none; those of joined rows are one text."""
        if isinstance(label, tuple):
            return " ".join(filter(None, map(self.transcript, label)))
        text = str(label or "")
        return " ".join(text.removeprefix(self.prefix).split()) if matches(text, self.labels) else ""

    def choose(self, data: Labelled) -> Chosen:
        """The rows with a transcript; UserError for one that is longer than the frames of its row."""
        texts = [self.transcript(label) for label in data.labels()]
        chosen = np.array([bool(text) for text in texts], dtype=bool)
        used = np.array([split != "" for split in data.corpus.splits.tolist()], dtype=bool)
        empty = np.flatnonzero(~chosen & used)
        if len(empty):
            first = data.corpus.keys[empty[0]]
            self.notes.append(
                f"{len(empty)} of {int(used.sum())} rows have an empty transcript, or none, and are left out "
                f"(the first: {first})"
            )
        if self.needs_frames:
            self._check_lengths(data, texts, np.flatnonzero(chosen & used))
        return chosen

    def _check_lengths(self, data: Labelled, texts: Sequence[str], rows: np.ndarray) -> None:
        """UserError where a text has more symbols than its row has frames."""
        lengths = torch.tensor(data.corpus.lengths.tolist())
        frames = self.model.pretrained.feature_encoder.output_lengths(lengths).tolist()
        needed = {row: ctc.fewest_frames(self.tokens.encode(texts[row])) for row in rows.tolist()}
        bad = [row for row, number in needed.items() if number > frames[row]]
        if bad:
            row = bad[0]
            raise UserError(
                f"{len(bad)} rows have a transcript longer than the input: {data.corpus.keys[row]} has "
                f"{frames[row]} frames, {texts[row][:60]!r} takes {needed[row]}. Check these transcripts, "
                "use task.tokens=wordpieces, or task=transducer: it may write several symbols a frame."
            )

    def texts(self, batch: Batch) -> list[str]:
        """The transcript of each row."""
        assert batch.labels is not None
        return [self.transcript(label) for label in batch.labels]

    def symbols(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The symbols of each row, padded with blanks (b, w), and their numbers (b)."""
        found = [torch.tensor(self.tokens.encode(text), dtype=torch.long) for text in self.texts(batch)]
        padded = nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=BLANK)
        device = batch.inputs.device
        return padded.to(device), torch.tensor([len(each) for each in found], device=device)

    def count(self, batch: Batch) -> int:
        """The number of symbols."""
        return sum(len(self.tokens.encode(text)) for text in self.texts(batch))

    def scored(self, batch: Batch, said: Said) -> list[Scored]:
        """The errors of each text."""
        return [
            Scored(key, group, wanted, text, sums_of_texts(wanted, text))
            for (key, group), wanted, text in zip(
                keys_and_groups(batch), self.texts(batch), said, strict=True
            )
        ]

    def columns(self, batch: Batch, said: Said) -> Columns:
        """The text."""
        return [{"text": text} for text in said]


class Ctc(Transcribe):
    """Write the text of a row by connectionist temporal classification (Graves et al. 2006).

    `labels`: shell patterns of the rows to use; what one says before its `*` is taken off. `beam` 1 takes the
    best symbol of each frame.
    """

    term = "ctc"
    needs_frames = True

    def __init__(
        self,
        model: PretrainingModel,
        facts: Facts,
        tuning: FinetuneConfig,
        seed: int,
        *,
        labels: str = "*",
        tokens: TokenKind = "characters",
        vocab_size: Annotated[int, POSITIVE] = 1024,
        width: Annotated[int, POSITIVE] = 640,
        beam: Annotated[int, POSITIVE] = 1,
    ) -> None:
        self._learn_tokens(facts, labels, tokens, vocab_size)
        self.beam = beam
        head = CtcHead(model.input_projection.out_features, width, self.tokens.size)
        super().__init__(model, facts, tuning, seed, head)

    def loss(self, outputs: Tensor, frames: Features, batch: Batch) -> Tensor:
        """Minus the log-probability of the texts over all alignments."""
        symbols, lengths = self.symbols(batch)
        log_probs = outputs.float().log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(log_probs, symbols, frames.lengths, lengths, blank=BLANK, reduction="sum")

    def said(self, outputs: Tensor, frames: Features, batch: Batch) -> Said:
        """The text of each row."""
        tables = outputs.log_softmax(-1).cpu().numpy()
        texts = []
        for table, length in zip(tables, frames.lengths.tolist(), strict=True):
            line = table[:length]
            found = ctc.greedy(line, BLANK) if self.beam == 1 else ctc.beam_search(line, self.beam, BLANK)
            texts.append(self.tokens.decode(found))
        return texts


class Transducer(Transcribe):
    """Write the text of a row by a transducer (RNN-T, 1211.3711), as w2v-BERT is fine-tuned (3.3).

    `width` is that of the projection, of the prediction network's LSTM layers and of the joint network.
    `beam` 1 writes the best symbol until that is the blank, at most `max_symbols` a frame.
    """

    term = "transducer"
    needs_frames = False

    def __init__(
        self,
        model: PretrainingModel,
        facts: Facts,
        tuning: FinetuneConfig,
        seed: int,
        *,
        labels: str = "*",
        tokens: TokenKind = "characters",
        vocab_size: Annotated[int, POSITIVE] = 1024,
        width: Annotated[int, POSITIVE] = 640,
        num_layers: Annotated[int, POSITIVE] = 2,
        beam: Annotated[int, POSITIVE] = 1,
        max_symbols: Annotated[int, POSITIVE] = 5,
    ) -> None:
        self._learn_tokens(facts, labels, tokens, vocab_size)
        self.beam, self.max_symbols = beam, max_symbols
        head = TransducerHead(model.input_projection.out_features, width, self.tokens.size, num_layers)
        super().__init__(model, facts, tuning, seed, head)

    def loss(self, outputs: Tensor, frames: Features, batch: Batch) -> Tensor:
        """Minus the log-probability of the texts over all alignments."""
        symbols, lengths = self.symbols(batch)
        head = self.model.head
        assert isinstance(head, TransducerHead)
        started = F.pad(symbols, (1, 0), value=BLANK)  # the blank stands for the beginning
        texts, _ = head.prediction(started)
        scores = head.joint(outputs, texts).float()
        return transducer_loss(scores, symbols, frames.lengths, lengths, BLANK).sum()

    def said(self, outputs: Tensor, frames: Features, batch: Batch) -> Said:
        """The text of each row."""
        head = self.model.head
        assert isinstance(head, TransducerHead)
        return [
            self.tokens.decode(
                search(
                    line[:length], head.prediction, head.joint, beam=self.beam, max_symbols=self.max_symbols
                )
            )
            for line, length in zip(outputs, frames.lengths.tolist(), strict=True)
        ]
