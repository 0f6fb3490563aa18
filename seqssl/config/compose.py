"""From a recipe's name and overrides to a checked `RunConfig`.

Settings come in layers, and each overrides those before it: the default slots, the recipes named by `extends`
(left to right), the recipe's own keys, the chosen entry of its `sizes`, what it says of its `demo` corpus (if
that is what is read), the command line, the chosen entry of its `stages`. Every value remembers where it came
from.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from seqssl.config import text
from seqssl.config import tree as trees
from seqssl.config.check import build
from seqssl.config.files import display, find_recipe, read_recipe
from seqssl.config.layers import Layers
from seqssl.config.moved import Translation
from seqssl.config.problems import Problem, report
from seqssl.config.references import interpolate
from seqssl.config.schema import STREAM_KEYS, RunConfig, default_slots
from seqssl.config.stages import FOLDER, run_folder, with_folders
from seqssl.config.values import Tree, Value, did_you_mean
from seqssl.errors import UserError

MAX_EXTENDS = 2  # levels below a recipe; longer chains are hard for people to follow
STRUCTURE = ("[", "{", "'", '"', "|", ">", "&", "*", "!")  # how a value of YAML begins that is no plain text
COMMENT = re.compile(r"(^|\s)#")  # what YAML takes for one, and a person for a part of a name
COMMAND_LINE = "command line"
DEFAULT = "default"
# Names of sizes, and the configuration at each -> the one to take, and a sentence for the user.
ChooseSize = Callable[[Sequence[str], Callable[[str], RunConfig]], tuple[str, str]]


@dataclass(frozen=True)
class Resolved:
    """A checked configuration, and where its values came from."""

    config: RunConfig
    origins: dict[str, str]  # dotted key -> the file it came from, "command line" or "default"
    note: str = ""  # what size=auto chose, and how to choose otherwise; which keys have new names
    stages: tuple[str, ...] = ()  # runs that the recipe wants before its own, in this order: `stage=NAME`


@dataclass(frozen=True)
class Layer:
    """One recipe file. That of a saved run is complete: seqssl wrote it, not a person."""

    origin: str
    content: Tree
    is_saved: bool


def resolve(name: str | Path, *overrides: str, choose_size: ChooseSize) -> Resolved:
    """The configuration of a recipe, with `key=value` overrides; all its problems in one `UserError`.

    `choose_size` decides what size=auto means; see `seqssl.planning.plan`.
    """
    translation = Translation()
    given, problems = parse_overrides(overrides, translation)
    return _resolved(name, given, problems, translation, choose_size)


def _resolved(
    name: str | Path,
    given: Tree,
    problems: list[Problem],
    translation: Translation,
    choose_size: ChooseSize,
) -> Resolved:
    """`resolve`, for overrides that were read already."""
    path, whole, given = find_recipe(name), given, copy.deepcopy(given)
    stage = given.pop("stage", None)
    layers = Layers()
    for slot, default in default_slots().items():
        layers.merge(trees.nested(slot, default), DEFAULT)
    complete = _merge_files(layers, path, translation)
    layers.values.setdefault("recipe", path.stem)  # a saved run has the name already; its file says "config"
    sizes = _sizes(layers)
    asked = str(given.pop("size", layers.values.get("size", "auto")))
    only = str(layers.values.get("size", "default"))  # of a recipe without sizes
    size, note = _known_size(name, sizes, asked, only), ""
    if not size:
        # A size is judged by what the whole run costs at it, so all layers are laid anew for each one.
        def at(size: str) -> RunConfig:
            return _resolved(name, {**whole, "size": size}, problems, translation, choose_size).config

        size, note = choose_size(list(sizes), at)
    if size in sizes:
        layers.choose_section(f"sizes.{size}", sizes[size], f"size={size}")
    _add_demo(layers, given.get("data"))
    stages = _stages(layers, name, given.pop("stages", None))
    # Before the recipes of the streams are read: the command line may add a stream, or remove one.
    if "streams" in given:
        layers.merge({"streams": given["streams"]}, COMMAND_LINE)
    _add_streams(layers, size, complete, translation)
    if layers.values.get("streams"):
        ignored = [key for key in given if key in STREAM_KEYS]
        remedy = "a joint run has one for each kind of data: say streams.NAME.{}"
        problems += [Problem(key, None, remedy.format(key), COMMAND_LINE) for key in ignored]
    rest = {key: value for key, value in given.items() if key != "streams"}
    layers.merge({"size": size, **rest}, COMMAND_LINE)
    if stage is not None:  # last: what is said of a stage is said of nothing else
        if str(stage) not in stages:
            raise UserError(f"stage = {stage}: {name} has {', '.join(stages) or 'no stages'}")
        if "out" not in given:  # where the whole recipe has it, so that it need not be made twice
            rest = {**whole, "size": size} if size else dict(whole)
            del rest["stage"]
            run = run_folder(_resolved(name, rest, problems, translation, choose_size).config)
            layers.merge({"out": str(run / FOLDER / str(stage))}, COMMAND_LINE)
        if "recipe" in (entry := stages[str(stage)]):
            own = _of_other_recipe(entry, layers, given, size)
            found = _resolved(str(entry["recipe"]), own, problems, translation, choose_size)
            if found.stages:
                raise UserError(f"stages.{stage}.recipe = {entry['recipe']}: it has stages itself")
            return found
        layers.merge(entry, f"stage={stage}")
    config = _checked(layers, display(path), translation, problems)
    origins = {key: layers.origins.get(key, DEFAULT) for key, _ in trees.leaves(asdict(config))}
    others = tuple(stages) if stage is None else ()  # a stage alone is a run like any other
    before = "Before it come other stages, runs of their own: {} (stage=NAME shows one)."
    said = (note, translation.note, before.format(", ".join(others)) if others else "")
    return Resolved(config, origins, "\n".join(filter(None, said)), others)


def _checked(layers: Layers, recipe: str, translation: Translation, problems: Sequence[Problem]) -> RunConfig:
    """The configuration that the layers make; raises one UserError that lists everything wrong with it."""
    values, unresolved = interpolate(layers.values)
    before = [
        *problems,
        *translation.problems,
        *(Problem(key, value, text, layers.origins.get(key, recipe)) for key, value, text in unresolved),
    ]
    config, found = build(values, layers.origins, recipe, before, translation.renamed)
    if found:
        raise UserError(report(found))
    return config


def _merge_files(layers: Layers, path: Path, translation: Translation) -> set[str]:
    """Lay a recipe's files over the layers; returns the streams that a saved run among them has in full."""
    complete: set[str] = set()
    for layer in _read_layers(path, translation):
        layers.merge(layer.content, layer.origin)
        streams = layer.content.get("streams")
        complete |= {*streams} if layer.is_saved and isinstance(streams, dict) else set()
    return complete


def _add_demo(layers: Layers, data: Value) -> None:
    """Lay what the recipe says of its demo corpus over the rest, unless `data` or the recipe names others."""
    section = layers.values.pop("demo", None)
    own = layers.values.get("data")
    named = {**(own if isinstance(own, dict) else {}), **(data if isinstance(data, dict) else {})}
    is_read = not named.get("source") and (not isinstance(own, dict) or named.get("demo") == own.get("demo"))
    if is_read and isinstance(section, dict):
        layers.choose_section("demo", section, "demo corpus")


def _add_streams(layers: Layers, size: str, complete: set[str], translation: Translation) -> None:
    """For each stream of a joint run, lay the settings of its recipe under what the run itself says of it.

    Of that recipe only what is particular to its data is taken (`STREAM_KEYS`); the rest is the joint run's
    own. The streams in `complete`, those of a saved run, are left alone.
    """
    streams = layers.values.get("streams")
    for name, stream in (streams if isinstance(streams, dict) else {}).items():
        if not isinstance(stream, dict) or "recipe" not in stream or name in complete:
            continue
        below = Layers()
        _merge_files(below, find_recipe(str(stream["recipe"])), translation)
        if below.values.get("streams"):
            raise UserError(
                f"streams.{name}.recipe = {stream['recipe']}: is a joint run itself; name its parts"
            )
        sizes = _sizes(below)
        if size in sizes:
            below.choose_section(f"sizes.{size}", sizes[size], f"size={size}")
        _add_demo(below, stream.get("data"))
        own = copy.deepcopy({key: below.values[key] for key in STREAM_KEYS if key in below.values})
        # Layers go on top only: so the recipe goes over the run's own words, then these go over it again.
        # The copy is needed because the first merge changes `stream` itself.
        above, origins = copy.deepcopy(stream), dict(layers.origins)
        layers.merge({"streams": {name: own}}, "")
        layers.merge({"streams": {name: above}}, "")
        origins = {f"streams.{name}.{key}": file for key, file in below.origins.items()} | origins
        layers.origins.update({key: file for key, file in origins.items() if key in layers.origins})


def to_yaml(config: RunConfig) -> str:
    """The configuration as YAML that `load_recipe` reads back."""
    return text.write(asdict(config))


def sizes_of(path: Path) -> list[str]:
    """Names of the sizes that a recipe comes in."""
    layers = Layers()
    _merge_files(layers, path, Translation())
    return list(_sizes(layers))


def _stages(layers: Layers, name: str | Path, given: Value) -> dict[str, Tree]:
    """The stages of a recipe before its own, removed from its values; `given`: what the command line says.

    UserError where that names a stage that the recipe has not.
    """
    known = layers.values.get("stages")
    known = known if isinstance(known, dict) else {}
    for stage in given if isinstance(given, dict) else ():
        if stage not in known:
            raise UserError(f"stages.{stage}: {name} has no such stage{did_you_mean(stage, known)}")
    layers.merge({"stages": given or {}}, COMMAND_LINE)
    stages = layers.values.pop("stages", None) or {}
    if not isinstance(stages, dict):
        stages = {"": stages}
    found = {stage: entry for stage, entry in stages.items() if isinstance(entry, dict)}
    if len(found) < len(stages):
        raise UserError(f"{name}: stages must map each stage's name to the keys that it changes")
    return found


def _of_other_recipe(stage: Tree, layers: Layers, given: Tree, size: str) -> Tree:
    """Overrides for a stage that has a recipe of its own.

    Of the recipe that it is a stage of, it keeps what the data are; of the command line, also how a run goes.
    """
    merged = Layers()
    merged.merge({key: given[key] for key in ("train", "seed", "health") if key in given}, "")
    kept = ("modality", "data", "out")
    merged.merge({key: layers.values[key] for key in kept if key in layers.values}, "")
    merged.merge({key: value for key, value in stage.items() if key != "recipe"}, "")
    return {"size": size, **merged.values} if size else merged.values


def parse_overrides(
    overrides: Sequence[str], translation: Translation | None = None
) -> tuple[Tree, list[Problem]]:
    """Overrides such as `a.b=value` as one tree, and a problem for each that cannot be read."""
    translation = translation or Translation()
    layers, problems = Layers(), []
    for override in overrides:
        key, equals, written = override.partition("=")
        path = ("data", "source") if key == "data" else trees.split(key)
        if not equals or not all(path):
            problems.append(Problem(override, None, "expected key=value", COMMAND_LINE))
            continue
        is_text = not written.lstrip().startswith(STRUCTURE)
        typed: Value = {"value": written} if is_text else None
        try:  # as if it stood in a recipe; `key=` is null
            read = typed if is_text and COMMENT.search(written) else text.read(f"value: {written}")
        except yaml.YAMLError:  # a shell has taken the quotes of "%d.%m.%Y %H:%M": a text is what is typed
            read = typed
        if not isinstance(read, dict) or [*read] != ["value"]:
            problems.append(Problem(key, written, "not a YAML value; quote it", COMMAND_LINE))
            continue
        tree = translation.translate(trees.nested(path, read["value"]), COMMAND_LINE)
        layers.merge(tree, COMMAND_LINE)
    return layers.values, problems


def _read_layers(path: Path, translation: Translation, level: int = 0) -> Iterator[Layer]:
    """One layer for each file: what the recipe extends comes first, the recipe itself last."""
    if level > MAX_EXTENDS:
        raise UserError(
            f"{display(path)} is extended through more than {MAX_EXTENDS} levels; name it directly"
        )
    content = read_recipe(path)
    is_saved = content.pop("provenance", None) is not None  # only saved runs have it; it is no setting
    content = with_folders(content, path.parent) if is_saved else content
    parents = content.pop("extends", None) or []
    for parent in parents if isinstance(parents, list) else [parents]:
        yield from _read_layers(find_recipe(str(parent), beside=path.parent), translation, level + 1)
    yield Layer(display(path), translation.translate(content, display(path), silent=is_saved), is_saved)


def _sizes(layers: Layers) -> Tree:
    """The sizes of a recipe, removed from its values; a size that is null is left out."""
    sizes = layers.values.pop("sizes", None) or {}
    if not isinstance(sizes, dict):
        return {"": sizes}  # refused where a size is asked for
    return {name: entry for name, entry in sizes.items() if entry is not None}


def _known_size(name: str | Path, sizes: Mapping[str, Value], asked: str, only: str) -> str:
    """The size to use, "" where one is still to be chosen; UserError where there is no size of that name."""
    if not all(isinstance(entry, dict) for entry in sizes.values()):
        raise UserError(f"{name}: sizes must map each size's name to the keys that it changes")
    if asked in sizes or (not sizes and asked == only):
        return asked
    if asked != "auto":
        raise UserError(
            f"size = {asked}: {name} has no such size{did_you_mean(asked, [*(sizes or [only]), 'auto'])}"
        )
    return "" if sizes else only
