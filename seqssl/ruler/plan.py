"""What an evaluation asks for, and which rows each fold learns from and tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqssl.config.schema import RunConfig
from seqssl.data.shards import Corpus
from seqssl.data.windows import WindowedCorpus
from seqssl.errors import UserError
from seqssl.finetuning.supervised import Supervised
from seqssl.finetuning.whole_rows import Classify
from seqssl.ruler.cells import ROWS
from seqssl.ruler.folds import Fold, learnable, make_folds
from seqssl.runs.folder import find_run, init_of, read_provenance

RATES = (5e-4, 3e-3)


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

    def check(self) -> None:
        """UserError for numbers that make no sense."""
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise UserError(f"fractions = {list(self.fractions)}: expected shares above 0, at most 1.")
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
    if not isinstance(task, Classify):
        return _placed(corpus, used, request), None
    classes = [str(label) for label in corpus.labels]
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


def seen_in_pretraining(config: RunConfig) -> tuple[set[str], set[str]] | None:
    """The groups that the pre-trained run has seen, without labels, and the keys of all rows.

    None where its data cannot be opened.
    """
    path, stream = init_of(str(config.init))
    try:
        corpus = Corpus(Path(str(read_provenance(find_run(path)[1], stream)["data"])))
        seen = corpus.rows("train")
        groups, keys = ({str(name) for name in names[seen]} for names in (corpus.groups, corpus.keys))
        return groups - {""}, keys
    except (UserError, KeyError):
        return None
