"""Many runs of one study: side by side, each once, with the time that is left."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqssl.data.files import sha256_json, write_atomic
from seqssl.planning.hardware import num_cores
from seqssl.planning.plan import resolve
from seqssl.ruler.processes import held, side_by_side
from seqssl.runs.train import Run, train

# Settings of every run of a study: only its figures are wanted, and runs side by side must not share a GPU.
QUIET = ("train.trackers=[]", "health=off", "train.device=cpu", "train.log_every=100000")

ERRORS = 2  # standard errors by which means must differ to be told apart

Figure = tuple[float, float]  # a mean, and its standard error
Say = Callable[[str], None]
Trial = Callable[..., dict[str, float]]  # settings and a folder -> figures


@dataclass(frozen=True)
class Plan:
    """One run of a study: its name, and what its function is given."""

    name: str
    arguments: Mapping[str, Any]


def run_all(
    trial: Trial, plans: Sequence[Plan], folder: Path, *, jobs: int = 0, say: Say = print
) -> dict[str, dict[str, float]]:
    """The figures of every run; those that a file in `folder` holds are not run again.

    `trial` is a function of a module, so that other processes can call it; each has one thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, float]] = {}
    missing = []
    for plan in plans:
        path = folder / f"{plan.name}.json"
        digest = sha256_json(dict(plan.arguments))
        stored = _stored(path)
        if stored.get("settings") == digest:
            found[plan.name] = stored["figures"]
        else:
            missing.append((plan, digest))
    began = time.monotonic()
    with held(folder):
        done = 0
        for (plan, digest), figures in side_by_side(
            _alone,
            missing,
            lambda item: (trial, dict(item[0].arguments), folder / "runs" / item[0].name),
            jobs or num_cores(),
        ):
            done += 1
            found[plan.name] = figures
            text = json.dumps({"settings": digest, "figures": figures}, indent=2)
            write_atomic(folder / f"{plan.name}.json", text + "\n")
            left = (time.monotonic() - began) / done * (len(missing) - done) / 60
            shown = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
            say(f"{done} of {len(missing)}: {plan.name}: {shown} | about {left:.1f} min left")
    return found


def _stored(path: Path) -> dict[str, Any]:
    """What is known of a run; {} where nothing is, or the file is damaged: it is run again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _alone(trial: Trial, arguments: dict[str, Any], folder: Path) -> dict[str, float]:
    """A run with one thread, so that its figures do not depend on how many run at once."""
    torch.set_num_threads(1)
    return trial(**arguments, folder=folder)


def pretrain(recipe: str, *settings: str, seed: int, updates: int, folder: Path) -> Run:
    """Train a run of a study, without a word; it is evaluated and saved at its end."""
    own = [f"seed={seed}", f"out={folder}", f"train.num_updates={updates}", *QUIET]
    own += [f"train.{each}_every={updates}" for each in ("eval", "save")]
    return train(resolve(recipe, *settings, *own).config, say=None)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds, and its standard error; of one seed the error is not known, nan."""
    table = np.array(values, float)
    error = table.std(ddof=1) / np.sqrt(len(table)) if len(table) > 1 else np.nan
    return float(table.mean()), float(error)


def told(figure: Figure, mean: str = ".3f", error: str = ".3f") -> str:
    """A mean and its error in the given formats; the mean alone where the error is not known."""
    return f"{figure[0]:{mean}}" + (f" ± {figure[1]:{error}}" if math.isfinite(figure[1]) else "")


def is_above(one: Figure, other: Figure = (0.0, 0.0)) -> bool | None:
    """Whether a mean is above another; None where they differ by less than two of their standard errors."""
    gain, error = one[0] - other[0], math.hypot(one[1], other[1])
    if not abs(gain) > ERRORS * error:  # also where the error is not known
        return False if error == 0 else None
    return gain > 0


@dataclass(frozen=True)
class Claim:
    """Something that was claimed, what was found, and whether it holds here."""

    text: str
    found: str
    holds: bool | None  # None: undecided

    @property
    def line(self) -> str:
        """A line of a table in Markdown."""
        verdict = {True: "holds", False: "**fails**", None: "undecided"}[self.holds]
        return f"| {self.text} | {self.found} | {verdict} |"


def claims_table(claims: Sequence[Claim]) -> str:
    """All claims in Markdown."""
    return "\n".join(["| claim | found | verdict |", "| --- | --- | --- |", *(c.line for c in claims)]) + "\n"
