"""One cell of the table: one row at one label fraction, seed and fold, trained and tested."""

import hashlib
import json
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqssl.assembly import OpenStream, assemble, build_task, set_scaling, streams_of
from seqssl.config.schema import RunConfig
from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter
from seqssl.data.batching import JOINT
from seqssl.data.files import unlinked
from seqssl.data.shards import Corpus
from seqssl.data.windows import WindowedCorpus
from seqssl.errors import UserError
from seqssl.finetuning.facts import Facts, Labelled
from seqssl.finetuning.scoring import Scored
from seqssl.finetuning.supervised import Supervised
from seqssl.ruler.folds import development
from seqssl.runs.fitting import start_head
from seqssl.runs.precision import resolve_precision
from seqssl.runs.starting import starting_weights
from seqssl.runs.train import resolve_device, trainer_of
from seqssl.training import checkpoint
from seqssl.training.loop import Trainer, Units
from seqssl.training.parallel import Alone

CLASSICAL, RANDOM, SCRATCH, FROZEN, PRETRAINED = "classical", "random", "scratch", "frozen", "pretrained"
ROWS = (CLASSICAL, RANDOM, SCRATCH, FROZEN, PRETRAINED)
WORDS = {
    CLASSICAL: "no encoder",
    RANDOM: "random encoder, frozen",
    SCRATCH: "trained from scratch",
    FROZEN: "pre-trained encoder, frozen",
    PRETRAINED: "pre-trained, fine-tuned",
}


@dataclass(frozen=True)
class Cell:
    """What is learned from and tested on."""

    row: str
    seed: int
    train: np.ndarray  # numbers of rows of the corpus
    test: np.ndarray
    lr: float

    @property
    def name(self) -> str:
        """A name that says everything that decides the result beside the settings that all cells share."""
        digest = hashlib.sha256(b"".join([self.train.tobytes(), b"|", self.test.tobytes()])).hexdigest()[:10]
        return f"{self.row}-seed{self.seed}-lr{self.lr:g}-{digest}"


@dataclass(frozen=True)
class Bench:
    """What all cells share. It is picklable: cells may run in processes of their own."""

    config: RunConfig  # of the fine-tuned run; its `init` is the pre-trained run
    corpus: Corpus | WindowedCorpus
    adapter: ModalityAdapter
    known: Mapping[str, Value]  # facts of the task that are the same in all cells
    folder: Path
    num_threads: int = 1

    def development(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The training rows to learn from and those to choose by: see `folds.development`."""
        windows = self.corpus if isinstance(self.corpus, WindowedCorpus) else None
        return development(rows, self.corpus.groups.tolist(), windows)

    def splits(self, cell: Cell) -> np.ndarray:
        """The split of each row in a cell."""
        splits = np.full(len(self.corpus), "", dtype=object)
        splits[cell.train], splits[cell.test] = "train", "valid"
        return splits


@dataclass(frozen=True)
class Result:
    """The test rows of a cell, scored."""

    rows: list[Scored]
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)


def run_cell(bench: Bench, cell: Cell) -> Result:
    """Train and test; an interrupted cell goes on from its last checkpoint."""
    began = time.monotonic()
    trainer, task = cell_trainer(bench, cell)
    trainer.fit()
    seconds = time.monotonic() - began
    rows = named(task.rows or task.score(trainer.held_out()), bench.corpus)
    data = bench.config.data
    joined = data.join_seconds or data.join_frames  # such rows are scored as one
    scored = sum(row.key.count(JOINT) + 1 if joined else 1 for row in rows)
    if scored != len(cell.test):
        raise AssertionError(f"{len(cell.test)} rows to test, {scored} scored")
    shutil.rmtree(trainer.run)
    return Result(rows, seconds)


def cell_trainer(bench: Bench, cell: Cell) -> tuple[Trainer, Supervised]:
    """What trains a cell, in a folder of its own, and its task, which also tests."""
    torch.set_num_threads(bench.num_threads)
    config, device = configured(bench.config, cell), resolve_device(bench.config.train)
    (stream,) = streams_of(config)
    corpus = bench.corpus.assigned(bench.splits(cell))
    stream = OpenStream(stream.name, config, bench.adapter, corpus=corpus)  # type: ignore[arg-type]
    work = bench.folder / "cells" / cell.name
    work.mkdir(parents=True, exist_ok=True)
    model = assemble(config, [stream])
    set_scaling(model.of(""), corpus.manifest.statistics)
    if config.init is not None and not checkpoint.numbered(work / "checkpoints"):
        starting_weights(model, config.init, config)
    facts = Facts(stream.spec, Labelled(corpus, bench.adapter), bench.known)  # type: ignore[arg-type]
    task = build_task(config, model, [stream], facts)
    assert isinstance(task, Supervised)
    task.model.to(device)
    precision = resolve_precision(config.train, device)
    start_head(task, stream, work, Alone(), device, precision)
    trainer = trainer_of(config, task, [stream], work, device, Alone(), precision, Units(), quiet=True)
    return trainer, task


def configured(config: RunConfig, cell: Cell) -> RunConfig:
    """The settings of a cell: the rows differ in nothing but their first weights and what learns."""
    changed: dict[str, Any] = {"freeze": "encoder"} if cell.row in (RANDOM, FROZEN) else {}
    if cell.row == SCRATCH:  # what is drawn at random has to learn, all of it
        changed = {"freeze": "none", "lora_rank": None, "layer_decay": 1.0}
    return replace(
        config,
        seed=cell.seed,
        init=config.init if cell.row in (FROZEN, PRETRAINED) else None,
        finetune=replace(config.finetune, **changed),
        optim=replace(config.optim, lr=cell.lr),
    )


def named(rows: Sequence[Scored], corpus: Corpus | WindowedCorpus) -> list[Scored]:
    """Scored rows with the names of their groups, where they have the numbers."""
    names = dict(enumerate(sorted({str(group) for group in corpus.groups} - {""})))
    return [replace(row, group=names.get(int(row.group), "")) for row in rows]


def save(result: Result, path: Path) -> None:
    """Write a result; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = result.rows
    table = {
        "keys": np.array([row.key for row in rows]),
        "groups": np.array([row.group for row in rows]),
        "about": np.array(json.dumps({"seconds": result.seconds, **result.details})),
    }
    if all(
        isinstance(row.wanted, int | float | str) and isinstance(row.said, int | float | str) for row in rows
    ):
        table["wanted"] = np.array([row.wanted for row in rows])
        table["said"] = np.array([row.said for row in rows])
    for name in ("sums", "scores"):
        if all(getattr(row, name) is not None for row in rows):
            table[name] = np.stack([getattr(row, name) for row in rows])
    temporary = unlinked(path.with_suffix(".tmp.npz"))
    np.savez_compressed(temporary, **table)  # type: ignore[arg-type]  # names of arrays
    temporary.replace(path)


def read(path: Path) -> Result:
    """What `save` wrote; UserError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as table:
            about = json.loads(str(table["about"]))
            number = len(table["keys"])
            wanted = table["wanted"].tolist() if "wanted" in table else [None] * number
            said = table["said"].tolist() if "said" in table else [None] * number
            scores = list(table["scores"]) if "scores" in table else [None] * number
            keys, groups = table["keys"].tolist(), table["groups"].tolist()
            lines = zip(keys, groups, wanted, said, _sums_of(table, number), scores, strict=True)
            rows = [Scored(*line) for line in lines]
            return Result(rows, float(about.pop("seconds")), about)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, and evaluate again.") from error


def _sums_of(table: Mapping[str, np.ndarray], number: int) -> Sequence[np.ndarray | None]:
    """The sums of each row of a file: none for classes of whole rows, of which older files hold tables."""
    sums = table["sums"] if "sums" in table or "scores" not in table else None
    classes = table["scores"].shape[1] if "scores" in table else 0
    return [None] * number if sums is None or sums.shape[1:] == (classes, classes) else list(sums)
