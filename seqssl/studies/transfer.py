"""Does what is learned from one kind of data help with another? Pre-train on A, evaluate on B: a matrix.

The context encoder is taken over, weight for weight; what reads the data of B is drawn anew. Beside stands
the same model from scratch.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seqssl.assembly import build_model
from seqssl.config.files import find_recipe, header, list_recipes
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.planning.plan import resolve
from seqssl.runs.folder import find_checkpoint, init_of
from seqssl.studies import running
from seqssl.studies.ablation import measured
from seqssl.studies.running import Claim, Plan, Say, claims_table, is_above, mean_and_error, run_all, told
from seqssl.training.checkpoint import weights_of

UPDATES, TUNING, SEEDS = 140, 65, 2
UNMOVED = ("optim.lr=1e-12",)  # of a run whose one update is to change nothing
NOTHING = "nothing"  # in the place of a recipe: the encoder has learned nothing
# One context encoder for all recipes, so that every weight of it can be taken over.
ENCODER = (
    "size=tiny",
    "encoder.num_layers=4",
    "encoder.dim=128",
    "encoder.block={target: conformer, ffn_dim: 256, conv_kernel: 5, conv_norm: layer, dropout: 0.0}",
    "encoder.position={target: conv, kernel: 32, groups: 16}",
    "encoder.taps={contrastive: 2, output: 4}",
    "mixer={target: attention, num_heads: 4, position: rotary}",
)


def task_of(recipe: str) -> list[str]:
    """What a recipe is judged by on its demo data, as its header says (`# Task: ...`); else []."""
    return header(find_recipe(recipe)).get("task", "").split()


def judged() -> list[str]:
    """The recipes that say what they are judged by."""
    return [name for name in list_recipes() if task_of(name)]


def pretrain(recipe: str, seed: int, updates: int, folder: Path) -> dict[str, float]:
    """Pre-train on A."""
    run = running.pretrain(recipe, *ENCODER, seed=seed, updates=updates, folder=folder)
    return {"loss": run.metrics["loss"]}


def trial(
    source: str,
    target: str,
    task: list[str],
    seed: int,
    source_updates: int,
    tuning: int,
    runs: str,
    folder: Path,
) -> dict[str, float]:
    """Take the encoder of A over into a run of B that has learned nothing, and tune that.

    Each seed learns from one half of the groups of B and is tested on the other. With `NOTHING` in the
    place of A, the same from scratch. `source_updates`: how long A was trained; it tells this trial from one
    with another run of A.
    """
    own = [*ENCODER, *UNMOVED]
    own += [setting for setting in task[1:] if setting.startswith("modality.")]
    if source != NOTHING:
        own.append(f"init={Path(runs) / f'{source}-{seed}'}")
        _check_taken_over(resolve(target, *own).config)
    running.pretrain(target, *own, seed=seed, updates=1, folder=folder)
    kept = [setting for setting in task if not setting.startswith("modality.")]
    row = "scratch" if source == NOTHING else "pretrained"
    return {"metric": measured(folder, kept, tuning, seed, [row], folds="rotate")[row]}


def _check_taken_over(config: RunConfig) -> None:
    """UserError unless the whole context encoder of the first run fits."""
    path, _ = init_of(str(config.init))
    saved = find_checkpoint(path, path, "last").model
    own = weights_of(build_model(config, "meta"))
    missing = [name for name, x in own.items() if name.startswith("encoder.")
               and (name not in saved or saved[name].shape != x.shape)]  # fmt: skip
    if missing:
        raise UserError(f"the context encoder of {path} does not fit: {', '.join(missing[:3])}, ...")


def transfer(
    out: Path,
    *,
    recipes: list[str],
    updates: int = UPDATES,
    tuning: int = TUNING,
    seeds: int = SEEDS,
    jobs: int = 0,
    say: Say = print,
) -> str:
    """Run the study, or what is left of it; the page that it writes, in Markdown."""
    first = [
        Plan(f"{recipe}-{seed}", {"recipe": recipe, "seed": seed, "updates": updates})
        for recipe in recipes
        for seed in range(seeds)
    ]
    run_all(pretrain, first, out / "pretrained", jobs=jobs, say=say)
    runs = str(out / "pretrained" / "runs")
    plans = [
        Plan(
            f"{source}-to-{target}-{seed}",
            {"source": source, "target": target, "task": task_of(target), "seed": seed,
             "source_updates": updates, "tuning": tuning, "runs": runs},
        )
        for source in [*recipes, NOTHING]
        for target in recipes
        for seed in range(seeds)
    ]  # fmt: skip
    found = run_all(trial, plans, out / "trials", jobs=jobs, say=say)
    return page(found, recipes, seeds)


def page(found: dict[str, dict[str, float]], recipes: list[str], seeds: int) -> str:
    """The matrix, and what it says."""
    short = {recipe: recipe.partition("_")[0] for recipe in recipes} | {NOTHING: "nothing (from scratch)"}

    def by_seed(source: str, target: str) -> list[float]:
        return [found[f"{source}-to-{target}-{seed}"]["metric"] for seed in range(seeds)]

    def of(source: str, target: str) -> tuple[float, float]:
        return mean_and_error(by_seed(source, target))

    def claim(text: str, sources: Sequence[str], target: str) -> Claim:
        # Seeds test other groups: within a seed all are tested on the same, so differences are compared.
        means = np.mean([by_seed(source, target) for source in sources], axis=0)
        gain = mean_and_error((means - by_seed(NOTHING, target)).tolist())
        return Claim(f"{short[target]}: {text}", told(gain, "+.3f"), is_above(gain))

    heads = " | ".join(
        f"{short[target]} ({task_of(target)[0]}{', - MSE' if task_of(target)[0] == 'forecast' else ''})"
        for target in recipes
    )
    # Of a forecast the negative error: more is better in every column.
    lines = [f"| pre-trained on | {heads} |", "| --- |" + " ---: |" * len(recipes)]
    for source in [*recipes, NOTHING]:
        cells = [told(of(source, target)) for target in recipes]
        lines.append(f"| {short[source]} | " + " | ".join(cells) + " |")
    claims = []
    for target in recipes:
        others = [source for source in recipes if source != target]
        claims.append(claim("pre-training on its own kind of data beats scratch", [target], target))
        claims.append(claim("pre-training on other kinds helps, too (their mean)", others, target))
    return "\n".join(lines) + "\n\n" + claims_table(claims)
