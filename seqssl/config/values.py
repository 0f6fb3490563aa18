"""Values of a configuration: what they may be, whether one fits an annotation, and how messages name them."""

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any, Literal, TypeAlias, Union

from seqssl.model.bounds import Marker


@dataclass(frozen=True)
class Plain:
    """A scalar that was written without quotes: its text, and the value that YAML reads (8 for `010`).

    Which of the two is meant depends on the annotation of the field: a group named `010` is that text.
    `convert` decides.
    """

    text: str
    value: bool | int | float | None

    def __repr__(self) -> str:
        return self.text


# What YAML and JSON can say. A checked configuration holds no `Plain` any more.
Value: TypeAlias = (
    "bool | int | float | str | Plain | list[Value] | tuple[Value, ...] | dict[str, Value] | None"
)
Tree: TypeAlias = dict[str, Value]
Hint: TypeAlias = object  # a type annotation: typing has no type for these


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a close match, else the list of all options."""
    known = sorted(options)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; there is: {', '.join(known)}" if known else "; there is none"


def resolved(value: Value) -> Value:
    """A value with what YAML reads in the place of each `Plain`, for where no annotation asks for text."""
    if isinstance(value, Plain):
        return value.value
    if isinstance(value, Mapping):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(item) for item in value]
    return value


def texts(value: Value) -> Value:
    """A value with the text in the place of each `Plain`."""
    if isinstance(value, Plain):
        return value.text
    if isinstance(value, Mapping):
        return {key: texts(item) for key, item in value.items()}
    return [texts(item) for item in value] if isinstance(value, list | tuple) else value


def number(slot: Mapping[str, Value], name: str, default: float) -> float:
    """The number that a slot has under a name; the default where it has none there."""
    value = slot.get(name)
    return value if isinstance(value, int | float) else default


def fits(value: Value, annotation: Hint) -> bool:
    """Whether a value fits an annotation; an annotation of an unknown kind accepts every value."""
    origin, arguments = _parts(annotation)
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return _choice(value, arguments) in arguments
    if origin is dict:
        return isinstance(value, Mapping) and all(fits(item, _inner(arguments)) for item in value.values())
    if origin in (tuple, list):
        return isinstance(value, list | tuple) and _items_fit(value, origin, arguments)
    if annotation is str:
        return isinstance(value, str | int | float | Plain) and not isinstance(value, bool)
    return _is_a(resolved(value), annotation)


def convert(value: Value, annotation: Hint) -> Value:
    """A fitting value as the annotated type: 1 becomes 1.0 for a float, `010` becomes "010" for a text."""
    origin, arguments = _parts(annotation)
    if origin is Annotated:
        return convert(value, arguments[0])
    if origin in (Union, types.UnionType):
        plain = resolved(value)
        exact = [option for option in arguments if type(plain) is _bare(option)]
        fitting = exact or [option for option in arguments if fits(value, option)]
        return convert(value, fitting[0]) if fitting else plain
    if origin is Literal:
        return _choice(value, arguments)
    if origin is dict and isinstance(value, Mapping):
        return {key: convert(item, _inner(arguments)) for key, item in value.items()}
    if origin in (tuple, list) and isinstance(value, list | tuple):
        items = [convert(item, hint) for item, hint in zip(value, _item_hints(value, arguments), strict=True)]
        return tuple(items) if origin is tuple else items
    if annotation is str and isinstance(value, int | float | Plain):
        return str(value)
    found = resolved(value)
    return float(found) if annotation is float and isinstance(found, int) else found


def describe(annotation: Hint) -> str:
    """An annotation in words, for messages."""
    origin, arguments = _parts(annotation)
    if origin is Annotated:
        return describe(arguments[0])
    if annotation in (Parameter.empty, Any):
        return "a value"
    if annotation in (None, type(None)):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (tuple, list):
        item = f" of {describe(arguments[0]).split(' ')[-1]}s" if arguments else ""
        return f"a list{item}, as in [a, b]"
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    return next((text for kind, text in words.items() if annotation is kind), str(annotation))


def numbers(value: Value, annotation: Hint) -> Iterator[tuple[float, list[Marker]]]:
    """Every number in a value that fits, with the markers that its annotation has for it."""
    origin, arguments = _parts(annotation)
    if origin in (Union, types.UnionType):
        annotation = next((option for option in arguments if fits(value, option)), None)
        yield from numbers(value, annotation)
    elif isinstance(value, Mapping):
        inner = _inner(arguments) if origin is dict else Parameter.empty
        yield from (found for item in value.values() for found in numbers(item, inner))
    elif isinstance(value, list | tuple):
        hints = _item_hints(value, arguments if origin in (tuple, list) else ())
        yield from (found for item, hint in zip(value, hints, strict=True) for found in numbers(item, hint))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        marked = arguments[1:] if origin is Annotated else ()
        yield value, [marker for marker in marked if isinstance(marker, Marker)]


def _parts(annotation: Hint) -> tuple[Hint, tuple[Hint, ...]]:
    """`base[arguments]` as base and arguments; a bare list, tuple or dict has items of any kind."""
    base = annotation if annotation in (list, tuple, dict) else typing.get_origin(annotation)
    return base, typing.get_args(annotation)


def _inner(arguments: tuple[Hint, ...]) -> Hint:
    """What a mapping with these arguments maps to."""
    return arguments[1] if arguments else Parameter.empty


def _is_a(value: Value, annotation: Hint) -> bool:
    """Whether a value is of a type that takes no arguments; for an unknown type, always."""
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, bool) if annotation is bool else True


def _choice(value: Value, options: tuple[Hint, ...]) -> Value:
    """The text of a value without quotes, if it is one of the options (as `off` is), else what YAML reads."""
    return value.text if isinstance(value, Plain) and value.text in options else resolved(value)


def _bare(annotation: Hint) -> Hint:
    """An annotation without its markers."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _items_fit(value: list[Value] | tuple[Value, ...], origin: Hint, arguments: tuple[Hint, ...]) -> bool:
    """Whether a list or tuple has as many items as its annotation wants, and each of them fits."""
    fixed = origin is tuple and arguments and arguments[-1] is not Ellipsis
    if fixed and len(value) != len(arguments):
        return False
    return all(map(fits, value, _item_hints(value, arguments)))


def _item_hints(value: list[Value] | tuple[Value, ...], arguments: tuple[Hint, ...]) -> list[Hint]:
    """The annotation of each item of a list or tuple."""
    if len(arguments) == len(value) and Ellipsis not in arguments:
        return list(arguments)
    return [arguments[0] if arguments else Parameter.empty] * len(value)
