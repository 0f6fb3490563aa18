"""`${encoder.dim}`: a value that stands for another one of the same configuration, as OmegaConf resolves it.

`${.dim}` is a neighbor, `${..dim}` one level up, `${oc.env:NAME}` a variable of the environment.
"""

import re
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationKeyError, OmegaConfBaseException

from seqssl.config import text, values
from seqssl.config import tree as trees
from seqssl.config.schema import hint_at, section_of
from seqssl.config.tree import Path
from seqssl.config.values import Tree, Value, did_you_mean

REFERENCE = re.compile(r"\$\{([^${}]*)\}")


def interpolate(tree: Tree) -> tuple[Tree, list[tuple[str, Value, str]]]:
    """The tree with every reference replaced, and what is wrong with others: key, text, remedy.

    A value whose reference is wrong is left out.
    """
    problems: list[tuple[str, Value, str]] = []
    readable: Tree = {}
    for path, value in _leaves(tree):
        try:
            OmegaConf.create({"": values.texts(value)})  # reads the references, follows none
            trees.put(readable, path, value)
        except GrammarParseError as error:
            remedy = f"is no reference; write ${{section.key}} ({_first_line(error)})"
            problems.append((trees.join(path), value, remedy))
    written = values.texts(readable)
    config = OmegaConf.create(written if isinstance(written, dict) else {})
    filled: Tree = {}
    for path, value in _leaves(readable):
        try:
            trees.put(filled, path, _found(config, path) if _refers(value) else value)
        except OmegaConfBaseException as error:
            if not _leads_into_no_section(value, tree):
                problems.append((trees.join(path), value, _remedy(error, tree)))
    return filled, problems


def _leaves(tree: Tree) -> Iterator[tuple[Path, Value]]:
    return ((path, value) for path, value in trees.nodes(tree) if not (isinstance(value, dict) and value))


def _refers(value: Value) -> bool:
    """Whether there is a reference in a value."""
    return isinstance(value, str | list | tuple) and "${" in str(value)


def _found(config: DictConfig, path: Path) -> Value:
    """What OmegaConf finds at a path; texts become again what they were before they went through it."""
    node = config
    for part in path:
        node = node[part]
    value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return text.reread(value)


def _remedy(error: OmegaConfBaseException, tree: Tree) -> str:
    """Where a reference leads that leads nowhere."""
    told = _first_line(error)
    missing = re.search(r"Interpolation key '([^']*)'", told)
    if isinstance(error, InterpolationKeyError) and missing:
        hint = did_you_mean(missing[1], [key for key, _ in trees.leaves(tree)])
        return f"there is no key {missing[1]}{hint if hint.endswith('?') else ''}"
    return "the reference leads back to itself" if "Recursive" in told else told


def _leads_into_no_section(value: Value, tree: Tree) -> bool:
    """Whether a section is none that a reference leads into: that is told where the section stands."""
    wanted = [trees.split(name) for name in REFERENCE.findall(str(value))]
    above = {path[:depth] for path in wanted for depth in range(1, len(path))}
    sections = [path for path in above if section_of(hint_at(path))]
    return any(not isinstance(trees.get(tree, path, {}), dict) for path in sections)


def _first_line(error: OmegaConfBaseException) -> str:
    return str(error).partition("\n")[0]
