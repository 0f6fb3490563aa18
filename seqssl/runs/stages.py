"""Recipes of several stages: each is a run of its own, and the last one is the recipe's."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from seqssl.config.compose import STAGE
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.planning.plan import resolve
from seqssl.runs.folder import STAGES
from seqssl.runs.train import run_folder, train
from seqssl.training import checkpoint


def train_stages(
    recipe: str | Path, *overrides: str, say: Callable[[str], None] = print, progress: Progress = silent
) -> RunConfig:
    """Run the stages of a recipe but the last; the configuration of that, for `train`.

    The run of a stage lies in `OUT/stages/NAME`. One that is finished is not run again; one that was
    interrupted goes on. `overrides` hold for all stages, but `out` is the folder of the last. A recipe
    without stages is its own last one.
    """
    resolved = resolve(recipe, *overrides)
    out = run_folder(resolved.config)
    places = {name: str(out / STAGES / name) for name in resolved.stages}
    for number, name in enumerate(places):
        own = [text for text in overrides if not text.startswith("out=")]
        config = resolve(recipe, *own, f"stage={name}", f"out={places[name]}").config
        if not _is_finished(config):
            say(f"stage {number + 1} of {len(places) + 1}: {name}")
            train(_placed(config, places), say=say, progress=progress)
    if places:
        say(f"stage {len(places) + 1} of {len(places) + 1}")
    placed: RunConfig = _placed(resolved.config, places)
    return placed


def _is_finished(config: RunConfig) -> bool:
    """Whether a run has made all its updates, and its report."""
    out = Path(str(config.out))
    saved = checkpoint.numbered(out / "checkpoints")
    done = int(saved[-1].name.rpartition("-")[2]) if saved else 0
    return done >= config.train.num_updates and (out / "report.html").exists()


def _placed(value: Any, places: dict[str, str]) -> Any:
    """The same settings with every `stage:NAME` replaced by the folder of that stage."""
    if isinstance(value, str) and value.startswith(STAGE):
        return places.get(value.removeprefix(STAGE), value)
    if isinstance(value, dict):
        return {key: _placed(inner, places) for key, inner in value.items()}
    if is_dataclass(value):
        for entry in fields(value):
            setattr(value, entry.name, _placed(getattr(value, entry.name), places))
    return value
