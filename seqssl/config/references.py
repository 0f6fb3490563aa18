"""`${encoder.dim}`: a value taken from another place of the same configuration, as OmegaConf resolves it.

`${.dim}` is a neighbor, `${..dim}` one level up. OmegaConf's resolvers (`${oc.env:NAME}`) are refused: a
recipe may be a stranger's, and what it reads of the environment would be written into the run's config.yaml.
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
_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")


def interpolate(tree: Tree) -> tuple[Tree, list[tuple[str, Value, str]]]:
    """The tree with every reference replaced by its value, and the problems: key, text, remedy.

    A value with a wrong reference is left out of the tree.
    """
    problems: list[tuple[str, Value, str]] = []
    readable: Tree = {}
    for path, value in _leaves(tree):
        if isinstance(value, str | list | tuple) and _RESOLVER.search(str(values.texts(value))):
            remedy = "is no reference to a key: a recipe takes nothing from outside; write the value itself"
            problems.append((trees.join(path), value, remedy))
            continue
        try:
            if _refers(value):
                OmegaConf.create({"": values.texts(value)})  # reads the references, follows none
            trees.put(readable, path, value)
        except GrammarParseError as error:
            remedy = f"is no reference; write ${{section.key}} ({_first_line(error)})"
            problems.append((trees.join(path), value, remedy))
    if not any(_refers(value) for _, value in _leaves(readable)):
        return readable, problems
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
    """Whether a value contains a reference."""
    return isinstance(value, str | list | tuple) and "${" in str(value)


def _found(config: DictConfig, path: Path) -> Value:
    """The value that OmegaConf resolves a path to; it was given texts only, so they are read as YAML."""
    node = config
    for part in path:
        node = node[part]
    value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return text.reread(value)


def _remedy(error: OmegaConfBaseException, tree: Tree) -> str:
    """Why a reference cannot be resolved: there is no such key, it is a loop, or OmegaConf's own words."""
    told = _first_line(error)
    missing = re.search(r"Interpolation key '([^']*)'", told)
    if isinstance(error, InterpolationKeyError) and missing:
        hint = did_you_mean(missing[1], [key for key, _ in trees.leaves(tree)])
        return f"there is no key {missing[1]}{hint if hint.endswith('?') else ''}"
    return "the reference leads back to itself" if "Recursive" in told else told


def _leads_into_no_section(value: Value, tree: Tree) -> bool:
    """Whether a reference goes into a section that is no mapping; that is reported at the section itself."""
    wanted = [trees.split(name) for name in REFERENCE.findall(str(value))]
    above = {path[:depth] for path in wanted for depth in range(1, len(path))}
    sections = [path for path in above if section_of(hint_at(path))]
    return any(not isinstance(trees.get(tree, path, {}), dict) for path in sections)


def _first_line(error: OmegaConfBaseException) -> str:
    return str(error).partition("\n")[0]
