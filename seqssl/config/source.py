"""The signature of a class, read from its source text: no code of the class or its module is run.

A recipe may name other people's code, and reading or showing a recipe must not run it. Besides, importing
torch can take many seconds, and a misspelled key should be reported at once.
"""

import ast
import operator
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

from seqssl.config.values import Hint
from seqssl.model import bounds

NOT_TOLD = object()  # the default of a parameter where the text does not tell it
# What an annotation in source text may name; others are left to the constructor to check.
_TYPES: dict[str, Hint] = {
    "int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "dict": dict,
    "List": list, "Tuple": tuple, "Dict": dict, "Literal": Literal, "Annotated": Annotated, "Union": Union,
    "Optional": Optional, "Any": Any, "Sequence": list, "Mapping": dict,
}  # fmt: skip
_TYPING = {"typing", "typing_extensions", "t"}  # where others write typing.Literal
_EMPTY_BASES = {"object", "ABC", "Protocol", "Generic"}  # their constructor takes nothing
_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}  # fmt: skip


class _NotTold(Exception):
    """Raised where the source text does not say what is asked."""


@dataclass(frozen=True)
class Module:
    """What the source text of a module defines at its top level, by name."""

    package: str  # relative imports start from here
    classes: dict[str, ast.ClassDef]
    values: dict[str, ast.expr]
    imports: dict[str, tuple[str, str]]  # name -> the module and the name there
    is_open: bool  # it may define more: by `import *`, by a __getattr__

    @property
    def names(self) -> set[str]:
        """All names that are defined."""
        return {*self.classes, *self.values, *self.imports}


def find(name: str) -> ModuleSpec | None:
    """Where a module is, without importing the packages that it is in; None where there is none."""
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__spec__ is not None:
        return loaded.__spec__  # a search takes longer, and what is imported is what would be used
    path, spec = None, None
    for depth, _ in enumerate(name.split("."), start=1):
        inner = ".".join(name.split(".")[:depth])
        spec = next(filter(None, (finder.find_spec(inner, path) for finder in sys.meta_path)), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations or []
    return spec


def read(name: str) -> Module | None:
    """What a module's text defines; None where it has none. SyntaxError, UnicodeDecodeError for bad text."""
    spec = find(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    return _parsed(path, package, path.stat().st_mtime_ns)


def signature(module: Module, class_name: str) -> Signature | None:
    """The signature of a class's constructor; None where the text does not tell."""
    try:
        found = _class(module, class_name)
        constructor = _constructor(*found)
        return Signature() if constructor is None else _signature(*constructor)
    except _NotTold:
        return None


@lru_cache(maxsize=256)
def _parsed(path: Path, package: str, changed: int) -> Module:
    """What a file defines; `changed` is its modification time, so the cache never answers for older text."""
    classes: dict[str, ast.ClassDef] = {}
    values: dict[str, ast.expr] = {}
    imports: dict[str, tuple[str, str]] = {}
    is_open = False
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"), str(path)).body):
        if isinstance(node, ast.ClassDef):
            classes[node.name] = node
        elif isinstance(node, ast.Assign):
            values |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            values[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            imports |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names}
            is_open |= any(alias.name == "*" for alias in node.names)
        elif isinstance(node, ast.FunctionDef):
            is_open |= node.name == "__getattr__"
    return Module(package, classes, values, imports, is_open)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, with those inside of `if` and `try` at its top level."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "handlers", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.ExceptHandler):
                yield from _statements(getattr(node, inner, []))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module that a `from ... import` names."""
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _class(module: Module, name: str, level: int = 0) -> tuple[Module, ast.ClassDef]:
    """The definition of a class and the module that it stands in, through imports; else _NotTold."""
    if name in module.classes:
        return module, module.classes[name]
    origin, inner = module.imports.get(name, ("", ""))
    further = read(origin) if origin and level < 10 else None
    if further is None:
        raise _NotTold
    return _class(further, inner, level + 1)


def _constructor(module: Module, node: ast.ClassDef, level: int = 0) -> tuple[Module, ast.arguments] | None:
    """Module and arguments of `__init__`, own or inherited; None without one, _NotTold where unclear."""
    methods = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
    if node.decorator_list or node.keywords or "__new__" in methods or level > 10:
        raise _NotTold
    if "__init__" in methods:
        arguments = methods["__init__"].args
        if methods["__init__"].decorator_list or arguments.kwarg or arguments.vararg:
            raise _NotTold
        return module, arguments
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        if not isinstance(name, ast.Name):
            raise _NotTold
        if name.id not in _EMPTY_BASES:
            found = _constructor(*_class(module, name.id), level + 1)
            if found is not None:
                return found
    return None


def _signature(module: Module, arguments: ast.arguments) -> Signature:
    """The signature that these arguments of a constructor make, without `self`."""
    positional = [*arguments.posonlyargs, *arguments.args][1:]  # without self
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*missing, *arguments.defaults]
    first = [
        _parameter(module, argument, default, keyword=False)
        for argument, default in zip(positional, defaults, strict=True)
    ]
    rest = [
        _parameter(module, argument, default, keyword=True)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return Signature([*first, *rest])


def _parameter(module: Module, argument: ast.arg, default: ast.expr | None, *, keyword: bool) -> Parameter:
    """One parameter of a signature, with its default and annotation as far as the text tells them."""
    return Parameter(
        argument.arg,
        Parameter.KEYWORD_ONLY if keyword else Parameter.POSITIONAL_OR_KEYWORD,
        default=Parameter.empty if default is None else _default(module, default),
        annotation=Parameter.empty if argument.annotation is None else _hint(module, argument.annotation),
    )


def _default(module: Module, node: ast.expr) -> object:
    """The value of a default that is a literal, the name of one, or computed from some; else NOT_TOLD."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
    if isinstance(node, ast.Name) and node.id in module.values and module.values[node.id] is not node:
        try:
            return ast.literal_eval(module.values[node.id])
        except ValueError:
            return NOT_TOLD
    if isinstance(node, ast.BinOp):
        left, right = _default(module, node.left), _default(module, node.right)
        if isinstance(left, int | float) and isinstance(right, int | float):
            return _computed(node.op, left, right)
    return NOT_TOLD


def _computed(operation: ast.operator, left: float, right: float) -> object:
    """The result of an arithmetic operator; NOT_TOLD for others, very large powers and division by zero."""
    try:
        if isinstance(operation, ast.Pow) and abs(left) <= 1e3 and abs(right) <= 64:
            return left**right
        return _OPERATIONS[type(operation)](left, right)
    except (KeyError, ZeroDivisionError):
        return NOT_TOLD


def _hint(module: Module, node: ast.expr) -> Hint:
    """The annotation that an expression stands for; Parameter.empty where it uses other names."""
    try:
        return _annotation(module, node)
    except (_NotTold, TypeError, ValueError, SyntaxError):
        return Parameter.empty


def _annotation(module: Module, node: ast.expr, level: int = 0) -> Any:  # typing has no type for annotations
    """The annotation that an expression stands for; _NotTold where it uses names not known here."""
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _annotation(module, ast.parse(node.value, mode="eval").body, level)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _annotation(module, node.left, level) | _annotation(module, node.right, level)
    if isinstance(node, ast.Subscript):
        return _subscript(module, node, level)
    name = node.id if isinstance(node, ast.Name) else ""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _TYPING:
        name = node.attr
    if name in _TYPES:
        return _TYPES[name]
    if name in module.values and level < 10:
        return _annotation(module, module.values[name], level + 1)
    raise _NotTold


def _subscript(module: Module, node: ast.Subscript, level: int) -> Any:
    """The annotation that `base[arguments]` stands for."""
    base = _annotation(module, node.value, level)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base is Literal:
        return Literal[tuple(ast.literal_eval(item) for item in items)]
    if base is Annotated:
        markers = filter(None, map(_marker, items[1:]))
        inner = _annotation(module, items[0], level)
        return typing.cast(Any, Annotated)[(inner, *markers)] if any(map(_marker, items[1:])) else inner
    dots = [isinstance(item, ast.Constant) and item.value is Ellipsis for item in items]
    arguments = tuple(
        Ellipsis if dotted else _annotation(module, item, level)
        for dotted, item in zip(dots, items, strict=True)
    )
    return base[arguments if len(arguments) > 1 else arguments[0]]


def _marker(node: ast.expr) -> bounds.Marker | None:
    """A marker of `seqssl.model.bounds`, given by name or by a call with literals; else None."""
    call = node if isinstance(node, ast.Call) else None
    name = call.func if call else node
    found = vars(bounds).get(name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", ""))
    if isinstance(found, bounds.Marker) and not call:
        return found
    if call and isinstance(found, type) and issubclass(found, bounds.Marker):
        try:
            given = {key.arg or "": ast.literal_eval(key.value) for key in call.keywords}
            return found(*map(ast.literal_eval, call.args), **given)
        except ValueError:
            return None
    return None
