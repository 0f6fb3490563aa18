"""Which judge of an encoder fits into a time: what its parts cost is measured on this machine first."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seqssl.data.files import Progress, silent
from seqssl.finetuning.head_start import DEV_SHARE, MAX_ROWS
from seqssl.ruler.cells import CLASSICAL, RANDOM, ROWS, SCRATCH, Bench, Cell, cell_trainer
from seqssl.ruler.classical import Classical
from seqssl.ruler.evaluate import DEFAULTS, Work
from seqssl.ruler.executor import cells_at_once
from seqssl.ruler.folds import subset
from seqssl.ruler.plan import RATES, Request
from seqssl.ruler.processes import side_by_side
from seqssl.runs.finetune import configuration
from seqssl.studies.pace import FIRST, LAST, mean_seconds

# The judge, from the best to what a short time allows: fractions of the labels, seeds, learning rates.
JUDGES: tuple[tuple[tuple[float, ...], int, tuple[float, ...]], ...] = (
    ((0.01, 0.1, 1.0), 3, RATES),
    ((0.1, 1.0), 3, RATES),
    ((0.1, 1.0), 3, (3e-4,)),
    ((1.0,), 3, (3e-4,)),
    ((1.0,), 2, (3e-4,)),
)
FEWEST, MOST = 40, 300  # updates of a tuned row
# Of the time of a judge, what may go with the number of labelled rows: where all take more, some are drawn.
ROWS_SHARE = 0.5
FEWEST_ROWS = 500  # that are drawn
NEARLY_ALL = 0.9  # a share for which it is not worth to leave any out
TRIED_ROWS = 32  # labelled rows that are tested and described to see how long one takes
PAIRS = len(ROWS) // 2  # of rows that learn: in each pair one learns as a whole, of one only the head


@dataclass(frozen=True)
class Costs:
    """Seconds that the parts of a judge take on this machine, with as many cells at once as it runs."""

    open: float  # of an evaluation: to open its data
    start: float  # of the processes that cells run in
    begin: float  # of a cell: to begin and end
    update: float  # of a cell that learns as a whole
    head_update: float  # of one whose encoder stays
    test: float  # of a row that a cell tests
    describe: float  # of a row, once, for the method without an encoder
    fit: float  # of a row that this method learns from
    head_fit: float = 0.0  # of a row that a head is fitted to before the first update


@dataclass(frozen=True)
class Timed:
    """What a cell took, in seconds."""

    total: float
    update: float
    test: float  # of all its tested rows
    head_fit: float  # of a head, to as many rows


def time_cell(bench: Bench, cell: Cell) -> Timed:
    """Train and test a cell of `LAST` updates, and fit a head to what it tested."""
    began = time.monotonic()
    trainer, task = cell_trainer(bench, cell)
    trainer.fit()
    total, tested = time.monotonic() - began, time.monotonic()
    task.score(trainer.held_out())
    fitted = time.monotonic()
    task.start(trainer.held_out())
    return Timed(total, mean_seconds(trainer.run), fitted - tested, time.monotonic() - fitted)


def measure(run: Path, task: str, *overrides: str, folder: Path, progress: Progress = silent) -> Costs:
    """What an evaluation of a run costs here, by a few short cells of it; `folder` is left with them.

    UserError where the run cannot be evaluated so.
    """
    began = time.monotonic()
    timing = (f"train.num_updates={LAST}", f"train.log_every={FIRST}", f"optim.warmup_updates={FIRST}")
    # All rows are learned from, of which there may be many, and a few are fitted to.
    config = configuration(run, task, *DEFAULTS, *overrides, *timing, "finetune.head_start=zeros")
    fractions, seeds, rates = JUDGES[-1]
    work = Work.open(config, folder, Request(fractions=fractions, seeds=seeds), progress)
    opening = time.monotonic() - began
    fold, at_once = work.folds[0], cells_at_once(config.train)
    tested = subset(fold.test, work.classes, min(1.0, TRIED_ROWS / len(fold.test)), 0)
    # As many of each kind as run at once, so that they are in each other's way as in the evaluation.
    cells = [
        Cell(row, seed, subset(fold.train, work.classes, 1.0, seed), tested, rates[0])
        for row in (SCRATCH, RANDOM)
        for seed in range(at_once)
    ]
    began = time.monotonic()
    found = list(side_by_side(time_cell, cells, lambda cell: (work.bench, cell), at_once))
    passed = time.monotonic() - began
    timed = {row: [took for cell, took in found if cell.row == row] for row in (SCRATCH, RANDOM)}
    every = [each for times in timed.values() for each in times]
    testing = float(np.mean([each.test for each in every]))
    beginning = float(np.mean([each.total - LAST * each.update - each.test for each in every]))
    describing, fitting = _without_encoder(work, fold.train, tested)
    return Costs(
        open=opening,
        start=max(0.0, passed - sum(each.total + each.test + each.head_fit for each in every) / at_once),
        begin=max(0.0, beginning),
        update=float(np.mean([each.update for each in timed[SCRATCH]])),
        head_update=float(np.mean([each.update for each in timed[RANDOM]])),
        test=testing / len(tested),
        describe=describing,
        fit=fitting,
        head_fit=float(np.mean([each.head_fit for each in every])) / len(tested),
    )


def _without_encoder(work: Work, train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Seconds of a row that the method without an encoder describes, and of one that it learns from."""
    train = subset(train, work.classes, min(1.0, TRIED_ROWS / len(train)), 0)
    cell = Cell(CLASSICAL, 0, train, test, 0.0)
    bench = replace(work.bench, corpus=work.bench.corpus.assigned(work.bench.splits(cell)))
    classical = Classical(bench, work.task, work.metric)
    if not classical.exists:
        return 0.0, 0.0
    first, again = (classical.run(cell).seconds for _ in range(2))  # what was described is kept
    return max(0.0, first - again) / (len(train) + len(test)), again / len(train)


@dataclass(frozen=True)
class Judge:
    """What judges an encoder, and how long that is reckoned to take."""

    number: int  # which of `JUDGES`
    updates: int  # of each tuned row of its table
    share: float  # of the labelled rows, that take part
    seconds: float

    @property
    def is_best(self) -> bool:
        """Whether more time would not make it better."""
        return self.number == 0 and self.updates == MOST and self.share == 1


def judge_for(seconds: float, costs: Costs, at_once: int, rows: int) -> Judge:
    """The best judge that fits into so many seconds; the least of all where none does.

    `at_once`: how many cells run side by side. `rows` are labelled.
    """
    found = [_judge(number, seconds, costs, at_once, rows) for number in range(len(JUDGES))]
    return next((judge for judge in found if judge.seconds <= seconds), found[-1])


def _judge(number: int, seconds: float, costs: Costs, at_once: int, rows: int) -> Judge:
    """A judge with as many of the labelled rows, and then as many updates, as fit; at least the fewest."""
    fractions, seeds, rates = JUDGES[number]
    chosen = len(rates) * seeds if len(rates) > 1 else 0
    pairs = PAIRS * (len(fractions) * seeds + chosen) / at_once  # of cells, one after the other
    parts = max(2, seeds)  # of the rows, of which each cell tests one

    def reading(share: float) -> float:
        """Seconds of everything that each row of a share takes."""
        taken = share * rows
        learned = taken * (1 - 1 / parts)
        fits = seeds * sum(min(MAX_ROWS, part * learned) for part in fractions)
        fits += chosen * min(MAX_ROWS, learned * (1 - DEV_SHARE))
        heads = 2 * PAIRS / at_once * fits * costs.head_fit
        alone = taken * (costs.describe + costs.fit * seeds * sum(fractions))
        return 2 * pairs * taken / parts * costs.test + heads + alone

    share = max(ROWS_SHARE * seconds / max(reading(1.0), 1e-9), FEWEST_ROWS / rows)
    share = 1.0 if share > NEARLY_ALL else share
    fixed = costs.open + costs.start * (2 if chosen else 1) + 2 * pairs * costs.begin + reading(share)
    step = pairs * max(costs.update + costs.head_update, 1e-6)  # an update in each
    updates = min(max(int((seconds - fixed) / step), FEWEST), MOST)
    return Judge(number, updates, share, fixed + updates * step)
