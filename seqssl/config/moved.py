"""Keys that were renamed: for one release, a value under the old name is moved to the new one.

Recipes and overrides get a note that says the new name; runs that older versions saved get none.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from seqssl.config import tree as trees
from seqssl.config.layers import as_slot, is_slot
from seqssl.config.problems import Problem
from seqssl.config.references import REFERENCE
from seqssl.config.tree import Path
from seqssl.config.values import Tree, Value

# Keys without the size or the stream that they may be in.
RENAMED = {
    "encoder.ffn_dim": "encoder.block.ffn_dim",
    "encoder.conv_kernel": "encoder.block.conv_kernel",
    "encoder.conv_norm": "encoder.block.conv_norm",
    "encoder.dropout": "encoder.block.dropout",
    "encoder.position_kernel": "encoder.position.kernel",
    "encoder.position_groups": "encoder.position.groups",
    "target": "targets",
}
# What old values are called under the new name of their key; others stay as they are.
VALUES: dict[str, Tree] = {
    "target": {"auto": None, "latent": "learned", "identity": "symbols", "both": "both"},
}
DROPPED = {"eval"}  # nothing ever read them
REFUSED: dict[str, str] = {}  # key -> a sentence: why it cannot be translated, and what to say instead


@dataclass
class Translation:
    """Translates the layers of one configuration, and remembers what it did."""

    notes: dict[str, str] = field(default_factory=dict)  # old key -> the note for the user
    renamed: set[str] = field(default_factory=set)  # new keys that were written by their old names
    problems: list[Problem] = field(default_factory=list)

    @property
    def note(self) -> str:
        """The notes for the user, one line for each old key."""
        return "\n".join(self.notes.values())

    def translate(self, tree: Mapping[str, Value], origin: str, *, silent: bool = False) -> Tree:
        """A copy of the tree with new names in place of old ones; `silent` leaves no notes."""
        new = copy.deepcopy(dict(tree))
        for path, value in list(trees.nodes(new)):
            size, inner = trees.split_size(path)
            stream, local = trees.split_stream(inner)
            key = trees.join(local)
            if key in REFUSED:
                trees.pop(new, path)
                self.problems.append(Problem(trees.join(inner), value, REFUSED[key], origin))
            elif key in DROPPED:
                trees.pop(new, path)
                self._tell(key, f"{key} is read no more: remove it", origin, silent)
            elif key in RENAMED:
                trees.pop(new, path)
                self._rename(new, (*size, *stream), RENAMED[key], VALUES.get(key, {}).get(str(value), value))
                told = f"{key} is now {RENAMED[key]}; the old name works for one release"
                self._tell(key, told, origin, silent)
            elif isinstance(value, str) and "${" in value:
                trees.put(new, path, REFERENCE.sub(_renamed_reference, value))
        return new

    def _tell(self, key: str, text: str, origin: str, silent: bool) -> None:
        if not silent:
            self.notes.setdefault(key, f"{text} ({origin}).")

    def _rename(self, tree: Tree, prefix: Path, key: str, value: Value) -> None:
        """Put a value under its new name, unless a value is there already or its slot is empty."""
        path = (*prefix, *trees.split(key))
        slot = path[:-1]
        if is_slot(slot):
            there = as_slot(slot, trees.get(tree, slot, {}))
            if not isinstance(there, dict):
                return
            trees.put(tree, slot, there)
        if path not in dict(trees.nodes(tree)):
            trees.put(tree, path, value)
            self.renamed.add(key)


def _renamed_reference(found: re.Match[str]) -> str:
    return "${" + RENAMED.get(found[1], found[1]) + "}"
