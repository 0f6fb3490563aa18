"""recipe=auto: which recipe fits data that nobody has described; and which of its sizes."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from seqssl.assembly import streams_of
from seqssl.config import components
from seqssl.config.compose import Resolved
from seqssl.config.files import header, list_recipes
from seqssl.config.schema import RunConfig
from seqssl.data.adapters import Suggestion
from seqssl.data.checks import is_prepared
from seqssl.data.files import Progress, endings_of, list_files
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.planning.plan import resolve
from seqssl.runs.streams import opened
from seqssl.training.parallel import Alone


def choose_recipe(source: Path, *, long: bool = False) -> tuple[str, list[str], str]:
    """The recommended recipe for what a file or folder seems to hold, settings for it, and a sentence.

    `long`: there are hours, not minutes, for which some kinds of data have a recipe of their own.

    Raises UserError where no kind of data fits, or several do.
    """
    if not source.exists():
        raise UserError(f"data = {source}: there is no such file or folder.")
    recommended = recommended_recipes(long=long)
    if is_prepared(source):
        modality = Corpus(source).manifest.modality
        found = {modality: Suggestion("prepared data")}
    else:
        found = {name: said for name in recommended if (said := _suggestion(name, source)) is not None}
    fitting = {name: said for name, said in found.items() if name in recommended and not said.problem}
    if len(fitting) != 1:
        kinds = ", ".join(f"recipe={recipe} for {name}" for name, recipe in sorted(recommended.items()))
        holding = f" (it holds {endings_of(source)})" if list_files(source) else ""
        seems = "; ".join(f"{name}: {said.words}" for name, said in fitting.items())
        problems = "".join(f"\n  - {name}: {said.problem}" for name, said in found.items() if said.problem)
        raise UserError(
            f"data = {source}: "
            + (
                f"it seems to hold several kinds of data ({seems}). "
                if fitting
                else f"no kind of data fits it{holding}. "
            )
            + f"Say which it is: {kinds}. `seqssl prepare modality=NAME source={source} out=FOLDER` says "
            f"what an adapter finds there.{problems}"
        )
    ((modality, said),) = fitting.items()
    recipe = recommended[modality]
    settings = [f"modality.{name}={json.dumps(value)}" for name, value in said.settings.items()]
    shown = " ".join([f"recipe={recipe}", *(f"'{text}'" for text in settings)])
    return recipe, settings, f"recipe=auto: {said.words}. The same as {shown}"


def sized_by_data(name: str, overrides: Sequence[str], config: RunConfig, progress: Progress) -> Resolved:
    """The recipe at the size that its data, which are prepared if need be, are enough for; see `choose_size`.

    `config`: the recipe at any size.
    """
    amounts = {}
    for stream in streams_of(config):
        corpus = opened(stream, Alone(), torch.device("cpu"), progress).corpus
        amounts[stream.name] = corpus.manifest.splits["train"].length
    return resolve(name, *overrides, amounts=amounts)


def recommended_recipes(*, long: bool = False) -> dict[str, str]:
    """The recipe of each kind of data that is taken where nobody names one; `long`: where there are hours."""
    headers = {name: header(path) for name, path in list_recipes().items()}
    found: dict[str, str] = {}
    for field in ("recommended", "evening") if long else ("recommended",):
        found |= {fields[field]: name for name, fields in headers.items() if field in fields}
    return found


def _suggestion(modality: str, source: Path) -> Suggestion | None:
    """What the class of an adapter says of a source, if it says anything."""
    suggest = getattr(components.load(modality, "modality"), "suggest", None)
    return None if suggest is None else suggest(source)
