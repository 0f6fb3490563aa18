"""`seqssl evening`: from a folder to an encoder in the time that there is, and whether it was worth it."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqssl.assembly import streams_of
from seqssl.config.schema import RunConfig
from seqssl.config.text import matches
from seqssl.data.files import Progress, silent, write_atomic
from seqssl.data.prepare import open_or_prepare
from seqssl.data.shards import Corpus
from seqssl.doctor import examine
from seqssl.errors import HealthHalt, UserError
from seqssl.evaluation.retrieval import compare_halves
from seqssl.finetuning.facts import refuse_several
from seqssl.model.fixed import FixedCodes
from seqssl.model.reconstruction import InputVectors
from seqssl.planning.plan import resolve
from seqssl.report.evening import write_evening
from seqssl.ruler.evaluate import evaluate
from seqssl.ruler.executor import cells_at_once
from seqssl.ruler.folds import learnable, make_folds
from seqssl.ruler.plan import Request
from seqssl.ruler.processes import held
from seqssl.runs.choosing import choose_recipe
from seqssl.runs.folder import find_checkpoint, find_run, load
from seqssl.runs.sources import open_source
from seqssl.runs.stages import train_stages
from seqssl.runs.streams import hours as hours_of
from seqssl.runs.train import train
from seqssl.studies.pace import JUDGES, affordable_size, judge_for, seconds_per_update

PLAN, PAGE, RUN, EVALUATION = "evening.json", "evening.html", "run", "run/evaluation-classify"
TRAINING_SHARE = {True: 0.55, False: 0.9}  # of the time, with labels to judge by and without
FEWEST_OF_CLASS = 4  # rows: to learn from, to choose by, and to be tested
CHECKPOINTS = 12
EVALUATED = 0.25  # held-out batches at most, as a share of those that were trained on since the last time


@dataclass
class Evening:
    """What was planned, kept beside the run so that an interrupted evening goes on with it."""

    recipe: str
    overrides: list[str]
    hours: float
    updates: int
    seconds_per_update: float
    patterns: str  # of the labels that are told apart; "" = there are none
    num_labels: int
    classes: int
    judge: int  # which of `JUDGES`
    tuning_updates: int
    scan: list[str]  # what was found, in sentences
    seconds: float = 0.0  # spent so far


def evening(
    source: Path,
    out: Path,
    *overrides: str,
    recipe: str = "auto",
    labels: str = "",
    hours: float = 5.0,
    say: Callable[[str], None] = print,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Look, plan, train and judge, or go on with it; what the page holds.

    `labels`: patterns of the labels to tell apart; "" = all, if rows have any. Raises UserError for data that
    cannot be used, and for a folder that holds another evening.
    """
    if not 0 < hours <= 1000:
        raise UserError(f"hours = {hours:g}: expected more than 0, at most 1000.")
    out.mkdir(parents=True, exist_ok=True)
    with held(out):
        began = time.monotonic()
        plan = _planned(source, out, overrides, recipe, labels, hours, say, progress)
        config = _configured(plan, out)
        say(
            f"plan: {plan.recipe}, {plan.updates:,} updates of {plan.seconds_per_update:.2f} s"
            + (f", then the judge: {plan.tuning_updates} updates a row" if plan.patterns else "")
        )
        halted = ""
        try:
            train(config, progress=progress)
            judged = _judged(plan, out, say, progress)
        except HealthHalt as error:
            halted, judged = str(error), {}
        finally:  # what is interrupted was spent, too
            plan.seconds += time.monotonic() - began
            _keep(plan, out)
        health = examine(out / RUN)
        values = {
            **asdict(plan),
            "out": str(out),
            "findings": [each.symptom for each in health.findings if not health.has_recovered(each)],
            "halted": halted,
            **judged,
        }
        write_evening(out / PAGE, values)
    return values


def _planned(
    source: Path,
    out: Path,
    overrides: Sequence[str],
    recipe: str,
    labels: str,
    hours: float,
    say: Callable[[str], None],
    progress: Progress,
) -> Evening:
    """The plan that is kept in `out`, or a new one."""
    path = out / PLAN
    asked = {"source": str(source.resolve()), "recipe": recipe, "labels": labels, "more": list(overrides)}
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("asked") != asked:
            raise UserError(f"{out} holds an evening with other data or settings: choose another out=.")
        if kept:
            say("going on with the evening in this folder")
            return Evening(**kept)
    elif any(each.name != ".lock" for each in out.iterdir()):
        raise UserError(f"out = {out}: the folder is not empty and holds no evening: choose another.")
    began = time.monotonic()
    write_atomic(path, json.dumps({"asked": asked}) + "\n")  # planning may be interrupted, too
    name, settings = recipe, list[str]()
    if recipe == "auto":
        name, settings, sentence = choose_recipe(source)
        say(sentence)
    own = [*settings, f"data={source}", *overrides, f"out={out / RUN}"]
    config = resolve(name, *own).config
    if len(streams_of(config)) != 1:
        raise UserError(f"recipe = {name}: an evening is for one kind of data.")
    (stream,) = streams_of(config)
    corpus = open_or_prepare(
        stream.adapter, config.data, modality=str(config.modality["target"]), progress=progress
    )
    patterns, counts, problem = labels_of(corpus, labels)
    scan = scanned(corpus, counts, problem)
    for text in scan:
        say(text)
    share = TRAINING_SHARE[bool(counts)]
    size, why = affordable_size(name, own, 3600 * hours * share, out / "pace")
    if size:
        own.append(f"size={size}")
        say(why)
    config = train_stages(name, *own)
    pace, processes = seconds_per_update(config, out / "pace")
    left = 3600 * hours - (time.monotonic() - began)
    updates, judge, tuning = _lengths(config, left, share, pace, processes)
    plan = Evening(
        name, own, hours, updates, pace, patterns if counts else "", sum(counts.values()), len(counts), judge,
        tuning, scan,
    )  # fmt: skip
    write_atomic(path, json.dumps({**asdict(plan), "asked": asked}, indent=2) + "\n")
    return plan


def _lengths(
    config: RunConfig, left: float, share: float, pace: float, processes: int
) -> tuple[int, int, int]:
    """Updates of the run, which judge, and updates of its tuned rows, for the seconds that are left."""
    updates = left * share / (pace * (1 + EVALUATED / 3))  # forward alone is a third of a step
    # Cells of the judge have a thread each: what processes share in training, one does there. And an update
    # of theirs is one batch.
    alone = pace * processes / config.train.accumulate
    judge, tuning = judge_for(left * (1 - share), alone, cells_at_once(config.train))
    return max(CHECKPOINTS, int(updates)), judge, tuning


def _keep(plan: Evening, out: Path) -> None:
    """Write the plan again, with the time that was spent."""
    asked = json.loads((out / PLAN).read_text(encoding="utf-8"))["asked"]
    write_atomic(out / PLAN, json.dumps({**asdict(plan), "asked": asked}, indent=2) + "\n")


def _configured(plan: Evening, out: Path) -> RunConfig:
    """The run, with its length, a warm-up that leaves most of it, and checkpoints against interruptions."""
    config = train_stages(plan.recipe, *plan.overrides)
    every = max(1, plan.updates // CHECKPOINTS)
    config.out, config.train.num_updates = str(out / RUN), plan.updates
    config.optim.warmup_updates = min(config.optim.warmup_updates, plan.updates // 10)
    # Of much data little is seen in an evening: passes over all that is held out would take most of it.
    most = max(8, round(every * config.train.accumulate * EVALUATED))
    config.train.eval_batches = min(config.train.eval_batches or most, most)
    config.train.eval_every = config.train.save_every = every
    config.train.log_every = max(1, every // 10)
    return config


def labels_of(corpus: Corpus, wanted: str) -> tuple[str, Counter[str], str]:
    """The patterns, the rows of each label that they choose, and why labels cannot be told apart, else "".

    A label counts with enough rows. Without patterns, labels that are nearly all different (texts, numbers)
    are none to tell apart. UserError where `wanted` names labels that cannot be told apart.
    """
    patterns = wanted or "*"
    every = Counter(str(label) for label in corpus.labels if label and matches(str(label), patterns))
    counts = Counter({label: count for label, count in every.items() if count >= FEWEST_OF_CLASS})
    if wanted and len(counts) < 2:
        known = ", ".join(f"{label} ({count})" for label, count in every.most_common(6)) or "none"
        raise UserError(
            f"labels = {wanted}: two labels with {FEWEST_OF_CLASS} rows each are needed; they choose {known}."
        )
    if len(counts) < 2 or (not wanted and 2 * sum(counts.values()) < sum(every.values())):
        return patterns, Counter(), ""
    problem = untellable(corpus, patterns, counts)
    if problem and wanted:
        raise UserError(f"labels = {wanted}: {problem}")
    return patterns, Counter() if problem else counts, problem


def untellable(corpus: Corpus, patterns: str, counts: Counter[str]) -> str:
    """Why labels cannot be told apart on groups that are held out; "" where they can."""
    if patterns == "*":
        try:
            refuse_several(Counter(str(label) for label in corpus.labels if label), "labels", "labels")
        except UserError as error:
            return str(error)
    rows = [number for number, label in enumerate(corpus.labels) if str(label) in counts]
    classes = [str(corpus.labels[row]) for row in rows]
    groups, splits = corpus.groups[rows].tolist(), corpus.splits[rows].tolist()
    for seeds in sorted({seeds for _, seeds, _ in JUDGES}):
        if len(learnable(classes, make_folds(groups, splits, Request.folds, seeds))) < 2:
            return (
                "most labels are of one group alone: with groups held out, nothing is left to learn them by. "
                "If groups are something else (people, places), say so, as by modality.group_pattern=REGEX."
            )
    return ""


def scanned(corpus: Corpus, counts: Counter[str], problem: str = "") -> list[str]:
    """What was found in the data, in sentences; `problem`: why labels are not used."""
    rows = sum(split.num_rows for split in corpus.manifest.splits.values())
    known = [split.hours for split in corpus.manifest.splits.values() if split.hours is not None]
    amount = f", {hours_of(sum(known))}" if known else ""
    groups = len({str(group) for group in corpus.groups} - {""})
    found = [
        f"{rows:,} rows{amount}" + (f" of {groups} groups (people, places, pieces)" if groups > 1 else "")
    ]
    if corpus.manifest.num_rejected:
        found.append(
            f"{corpus.manifest.num_rejected} files or rows could not be used: rejected.jsonl says why"
        )
    if counts:
        some = ", ".join(f"{label} ({count})" for label, count in counts.most_common(5))
        found.append(f"{len(counts)} labels on {sum(counts.values()):,} rows: {some}"
                     + (", ..." if len(counts) > 5 else ""))  # fmt: skip
    else:
        found.append(
            f"no labels to tell apart: the encoder is judged without{f' ({problem})' if problem else ''}"
        )
    return found


def kept_weights(run: Path) -> Path:
    """The checkpoint to go on with: the best on held-out data where losses can be compared, else the last.

    They can where targets stay as they are. Learned targets grow easier or harder as they change, and so does
    the loss. With little data and many hours, the last weights know the training rows by heart.
    """
    best = run / "checkpoints" / "best"
    stay = best.exists() and isinstance(load(run).model.targets, FixedCodes | InputVectors)
    return best if stay else run


def update_of(path: Path) -> int:
    """How many updates made the weights of a run, or of a checkpoint."""
    return find_checkpoint(path, find_run(path)[1], "last").state["update"]


def _judged(plan: Evening, out: Path, say: Callable[[str], None], progress: Progress) -> dict[str, Any]:
    """What the ruler says, where there are labels; and what can be said without any."""
    run = kept_weights(out / RUN)
    corpus, adapter = open_source(run, None, progress=progress)
    found: dict[str, Any] = {"weights": run.relative_to(out).as_posix(), "judged_update": update_of(run)}
    try:
        found["halves"] = asdict(compare_halves(load(run), load(run, weights="random"), corpus, adapter))
    except UserError as error:
        found["halves"] = {"problem": str(error)}
    if plan.patterns:
        fractions, seeds, rates = JUDGES[plan.judge]
        request = Request(fractions=fractions, seeds=seeds, rates=rates)
        chosen = [] if plan.patterns == "*" else [f"task.labels={json.dumps(plan.patterns)}"]
        try:
            found["evaluation"] = evaluate(
                run, "classify", *chosen, f"task.min_rows={FEWEST_OF_CLASS}",
                f"train.num_updates={plan.tuning_updates}", request=request, out=out / EVALUATION, say=say,
                progress=progress,
            )  # fmt: skip
        except UserError as error:
            found["problem"] = str(error)
    return found
