"""recipe=auto: which recipe fits data that nobody has described."""

import json
from pathlib import Path

from seqssl.config import components
from seqssl.config.files import header, list_recipes
from seqssl.data.adapters import Suggestion
from seqssl.data.shards import MANIFEST, Corpus
from seqssl.errors import UserError


def choose_recipe(source: Path) -> tuple[str, list[str], str]:
    """The recommended recipe for what a file or folder seems to hold, settings for it, and a sentence.

    Raises UserError where no kind of data fits, or several do.
    """
    if not source.exists():
        raise UserError(f"data = {source}: there is no such file or folder.")
    recommended = recommended_recipes()
    if (source / MANIFEST).is_file():
        modality = Corpus(source).manifest.modality
        found = {modality: Suggestion("prepared data")}
    else:
        found = {name: said for name in recommended if (said := _suggestion(name, source)) is not None}
    fitting = {name: said for name, said in found.items() if name in recommended and not said.problem}
    if len(fitting) != 1:
        kinds = ", ".join(f"recipe={recipe} for {name}" for name, recipe in sorted(recommended.items()))
        seems = "; ".join(f"{name}: {said.words}" for name, said in fitting.items())
        problems = "".join(f"\n  - {name}: {said.problem}" for name, said in found.items() if said.problem)
        raise UserError(
            f"data = {source}: "
            + (
                f"it seems to hold several kinds of data ({seems}). "
                if fitting
                else "no kind of data fits it. "
            )
            + f"Say which it is: {kinds}. `seqssl prepare modality=NAME source={source} out=FOLDER` says "
            f"what an adapter finds there.{problems}"
        )
    ((modality, said),) = fitting.items()
    recipe = recommended[modality]
    settings = [f"modality.{name}={json.dumps(value)}" for name, value in said.settings.items()]
    shown = " ".join([f"recipe={recipe}", *(f"'{text}'" for text in settings)])
    return recipe, settings, f"recipe=auto: {said.words}. The same as {shown}"


def recommended_recipes() -> dict[str, str]:
    """The recipe of each kind of data that is taken where nobody names one."""
    return {fields["recommended"]: name for name, fields in _headers().items() if "recommended" in fields}


def _headers() -> dict[str, dict[str, str]]:
    return {name: header(path) for name, path in list_recipes().items()}


def _suggestion(modality: str, source: Path) -> Suggestion | None:
    """What the class of an adapter says of a source, if it says anything."""
    suggest = getattr(components.load(modality, "modality"), "suggest", None)
    return None if suggest is None else suggest(source)
