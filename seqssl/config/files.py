"""Recipe files: where they are, what their headers say, and what is in them."""

from pathlib import Path

import yaml

from seqssl.config import text
from seqssl.config.values import Tree, did_you_mean
from seqssl.errors import UserError


def find_recipe(name: str | Path, beside: Path | None = None) -> Path:
    """The file of a recipe: `name` is a path, a run's folder, or a name to look for in several folders.

    These are `beside`, ./recipes and the recipes shipped with seqssl. UserError where there is no such file.
    """
    given = Path(name).expanduser()
    if given.is_file():
        return given
    if (given / "config.yaml").is_file():
        return given / "config.yaml"
    for folder in [*([beside] if beside else []), *_folders()]:
        candidate = folder / f"{name}.yaml"
        if candidate.is_file():
            return candidate
    hint = did_you_mean(str(name), list_recipes())
    if given.is_dir():
        hint = ": that is a folder without config.yaml, so no run"
    raise UserError(f"there is no recipe '{name}'{hint.rstrip('.')}. A path to a YAML file works too.")


def list_recipes() -> dict[str, Path]:
    """Every recipe that has a name, with its file; one in ./recipes hides a shipped one of that name."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.rglob("*.yaml")):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def header(path: Path) -> dict[str, str]:
    """The `# Paper: ...` lines that a recipe opens with; an indented comment continues the line above."""
    fields: dict[str, str] = {}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.strip() == "#":
            break
        name, colon, rest = line[2:].partition(": ")
        if colon and name.isalpha():
            key = name.lower()
            fields[key] = rest.strip()
        elif key:
            fields[key] += " " + line[2:].strip()
    return fields


def read_recipe(path: Path) -> Tree:
    """The content of one file, as written; UserError where it is not a YAML mapping."""
    try:
        content = text.read(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{display(path)} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{display(path)} holds no mapping of keys to values")
    return content


def display(path: Path) -> str:
    """A path as messages show it: relative to the current folder, if it lies there."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _folders() -> list[Path]:
    """Where recipes are looked for: in ./recipes, then among those shipped with seqssl."""
    package = Path(__file__).parents[1]
    shipped = package / "_recipes"  # in a wheel; an editable install has them beside the package
    return [Path("recipes"), shipped if shipped.is_dir() else package.parent / "recipes"]
