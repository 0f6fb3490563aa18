"""YAML to trees of values, and back. Scalars without quotes keep the text that was written (`Plain`)."""

import copy
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from seqssl.config.values import Plain, Tree, Value, texts
from seqssl.errors import UserError

# libyaml, where PyYAML was built with it, takes a tenth of the time.
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_TAG = "tag:yaml.org,2002:"
# YAML 1.1 wants a dot in a number with an exponent; people write 1e-3.
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class _Loader(_BaseLoader):  # type: ignore[misc]  # one of two
    """Loads scalars without quotes as `Plain`, keys and dates as text; refuses a key that is given twice."""


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """Quotes text that the loader would read as something else."""

    def ignore_aliases(self, data: object) -> bool:
        """Values that occur twice are written out twice."""
        return True


def read(text: str) -> Value:
    """The value of a YAML document; yaml.YAMLError for bad YAML, or for a value that no setting can have."""
    return copy.deepcopy(_parsed(text))


def read_plain(text: str) -> Any:
    """The value of a YAML document by YAML's own rules; yaml.YAMLError for bad YAML."""
    return yaml.load(text, _BaseLoader)


def reread(value: object) -> Value:
    """A value with each of its texts read as if it stood in YAML without quotes."""
    if isinstance(value, str):
        resolve: Callable[..., str] = _Loader("").resolve
        tag = resolve(yaml.ScalarNode, value, (True, False))
        return _known(_Loader("").construct_object(yaml.ScalarNode(tag, value)))
    if isinstance(value, dict):
        return {str(key): reread(item) for key, item in value.items()}
    return [reread(item) for item in value] if isinstance(value, list) else _known(value)


def names_in(given: str) -> list[str]:
    """The names in `a,b` or `[a, b]`, each as it is typed: `010` and `no` are names, too. UserError."""
    if not given.strip().startswith("["):
        return [name for name in given.split(",") if name]
    try:
        names = texts(read(given))
    except yaml.YAMLError as error:
        raise UserError(f"{given} is no list of names; write a,b or [a,b]") from error
    return [str(name) for name in names] if isinstance(names, list) else [str(names)]


def matches(name: str, patterns: str) -> bool:
    """Whether a name is one of those that shell patterns, separated by commas, choose; "" never is."""
    return bool(name) and any(fnmatchcase(name, pattern.strip()) for pattern in patterns.split(","))


def write(tree: Mapping[str, Value]) -> str:
    """A tree as YAML that `read` reads back."""
    text: str = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


@lru_cache(maxsize=256)  # a run reads the same few recipes several times, and a study hundreds of times
def _parsed(text: str) -> Value:
    """The value of a document, which all that read the same text share."""
    return _known(yaml.load(text, _Loader))


def _known(value: object) -> Value:
    """A loaded value as it is, if a configuration can hold its type; ConstructorError for others."""
    if isinstance(value, Plain | bool | int | float | str | None):
        return value
    if isinstance(value, list):
        return [_known(item) for item in value]
    if isinstance(value, dict):
        tree: Tree = {str(key): _known(item) for key, item in value.items()}
        # An unquoted null under a key is None. In a list it stays `Plain`: it may be meant as a text.
        empty = [key for key, item in tree.items() if isinstance(item, Plain) and item.value is None]
        return tree | dict.fromkeys(empty)
    raise ConstructorError(None, None, f"a {type(value).__name__} cannot be a setting", None)


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> Plain:
    """A scalar without quotes, as its text and the value that YAML makes of it."""
    kind = node.tag.removeprefix(_TAG)
    value: bool | int | float | None = getattr(SafeConstructor, f"construct_yaml_{kind}")(loader, node)
    return Plain(node.value, value)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, object]:
    """A mapping with text keys; ConstructorError for a key that is no scalar, or that is given twice."""
    given: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConstructorError(None, None, "a key must be a word", key.start_mark)
        if key.value in given:
            raise ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
        given.add(key.value)
    loader.flatten_mapping(node)  # <<: *anchor, which may name the same keys again, in front
    found = {key.value: loader.construct_object(value, deep=True) for key, value in node.value}
    return found


_RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in (f"{_TAG}timestamp", f"{_TAG}float")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {first: list(rules) for first, rules in _RESOLVERS.items()}
    _class.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
for _kind in ("null", "bool", "int", "float"):
    _Loader.add_constructor(_TAG + _kind, _scalar)
_Loader.add_constructor(f"{_TAG}map", _mapping)
