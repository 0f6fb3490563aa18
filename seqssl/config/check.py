"""What makes a configuration valid: known keys, fitting types, and the rules across fields.

All problems are collected, so that one run of a command shows every one of them.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import Parameter
from typing import TypeVar

from seqssl.config import moved, schema
from seqssl.config import tree as trees
from seqssl.config.components import defaults, locate, names, signature, slot_problems
from seqssl.config.components import schema as parameters_of
from seqssl.config.problems import Problem
from seqssl.config.schema import EncoderConfig, MixedStream, RunConfig, Slot, StreamConfig
from seqssl.config.values import Hint, Value, convert, describe, did_you_mean, fits, numbers, resolved
from seqssl.errors import UserError
from seqssl.model.bounds import Bound, Divides, Wire

Section = TypeVar("Section")
Broken = tuple[tuple[str, ...], str]  # a broken rule: its keys, the one to blame first, and the remedy


def build(
    values: Mapping[str, Value],
    origins: Mapping[str, str],
    recipe: str,
    problems: Sequence[Problem] = (),
    renamed: Collection[str] = (),
) -> tuple[RunConfig, list[Problem]]:
    """Build the configuration, and list everything that is wrong with it.

    `recipe` is the origin to report for a value that has none. `problems` are those found earlier; they come
    first in the list. `renamed` holds the new names of keys that were written under old ones: such a key is
    dropped without a word where the component in its slot has no such parameter.
    """
    builder = _Builder(origins, recipe, renamed, list(problems))
    config = builder.section(RunConfig, values, ())
    bad = {problem.key for problem in builder.problems}  # each explains what is wrong at and below it
    tree = asdict(config)
    for keys, remedy in [*_number_rules(config.encoder, builder.leaves), *_rules(config)]:
        if not any(trees.is_within(key, blamed) for key in keys for blamed in bad):
            builder.problem(keys[0], trees.get(tree, trees.split(keys[0])), remedy)
    return config, builder.problems


class _Unfit(Exception):
    """Raised for a value that does not fit; the field's default is used until problems are reported."""


@dataclass
class _Builder:
    """Fills the dataclasses of the schema from a tree of values, and collects the problems on the way."""

    origins: Mapping[str, str]
    recipe: str
    renamed: Collection[str]
    problems: list[Problem]

    def __post_init__(self) -> None:
        self.leaves: list[tuple[str, Value, Hint]] = []  # what fits: key, value, annotation

    def problem(self, key: str, value: Value, remedy: str) -> None:
        """Add a problem at a key, unless that key has one already."""
        if any(known.key == key for known in self.problems):
            return
        origin = self.origins.get(key)
        if origin is None:  # a mapping's origin is that of its first leaf
            inner = (text for name, text in self.origins.items() if trees.is_within(name, key))
            origin = next(inner, self.recipe)
        self.problems.append(Problem(key, value, remedy, origin))

    def section(self, cls: type[Section], values: Mapping[str, Value], path: trees.Path) -> Section:
        """An instance of a section's dataclass; unknown keys and missing values become problems."""
        hints = schema.hints(cls)
        for name, value in values.items():
            if name not in hints:
                self.problem(trees.join((*path, name)), value, f"unknown key{_suggest(name, hints)}")
        arguments: dict[str, object] = {}
        for entry in dataclasses.fields(cls):  # type: ignore[arg-type]  # every section is a dataclass
            where, hint = (*path, entry.name), entry.type
            needed = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
            if entry.name in values or schema.section_of(hint):
                try:
                    arguments[entry.name] = self._field(hint, values.get(entry.name, {}), where)
                except _Unfit:
                    continue
            elif needed:
                self.problem(trees.join(where), None, _missing(trees.join(where), hint))
                arguments[entry.name] = {}
        make: Callable[..., Section] = cls
        return make(**arguments)

    def _field(self, hint: Hint, value: Value, path: trees.Path) -> object:
        """The value of a field: a section, a slot, named entries, or a value that fits (else _Unfit)."""
        key = trees.join(path)
        if section := schema.section_of(hint):
            if not isinstance(value, Mapping):
                self.problem(key, value, "expected keys and values")
                value = {}
            return self.section(section, value, path)
        if schema.kind_of(hint):
            return self._slot(hint, value, key)
        if entries := schema.entries_of(hint):
            return self._entries(entries, value, path)
        if not fits(value, hint):
            self.problem(key, value, f"expected {describe(hint)}")
            raise _Unfit
        converted = convert(value, hint)
        self.leaves.append((key, converted, hint))
        return converted

    def _entries(self, hint: Hint, value: Value, path: trees.Path) -> dict[str, object]:
        """The slots or streams of a field that maps names to them; an entry that is null is left out."""
        streams = schema.section_of(hint) is MixedStream
        if not isinstance(value, Mapping):
            expected = "named streams, each with recipe: NAME" if streams else "named slots"
            self.problem(trees.join(path), value, f"expected {expected}")
            return {}
        found = {}
        for name, entry in value.items():
            where = (*path, name)
            if streams and not name.isidentifier():
                self.problem(trees.join(where), None, "a stream's name is a word of letters, digits and _")
            elif streams and entry is not None and not isinstance(entry, Mapping):
                expected = "expected a recipe's name, or {recipe: NAME, ...}"
                self.problem(trees.join(where), entry, expected)
            elif entry is not None:
                found[name] = self._field(hint, entry, where)
        return found

    def _slot(self, hint: Hint, slot: Value, key: str) -> Slot | None:
        """A slot with the defaults of its component filled in, so that other defaults change no saved run.

        None for a slot that is empty on purpose; {} for one that is missing or unusable.
        """
        kind = schema.kind_of(hint) or ""
        if schema.is_nullable(hint) and (slot is None or self._is_left_over(slot, key)):
            return None
        if slot == {}:
            return {}
        target = slot.get("target") if isinstance(slot, Mapping) else None
        if not isinstance(slot, Mapping) or not isinstance(target, str):
            self.problem(key, slot, "expected a target: a name or pkg.mod:Class")
            return {}
        if slot == schema.default_slots().get(trees.split(key)) and target not in names(kind):
            return dict(slot)  # a part that is not installed here and that nobody asked for
        try:
            found = signature(target, kind)
        except UserError as error:
            self.problem(f"{key}.target", target, str(error))
            return {}
        if found is None:  # the source text does not tell: it is checked when it is constructed
            given = {name: resolved(value) for name, value in slot.items()}
            self.leaves += [(f"{key}.{name}", value, Parameter.empty) for name, value in given.items()]
            return given
        parameters = parameters_of(found)
        kept = {name: value for name, value in slot.items() if not self._is_renamed(f"{key}.{name}")}
        kept |= {name: value for name, value in slot.items() if name in parameters}
        problems = slot_problems(kept, parameters)
        for name, remedy in problems.items():
            self.problem(f"{key}.{name}", slot.get(name), remedy)
        fitting = {name: kept[name] for name in kept if name in parameters and name not in problems}
        converted = {name: convert(value, parameters[name].annotation) for name, value in fitting.items()}
        filled = defaults(parameters) | converted
        self.leaves += [
            (f"{key}.{name}", value, parameters[name].annotation) for name, value in filled.items()
        ]
        return {"target": target, **filled}

    def _is_renamed(self, key: str) -> bool:
        return trees.within_stream(key) in self.renamed

    def _is_left_over(self, slot: Value, key: str) -> bool:
        """Whether a slot holds nothing but keys that were written under old names."""
        return isinstance(slot, Mapping) and bool(slot) and all(self._is_renamed(f"{key}.{n}") for n in slot)


def _number_rules(encoder: EncoderConfig, leaves: Sequence[tuple[str, Value, Hint]]) -> Iterator[Broken]:
    """Each number that is not finite, or breaks a marker in the annotation of its field or parameter."""
    width = Wire("encoder.dim", encoder.dim)
    wires = {"dim": width, "context_dim": width}
    for key, value, hint in leaves:
        for number, markers in numbers(value, hint):
            each = "each " if isinstance(value, list | tuple) else ""
            endless = any(isinstance(marker, Bound) and marker.infinite for marker in markers)
            if math.isnan(number) or (math.isinf(number) and not endless):
                yield (key,), f"{each}must be a finite number"
                continue
            for marker in markers:
                if remedy := marker.remedy(number, wires):
                    wired = wires.get(marker.name) if isinstance(marker, Divides) else None
                    yield (key, *([wired.key] if wired else [])), each + remedy


def _rules(config: RunConfig) -> Iterator[Broken]:
    """Each broken rule that involves several fields."""
    encoder = config.encoder
    for tap, layers in encoder.taps.items():
        if not 1 <= layers <= encoder.num_layers:
            remedy = f"must lie from 1 to encoder.num_layers = {encoder.num_layers}"
            yield (f"encoder.taps.{tap}", "encoder.taps", "encoder.num_layers"), remedy
    if config.temperature.end > config.temperature.start:
        remedy = f"must be at most temperature.start = {config.temperature.start:g}: the temperature falls"
        yield ("temperature.end", "temperature.start"), remedy
    for name, part in config.parts().items():
        for keys, remedy in _stream_rules(part, encoder.taps):
            own = (
                key if key.split(".")[0] not in schema.STREAM_KEYS else trees.of_stream(name, key)
                for key in keys
            )
            yield tuple(own), remedy


def _stream_rules(config: StreamConfig, taps: Mapping[str, int]) -> Iterator[Broken]:
    """Each broken rule about the settings of one stream, with keys as they are inside the stream."""
    for name, hint in schema.hints(StreamConfig).items():
        if schema.kind_of(hint) and not schema.is_nullable(hint) and not getattr(config, name):
            yield (name, f"{name}.target"), _missing(name, hint)
    if not config.objectives:
        yield ("objectives",), "at least one objective is needed"
    for name, slot in config.objectives.items():
        key, tap = f"objectives.{name}", slot.get("tap")
        if isinstance(tap, str) and tap and tap not in taps:
            yield (f"{key}.tap", "encoder.taps"), f"is no tap of the encoder{did_you_mean(tap, taps)}"
        trains = _class_of(slot, "objective") == "DiversityLoss"
        if trains and _class_of(config.quantizer, "quantizer") == "RandomProjectionQuantizer":
            remedy = (
                f"a random projection is not trained, so diversity has no effect; remove it with {key}=null"
            )
            yield (f"{key}.target", key, "quantizer.target", "quantizer"), remedy
    for name, needed in (("batch", True), ("max", False), ("join", False)):
        seconds, frames = f"data.{name}_seconds", f"data.{name}_frames"
        given = [getattr(config.data, f"{name}_{unit}") is not None for unit in ("seconds", "frames")]
        if all(given):
            yield (frames, seconds), f"set either {seconds} or {frames}; the other is removed with =null"
        if needed and not any(given):
            yield (seconds, frames), f"set {seconds} (modalities with a rate) or {frames} (input steps)"
    if config.data.source is None and config.data.demo is None:
        yield ("data.source", "data.demo"), "there is nothing to train on: say data=PATH"


def _missing(key: str, hint: Hint) -> str:
    """The message for a field that is empty; for a slot, it lists the components that could be there."""
    kind = schema.kind_of(hint)
    there = (
        f"; say {key}=NAME (there is: {', '.join(sorted(names(kind)))}) or {key}=pkg.mod:Class"
        if kind
        else ""
    )
    return f"missing{there}"


def _class_of(slot: Slot, kind: str) -> str:
    target = slot.get("target")
    return locate(target, kind).partition(":")[2] if isinstance(target, str) else ""


def _suggest(name: str, here: Collection[str]) -> str:
    """A hint for an unknown key: a similar one of its section or of another, else all of its section."""
    if not difflib.get_close_matches(name, here, n=1):
        known = [*map(trees.join, schema.keys()), *moved.RENAMED.values()]
        elsewhere = {key.rpartition(".")[2]: key for key in known}
        close = difflib.get_close_matches(name, elsewhere, n=1)
        if close:
            return f"; did you mean '{elsewhere[close[0]]}'?"
    return did_you_mean(name, here)
