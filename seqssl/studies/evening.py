"""`seqssl evening`: from a folder to an encoder in the time that there is, and whether it was worth it."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from seqssl.assembly import streams_of
from seqssl.config.schema import RunConfig
from seqssl.config.stages import FOLDER
from seqssl.data.files import Progress, silent, write_atomic
from seqssl.data.prepare import open_or_prepare
from seqssl.doctor import examine
from seqssl.errors import HealthHalt, UserError
from seqssl.evaluation.retrieval import compare_halves
from seqssl.finetuning.facts import relabelled
from seqssl.model.fixed import FixedCodes
from seqssl.model.reconstruction import InputVectors
from seqssl.planning.plan import resolve
from seqssl.report.evening import write_evening
from seqssl.ruler.evaluate import evaluate
from seqssl.ruler.executor import cells_at_once
from seqssl.ruler.plan import Request
from seqssl.ruler.processes import held
from seqssl.runs.choosing import choose_recipe
from seqssl.runs.folder import find_checkpoint, find_run, load
from seqssl.runs.sources import open_source
from seqssl.runs.stages import train_stages
from seqssl.runs.train import train
from seqssl.studies.judges import JUDGES, Costs, Judge, judge_for, measure
from seqssl.studies.looking import scanned, trial_of
from seqssl.studies.pace import CHECKPOINTS, EVALUATED, affordable_size, lengths, seconds_per_update

PLAN, PAGE, RUN = "evening.json", "evening.html", "run"
TRAINING_SHARE = {True: 0.55, False: 0.9}  # of the time, with labels to judge by and without
LONG_H = 1.0  # hours from which a recipe for an evening is taken: so long a training uses up simpler targets
Asked = dict[str, str | list[str]]


@dataclass
class Evening:
    """What was asked, planned and spent, kept beside the run: an interrupted evening goes on with it."""

    asked: Asked  # data and settings
    hours: float
    recipe: str = ""  # "" = nothing is planned yet
    overrides: list[str] = field(default_factory=list)
    judged_by: list[str] = field(default_factory=list)  # a task and its settings; [] = without labels
    num_labels: int = 0  # rows that have one, or windows
    classes: int = 0
    scan: list[str] = field(default_factory=list)  # what was found, in sentences
    stages: dict[str, int] = field(default_factory=dict)  # updates of each stage; 0 = not planned yet
    updates: int = 0  # of the run itself; 0 = not planned yet
    seconds_per_update: float = 0.0
    costs: dict[str, float] = field(default_factory=dict)  # of judging: `Costs`
    judge: int = 0  # which of `JUDGES`
    tuning_updates: int = 0  # of each tuned row; 0 = the judge is not planned yet
    tested: float = 1.0  # the share of the labelled rows that the judge takes
    has_judge: bool = False  # whether the judge is chosen for good: its cells may have begun
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
    cannot be used, and for a folder that holds another evening; HealthHalt, once the page is written, where a
    health policy stopped the training.
    """
    if not 0 < hours <= 1000:
        raise UserError(f"hours = {hours:g}: expected more than 0, at most 1000.")
    out.mkdir(parents=True, exist_ok=True)
    asked: Asked = {
        "source": str(source.resolve()), "recipe": recipe, "labels": labels, "more": list(overrides)
    }  # fmt: skip
    halted: HealthHalt | None = None
    judged: dict[str, Any] = {}
    with held(out):
        work = _Work(_opened(out, asked, hours), out, say, progress)
        try:
            work.keep()  # planning may be interrupted, too
            work.look(source)
            config = work.configured()
            say(work.planned())
            train(config, progress=progress)
            judged = work.judged()
        except HealthHalt as error:
            halted = error
        finally:  # what is interrupted was spent, too
            work.keep()
        values = {
            **asdict(work.plan), "out": str(out), "halted": str(halted or ""), **work.trained(), **judged
        }  # fmt: skip
        write_evening(out / PAGE, values)
    if halted:
        raise HealthHalt(f"{halted}\nHow far it came: {out / PAGE}") from halted
    return values


def _opened(out: Path, asked: Asked, hours: float) -> Evening:
    """The plan that is kept in `out`, or a new one; UserError where `out` holds something else."""
    path = out / PLAN
    if not path.exists():
        if any(each.name != ".lock" for each in out.iterdir()):
            raise UserError(f"out = {out}: the folder is not empty and holds no evening: choose another.")
        return Evening(asked, hours)
    try:
        plan = Evening(**{"hours": hours, **json.loads(path.read_text(encoding="utf-8"))})
    except TypeError:
        raise UserError(f"{path}: another version of seqssl planned it: choose another out=.") from None
    if not plan.recipe:
        return Evening(asked, hours, seconds=plan.seconds)
    if plan.asked != asked:
        raise UserError(f"{out} holds an evening with other data or settings: choose another out=.")
    if plan.hours != hours and (plan.updates or any(plan.stages.values())):
        raise UserError(
            f"hours = {hours:g}: {out} holds an evening of {plan.hours:g} hours, and the lengths of its runs "
            f"are planned for these. Say hours={plan.hours:g} to go on with it, or choose another out=."
        )
    return replace(plan, hours=hours)


@dataclass
class _Work:
    """An evening in progress."""

    plan: Evening
    out: Path
    say: Callable[[str], None]
    progress: Progress

    def __post_init__(self) -> None:
        self._began = time.monotonic() - self.plan.seconds

    def keep(self) -> None:
        """Write the plan, with the time that was spent."""
        self.plan.seconds = time.monotonic() - self._began
        write_atomic(self.out / PLAN, json.dumps(asdict(self.plan), indent=2) + "\n")

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return 3600 * self.plan.hours - (time.monotonic() - self._began)

    @property
    def portion(self) -> float:
        """The share of them that the next part of the training has: others may follow, and then the judge."""
        training = TRAINING_SHARE[bool(self.plan.judged_by)]
        each = training / (len(self.plan.stages) + 1)
        parts = 1 + sum(not updates for updates in self.plan.stages.values())
        return each / (parts * each + 1 - training)

    def look(self, source: Path) -> None:
        """Choose a recipe, its size and the labels to judge by; nothing where that was done before."""
        plan, name, settings = self.plan, str(self.plan.asked["recipe"]), list[str]()
        if plan.recipe:
            self.say("going on with the evening in this folder")
            return
        if name == "auto":
            name, settings, sentence = choose_recipe(source, long=plan.hours >= LONG_H)
            self.say(sentence)
        own = [*settings, f"data={source}", *plan.asked["more"], f"out={self.out / RUN}"]
        found = resolve(name, *own)
        config = found.config
        if len(streams_of(config)) != 1:
            raise UserError(f"recipe = {name}: an evening is for one kind of data.")
        (stream,) = streams_of(config)
        corpus = open_or_prepare(
            stream.adapter, config.data, modality=str(config.modality["target"]), progress=self.progress
        )
        corpus = relabelled(corpus, config.finetune.labels_from)
        trial = trial_of(corpus, stream.adapter, str(plan.asked["labels"]))
        plan.judged_by, plan.num_labels, plan.classes = trial.task, trial.num_labels, trial.classes
        plan.scan = [*scanned(corpus), *trial.words]
        for text in plan.scan:
            self.say(text)
        time_to_train = self.left * TRAINING_SHARE[bool(trial.task)]
        size, why = affordable_size(name, own, time_to_train, self.out / "pace")
        if size:
            own.append(f"size={size}")
            self.say(why)
        plan.recipe, plan.overrides, plan.stages = name, own, dict.fromkeys(found.stages, 0)
        self.keep()

    def configured(self) -> RunConfig:
        """The run with its length, once its stages are trained; lengths that are not planned are found."""
        plan = self.plan
        config = train_stages(
            plan.recipe, *plan.overrides, settings=self._settings_of, progress=self.progress
        )
        if not plan.updates:
            folder = self.out / "pace"
            plan.seconds_per_update = seconds_per_update(config, folder, keep=True)
            if plan.judged_by:
                self._measure_judge(folder)
            shutil.rmtree(folder)
            plan.updates = self._affordable(plan.seconds_per_update)
            self.keep()
        changed = lengths(config, plan.updates).items()
        return replace(config, **{name: replace(getattr(config, name), **values) for name, values in changed})

    def _settings_of(self, stage: str, config: RunConfig) -> list[str]:
        """Overrides for a stage: its length; none for one of an evening that was planned without."""
        if stage not in self.plan.stages:
            return []
        if not self.plan.stages[stage]:
            self.plan.stages[stage] = self._affordable(seconds_per_update(config, self.out / "pace"))
            self.keep()
        self.say(f"plan: {self.plan.stages[stage]:,} updates of the stage {stage}")
        return [
            f"stages.{stage}.{section}.{key}={value}"
            for section, values in lengths(config, self.plan.stages[stage]).items()
            for key, value in values.items()
        ]

    def _affordable(self, pace: float) -> int:
        """How many updates the next part of the training has time for."""
        seconds = self.left * self.portion
        if self.plan.costs:  # it is the last part; what the best judge leaves goes to it
            judge = self._plan_judge(self.left - seconds)
            seconds = self.left - judge.seconds if judge.is_best else seconds
        # Forward alone, as in an evaluation, is a third of an update.
        return max(CHECKPOINTS, int(seconds / (pace * (1 + EVALUATED / 3))))

    def _measure_judge(self, run: Path) -> None:
        """What judging costs, found on a run of a few updates; no judge where that cannot be evaluated."""
        plan = self.plan
        try:
            plan.costs = asdict(measure(run, *plan.judged_by, folder=run / "judge", progress=self.progress))
        except UserError as error:
            plan.judged_by, plan.num_labels, plan.classes = [], 0, 0
            plan.scan.append(f"the encoder is judged without labels: {error}")
            self.say(plan.scan[-1])

    def _plan_judge(self, seconds: float) -> Judge:
        """Plan for the best judge that a time allows; where it allows none, for the least."""
        plan = self.plan
        device = resolve(plan.recipe, *plan.overrides).config.train
        judge = judge_for(seconds, Costs(**plan.costs), cells_at_once(device), plan.num_labels)
        plan.judge, plan.tuning_updates, plan.tested = judge.number, judge.updates, judge.share
        return judge

    def _choose_judge(self) -> None:
        """Choose the judge for good, by the time that is left now; that this is too short is said."""
        seconds = self.left
        judge = self._plan_judge(seconds)
        self.plan.has_judge = True
        self.keep()
        self.say(f"the judge: {self._judge_in_words}, about {judge.seconds / 60:.0f} min")
        if judge.seconds > seconds:
            self.plan.scan.append(
                f"the judge takes about {judge.seconds / 60:.0f} min, more than the hours leave for it"
            )
            self.say(self.plan.scan[-1])

    @property
    def _judge_in_words(self) -> str:
        plan = self.plan
        whole = "labelled rows" if plan.classes else "windows"
        part = f", {plan.tested:.0%} of the {whole}" if plan.tested < 1 else ""
        return f"{plan.tuning_updates} updates a row{part}"

    def planned(self) -> str:
        """The plan in a sentence."""
        plan = self.plan
        judge = f", then the judge: about {self._judge_in_words}" if plan.judged_by else ""
        return f"plan: {plan.recipe}, {plan.updates:,} updates of {plan.seconds_per_update:.2f} s{judge}"

    def trained(self) -> dict[str, Any]:
        """How far the run came, or else its last stage, and what is wrong with it."""
        run = self.out / RUN
        parts = [run, *(run / FOLDER / name for name in reversed(self.plan.stages))]
        begun = next((part for part in parts if (part / "metrics.jsonl").exists()), None)
        if begun is None:
            return {"findings": [], "made": 0, "weights": "", "report": ""}
        health, place = examine(begun), begun.relative_to(self.out).as_posix()
        return {
            "findings": [
                f"{each.symptom}. Likely cause: {each.cause}"
                for each in health.findings
                if not health.has_recovered(each)
            ],
            "made": update_of(begun),
            "weights": place,
            "report": f"{place}/report.html" if (begun / "report.html").exists() else "",
        }

    def judged(self) -> dict[str, Any]:
        """What the ruler says, where there are labels; and what can be said without any."""
        plan, out, run = self.plan, self.out, kept_weights(self.out / RUN)
        corpus, adapter = open_source(run, None, progress=self.progress)
        found: dict[str, Any] = {"weights": run.relative_to(out).as_posix(), "judged_update": update_of(run)}
        try:
            found["halves"] = asdict(compare_halves(load(run), load(run, weights="random"), corpus, adapter))
        except UserError as error:
            found["halves"] = {"problem": str(error)}
        if plan.judged_by:
            if not plan.has_judge:
                self._choose_judge()
            fractions, seeds, rates = JUDGES[plan.judge]
            request = Request(fractions=fractions, seeds=seeds, rates=rates, share=plan.tested)
            try:
                found["evaluation"] = evaluate(
                    run, *plan.judged_by, f"train.num_updates={plan.tuning_updates}", request=request,
                    out=out / RUN / f"evaluation-{plan.judged_by[0]}", say=self.say, progress=self.progress,
                )  # fmt: skip
            except UserError as error:
                found["problem"] = str(error)
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
