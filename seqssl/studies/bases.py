"""Is an encoder that was pre-trained elsewhere a good start for data of the same kind?

The base is pre-trained on a recipe's demo data. A stranger has other data of that kind, and a short time:
from nothing, from the base as it is, or from the base and then on. The referee is the ruler, on those
labels. The bases that it makes are runs, which `init=RUN` starts from.
"""

from pathlib import Path

from seqssl.config.files import find_recipe, header, list_recipes
from seqssl.errors import UserError
from seqssl.planning.plan import resolve
from seqssl.studies import running
from seqssl.studies.ablation import measured
from seqssl.studies.running import Claim, Plan, Say, claims_table, is_above, mean_and_error, run_all, told
from seqssl.studies.transfer import UNMOVED

UPDATES, ADAPTING, TUNING, SEEDS = 600, 150, 100, 2
STARTS = {  # what the stranger fine-tunes: whether from the base, and whether pre-trained on the data at hand
    "from scratch": (False, False),
    "pre-trained here": (False, True),
    "the base as it is": (True, False),
    "the base, pre-trained on here": (True, True),
}


def elsewhere(recipe: str) -> tuple[list[str], list[str]]:
    """Other data of a recipe's kind, as settings, and what they are judged by; from its header, else empty.

    The header says `# Elsewhere: task settings | data settings`.
    """
    task, _, settings = header(find_recipe(recipe)).get("elsewhere", "").partition("|")
    return settings.split(), task.split()


def tried() -> list[str]:
    """The recipes that say what they are tried on beside their demo data."""
    return [name for name in list_recipes() if elsewhere(name)[0]]


def pretrain(recipe: str, seed: int, updates: int, folder: Path) -> dict[str, float]:
    """Make a base."""
    run = running.pretrain(recipe, "size=tiny", seed=seed, updates=updates, folder=folder)
    return {"loss": run.metrics["loss"]}


def trial(
    recipe: str, seed: int, start: str, base_updates: int, updates: int, tuning: int, bases: str, folder: Path
) -> dict[str, float]:
    """Start as `STARTS` says on the other data, and fine-tune there.

    `base_updates`: how long the base was trained. It tells this trial from one with another base.
    """
    (settings, task), (from_base, here) = elsewhere(recipe), STARTS[start]
    own = ["size=tiny", *settings, *([] if here else UNMOVED)]
    if from_base:
        own.append(f"init={Path(bases) / f'{Path(recipe).stem}-{seed}'}")
    running.pretrain(recipe, *own, seed=seed, updates=updates if here else 1, folder=folder)
    row = "pretrained" if from_base or here else "scratch"
    return {"metric": measured(folder, task, tuning, seed, [row])[row]}


def bases(
    out: Path,
    *,
    recipes: list[str],
    updates: int = UPDATES,
    adapting: int = ADAPTING,
    tuning: int = TUNING,
    seeds: int = SEEDS,
    jobs: int = 0,
    say: Say = print,
) -> str:
    """Make the bases and try them, or do what is left of it; the page that it writes, in Markdown."""
    if not recipes or not all(elsewhere(recipe)[0] for recipe in recipes):
        raise UserError(f"recipes = {','.join(recipes)}: expected some of {', '.join(tried())}.")
    for recipe in recipes:  # before hours of training
        resolve(recipe, "size=tiny", *elsewhere(recipe)[0])
    first = [
        Plan(f"{Path(recipe).stem}-{seed}", {"recipe": recipe, "seed": seed, "updates": updates})
        for recipe in recipes
        for seed in range(seeds)
    ]
    run_all(pretrain, first, out / "bases", jobs=jobs, say=say)
    plans = [
        Plan(
            f"{Path(recipe).stem}-{start.replace(' ', '-').replace(',', '')}-{seed}",
            {"recipe": recipe, "seed": seed, "start": start, "base_updates": updates, "updates": adapting,
             "tuning": tuning, "bases": str(out / "bases" / "runs")},
        )
        for recipe in recipes
        for start in STARTS
        for seed in range(seeds)
    ]  # fmt: skip
    found = run_all(trial, plans, out / "trials", jobs=jobs, say=say)
    by_start = {
        (str(plan.arguments["recipe"]), str(plan.arguments["start"])): [
            found[other.name]["metric"]
            for other in plans
            if all(other.arguments[key] == plan.arguments[key] for key in ("recipe", "start"))
        ]
        for plan in plans
    }
    return page({key: mean_and_error(values) for key, values in by_start.items()}, recipes)


def page(found: dict[tuple[str, str], tuple[float, float]], recipes: list[str]) -> str:
    """The table, and what it says."""
    lines = ["| | " + " | ".join(STARTS) + " |", "| --- |" + " ---: |" * len(STARTS)]
    claims = []
    for recipe in recipes:
        settings, task = elsewhere(recipe)
        sign = " (minus the error)" if task[0] in ("forecast", "impute", "regress") else ""
        cells = [told(found[recipe, start]) for start in STARTS]
        lines.append(
            f"| {Path(recipe).stem}, {settings[0].partition('=')[2]}: {task[0]}{sign} | "
            + " | ".join(cells)
            + " |"
        )
        plain, own, _, both = (found[recipe, start] for start in STARTS)
        for text, one, other in (
            ("a base that is pre-trained on beats scratch", both, plain),
            ("it beats pre-training here from nothing", both, own),
        ):
            claims.append(
                Claim(
                    f"{Path(recipe).stem}: {text}",
                    f"{told(one)} against {told(other)}",
                    is_above(one, other),
                )
            )
    return "\n".join(lines) + "\n\n" + claims_table(claims)
