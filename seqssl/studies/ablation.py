"""Where should the blocks be split between the two losses, and is the second loss needed?

The referee is fine-tuning on held-out groups, not the pretext loss: each variant is pre-trained alike, then
tuned and tested as `seqssl evaluate` does. Beside them stands the same encoder from scratch, once: before
pre-training the variants are the same model.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqssl.config import components
from seqssl.config.schema import RunConfig
from seqssl.planning.plan import resolve
from seqssl.ruler.evaluate import evaluate
from seqssl.ruler.plan import Request
from seqssl.studies.running import (
    ERRORS,
    Claim,
    Plan,
    Say,
    claims_table,
    is_above,
    mean_and_error,
    pretrain,
    run_all,
    told,
)

UPDATES, TUNING, SEEDS = 230, 80, 3
ALL_ROWS = ("scratch", "frozen", "pretrained")
RATE = 1e-3


def variants(config: RunConfig) -> dict[str, list[str]]:
    """Settings of each variant by its name, from the number of blocks of the recipe."""
    top = config.encoder.num_layers
    splits = sorted({1, max(1, top // 2), max(1, top - 1)})
    found = {
        f"both, split at {layer} of {top}": [f"encoder.taps={{contrastive: {layer}, output: {top}}}"]
        for layer in splits
    }
    found["contrastive only"] = [
        "objectives.masked_prediction=null",
        f"encoder.taps={{contrastive: {top}}}",
    ]
    return found


def trial(
    recipe: list[str],
    settings: list[str],
    task: list[str],
    seed: int,
    updates: int,
    tuning: int,
    rows: list[str],
    folder: Path,
) -> dict[str, float]:
    """Pre-train a variant, and tune it; the metric of each of `rows`."""
    name, *rest = recipe
    pretrain(name, *rest, *settings, seed=seed, updates=updates, folder=folder)
    return measured(folder, task, tuning, seed, rows)


def measured(
    run: Path,
    task: list[str],
    tuning: int,
    seed: int,
    rows: Sequence[str] = ALL_ROWS,
    out: Path | None = None,
    folds: str = "3",
) -> dict[str, float]:
    """What the ruler says of a run, on all labels: the metric of each row.

    `folds`: as of `seqssl evaluate`; "rotate" tests one half of the groups, another for the next seed. The
    evaluation lies in `out`, else in the run's own folder.
    """
    kind, *settings = task
    request = Request(
        fractions=(1.0,), seeds=1, first_seed=seed, folds=folds, rates=(RATE,), jobs=1, rows=tuple(rows),
        pictures=False,
    )  # fmt: skip
    values: dict[str, Any] = evaluate(
        run, kind, *settings, f"train.num_updates={tuning}", "train.device=cpu", request=request,
        out=out or run / "evaluation", say=lambda text: None,
    )  # fmt: skip
    sign = 1 if values["higher_is_better"] else -1  # so that more is better, whatever the metric
    return {entry["row"]: sign * entry["mean"] for entry in values["results"]}


def ablation(
    out: Path,
    *,
    recipe: list[str],
    task: list[str],
    updates: int = UPDATES,
    tuning: int = TUNING,
    seeds: int = SEEDS,
    jobs: int = 0,
    say: Say = print,
) -> str:
    """Run the study, or what is left of it; the page that it writes, in Markdown."""
    name, *rest = recipe
    components.locate(task[0], "task")  # a name that nobody knows is said before anything is trained
    chosen = variants(resolve(name, *rest).config)
    plans = [
        Plan(
            f"{_slug(variant)}-{seed}",
            {"recipe": recipe, "settings": settings, "task": task, "seed": seed, "updates": updates,
             "tuning": tuning, "rows": ["scratch", "pretrained"] if number == 0 else ["pretrained"]},
        )
        for number, (variant, settings) in enumerate(chosen.items())
        for seed in range(seeds)
    ]  # fmt: skip
    found = run_all(trial, plans, out / "trials", jobs=jobs, say=say)

    def of(variant: str, row: str) -> tuple[float, float]:
        return mean_and_error([found[f"{_slug(variant)}-{seed}"][row] for seed in range(seeds)])

    table = {variant: of(variant, "pretrained") for variant in chosen}
    scratch = of(next(iter(chosen)), "scratch")
    lines = ["| variant | fine-tuned |", "| --- | ---: |"]
    for variant, figure in [*table.items(), ("from scratch", scratch)]:
        lines.append(f"| {variant} | {told(figure)} |")
    return "\n".join(lines) + "\n\n" + claims_table(claims(table, scratch))


def claims(table: dict[str, tuple[float, float]], scratch: tuple[float, float]) -> list[Claim]:
    """What the paper says of its ablations (2108.06209, 4.3), on this data."""
    both = {name: value for name, value in table.items() if name.startswith("both")}
    middle = [*both][len(both) // 2]  # not the best, which would be chosen by what judges it
    alone = table["contrastive only"]
    spread = max(mean for mean, _ in both.values()) - min(mean for mean, _ in both.values())
    error = max(error for _, error in both.values())

    return [
        Claim(
            "Both losses beat the contrastive loss alone",
            f"{middle}: {told(both[middle])}, contrastive only: {told(alone)}",
            is_above(both[middle], alone),
        ),
        Claim(
            "The place of the split matters little",
            f"from the worst to the best split {spread:.3f}, standard errors up to {error:.3f}",
            spread <= ERRORS * error if math.isfinite(error) else None,
        ),
        Claim(
            "Pre-training beats training from scratch",
            f"{middle}: {told(both[middle])}, from scratch: {told(scratch)}",
            is_above(both[middle], scratch),
        ),
    ]


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")
