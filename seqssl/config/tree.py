"""The one walker of dotted keys: "a.b" names what stands at tree["a"]["b"], a path is its parts."""

from collections.abc import Iterator, Mapping

from seqssl.config.values import Tree, Value

Path = tuple[str, ...]


def split(key: str) -> Path:
    """A dotted key in its parts."""
    return tuple(key.split("."))


def join(path: Path) -> str:
    """The dotted key of a path."""
    return ".".join(path)


def nodes(tree: Mapping[str, Value], path: Path = ()) -> Iterator[tuple[Path, Value]]:
    """Everything in a tree with its path, mappings before what is in them."""
    for key, value in tree.items():
        yield (*path, str(key)), value
        if isinstance(value, Mapping):
            yield from nodes(value, (*path, str(key)))


def leaves(tree: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """What holds nothing further, by its dotted key; an empty mapping is a leaf too."""
    for path, value in nodes(tree):
        if not (isinstance(value, Mapping) and value):
            yield join(path), value


def flatten(tree: Mapping[str, Value]) -> Tree:
    """{"a": {"b": 1}} as {"a": {"b": 1}, "a.b": 1}: everything by its dotted key."""
    return {join(path): value for path, value in nodes(tree)}


def get(tree: Mapping[str, Value], path: Path, default: Value = None) -> Value:
    """What stands at a path, the default where nothing does."""
    for part in path[:-1]:
        inner = tree.get(part)
        if not isinstance(inner, Mapping):
            return default
        tree = inner
    return tree.get(path[-1], default)


def put(tree: Tree, path: Path, value: Value) -> None:
    """Put a value at a path; what is on the way and holds nothing is replaced."""
    for part in path[:-1]:
        inner = tree.get(part)
        if not isinstance(inner, dict):
            inner = tree[part] = {}
        tree = inner
    tree[path[-1]] = value


def pop(tree: Tree, path: Path) -> Value:
    """Take out what stands at a path, where something does."""
    above = get(tree, path[:-1]) if len(path) > 1 else tree
    return above.pop(path[-1]) if isinstance(above, dict) else None


def nested(path: Path, value: Value) -> Tree:
    """A tree with one value in it."""
    tree: Tree = {}
    put(tree, path, value)
    return tree


def is_within(key: str, above: str) -> bool:
    """Whether a dotted key is `above` or stands below it."""
    return key == above or key.startswith(f"{above}.")


def below(keys: Mapping[str, str], above: str) -> dict[str, str]:
    """The entries whose dotted keys stand below `above`, by the rest of their keys."""
    return {key[len(above) + 1 :]: value for key, value in keys.items() if key.startswith(f"{above}.")}


def split_size(path: Path) -> tuple[Path, Path]:
    """`sizes.NAME` in front of a path, and the rest: settings of a size stand where they would without."""
    return (path[:2], path[2:]) if path[:1] == ("sizes",) else ((), path)


def split_stream(path: Path) -> tuple[Path, Path]:
    """`streams.NAME` in front of a path, and the rest, if the path is that of a setting in a stream."""
    return (path[:2], path[2:]) if path[:1] == ("streams",) and len(path) > 2 else ((), path)


def within_stream(key: str) -> str:
    """A key without the stream that it belongs to: streams.a.data.max_frames is data.max_frames."""
    return join(split_stream(split(key))[1])


def of_stream(name: str, key: str) -> str:
    """The key of a setting in a stream; a lone stream is named ""."""
    return f"streams.{name}.{key}" if name else key
