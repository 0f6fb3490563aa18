"""Pages of the documentation that are made from the code when the site is built: never out of date."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import seqssl
from seqssl.cli.main import COMMANDS, usage
from seqssl.config import schema
from seqssl.config.values import describe

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "index.md": home(),
        "reference/commands.md": commands(),
        "reference/configuration.md": configuration(),
        "reference/recipes.md": recipes(),
        "reference/python.md": python(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def home() -> str:
    """The README, whose links lead into this folder here."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](docs/", "](").replace('src="docs/', 'src="')
    text = re.sub(r"\[([^]]*)\]\((?:CONTRIBUTING|CHANGELOG|benchmarks/README)\.md\)", r"\1", text)
    return text


def commands() -> str:
    """What `seqssl COMMAND --help` says."""
    parts = [f"## seqssl {command.name}\n\n```text\n{usage(command)}\n```\n" for command in COMMANDS]
    return "\n".join(["# Commands\n\nWhat `seqssl COMMAND --help` says.\n", *parts])


def configuration() -> str:
    """Every key of the configuration with its default and what it may be, from the dataclasses."""
    parts = [
        "# Configuration\n\nEvery key, its default and what it may be. `seqssl config recipe=NAME` shows "
        "the values of a recipe.\n"
    ]
    classes = [
        found
        for _, found in inspect.getmembers(schema, dataclasses.is_dataclass)
        if isinstance(found, type)
        and found.__module__ == schema.__name__
        and found.__name__.endswith("Config")
    ]
    for found in classes:
        hints = schema.hints(found)
        rows = [
            f"| `{one.name}` | `{default_of(one)}` | {describe(hints[one.name])} |"
            for one in dataclasses.fields(found)
        ]
        about = inspect.getdoc(found) or ""
        table = "\n".join(["| key | default | what it may be |", "| --- | --- | --- |", *rows])
        parts.append(f"## {found.__name__.removesuffix('Config') or 'Run'}\n\n{about}\n\n{table}\n")
    return "\n".join(parts)


def default_of(one: "dataclasses.Field[object]") -> str:
    """A field's default as a text in a table."""
    if one.default is not dataclasses.MISSING:
        value: object = one.default
    elif one.default_factory is not dataclasses.MISSING:
        value = one.default_factory()
    else:
        return "(needed)"
    text = type(value).__name__ if dataclasses.is_dataclass(value) else str(value)
    return text.replace("|", "\\|")[:80] or '""'


def recipes() -> str:
    """The comment at the head of each recipe, and the recipe."""
    parts = [
        "# Recipes\n\nThe files in `recipes/`, as they are. [Recipe files](../recipes.md) explains how "
        "they are put together.\n"
    ]
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        name = path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        parts.append(f"## {name}\n\n```yaml\n{path.read_text(encoding='utf-8').rstrip()}\n```\n")
    return "\n".join(parts)


def python() -> str:
    """Everything that can be imported from seqssl, with its docstring."""
    parts = ["# Python\n\nWhat `seqssl` gives, from the docstrings.\n"]
    for group, names in groups():
        parts.append(f"## {group}\n")
        parts += [f"::: {home}.{name}\n    options: {{heading_level: 3}}\n" for home, name in names]
    return "\n".join(parts)


def groups() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Public names by the module that they live in."""
    for home, names in seqssl._HOMES.items():
        yield home.removeprefix("seqssl."), [(home, name) for name in names]
