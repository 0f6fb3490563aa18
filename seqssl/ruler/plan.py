"""What an evaluation asks for, and which rows each fold learns from and tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqssl.data.shards import Corpus
from seqssl.data.windows import WindowedCorpus
from seqssl.errors import UserError
from seqssl.evaluation.held_out import Seen
from seqssl.finetuning.supervised import Supervised
from seqssl.finetuning.whole_rows import Classify
from seqssl.ruler.cells import ROWS
from seqssl.ruler.folds import Fold, learnable, make_folds, subset

RATES = (1e-4, 1e-3)


@dataclass(frozen=True)
class Request:
    """What is to be measured."""

    fractions: Sequence[float] = (0.01, 0.1, 1.0)
    seeds: int = 3
    folds: str = "rotate"
    rows: Sequence[str] = ROWS
    metric: str = ""
    first_seed: int = 0
    rates: Sequence[float] = RATES
    jobs: int = 0  # cells at once; 0 = one for each core, or one on a GPU
    pictures: bool = True  # of embeddings and codes, for the report
    share: float = 1.0  # of the labelled rows that take part at all; which ones is drawn once

    def check(self) -> None:
        """UserError for numbers that make no sense."""
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise UserError(f"fractions = {list(self.fractions)}: expected shares above 0, at most 1.")
        if not 0 < self.share <= 1:
            raise UserError(f"share = {self.share:g}: expected more than 0, at most 1.")
        if self.seeds < 1 or self.jobs < 0:
            raise UserError("seeds must be at least 1, jobs at least 0.")
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise UserError(f"lrs = {list(self.rates)}: expected learning rates above 0.")
        unknown = [row for row in self.rows if row not in ROWS]
        if unknown or not self.rows:
            raise UserError(f"rows = {','.join(self.rows)}: expected some of {', '.join(ROWS)}.")


def folds_of(
    corpus: Any, request: Request, task: Supervised, notes: list[str]
) -> tuple[list[Fold], list[str] | None]:
    """The folds over row numbers of the corpus, and the class of every row, if there are classes."""
    used = np.flatnonzero(corpus.splits != "")
    classes = [str(label) for label in corpus.labels]
    if request.share < 1:
        kinds, every = classes if isinstance(task, Classify) else None, len(used)
        used = subset(used, kinds, request.share, request.first_seed)
        what = ("labelled rows", "share of each label") if kinds else (task.examples, "share")
        notes.append(f"{len(used):,} of the {every:,} {what[0]} take part: a {what[1]}, drawn once.")
    if not isinstance(task, Classify):
        return _placed(corpus, used, request), None
    known = {*task.names}
    while True:
        used = np.array([row for row in used.tolist() if classes[row] in known], dtype=np.int64)
        if len({classes[row] for row in used.tolist()}) < 2:
            raise UserError(
                "fewer than two labels have rows to learn from in every fold: choose other folds, or label "
                "more rows."
            )
        folds = _placed(corpus, used, request)
        before, known = len(known), {*learnable(classes, folds)}
        if len(known) == before:  # else folds without these rows are other folds
            break
    left = sorted({*task.names} - known)
    if left:
        notes.append(
            f"{len(left)} labels without rows to learn from in some fold are left out: "
            f"{', '.join(left[:6])}{', ...' if len(left) > 6 else ''}"
        )
    return folds, classes


def _placed(corpus: Any, used: np.ndarray, request: Request) -> list[Fold]:
    groups, splits = corpus.groups[used].tolist(), corpus.splits[used].tolist()
    if isinstance(corpus, WindowedCorpus) and len(set(groups)) < 2:
        raise UserError(
            "all windows are of one row, and overlap: what is tested would be learned. Prepare the series as "
            "several rows or groups."
        )
    found = make_folds(groups, splits, request.folds, request.seeds)
    return [Fold(fold.number, used[fold.train], used[fold.test]) for fold in found]


def sources_of(corpus: Corpus | WindowedCorpus) -> np.ndarray:
    """The key of each prepared row, or of that which a window is of."""
    return corpus.sources if isinstance(corpus, WindowedCorpus) else corpus.keys


def check_tuned(corpus: Corpus | WindowedCorpus, tested: np.ndarray, seen: Seen, run: str) -> None:
    """UserError where the encoder has learned from the labels of rows that are to be tested."""
    known = {*sources_of(corpus)[tested].tolist()} & seen.labelled
    if known:
        raise UserError(
            f"{run}: its encoder was tuned on the labels of {len(known)} tested rows: take the run that it "
            "began from."
        )
