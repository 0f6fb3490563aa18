"""`seqssl evaluate`: is the pre-trained encoder worth it, and how many labels?"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqssl.assembly import assemble, build_task, set_scaling, streams_of
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, sha256_file, sha256_json, silent, write_atomic
from seqssl.errors import UserError
from seqssl.evaluation.held_out import Seen
from seqssl.finetuning.facts import Labelled
from seqssl.finetuning.scoring import Metric, find_metric, total
from seqssl.finetuning.supervised import Supervised
from seqssl.finetuning.whole_rows import Classify
from seqssl.report.evaluated import write_evaluation_pages
from seqssl.ruler import cells as one
from seqssl.ruler.cells import CLASSICAL, FROZEN, PRETRAINED, RANDOM, Bench, Cell, Result
from seqssl.ruler.classical import Classical
from seqssl.ruler.executor import hardware, run_cells
from seqssl.ruler.folder import changes, check_folder, check_same
from seqssl.ruler.folds import Fold, subset
from seqssl.ruler.pictures import pictures
from seqssl.ruler.plan import Request, check_tuned, folds_of, sources_of
from seqssl.ruler.processes import held
from seqssl.ruler.table import Entry, Table, markdown
from seqssl.runs.finetune import configuration
from seqssl.runs.folder import find_checkpoint, find_run, git_commit, init_of
from seqssl.runs.precision import trusted_precision
from seqssl.runs.sources import seen_by
from seqssl.runs.streams import labelled, opened
from seqssl.runs.train import resolve_device
from seqssl.training.parallel import Alone

DEFAULTS = (
    "train.trackers=[]",
    "train.num_updates=200",
    "train.eval_every=1000000",
    "train.save_every=1000000",
    "train.log_every=1000000",
    "optim.warmup_updates=20",
    "health=off",
)
HEAD_ONLY = (RANDOM, FROZEN)
# Facts that a task takes from the rows it learns from, anew in each cell.
VARIES = ("numbers", "symbols_characters")


def evaluate(
    run: str | Path,
    task: str,
    *overrides: str,
    request: Request,
    data: str | None = None,
    out: str | Path | None = None,
    stream: str = "",
    say: Callable[[str], None] = print,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure the encoder of a run beside its rivals; what is written to evaluation.json.

    Cells that are finished are not run again. UserError for bad input, as of `configuration`.
    """
    began = time.time()
    request.check()
    config = configuration(run, task, *DEFAULTS, *overrides, data=data, stream=stream)
    if config.init is None:
        raise UserError("evaluate compares with the weights of run=RUN: leave init alone.")
    name = "-".join(["evaluation", task.replace(":", "-"), *([stream] if stream else [])])
    folder = Path(out or find_run(init_of(str(config.init))[0])[1] / name).expanduser()
    check_folder(folder)
    work = Work.open(config, folder, request, progress)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        check_same(folder, work.identity())
        for text in work.notes:
            say(text)
        rates = work.choose_rates(say)
        entries = work.entries(rates, say)
        tested = sorted({row.group for e in entries for rows in e.by_seed.values() for row in rows} - {""})
        groups = tested if len(tested) > 1 or request.folds == "split" else []
        table = Table(work.metric, entries, groups, config.train.num_updates, work.task.examples)
        values = {
            "task": task,
            "folder": str(folder),
            "metric": work.metric.name,
            "metric_words": work.metric.words,
            "unit": work.metric.unit,
            "higher_is_better": work.metric.higher_is_better,
            "examples": work.task.examples,
            "groups_held_out": groups,
            "num_units": table.num_units,
            "results": [table.line(entry) for entry in entries],
            "worth": table.worth() if len(table.entries) else {},
            "gain_over_random": table.differences(FROZEN, RANDOM) if {*HEAD_ONLY} <= {*request.rows} else [],
            **work.about(rates, table, entries),
            **(pictures(work.bench, work.task) if request.pictures else {}),
            "seconds": round(time.time() - began, 1),
        }
        write_atomic(folder / "evaluation.json", json.dumps(values, indent=2) + "\n")
        write_atomic(folder / "evaluation.md", markdown(values) + f"\n{values['worth']['sentence']}\n")
        write_evaluation_pages(folder, values)
    return values


@dataclass
class Work:
    """An evaluation in progress."""

    config: RunConfig
    request: Request
    folder: Path
    task: Supervised  # with first weights: for what all cells share
    bench: Bench
    metric: Metric
    folds: list[Fold]
    classes: list[str] | None
    notes: list[str]
    seen: Seen  # by the encoder

    @classmethod
    def open(cls, config: RunConfig, folder: Path, request: Request, progress: Progress) -> "Work":
        """Open the data, and decide who is tested."""
        (stream,) = streams_of(config)
        found = labelled(opened(stream, Alone(), torch.device("cpu"), progress), config.finetune)
        model = assemble(config, [found])
        task = build_task(config, model, [found])
        if not isinstance(task, Supervised):
            raise UserError(f"task = {config.task['target']}: evaluate wants a task with labels.")
        metric = find_metric(task.metrics, request.metric)
        chosen = task.has_label(Labelled(found.corpus, found.adapter))
        rows = task.parts(
            Labelled(found.corpus.assigned(np.where(chosen, found.corpus.splits, "")), found.adapter)
        )
        corpus, notes = rows.corpus, list(task.notes)
        folds, classes = folds_of(corpus, request, task, notes)
        known = {name: value for name, value in task.facts.found.items() if name not in VARIES}
        if "symbols_wordpieces" in known:  # few texts do not give so many pieces
            notes.append("Word pieces are learned once, from the training split with all its labels.")
        if request.folds == "rotate" and request.seeds % len(folds):
            notes.append(
                f"{request.seeds} seeds test {len(folds)} parts in turn: some count more than others."
            )
        if isinstance(task, Classify):
            assert classes is not None
            used = np.concatenate([folds[0].train, folds[0].test])
            splits = np.full(len(corpus), "", dtype=object)
            splits[used] = "train"
            corpus = corpus.assigned(splits)
            task.names = sorted({classes[row] for row in used.tolist()})
            known["classes"] = list(task.names)
            task.number = {name: number for number, name in enumerate(task.names)}
        # Once for all cells, which are then computed alike.
        splits = np.full(len(corpus), "", dtype=object)
        splits[folds[0].train] = "train"
        learned = replace(found, corpus=corpus.assigned(splits), adapter=rows.adapter)
        device = resolve_device(config.train)
        set_scaling(model.of(""), corpus.manifest.statistics)
        precision, warning = trusted_precision(config.train, model.to(device), [learned], device)
        model.cpu()
        notes += [warning] if warning else []
        train = replace(config.train, precision="bfloat16" if precision == torch.bfloat16 else "float32")
        bench = Bench(replace(config, train=train), corpus, rows.adapter, known, folder)
        seen = seen_by(*init_of(str(config.init)))
        work = cls(config, request, folder, task, bench, metric, folds, classes, notes, seen)
        if seen.labelled:
            check_tuned(corpus, work.tested, seen, str(config.init))
            notes.append("The encoder was tuned with labels, but not with those of rows that are tested.")
        return work

    def identity(self) -> str:
        """A digest of everything that a cell's result depends on, beside what is in its name."""
        path = init_of(str(self.config.init))[0]
        saved = find_checkpoint(path, find_run(path)[1], "last").path / "model.safetensors"
        config = asdict(replace(self.bench.config, out=None, init=None))  # with the precision that was found
        config["data"].pop("workers")
        parts = [config, self.bench.corpus.manifest.content_hash, sha256_file(saved)]
        return sha256_json([*parts, *changes(self.bench, self.folds)])

    def choose_rates(self, say: Callable[[str], None]) -> dict[tuple[str, int], float]:
        """A learning rate for each row that learns and each fold: the best on some of its training groups."""
        rates = self.request.rates
        learning = [row for row in self.request.rows if row != CLASSICAL]
        numbers = self._numbered
        if len(rates) == 1:
            return {(row, number): rates[0] for row in learning for number in numbers}
        wanted: dict[tuple[str, int], list[Cell]] = {}
        for number, fold in numbers.items():
            train, held_out = self.bench.development(fold.train)
            if not len(train) or not len(held_out):
                raise UserError(
                    f"lrs = {list(rates)}: fold {number} has too few training rows to choose by. Give one."
                )
            part = subset(train, self.classes, max(self.request.fractions), self.request.first_seed)
            for row in learning:
                wanted[row, number] = [
                    Cell(row, self.request.first_seed, part, held_out, rate) for rate in rates
                ]
        found = self._run(
            [cell for cells in wanted.values() for cell in cells], say, "choosing learning rates"
        )
        sign = 1 if self.metric.higher_is_better else -1
        return {
            place: max(cells, key=lambda cell: sign * self.metric(found[cell.name].rows)).lr
            for place, cells in wanted.items()
        }

    def entries(self, rates: Mapping[tuple[str, int], float], say: Callable[[str], None]) -> list[Entry]:
        """Every cell of the table, run or read."""
        classical = Classical(self.bench, self.task, self.metric)
        rows = [row for row in self.request.rows if row != CLASSICAL or classical.exists]
        if not rows:
            raise UserError(f"rows = {CLASSICAL}: this task has no classical method.")
        plan: dict[tuple[str, float], list[Cell]] = {}
        for seed in self._seeds:
            for fold in self._folds_of(seed):
                for fraction in sorted(self.request.fractions):
                    train = subset(fold.train, self.classes, fraction, seed)
                    for row in rows:
                        cell = Cell(row, seed, train, fold.test, rates.get((row, fold.number), 0.0))
                        plan.setdefault((row, fraction), []).append(cell)
        every = [cell for cells in plan.values() for cell in cells]
        every.sort(key=lambda cell: (cell.seed, len(cell.train)))
        learned = self._run([cell for cell in every if cell.row != CLASSICAL], say, "evaluating")
        for cell in every:
            if cell.row == CLASSICAL:
                path = self._path(cell)
                if not path.exists():
                    one.save(classical.run(cell), path)
                learned[cell.name] = one.read(path)
        entries = []
        for row in rows:
            for fraction in sorted(self.request.fractions):
                cells = plan[row, fraction]
                by_seed = {
                    seed: [r for cell in cells if cell.seed == seed for r in learned[cell.name].rows]
                    for seed in sorted({cell.seed for cell in cells})
                }
                entries.append(
                    Entry(row, fraction, float(np.mean([len(cell.train) for cell in cells])), by_seed)
                )
        self._details = {name: result.details for name, result in learned.items() if result.details}
        return entries

    @property
    def _seeds(self) -> range:
        return range(self.request.first_seed, self.request.first_seed + self.request.seeds)

    def _folds_of(self, seed: int) -> list[Fold]:
        """The folds that a seed tests: one in turn, or all of them."""
        return [self.folds[seed % len(self.folds)]] if self.request.folds == "rotate" else self.folds

    @property
    def _numbered(self) -> dict[int, Fold]:
        """The folds that some seed tests, by number."""
        return {fold.number: fold for seed in self._seeds for fold in self._folds_of(seed)}

    @property
    def tested(self) -> np.ndarray:
        """The rows that are tested, each once."""
        return np.concatenate([fold.test for fold in self._numbered.values()])

    def _path(self, cell: Cell) -> Path:
        judge = f"-{self.metric.name}" if cell.row == CLASSICAL else ""  # by which its method is chosen
        return self.folder / "cells" / f"{cell.name}{judge}.npz"

    def _run(self, wanted: Sequence[Cell], say: Callable[[str], None], what: str) -> dict[str, Result]:
        """The results of cells; those that are on disk are read."""
        names = {cell.name: cell for cell in wanted}
        missing = [cell for cell in names.values() if not self._path(cell).exists()]
        began, done = time.monotonic(), 0
        cost = {cell.name: 0.35 if cell.row in HEAD_ONLY else 1.0 for cell in missing}
        total, spent = sum(cost.values()), 0.0
        for cell, result in run_cells(self.bench, missing, self.request.jobs, self.config):
            one.save(result, self._path(cell))
            done, spent = done + 1, spent + cost[cell.name]
            left = (time.monotonic() - began) / spent * (total - spent)
            value = self.metric(result.rows)
            learned = f"{len(cell.train)} {self.task.examples}"
            say(
                f"{what}: {done} of {len(missing)} | {one.WORDS[cell.row]}, {learned}, "
                f"seed {cell.seed}, lr {cell.lr:g}: {self.metric.name} {value:.3f} in "
                f"{result.seconds:.0f} s | about {left / 60:.1f} min left"
            )
        return {name: one.read(self._path(cell)) for name, cell in names.items()}

    def about(
        self, rates: Mapping[tuple[str, int], float], table: Table, entries: Sequence[Entry]
    ) -> dict[str, Any]:
        """What a skeptic asks: who was tested, what was seen, what was chosen, on what it ran."""
        corpus = self.bench.corpus
        seen, keys = self.seen, sources_of(corpus)[self.tested].tolist()
        by_row: dict[str, list[float]] = {}
        for (row, _), rate in sorted(rates.items()):
            by_row.setdefault(row, []).append(rate)
        found: dict[str, Any] = {
            "folds": self.request.folds,
            "num_test_rows": {str(fold.number): len(fold.test) for fold in self.folds},
            "pretraining_known": seen.is_known,  # whether the next two could be told
            # Windows of one row are a group, which has the name of the row.
            "test_groups_seen_unlabelled_in_pretraining": sorted(
                {*table.groups_held_out} & (seen.groups | seen.keys)
            ),
            "test_rows_seen_unlabelled_in_pretraining": sum(key in seen.keys for key in keys),
            "num_tested": len(keys),
            "learning_rates": by_row,  # of each fold
            "rates_chosen": len(self.request.rates) > 1,
            "num_updates": self.config.train.num_updates,
            "heads_fitted": self.task.is_fitted,
            "run": str(find_run(init_of(str(self.config.init))[0])[1]),
            "init": str(self.config.init),
            "data": f"{corpus.folder.name} ({corpus.manifest.content_hash})",
            "labels": str(self.config.task.get("labels", "*")),
            "notes": self.notes,
            "other_metrics": self._others(entries),
            "classical": sorted({str(d["method"]) for d in self._details.values() if "method" in d}),
            "commit": git_commit(),
            "torch": str(torch.__version__),
            "date": time.strftime("%Y-%m-%d"),
            "hardware": hardware(),
        }
        full = [e for e in entries if e.row == PRETRAINED and e.fraction == max(self.request.fractions)]
        names = getattr(self.task, "names", None)
        if full and names and self.metric.of is not None and len(names) <= 60:
            sums = total([row for rows in full[0].by_seed.values() for row in rows])
            if sums.shape == (len(names), len(names)):
                found["confusion"] = {"labels": list(names), "table": sums.astype(int).tolist()}
        return found

    def _others(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """The other metrics of each entry, mean over seeds."""
        lines = []
        for entry in entries:
            values = {}
            for metric in self.task.metrics:
                if metric.of is None and any(
                    r.scores is None for rows in entry.by_seed.values() for r in rows
                ):
                    continue
                found = [metric(rows) for rows in entry.by_seed.values()]
                known = [value for value in found if np.isfinite(value)]
                values[metric.name] = float(np.mean(known)) if known else None
            lines.append({"row": entry.row, "fraction": entry.fraction, **values})
        return lines
