"""Layers of settings, each laid over those before it; every value remembers where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from seqssl.config import tree as trees
from seqssl.config.schema import MixedStream, hint_at, is_nullable, kind_of, section_of
from seqssl.config.tree import Path
from seqssl.config.values import Tree, Value

NOTHING = "none"  # the value that empties a slot, as null does


@dataclass
class Layers:
    """Values merged so far, with the origin of each leaf."""

    values: Tree = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def merge(self, new: Mapping[str, Value], origin: str) -> None:
        """Lay `new` over what is there."""
        # Sizes last: a changed target drops what sizes say of the old component. What this layer's own sizes
        # say is about the new one, and must not be dropped.
        keys = sorted(new, key=lambda key: key == "sizes")
        self._merge(self.values, {key: new[key] for key in keys}, origin, ())

    def choose_section(self, place: str, section: Value, words: str) -> None:
        """Lay a section of a recipe, found at `place`, over the rest; its values keep their origins."""
        files = trees.below(self.origins, place)
        self.merge(section if isinstance(section, Mapping) else {}, "")
        for key, file in files.items():
            self.origins[key] = f"{file}, {words}"

    def _merge(self, base: Tree, new: Mapping[str, Value], origin: str, path: Path) -> None:
        """Lay `new` over `base`, the part of the values at `path`, and note `origin` for each leaf."""
        for key, value in new.items():
            where = (*path, str(key))
            value = as_slot(where, value)
            old = base.get(key)
            if _changes_target(where, old, value):
                self._forget(base, key, where)
                self._forget_in_sizes(where)
            elif value is None and is_slot(where):  # or a size would bring the component back
                self._forget_in_sizes(where)
            if isinstance(value, Mapping) and value:
                inner = base.get(key)
                if not isinstance(inner, dict):
                    self._forget(base, key, where)
                    inner = base[key] = {}
                self._merge(inner, value, origin, where)
            elif not (value == {} and isinstance(old, dict)):  # {} over a mapping adds nothing to it
                self._forget(base, key, where)
                base[key] = value
                self.origins[trees.join(where)] = origin

    def _forget_in_sizes(self, slot: Path) -> None:
        """Drop the settings that `sizes` hold so far for the component that was in a slot.

        A recipe that exchanges a component has no use for the settings that its parents give the old one in
        each size, and they would be unknown keys of the new one. An entry that names a component itself
        stays.
        """
        sizes = self.values.get("sizes")
        for size in sizes if isinstance(sizes, dict) and slot[0] != "sizes" else ():
            above = trees.get(self.values, ("sizes", size, *slot[:-1]))
            entry = above.get(slot[-1]) if isinstance(above, dict) else None
            if isinstance(above, dict) and isinstance(entry, dict) and "target" not in entry:
                self._forget(above, slot[-1], ("sizes", size, *slot))

    def _forget(self, base: Tree, key: str, where: Path) -> None:
        """Remove a key from `base`, and the origins of everything at and below it."""
        base.pop(key, None)
        name = trees.join(where)
        for old in [old for old in self.origins if trees.is_within(old, name)]:
            del self.origins[old]


def is_slot(where: Path) -> bool:
    """Whether a path is that of a slot, at the top level or within a size."""
    return kind_of(hint_at(trees.split_size(where)[1])) is not None


def as_slot(where: Path, value: Value) -> Value:
    """A bare text written out: {target: text} for a slot (None for `none`), {recipe: text} for a stream."""
    hint = hint_at(trees.split_size(where)[1])
    if isinstance(value, str) and kind_of(hint):
        return None if value == NOTHING and is_nullable(hint) else {"target": value}
    if isinstance(value, str) and section_of(hint) is MixedStream:
        return {"recipe": value}
    return value


def _changes_target(where: Path, old: Value, new: Value) -> bool:
    """Whether `new` exchanges the component that `old` has in a slot."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping) and is_slot(where)):
        return False
    # Without a target, the new settings are for the component that is there.
    return "target" in old and new.get("target", old["target"]) != old["target"]
