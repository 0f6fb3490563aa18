"""From a slot (`{target: ..., keywords}`) to an object: find the class, check the keywords, construct.

A component's constructor is its schema. Positional parameters are wiring, looked up by name among the parts
that exist already; keyword-only parameters are configuration. Shipped components are found through the same
entry points (`seqssl.<kind>`) as anybody else's.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from seqssl.config import source
from seqssl.config.values import Tree, Value, convert, describe, did_you_mean, fits
from seqssl.errors import UserError

_WHERE = "Modules are looked for among the installed packages, then in the current folder."


def names(kind: str) -> dict[str, str]:
    """The bare names that a slot of this kind understands, each with its `pkg.mod:Class`."""
    return {entry.name: entry.value for entry in _installed(f"seqssl.{kind}", tuple(sys.path))}


def locate(target: str, kind: str) -> str:
    """`pkg.mod:Class` of a target, which is a bare name or has that form already."""
    if ":" in target:
        return target
    known = names(kind)
    if target not in known:
        hint = did_you_mean(target, known)
        hint += ("" if hint.endswith("?") else ".") + " Your own class is given as pkg.mod:Class."
        raise UserError(f"there is no {kind} named '{target}'{hint}")
    return known[target]


def load(target: str, kind: str) -> type:
    """The class that a target names; for `pkg.mod:Class` the current folder is searched last."""
    module_name, _, class_name = locate(target, kind).partition(":")
    _search_current_folder(target)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{kind} '{target}' cannot be imported: {error}. {_WHERE}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{kind} '{target}': importing {module_name} fails with {reason}") from error
    if not hasattr(module, class_name):
        raise _no_class(
            module_name, class_name, kind, {n for n, v in vars(module).items() if isinstance(v, type)}
        )
    found = getattr(module, class_name)
    if not isinstance(found, type):
        raise UserError(f"{kind} '{target}' is a {type(found).__name__}, not a class")
    return found


def signature(target: str, kind: str) -> Signature | None:
    """A component's constructor signature, read from its source text: no code of it is run.

    None where the text does not tell (a decorated class, a constructor with `**keywords`): such a component
    is checked when it is constructed. UserError where there is no such module or class.
    """
    module_name, _, class_name = locate(target, kind).partition(":")
    _search_current_folder(target)
    if source.find(module_name) is None:
        raise UserError(f"{kind} '{target}' cannot be imported: there is no module '{module_name}'. {_WHERE}")
    try:
        module = source.read(module_name)
        if module is None:
            return None
        if class_name not in module.names and not module.is_open:
            raise _no_class(module_name, class_name, kind, set(module.classes))
        return source.signature(module, class_name)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{kind} '{target}' cannot be read: {type(error).__name__}: {error}") from error


def schema(component: Signature | type | None) -> dict[str, Parameter]:
    """The configuration of a component: its keyword-only parameters."""
    found = inspect.signature(component) if isinstance(component, type) else component
    if found is None:
        return {}
    return {name: p for name, p in found.parameters.items() if p.kind is Parameter.KEYWORD_ONLY}


def slot_problems(slot: Mapping[str, Value], parameters: Mapping[str, Parameter]) -> dict[str, str]:
    """What is wrong with a slot's keywords: key -> message, empty when all is well."""
    problems = {}
    for key, value in slot.items():
        if key == "target":
            continue
        if key not in parameters:
            problems[key] = f"unknown key{did_you_mean(key, parameters)}"
        elif not fits(value, parameters[key].annotation):
            problems[key] = f"expected {describe(parameters[key].annotation)}"
    for key, parameter in parameters.items():
        if parameter.default is Parameter.empty and key not in slot:
            problems[key] = f"missing; expected {describe(parameter.annotation)}"
    return problems


def defaults(parameters: Mapping[str, Parameter]) -> Tree:
    """The default of each parameter that has one which can be read from the source text."""
    said = {name: p.default for name, p in parameters.items() if p.default is not Parameter.empty}
    return {name: value for name, value in said.items() if value is not source.NOT_TOLD}


class Lazy(Mapping[str, object]):
    """Wiring that makes a part only when it is asked for."""

    def __init__(self, **makers: Callable[[], object]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> object:
        return self._makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._makers  # Mapping's own would make the part to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


# Any: the class is found by name at run time, so the caller annotates what it expects to get.
def construct(
    slot: Mapping[str, Value], kind: str, wiring: Mapping[str, object], protocol: type = object
) -> Any:
    """Build a slot's component; `wiring` holds by name what its positional parameters may ask for.

    UserError where a keyword does not fit, where a positional parameter is not wired, where the constructor
    raises a ValueError (for a range, say, that no annotation can express), and where what was built lacks
    something that `protocol` names.
    """
    target = str(slot.get("target", ""))
    component = load(target, kind)
    found = _imported_signature(component)
    parameters = schema(found)
    problems = slot_problems(slot, parameters)
    if problems:
        lines = [f"{kind}.{key} = {slot.get(key)!r}: {text}" for key, text in problems.items()]
        raise UserError("\n".join([f"{kind} '{target}' cannot be built:", *lines]))
    positional = []
    for name, parameter in found.parameters.items():
        if parameter.kind not in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            continue
        if name in wiring:
            positional.append(wiring[name])
        elif parameter.default is Parameter.empty:
            raise UserError(
                f"{kind} '{target}' asks for '{name}', which is not wired here; a constructor's positional"
                f" parameters may be {', '.join(sorted(wiring))}, and its configuration is keyword-only"
            )
        else:
            positional.append(parameter.default)
    settings = {key: value for key, value in slot.items() if key != "target"}
    keywords = {key: convert(value, parameters[key].annotation) for key, value in settings.items()}
    try:
        built = component(*positional, **keywords)
    except ValueError as error:
        raise UserError(f"{kind} '{target}' cannot be built: {error}") from error
    absent = [name for name in _members(protocol) if not hasattr(built, name)]
    if absent:
        raise UserError(
            f"{kind} '{target}' is no {protocol.__name__}: it lacks {', '.join(absent)}."
            f" {protocol.__module__}.{protocol.__name__} says what each has to be."
        )
    return built


def _members(protocol: type) -> list[str]:
    """What a protocol names: methods, properties and annotated attributes; `__call__` if it is called."""
    annotated = {name for each in protocol.__mro__ for name in inspect.get_annotations(each)}
    return sorted(
        name for name in {*dir(protocol), *annotated} if name == "__call__" or not name.startswith("_")
    )


@lru_cache(maxsize=64)
def _installed(group: str, path: tuple[str, ...]) -> metadata.EntryPoints:
    """The entry points of a group, cached for each search path: looking them up takes milliseconds."""
    return metadata.entry_points(group=group)


def _imported_signature(component: type) -> Signature:
    """The signature of a class; annotations that are text are evaluated where that is possible."""
    try:
        return inspect.signature(component, eval_str=True)
    except Exception:  # the text may be a shape, or name what exists for type checkers only
        return inspect.signature(component)


def _no_class(module: str, name: str, kind: str, classes: set[str]) -> UserError:
    return UserError(f"{module} has no '{name}' for the {kind}{did_you_mean(name, classes)}")


def _search_current_folder(target: str) -> None:
    """Let the current folder give the module of a target that names one, after all installed packages.

    A bare name is installed, and needs no folder. Last, and never for a run or a prepared folder: one works
    in folders that others have packed, and a file there called rich.py must not stand in for the package.
    """
    if ":" not in target or {"", str(Path.cwd())} & {*sys.path}:
        return
    if not any(Path(name).is_file() for name in ("manifest.json", "metrics.jsonl")):
        sys.path.append("")  # it stays: workers are given this path, and have to find the module, too
