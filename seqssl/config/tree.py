"""Dotted keys of nested mappings: "a.b" names the value at tree["a"]["b"]; a path is ("a", "b")."""

from collections.abc import Iterator, Mapping

from seqssl.config.values import Tree, Value

Path = tuple[str, ...]


def split(key: str) -> Path:
    """The parts of a dotted key."""
    return tuple(key.split("."))


def join(path: Path) -> str:
    """The dotted key of a path."""
    return ".".join(path)


def nodes(tree: Mapping[str, Value], path: Path = ()) -> Iterator[tuple[Path, Value]]:
    """Every value of a tree with its path; a mapping comes before what is in it."""
    for key, value in tree.items():
        yield (*path, str(key)), value
        if isinstance(value, Mapping):
            yield from nodes(value, (*path, str(key)))


def leaves(tree: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """Every value that is no mapping, by its dotted key; an empty mapping counts as a value, too."""
    for path, value in nodes(tree):
        if not (isinstance(value, Mapping) and value):
            yield join(path), value


def flatten(tree: Mapping[str, Value]) -> Tree:
    """{"a": {"b": 1}} as {"a": {"b": 1}, "a.b": 1}: everything by its dotted key."""
    return {join(path): value for path, value in nodes(tree)}


def get(tree: Mapping[str, Value], path: Path, default: Value = None) -> Value:
    """The value at a path; the default where there is none."""
    for part in path[:-1]:
        inner = tree.get(part)
        if not isinstance(inner, Mapping):
            return default
        tree = inner
    return tree.get(path[-1], default)


def put(tree: Tree, path: Path, value: Value) -> None:
    """Put a value at a path; whatever is on the way and is no mapping is replaced by one."""
    for part in path[:-1]:
        inner = tree.get(part)
        if not isinstance(inner, dict):
            inner = tree[part] = {}
        tree = inner
    tree[path[-1]] = value


def pop(tree: Tree, path: Path) -> Value:
    """Take out the value at a path and return it; None where there is none."""
    above = get(tree, path[:-1]) if len(path) > 1 else tree
    return above.pop(path[-1]) if isinstance(above, dict) else None


def nested(path: Path, value: Value) -> Tree:
    """A tree with one value in it."""
    tree: Tree = {}
    put(tree, path, value)
    return tree


def is_within(key: str, above: str) -> bool:
    """Whether a dotted key is `above`, or is somewhere below it."""
    return key == above or key.startswith(f"{above}.")


def below(keys: Mapping[str, str], above: str) -> dict[str, str]:
    """The entries with dotted keys below `above`, by the rest of their keys."""
    return {key[len(above) + 1 :]: value for key, value in keys.items() if key.startswith(f"{above}.")}


def split_size(path: Path) -> tuple[Path, Path]:
    """A path as `sizes.NAME`, if it begins so, and the rest: the path that it would have without a size."""
    return (path[:2], path[2:]) if path[:1] == ("sizes",) else ((), path)


def split_stream(path: Path) -> tuple[Path, Path]:
    """A path as `streams.NAME` and the rest, if it is that of a setting in a stream; else () and the path."""
    return (path[:2], path[2:]) if path[:1] == ("streams",) and len(path) > 2 else ((), path)


def within_stream(key: str) -> str:
    """A key without the stream that it belongs to: streams.a.data.max_frames is data.max_frames."""
    return join(split_stream(split(key))[1])


def of_stream(name: str, key: str) -> str:
    """The key of a setting in a stream; a lone stream is named ""."""
    return f"streams.{name}.{key}" if name else key
