"""Recipes of several stages: each is a run of its own, and the last one is the recipe's."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

from seqssl.config import stages
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.planning.plan import resolve
from seqssl.runs.folder import check_same_run
from seqssl.runs.train import train
from seqssl.training import checkpoint


def train_stages(
    recipe: str | Path,
    *overrides: str,
    say: Callable[[str], None] | None = print,
    progress: Progress = silent,
) -> RunConfig:
    """Run the stages of a recipe but the last; the configuration of that, for `train`.

    The run of a stage lies in `OUT/stages/NAME`. One that is finished is not run again; one that was
    interrupted goes on. `overrides` hold for all stages, but `out` is the folder of the last. A recipe
    without stages is its own last one.
    """
    resolved = resolve(recipe, *overrides)
    out = stages.run_folder(resolved.config)
    own = [text for text in overrides if not text.startswith("out=")]
    places = {name: out / stages.FOLDER / name for name in resolved.stages}
    configs = {  # all of them first: what is wrong with the last is said before the first has run
        name: placed(resolve(recipe, *own, f"stage={name}", f"out={place}").config, out)
        for name, place in places.items()
    }
    for number, (name, config) in enumerate(configs.items()):
        if _is_finished(config):
            check_same_run(config, places[name], ())
            continue
        if say:
            say(f"stage {number + 1} of {len(places) + 1}: {name}")
        train(config, say=say, progress=progress)
    if places and say:
        say(f"stage {len(places) + 1} of {len(places) + 1}")
    return placed(resolved.config, out)


def placed(config: RunConfig, out: Path) -> RunConfig:
    """The same settings with every `stage:NAME` replaced by the folder of that stage of the run in `out`."""
    own = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    return replace(config, **{name: stages.with_folders(value, out) for name, value in own.items()})


def _is_finished(config: RunConfig) -> bool:
    """Whether a run has made all its updates, and its report."""
    out = Path(str(config.out))
    saved = checkpoint.numbered(out / "checkpoints")
    done = int(saved[-1].name.rpartition("-")[2]) if saved else 0
    return done >= config.train.num_updates and (out / "report.html").exists()
