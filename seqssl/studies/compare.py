"""Several recipes side by side: the same data and the same budget, judged alike."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from seqssl.config.schema import RunConfig
from seqssl.data.files import sha256_json, write_atomic
from seqssl.doctor import examine
from seqssl.errors import UserError
from seqssl.evaluation.frames import probe_frames
from seqssl.evaluation.probe import NO_WEIGHTS, RANDOM, TRAINED
from seqssl.planning.plan import resolve
from seqssl.report.drawing import COLORS, cycle, styled, svg
from seqssl.runs.folder import load
from seqssl.runs.sources import open_source
from seqssl.runs.stages import train_stages
from seqssl.runs.train import train
from seqssl.studies.ablation import measured
from seqssl.studies.pace import seconds_per_update
from seqssl.studies.running import QUIET, Plan, Say, Trial, mean_and_error, run_all, told

SEEDS, TUNING, FRAME_ROWS = 2, 200, 100
RECORDS = 20  # of training, by which the health rules judge
COUNTS = {"updates": ".0f", "findings": ".1f"}  # how those are shown that are no measurements
PICTURE = "report.svg"
JUDGED = ("pretrained", "frozen", "scratch", "frames", "frames_random", "frames_input")  # what is drawn
FIGURES = {
    "pretrained": "fine-tuned",
    "frozen": "frozen",
    "scratch": "from scratch",
    "frames": "frames, best layer",
    "frames_random": "the same, random weights",
    "frames_input": "input, no encoder",
    "updates": "updates",
    "minutes": "minutes, all in all",
    "findings": "findings of doctor",
}


@dataclass(frozen=True)
class Budget:
    """How long each recipe is pre-trained, stages included: so many updates, or minutes of training."""

    kind: str
    amount: float

    @classmethod
    def of(cls, text: str) -> "Budget":
        """`updates:N` or `minutes:M`; UserError for anything else."""
        kind, _, amount = text.partition(":")
        try:
            value = float(amount)
        except ValueError:
            value = 0.0
        if kind not in ("updates", "minutes") or value <= 0 or (kind == "updates" and value != int(value)):
            raise UserError(f"budget = {text}: expected updates:N or minutes:M.")
        return cls(kind, value)


def updates_of(config: RunConfig, budget: Budget, share: float, folder: Path) -> int:
    """The updates of a run, or stage, that has this share of the budget; a step is timed if need be."""
    if budget.kind == "updates":
        return max(1, round(budget.amount * share))
    return max(1, round(60 * budget.amount * share / seconds_per_update(config, folder)))


@dataclass(frozen=True)
class Timed:
    """How many updates each stage was found to have time for; an interrupted run goes on with as many."""

    path: Path

    def get(self, stage: str, find: Callable[[], int]) -> int:
        """Those of a stage, found now if they were not before."""
        known: dict[str, int] = json.loads(self.path.read_text()) if self.path.exists() else {}
        if stage not in known:
            known[stage] = find()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(known) + "\n")
        return known[stage]


def pretrain(recipe: str, seed: int, settings: list[str], budget: str, folder: Path) -> dict[str, float]:
    """Pre-train one recipe, stage by stage, within the budget.

    The updates and minutes that it took, and what the health rules find at its end.
    """
    allowed = Budget.of(budget)
    own = [*settings, f"seed={seed}", f"out={folder}", *QUIET]
    stages = resolve(recipe, *own).stages
    share, timing = 1 / (len(stages) + 1), folder.with_name(folder.name + "-timing")
    began, total = time.monotonic(), 0
    timed = Timed(folder.with_name(folder.name + "-updates.json"))
    for stage in stages:
        config = resolve(recipe, *own, f"stage={stage}").config
        updates = timed.get(stage, partial(updates_of, config, allowed, share, timing))
        own.append(f"stages.{stage}.train.num_updates={updates}")
        total += updates
    config = train_stages(recipe, *own, say=None)
    updates = timed.get("", partial(updates_of, config, allowed, share, timing))
    config.train.num_updates = updates
    config.train.eval_every = config.train.save_every = updates
    config.train.log_every = max(1, updates // RECORDS)
    train(config, say=None)
    report = examine(folder)
    return {
        "updates": float(total + updates),
        "minutes": (time.monotonic() - began) / 60,
        "findings": float(sum(not report.has_recovered(finding) for finding in report.findings)),
    }


def judge_task(
    recipe: str, seed: int, pretrained: str, task: list[str], tuning: int, folder: Path
) -> dict[str, float]:
    """What the ruler says of a run: fine-tuned, frozen and from scratch.

    Here and below `recipe` and `seed` tell trials apart whose runs were made by others.
    """
    return measured(_run(folder, pretrained), task, tuning, seed, out=folder)


def judge_frames(recipe: str, seed: int, pretrained: str, frames: str, folder: Path) -> dict[str, float]:
    """The share of frames that a linear layer names: of the trained layers, of random ones, of the input."""
    run = _run(folder, pretrained)
    corpus, adapter = open_source(run, frames)
    trained, random = load(run, device="cpu"), load(run, weights="random", device="cpu")
    scores = probe_frames(trained, random, corpus, adapter, max_rows=FRAME_ROWS, accuracy_only=True).scores
    found = {}
    for name, weights in (("", TRAINED), ("_random", RANDOM), ("_input", NO_WEIGHTS)):
        accuracies = [each.accuracy for each in scores if each.weights == weights]
        if accuracies:
            found[f"frames{name}"] = max(accuracies)
    return found


def _run(judged: Path, pretrained: str) -> Path:
    """The run beside what judges it: OUT/pretrained-1a2b/runs/NAME for OUT/task-3c4d/runs/NAME."""
    return judged.parents[2] / pretrained / "runs" / judged.name


def compare(
    out: Path,
    *,
    recipes: Sequence[str],
    settings: Sequence[str] = (),
    task: Sequence[str] = (),
    frames: str = "",
    budget: str = "updates:300",
    tuning: int = TUNING,
    seeds: int = SEEDS,
    jobs: int = 0,
    say: Say = print,
) -> str:
    """Run the comparison, or what is left of it; the page that it writes, in Markdown.

    `settings` hold for all recipes. `task`: what the ruler judges by, with its settings; `frames`: labelled
    data whose frames are told apart, layer by layer. UserError where neither is given.
    """
    Budget.of(budget)
    if len(set(recipes)) < 2 or not (task or frames):
        raise UserError(
            "compare: name two recipes or more, and what to judge them by: task=... or frames=..."
        )
    if len({Path(recipe).stem for recipe in recipes}) < len(recipes):
        raise UserError(f"recipes = {','.join(recipes)}: two have one name; runs are named after recipes.")
    for recipe in recipes:  # before hours of training
        resolve(recipe, *settings)

    def run(trial: Trial, kind: str, **shared: Any) -> tuple[str, dict[str, dict[str, float]]]:
        # A folder is named after the settings of its figures. So a comparison with another budget, or by
        # something else, takes the runs that it can use, and none that it cannot.
        folder = f"{kind}-{sha256_json(shared)[:8]}"
        plans = [
            Plan(f"{Path(recipe).stem}-{seed}", {"recipe": recipe, "seed": seed, **shared})
            for recipe in recipes
            for seed in range(seeds)
        ]
        return folder, run_all(trial, plans, out / folder, jobs=jobs, say=say)

    pretrained, found = run(pretrain, "pretrained", settings=list(settings), budget=budget)
    parts = [found]
    if frames:
        parts.append(run(judge_frames, "frames", pretrained=pretrained, frames=frames)[1])
    if task:
        parts.append(run(judge_task, "task", pretrained=pretrained, task=list(task), tuning=tuning)[1])
    found = {name: {key: value for part in parts for key, value in part[name].items()} for name in found}
    write_atomic(out / PICTURE, picture(found, recipes, seeds))
    return f"{page(found, recipes, seeds)}\n![each recipe and its references]({PICTURE})\n"


def picture(found: dict[str, dict[str, float]], recipes: Sequence[str], seeds: int) -> str:
    """An SVG: a line for each recipe, the best on top, with what it is compared with."""
    rows = {recipe: [found[f"{Path(recipe).stem}-{seed}"] for seed in range(seeds)] for recipe in recipes}
    judged = [name for name in JUDGED if all(name in each for own in rows.values() for each in own)]
    order = sorted(recipes, key=lambda recipe: mean_and_error([f[judged[0]] for f in rows[recipe]])[0])
    with styled():
        figure = Figure(figsize=(7.2, 0.9 + 0.32 * len(order)), layout="constrained")
        axes = figure.subplots()
        for color, name in zip(cycle(COLORS, len(judged)), judged, strict=True):
            points = [mean_and_error([figures[name] for figures in rows[recipe]]) for recipe in order]
            axes.errorbar(
                [mean for mean, _ in points],
                range(len(order)),
                xerr=[error for _, error in points],
                fmt="o" if name == judged[0] else "|",
                markersize=6 if name == judged[0] else 11,
                color=color,
                label=FIGURES[name],
            )
        axes.set_yticks(range(len(order)), [Path(recipe).stem for recipe in order])
        figure.legend(loc="outside lower center", ncols=len(judged))
        return svg(figure, alone=True)


def page(found: dict[str, dict[str, float]], recipes: Sequence[str], seeds: int) -> str:
    """A row for each recipe, the best first: means over seeds and their standard errors."""
    rows = {recipe: [found[f"{Path(recipe).stem}-{seed}"] for seed in range(seeds)] for recipe in recipes}
    shown = [name for name in FIGURES if all(name in figures for each in rows.values() for figures in each)]
    first = shown[0]
    order = sorted(recipes, key=lambda recipe: -mean_and_error([f[first] for f in rows[recipe]])[0])
    lines = ["| recipe | " + " | ".join(FIGURES[name] for name in shown) + " |"]
    lines.append("| --- |" + " ---: |" * len(shown))
    for recipe in order:
        cells = []
        for name in shown:
            figure = mean_and_error([figures[name] for figures in rows[recipe]])
            cells.append(f"{figure[0]:{COUNTS[name]}}" if name in COUNTS else told(figure))
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
