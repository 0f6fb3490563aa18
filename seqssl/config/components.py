"""From a slot (`{target: ..., keywords}`) to an object: find the class, check the keywords, construct.

A component's constructor is its schema: positional parameters are wiring, looked up by name among the
parts that exist already, and keyword-only parameters are configuration. Shipped components are found
through the same entry points (`seqssl.<kind>`) as a stranger's.
"""

import ast
import difflib
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from importlib import metadata, util
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, Literal, Union

from seqssl.errors import UserError

KINDS = ("modality", "feature_encoder", "masking", "quantizer", "mixer", "objective", "targets", "task")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a close match, else the list of what there is."""
    known = sorted(options)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; there is: {', '.join(known)}" if known else "; there is none"


def names(kind: str) -> dict[str, str]:
    """Bare names that a slot of this kind understands, each with its `pkg.mod:Class`."""
    return {entry.name: entry.value for entry in metadata.entry_points(group=f"seqssl.{kind}")}


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
    """The class that a target names; the current folder is searched like an installed package."""
    module_name, _, class_name = locate(target, kind).partition(":")
    _search_current_folder()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{kind} '{target}' cannot be imported: {error}. {_WHERE}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{kind} '{target}': importing {module_name} fails with {reason}") from error
    if not hasattr(module, class_name):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise UserError(
            f"{module_name} has no '{class_name}' for the {kind}{did_you_mean(class_name, classes)}"
        )
    found = getattr(module, class_name)
    if not isinstance(found, type):
        raise UserError(f"{kind} '{target}' is a {type(found).__name__}, not a class")
    return found


def signature(target: str, kind: str) -> Signature:
    """A component's constructor signature.

    It is read from the source text where that is possible: importing torch can take many seconds, and a
    misspelt key should be answered at once.
    """
    module_name, _, class_name = locate(target, kind).partition(":")
    _search_current_folder()
    try:
        spec = util.find_spec(module_name)
    except (ModuleNotFoundError, ValueError):
        spec = None
    if spec is None:
        raise UserError(f"{kind} '{target}' cannot be imported: there is no module '{module_name}'. {_WHERE}")
    if spec.origin is not None and spec.origin.endswith(".py"):
        found = _signature_in_source(Path(spec.origin), class_name)
        if found is not None:
            return found
    return inspect.signature(load(target, kind))


def schema(component: Signature | type) -> dict[str, Parameter]:
    """The configuration of a component: its keyword-only parameters."""
    found = component if isinstance(component, Signature) else inspect.signature(component)
    return {name: p for name, p in found.parameters.items() if p.kind is Parameter.KEYWORD_ONLY}


def slot_problems(slot: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[str, str]:
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


def construct(slot: Mapping[str, Any], kind: str, wiring: Mapping[str, object]) -> Any:
    """Build a slot's component; `wiring` holds by name what its positional parameters may ask for."""
    target = str(slot.get("target", ""))
    component = load(target, kind)
    found = inspect.signature(component)
    problems = slot_problems(slot, schema(found))
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
    parameters = schema(found)
    settings = {key: value for key, value in slot.items() if key != "target"}
    keywords = {key: convert(value, parameters[key].annotation) for key, value in settings.items()}
    try:
        return component(*positional, **keywords)
    except ValueError as error:  # what types cannot say: a range, a multiple, a choice
        raise UserError(f"{kind} '{target}' cannot be built: {error}") from error


def fits(value: object, annotation: Any) -> bool:
    """Whether a YAML value may stand where `annotation` is asked; annotations of other kinds accept all."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if annotation is None or annotation is type(None):
        return value is None
    if origin is Literal:
        return value in arguments
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is str:
        return isinstance(value, str | int | float)
    if annotation is bool:
        return isinstance(value, bool)
    if origin is dict:
        return isinstance(value, Mapping) and all(fits(item, arguments[1]) for item in value.values())
    if origin in (tuple, list):
        return isinstance(value, list | tuple) and _items_fit(value, origin, arguments)
    return True


def convert(value: Any, annotation: Any) -> Any:
    """A value that fits `annotation`, in that type: 1 becomes 1.0 for a float, a list a tuple."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        exact = [option for option in arguments if isinstance(option, type) and type(value) is option]
        fitting = exact or [option for option in arguments if fits(value, option)]
        return convert(value, fitting[0]) if fitting else value
    if annotation is float and isinstance(value, int):
        return float(value)
    if annotation is str and isinstance(value, bool):
        return "on" if value else "off"  # YAML 1.1 reads a bare off as false
    if annotation is str and isinstance(value, int | float):
        return str(value)
    if origin in (tuple, list) and isinstance(value, list | tuple):
        item = arguments[0] if arguments else Any
        return origin(convert(entry, item) for entry in value)
    return value


def describe(annotation: Any) -> str:
    """An annotation in words, for messages."""
    if annotation in (Parameter.empty, Any):
        return "a value"
    if annotation is type(None):
        return "null"
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(describe(option) for option in typing.get_args(annotation))
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    if typing.get_origin(annotation) in (tuple, list):
        item = typing.get_args(annotation)[:1]
        return (
            f"a list of {describe(item[0]).split(' ')[-1]}s, as in [a, b]" if item else "a list, as in [a, b]"
        )
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    return words[annotation] if annotation in words else str(annotation)


_WHERE = "Modules are looked for in the current folder and among the installed packages."
# What an annotation read from source text may name; others are left to the constructor to check.
_ANNOTATIONS = {
    "int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "dict": dict,
    "Literal": Literal, "Any": Any, "None": None,
}  # fmt: skip


def _search_current_folder() -> None:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, "")


def _items_fit(value: list[Any] | tuple[Any, ...], origin: type, arguments: tuple[Any, ...]) -> bool:
    if not arguments:
        return True
    if origin is list or arguments[-1] is Ellipsis:
        return all(fits(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(fits, value, arguments))


def _signature_in_source(path: Path, class_name: str) -> Signature | None:
    """The signature of `class_name.__init__` by its text; None where only an import can tell."""
    body = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == class_name]
    if len(found) != 1 or found[0].decorator_list:
        return None
    for node in found[0].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__" and not node.args.kwarg:
            return _signature_of(node.args)
    return None


def _signature_of(arguments: ast.arguments) -> Signature | None:
    positional = [*arguments.posonlyargs, *arguments.args][1:]  # without self
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    try:
        parameters = [
            *map(_parameter, positional, [*missing, *arguments.defaults], [False] * len(positional)),
            *map(_parameter, arguments.kwonlyargs, arguments.kw_defaults, [True] * len(arguments.kwonlyargs)),
        ]
    except ValueError:  # a default that is computed
        return None
    return Signature(parameters)


def _parameter(argument: ast.arg, default: ast.expr | None, keyword: bool) -> Parameter:
    annotation: Any = Parameter.empty
    if argument.annotation is not None:
        try:
            code = compile(ast.Expression(argument.annotation), "annotation", "eval")
            annotation = eval(code, {"__builtins__": {}}, dict(_ANNOTATIONS))
        except (NameError, AttributeError, TypeError):
            annotation = Parameter.empty
    return Parameter(
        argument.arg,
        Parameter.KEYWORD_ONLY if keyword else Parameter.POSITIONAL_OR_KEYWORD,
        default=Parameter.empty if default is None else ast.literal_eval(default),
        annotation=annotation,
    )
