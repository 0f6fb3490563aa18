"""Recipes of several stages: each is a run of its own, and the last one is the recipe's."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch

from seqssl.assembly import streams_of
from seqssl.config import stages
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.planning.plan import resolve
from seqssl.runs.folder import check_same_run
from seqssl.runs.streams import opened
from seqssl.runs.train import train
from seqssl.training import checkpoint
from seqssl.training.parallel import Alone


def train_stages(
    recipe: str | Path,
    *overrides: str,
    settings: Callable[[str, RunConfig], Sequence[str]] | None = None,
    say: Callable[[str], None] | None = print,
    progress: Progress = silent,
) -> RunConfig:
    """Run the stages of a recipe but the last; the configuration of that, for `train`.

    The run of a stage lies in `OUT/stages/NAME`. One that is finished is not run again, and is refused where
    it learned from other data; one that was interrupted goes on. `overrides` hold for all stages, but `out`
    is the folder of the last. `settings` gives more for a stage, from its name and configuration, once those
    before it have run. A recipe without stages is its own last one.
    """
    resolved = resolve(recipe, *overrides)
    out = stages.run_folder(resolved.config)
    own = [text for text in overrides if not text.startswith("out=")]
    places = {name: out / stages.FOLDER / name for name in resolved.stages}

    def configured(name: str, *more: str) -> RunConfig:
        return placed(resolve(recipe, *own, *more, f"stage={name}", f"out={places[name]}").config, out)

    # All of them first: what is wrong with the last is said before the first has run.
    configs = {name: configured(name) for name in places}
    for number, (name, config) in enumerate(configs.items()):
        if settings:
            config = configured(name, *settings(name, config))
        if _is_finished(config):
            here = torch.device("cpu")
            corpora = [opened(stream, Alone(), here, progress) for stream in streams_of(config)]
            check_same_run(config, places[name], corpora)
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
