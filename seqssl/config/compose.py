"""From a recipe's name and overrides to a checked `RunConfig`.

Layers, each over the one before: the recipes named by `extends` (left to right), the recipe's own keys,
the chosen entry of its `sizes`, the command line. Every value remembers where it came from.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqssl.config import check as rules
from seqssl.config.components import did_you_mean
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError

MAX_EXTENDS = 2  # levels below a recipe: deeper chains cannot be read
COMMAND_LINE = "command line"
Tree = dict[str, Any]
# Names of sizes, and the configuration at each -> the one to take, and a sentence for the user.
ChooseSize = Callable[[Sequence[str], Callable[[str], RunConfig]], tuple[str, str]]


@dataclass(frozen=True)
class Resolved:
    """A checked configuration and how it came about."""

    config: RunConfig
    origins: dict[str, str]  # dotted key -> the file it came from, "command line" or "default"
    note: str = ""  # what size=auto chose, and how to choose otherwise


@dataclass
class Layers:
    """Values merged so far, with the origin of each leaf."""

    values: Tree = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def merge(self, new: Mapping[str, Any], origin: str) -> None:
        """Lay `new` over what is there."""
        keys = sorted(new, key=lambda key: key == "sizes")  # last: they are about the components above them
        self._merge(self.values, {key: new[key] for key in keys}, origin, ())

    def choose_size(self, size: str, sizes: Tree) -> None:
        """Lay an entry of `sizes` over what is there; its values keep their files as origins."""
        prefix = f"sizes.{size}."
        files = {
            key.removeprefix(prefix): file for key, file in self.origins.items() if key.startswith(prefix)
        }
        self.merge(sizes[size], "")
        for key, file in files.items():
            self.origins[key] = f"{file}, size={size}"

    def _merge(self, base: Tree, new: Mapping[str, Any], origin: str, path: tuple[str, ...]) -> None:
        for key, value in new.items():
            where = (*path, str(key))
            value = as_slot(where, value)
            if _changes_target(where, base.get(key), value):
                self._forget(base, key, where)
                self._forget_in_sizes(where)
            elif value is None and _is_slot(where):
                self._forget_in_sizes(where)
            if isinstance(value, Mapping) and value:
                if not isinstance(base.get(key), dict):
                    self._forget(base, key, where)
                    base[key] = {}
                self._merge(base[key], value, origin, where)
            elif not (value == {} and isinstance(base.get(key), dict)):
                self._forget(base, key, where)
                base[key] = value
                self.origins[".".join(where)] = origin

    def _forget_in_sizes(self, slot: tuple[str, ...]) -> None:
        """Drop what sizes so far say of the component that stood in a slot."""
        sizes = self.values.get("sizes")
        for size, tree in sizes.items() if isinstance(sizes, dict) and slot[0] != "sizes" else ():
            for key in slot[:-1]:
                tree = tree.get(key) if isinstance(tree, dict) else None
            if isinstance(tree, dict) and "target" not in (tree.get(slot[-1]) or ("target",)):
                self._forget(tree, slot[-1], ("sizes", size, *slot))

    def _forget(self, base: Tree, key: str, where: tuple[str, ...]) -> None:
        base.pop(key, None)
        name = ".".join(where)
        for old in [old for old in self.origins if old == name or old.startswith(name + ".")]:
            del self.origins[old]


def resolve(name: str | Path, *overrides: str, choose_size: ChooseSize) -> Resolved:
    """The configuration of a recipe, with `key=value` overrides; all its problems in one `UserError`.

    `choose_size` decides what size=auto means; see `seqssl.planning.plan`.
    """
    given, problems = parse_overrides(overrides)
    path = find_recipe(name)
    layers = Layers()
    for origin, content in _read_layers(path):
        layers.merge(content, origin)
    layers.values.setdefault("recipe", path.stem)
    sizes = _sizes(layers)
    asked = str(given.pop("size", layers.values.get("size", "auto")))
    only = str(layers.values.get("size", "default"))  # of a recipe without sizes
    size, note = _known_size(name, sizes, asked, only), ""
    if not size:

        def at(size: str) -> RunConfig:
            return resolve(name, *overrides, f"size={size}", choose_size=choose_size).config

        size, note = choose_size(list(sizes), at)
    if size in sizes:
        layers.choose_size(size, sizes)
    if "streams" in given:
        layers.merge({"streams": given["streams"]}, COMMAND_LINE)
    _add_streams(layers, size)
    if layers.values.get("streams"):
        ignored = [key for key in given if key in rules.STREAM_KEYS]
        remedy = "a joint run has one for each kind of data: say streams.NAME." + "{}"
        problems += [rules.Problem(key, None, remedy.format(key), COMMAND_LINE) for key in ignored]
    rest = {key: value for key, value in given.items() if key != "streams"}
    layers.merge({"size": size, **rest}, COMMAND_LINE)
    config, found = rules.build(_interpolate(layers.values, path), layers.origins, _display(path))
    problems += found
    if problems:
        raise UserError(rules.report(problems))
    origins = {key: layers.origins.get(key, "default") for key in _leaves(asdict(config))}
    return Resolved(config, origins, note)


def _add_streams(layers: Layers, size: str) -> None:
    """Lay the recipes that the streams of a joint run name under what the run itself says of them.

    Of those recipes only what is particular to their data counts; the rest is the joint run's own. A stream
    in which nothing is left open is a saved run's.
    """
    streams = layers.values.get("streams")
    for name, stream in (streams if isinstance(streams, dict) else {}).items():
        if not isinstance(stream, dict) or "recipe" not in stream or {*rules.STREAM_KEYS} <= {*stream}:
            continue
        path = find_recipe(str(stream["recipe"]))
        below = Layers()
        for origin, content in _read_layers(path):
            below.merge(content, origin)
        if below.values.get("streams"):
            raise UserError(
                f"streams.{name}.recipe = {stream['recipe']}: is a joint run itself; name its parts"
            )
        sizes = _sizes(below)
        if size in sizes:
            below.choose_size(size, sizes)
        own = copy.deepcopy({key: below.values[key] for key in rules.STREAM_KEYS if key in below.values})
        above, origins = copy.deepcopy(stream), dict(layers.origins)
        layers.merge({"streams": {name: own}}, "")
        layers.merge({"streams": {name: above}}, "")
        origins = {f"streams.{name}.{key}": file for key, file in below.origins.items()} | origins
        layers.origins.update({key: file for key, file in origins.items() if key in layers.origins})


def to_yaml(config: RunConfig) -> str:
    """The configuration as YAML that `load_recipe` reads back."""
    plain = asdict(config)
    plain["optim"]["betas"] = list(plain["optim"]["betas"])
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def find_recipe(name: str | Path, beside: Path | None = None) -> Path:
    """A recipe's file: a path (or a run's folder), ./recipes, or the copy shipped with seqssl."""
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
    """Every recipe that can be named, with its file; ./recipes goes before the shipped ones."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.rglob("*.yaml")):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def sizes_of(path: Path) -> list[str]:
    """Names of the sizes that a recipe comes in."""
    layers = Layers()
    for origin, content in _read_layers(path):
        layers.merge(content, origin)
    return list(_sizes(layers))


def header(path: Path) -> dict[str, str]:
    """The `# Paper: ...` lines that a recipe opens with; an indented comment continues the line above."""
    fields: dict[str, str] = {}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.strip() == "#":
            break
        name, colon, text = line[2:].partition(": ")
        if colon and name.isalpha():
            key = name.lower()
            fields[key] = text.strip()
        elif key:
            fields[key] += " " + line[2:].strip()
    return fields


def read_recipe(path: Path) -> Tree:
    """One file, as it stands."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{_display(path)} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{_display(path)} holds no mapping of keys to values")
    return {str(key): value for key, value in content.items()}


def parse_overrides(overrides: Sequence[str]) -> tuple[Tree, list[rules.Problem]]:
    """`a.b=value` texts as one tree, and those that cannot be read."""
    layers, problems = Layers(), []
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = ["data", "source"] if key == "data" else key.split(".")
        if not equals or not all(parts):
            problems.append(rules.Problem(override, None, "expected key=value", COMMAND_LINE))
            continue
        try:
            parsed: Any = OmegaConf.to_container(OmegaConf.create(f"value: {text}"), resolve=False)
        except (yaml.YAMLError, OmegaConfBaseException):
            problems.append(rules.Problem(key, text, "not a YAML value; quote it", COMMAND_LINE))
            continue
        tree = parsed["value"]
        for part in reversed(parts):
            tree = {part: tree}
        layers.merge(tree, COMMAND_LINE)
    return layers.values, problems


def as_slot(where: tuple[str, ...], value: Any) -> Any:
    """A bare text on a slot means its target, in a stream's place its recipe."""
    if isinstance(value, str) and len(where) == 2 and where[0] == "streams":
        return {"recipe": value}
    return {"target": value} if isinstance(value, str) and _is_slot(where) else value


def _is_slot(where: tuple[str, ...]) -> bool:
    inner = where[2:] if where[0] == "sizes" else where
    inner = inner[2:] if inner[:1] == ("streams",) else inner
    if len(inner) == 1:
        return inner[0] in rules.SLOTS
    return len(inner) == 2 and inner[0] in rules.SLOT_MAPPINGS


def _changes_target(where: tuple[str, ...], old: Any, new: Any) -> bool:
    if not (_is_slot(where) and isinstance(old, dict) and isinstance(new, Mapping)):
        return False
    return "target" in old and new.get("target", old["target"]) != old["target"]


def _read_layers(path: Path, level: int = 0) -> Iterator[tuple[str, Tree]]:
    if level > MAX_EXTENDS:
        raise UserError(
            f"{_display(path)} is extended through more than {MAX_EXTENDS} levels; name it directly"
        )
    content = read_recipe(path)
    content.pop("provenance", None)  # a saved run says where it came from; that is no setting
    parents = content.pop("extends", None) or []
    for parent in [parents] if isinstance(parents, str) else parents:
        yield from _read_layers(find_recipe(parent, beside=path.parent), level + 1)
    yield _display(path), content


def _sizes(layers: Layers) -> Tree:
    """The sizes of a recipe, taken out of its values; null removes one that it inherits."""
    sizes = layers.values.pop("sizes", None) or {}
    return (
        {name: entry for name, entry in sizes.items() if entry is not None}
        if isinstance(sizes, dict)
        else sizes
    )


def _known_size(name: str | Path, sizes: Tree, asked: str, only: str) -> str:
    """The size that is asked for, "" where it is to be chosen; UserError where there is no such size."""
    if not isinstance(sizes, dict) or not all(isinstance(entry, dict) for entry in sizes.values()):
        raise UserError(f"{name}: sizes must map each size's name to the keys that it changes")
    if asked in sizes or (not sizes and asked == only):
        return asked
    if asked != "auto":
        raise UserError(
            f"size = {asked}: {name} has no such size{did_you_mean(asked, [*(sizes or [only]), 'auto'])}"
        )
    return "" if sizes else only


def _interpolate(values: Tree, path: Path) -> Tree:
    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{_display(path)}: {str(error).splitlines()[0]}") from error
    return dict(resolved)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _folders() -> list[Path]:
    package = Path(__file__).parents[1]
    shipped = package / "_recipes"  # in a wheel; an editable install has them beside the package
    return [Path("recipes"), shipped if shipped.is_dir() else package.parent / "recipes"]


def _display(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
