"""`${encoder.dim}`: a value that stands for another one of the same configuration.

`${.dim}` is a neighbor, `${..dim}` one level up. Nothing else can be named: no environment variable, no
function.
"""

import re
from collections.abc import Iterator

from seqssl.config import tree as trees
from seqssl.config.schema import hint_at, section_of
from seqssl.config.tree import Path
from seqssl.config.values import Plain, Tree, Value, did_you_mean

REFERENCE = re.compile(r"\$\{([^${}]*)\}")


class _Bad(Exception):
    """A reference that leads nowhere; the message says why, unless something else does."""


def interpolate(tree: Tree) -> tuple[Tree, list[tuple[str, Value, str]]]:
    """The tree with every reference replaced, and what is wrong with others: key, text, remedy.

    A value whose reference is wrong is left out.
    """
    problems: list[tuple[str, Value, str]] = []
    filled: Tree = {}
    for path, value in _leaves(tree):
        try:
            trees.put(filled, path, _filled(tree, value, path, ()))
        except _Bad as error:
            problems += [(trees.join(path), value, str(error))] if error.args else []
    return filled, problems


def _leaves(tree: Tree) -> Iterator[tuple[Path, Value]]:
    return ((path, value) for path, value in trees.nodes(tree) if not (isinstance(value, dict) and value))


def _filled(tree: Tree, value: Value, path: Path, seen: tuple[Path, ...]) -> Value:
    """A value without references; `seen` are the paths on the way to it."""
    if isinstance(value, dict):
        return {key: _filled(tree, item, (*path, key), seen) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(tree, item, path, seen) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    while found := REFERENCE.search(value):  # the innermost first: ${streams.${name}.weight}
        there = _target(tree, found[1], path, seen)
        if found[0] == value:
            return there
        if isinstance(there, dict | list | tuple):
            raise _Bad(f"{found[0]} is no single value that could stand within a text")
        value = value[: found.start()] + ("null" if there is None else str(there)) + value[found.end() :]
    if "${" in value:
        raise _Bad("a reference that does not end: write ${section.key}")
    return value


def _target(tree: Tree, text: str, path: Path, seen: tuple[Path, ...]) -> Value:
    """What a reference leads to."""
    if ":" in text:
        raise _Bad(f"${{{text}}} would call a function: only keys of the configuration can be named")
    name = text.strip().replace("[", ".").replace("]", "")
    level = len(name) - len(name.lstrip("."))
    above = path[: max(0, len(path) - level)] if level else ()
    wanted = (*above, *trees.split(name.lstrip(".")))
    if wanted in seen or wanted == path:
        raise _Bad(f"${{{text}}} leads back to itself")
    missing = Plain("", None)
    there = trees.get(tree, wanted, missing)
    if there is missing:
        for above in (wanted[:depth] for depth in range(1, len(wanted))):
            found = trees.get(tree, above, {})
            if section_of(hint_at(above)) and not isinstance(found, dict):
                raise _Bad  # a section that is none: that is told where it stands
        hint = did_you_mean(trees.join(wanted), [key for key, _ in trees.leaves(tree)])
        raise _Bad(f"${{{text}}}: there is no such key{hint if hint.endswith('?') else ''}")
    return _filled(tree, there, wanted, (*seen, path))
