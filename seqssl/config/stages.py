"""How a setting names a stage: `stage:NAME` stands for the folder of that stage of the same run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqssl.config.addresses import stem_of
from seqssl.config.schema import RunConfig

MARK = "stage:"
FOLDER = "stages"  # in the folder of a run, the runs that came before it


def run_folder(config: RunConfig) -> Path:
    """`out`, else runs/<recipe>-<size>, with the name of the data unless it is the demo's."""
    if config.out is not None:
        return Path(config.out).expanduser()
    own = f"-{stem_of(config.data.source)}" if config.data.source else ""
    return Path("runs") / f"{Path(config.recipe).stem}-{config.size}{own}"


def with_folders(value: Any, run: Path) -> Any:
    """Settings with every `stage:NAME` replaced by its folder in that of `run`."""

    def placed(text: str) -> str:
        return str(run / FOLDER / text.removeprefix(MARK)) if text.startswith(MARK) else text

    return _with_texts(value, placed)


def with_marks(value: Any, run: Path) -> Any:
    """The reverse: so a run may be moved, or opened from elsewhere."""
    start = f"{run / FOLDER}/"

    def marked(text: str) -> str:
        name = text.removeprefix(start)
        return f"{MARK}{name}" if text.startswith(start) and "/" not in name else text

    return _with_texts(value, marked)


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A tree of settings with each of its texts changed; other values are as they were."""
    if type(value) is str:
        return change(value)
    if isinstance(value, dict):
        return {key: _with_texts(inner, change) for key, inner in value.items()}
    return [_with_texts(inner, change) for inner in value] if isinstance(value, list) else value
