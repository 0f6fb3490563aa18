"""What makes a configuration valid: known keys, fitting types, and the rules across fields.

All problems are collected, so that one run of a command shows every one of them.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seqssl.config.components import (
    convert,
    describe,
    did_you_mean,
    fits,
    locate,
    names,
    schema,
    signature,
    slot_problems,
)
from seqssl.config.schema import MixedStream, RunConfig, StreamConfig
from seqssl.errors import UserError

SLOTS = {
    name: name for name in ("modality", "feature_encoder", "masking", "quantizer", "mixer", "targets", "task")
}
SLOT_MAPPINGS = {"objectives": "objective", "eval": None}  # eval: see the command that reads it
CHOICES = {
    "health": ("off", "warn", "halt"),
    "input_norm": ("none", "channel", "instance"),
    "context": ("features", "quantized"),
    "mask_at": ("auto", "input", "features"),
    "data.split_by": ("group", "record"),
    "optim.name": ("adam", "adamw", "adafactor"),
    "optim.schedule": ("noam", "cosine", "constant"),
    "train.precision": ("auto", "float32", "bfloat16"),
    "train.device": ("auto", "cpu", "cuda"),
    "encoder.block": ("conformer", "transformer"),
    "encoder.conv_norm": ("batch", "layer"),
    "encoder.position": ("conv", "none"),
    "encoder.feature_norm": ("none", "layer"),
}
STREAM_KEYS = [entry.name for entry in dataclasses.fields(StreamConfig)]
STREAM_POSITIVE = (
    "data.batch_seconds", "data.batch_frames", "data.max_seconds", "data.max_frames", "data.join_seconds",
    "data.join_frames",
)  # fmt: skip
POSITIVE = (
    "temperature.start", "temperature.end", "temperature.decay", "temperature.planned_updates", "optim.lr",
    "optim.eps", "optim.clip_norm", "train.num_updates", "train.accumulate", "train.eval_batches",
    "train.log_every", "train.eval_every", "train.save_every", "train.keep_last", "encoder.num_layers",
    "encoder.dim", "encoder.ffn_dim", "encoder.conv_kernel", "encoder.position_kernel",
    "encoder.position_groups",
)  # fmt: skip
NOT_NEGATIVE = ("seed", "optim.weight_decay", "optim.warmup_updates")
SHARES = ("encoder.dropout", "encoder.stochastic_depth")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with what to do about it."""

    key: str
    value: object
    remedy: str
    origin: str


def report(problems: list[Problem]) -> str:
    """All problems as one message."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the configuration:"
    lines = [
        f"  {problem.key}{'' if problem.value is None else f' = {problem.value}'}: {problem.remedy}"
        f"  [{problem.origin}]"
        for problem in problems
    ]
    return "\n".join([count, *lines])


def build(
    values: Mapping[str, Any], origins: Mapping[str, str], recipe: str
) -> tuple[RunConfig, list[Problem]]:
    """The configuration and all that is wrong with it; `recipe` stands in where a value has no origin."""
    builder = _Builder(origins, recipe)
    config = builder.section(RunConfig, values, "")
    for key, value in _numbers(dataclasses.asdict(config)):
        if math.isnan(value) or (math.isinf(value) and key != "optim.clip_norm"):  # no clipping
            builder.problem(key, value, "must be a finite number")
    bad = {problem.key for problem in builder.problems}  # each explains what is wrong at and below it
    for keys, remedy in _rules(config):
        if not any(f"{key}.".startswith(f"{blamed}.") for key in keys for blamed in bad):
            builder.problem(keys[0], _value_at(config, keys[0]), remedy)
    return config, builder.problems


def _numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every float of the configuration, by its key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}.")
        several = value if isinstance(value, list | tuple) else [value]
        yield from ((f"{prefix}{key}", number) for number in several if isinstance(number, float))


@dataclass
class _Builder:
    """Fills the dataclasses from a tree of values and notes what does not fit."""

    origins: Mapping[str, str]
    recipe: str

    def __post_init__(self) -> None:
        self.problems: list[Problem] = []

    def problem(self, key: str, value: object, remedy: str) -> None:
        origin = self.origins.get(key)
        if origin is None:  # a mapping's origin is that of its first leaf
            origin = next(
                (text for name, text in self.origins.items() if name.startswith(key + ".")), self.recipe
            )
        self.problems.append(Problem(key, value, remedy, origin))

    def section(self, cls: type[Any], values: Mapping[str, Any], prefix: str) -> Any:
        hints = typing.get_type_hints(cls)
        for key in values:
            if key not in hints:
                self.problem(prefix + key, values[key], f"unknown key{_suggest(key, prefix, list(hints))}")
        arguments = {}
        for entry in dataclasses.fields(cls):
            key = prefix + entry.name
            if dataclasses.is_dataclass(hints[entry.name]):
                nested = values.get(entry.name, {})
                if not isinstance(nested, Mapping):
                    self.problem(key, nested, "expected keys and values")
                    nested = {}
                arguments[entry.name] = self.section(typing.cast(type, hints[entry.name]), nested, key + ".")
            elif entry.name in values:
                arguments[entry.name] = self._value(entry.name, values[entry.name], hints[entry.name], key)
            elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                self.problem(key, None, self._missing(entry.name))
                arguments[entry.name] = {}
        return cls(**{name: value for name, value in arguments.items() if value is not _BAD})

    def _value(self, name: str, value: Any, hint: Any, key: str) -> Any:
        local = within_stream(key)
        if local in SLOTS:
            return self._slot(key, value, SLOTS[local])
        if key == "streams":
            return self._streams(value)
        if local in SLOT_MAPPINGS:
            if not isinstance(value, Mapping):
                self.problem(key, value, "expected named slots")
                return {}
            kind = SLOT_MAPPINGS[local]
            given = {
                entry: slot for entry, slot in value.items() if slot is not None
            }  # null removes an entry
            return {entry: self._slot(f"{key}.{entry}", slot, kind) for entry, slot in given.items()}
        if local in CHOICES:
            value = convert(value, str)
            if value is not None and value not in CHOICES[local]:
                self.problem(key, value, f"expected one of {', '.join(CHOICES[local])}")
                return _BAD
        if not fits(value, hint):
            self.problem(key, value, f"expected {describe(hint)}")
            return _BAD
        return convert(value, hint)

    def _streams(self, streams: Any) -> Any:
        """The streams of a joint run by name; null removes one."""
        if not isinstance(streams, Mapping):
            self.problem("streams", streams, "expected named streams, each with recipe: NAME")
            return {}
        wrong = [name for name in streams if not str(name).isidentifier()]
        for name in wrong:
            self.problem(f"streams.{name}", None, "a stream's name is a word of letters, digits and _")
        found = {}
        for name, stream in streams.items():
            if isinstance(stream, Mapping) and name not in wrong:
                found[name] = self.section(MixedStream, stream, f"streams.{name}.")
            elif stream is not None and name not in wrong:
                self.problem(f"streams.{name}", stream, "expected a recipe's name, or {recipe: NAME, ...}")
        return found

    def _slot(self, key: str, slot: Any, kind: str | None) -> Any:
        """A slot with the defaults of its component filled in, so that a saved run stays what it was."""
        if (slot is None and within_stream(key) in ("feature_encoder", "targets")) or slot == {}:
            return slot
        if not isinstance(slot, Mapping) or not isinstance(slot.get("target"), str):
            self.problem(key, slot, "expected a target: a name or pkg.mod:Class")
            return {}
        if kind is None:
            return dict(slot)
        try:
            parameters = schema(signature(slot["target"], kind))
        except UserError as error:
            self.problem(f"{key}.target", slot["target"], str(error))
            return {}
        for name, remedy in slot_problems(slot, parameters).items():
            self.problem(f"{key}.{name}", slot.get(name), remedy)
        filled = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        given = {
            name: convert(value, parameters[name].annotation) if name in parameters else value
            for name, value in slot.items()
        }
        return {"target": slot["target"], **filled, **given}

    def _missing(self, name: str) -> str:
        return missing_slot(name) if name in SLOTS else "missing"


def missing_slot(name: str) -> str:
    """What to tell where a slot is empty."""
    there = ", ".join(sorted(names(name)))
    return f"missing; say {name}=NAME (there is: {there}) or {name}=pkg.mod:Class"


def within_stream(key: str) -> str:
    """A key without the stream that it belongs to: streams.a.data.max_frames is data.max_frames."""
    return key.split(".", 2)[2] if key.startswith("streams.") and key.count(".") >= 2 else key


_BAD: Any = object()  # a value that cannot stand; the field's default keeps its place until the report


def _rules(config: RunConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rules across fields: the keys involved (the first is the one to blame) and the remedy."""
    yield from _encoder_rules(config)
    for name, part in config.parts().items():
        for keys, remedy in _stream_rules(part, config.encoder.taps):
            prefix = f"streams.{name}." if name else ""
            local = (f"{prefix}{key}" if key.split(".")[0] in STREAM_KEYS else key for key in keys)
            yield tuple(local), remedy
        if config.streams and config.streams[name].weight <= 0:
            yield (f"streams.{name}.weight",), "must be above 0; null in the stream's place removes it"
    for key in POSITIVE:
        value = _value_at(config, key)
        if value is not None and value <= 0:
            yield (key,), "must be above 0"
    for key in NOT_NEGATIVE:
        if _value_at(config, key) < 0:
            yield (key,), "must be at least 0"
    if config.seed >= 2**63:
        yield ("seed",), "must be below 2**63"
    if not all(0 <= beta < 1 for beta in config.optim.betas):
        yield ("optim.betas",), "each must be at least 0 and below 1"
    if config.temperature.decay > 1 or config.temperature.end > config.temperature.start:
        yield ("temperature.decay", "temperature.end"), "the temperature must fall: decay <= 1, end <= start"
    for key in SHARES:
        if not 0 <= _value_at(config, key) < 1:
            yield (key,), "must be at least 0 and below 1"


def _stream_rules(config: StreamConfig, taps: Mapping[str, int]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rules about one kind of data."""
    for name in ("modality", "masking", "quantizer"):
        if not getattr(config, name):
            yield (name, f"{name}.target"), missing_slot(name)
    yield from _objective_rules(config, taps)
    yield from _data_rules(config)
    for key in STREAM_POSITIVE:
        value = _value_at(config, key)
        if value is not None and value <= 0:
            yield (key,), "must be above 0"
    if config.data.workers < 0:
        yield ("data.workers",), "must be at least 0"
    if not 0 <= config.data.valid_share < 1:
        yield ("data.valid_share",), "must be at least 0 and below 1"


def _encoder_rules(config: RunConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    encoder = config.encoder
    for tap, layers in encoder.taps.items():
        if not 1 <= layers <= encoder.num_layers:
            remedy = f"must lie from 1 to encoder.num_layers = {encoder.num_layers}"
            yield (f"encoder.taps.{tap}", "encoder.taps", "encoder.num_layers"), remedy
    heads = config.mixer.get("num_heads")
    if isinstance(heads, int) and (heads < 1 or encoder.dim % heads):
        yield ("mixer.num_heads", "encoder.dim"), f"must divide encoder.dim = {encoder.dim}"
    if encoder.block == "conformer" and encoder.conv_kernel % 2 == 0:
        yield ("encoder.conv_kernel", "encoder.block"), "must be odd, so that it has a middle"
    if encoder.position == "conv" and encoder.position_groups > 0 and encoder.dim % encoder.position_groups:
        yield ("encoder.position_groups", "encoder.dim"), f"must divide encoder.dim = {encoder.dim}"


def _objective_rules(config: StreamConfig, taps: Mapping[str, int]) -> Iterator[tuple[tuple[str, ...], str]]:
    if not config.objectives:
        yield ("objectives",), "at least one objective is needed"
    for name, slot in config.objectives.items():
        key = f"objectives.{name}"
        tap = slot.get("tap")
        if tap and tap not in taps:
            yield (
                (f"{key}.tap", "encoder.taps"),
                f"is no tap of the encoder{did_you_mean(tap, taps)}",
            )
        trains = slot and _class_of(slot, "objective") == "DiversityLoss"
        if trains and _class_of(config.quantizer, "quantizer") == "RandomProjectionQuantizer":
            remedy = (
                f"a random projection is not trained, so diversity has no effect; remove it with {key}=null"
            )
            yield (f"{key}.target", key, "quantizer.target", "quantizer"), remedy


def _data_rules(config: StreamConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    data = config.data
    for name, needed in (("batch", True), ("max", False), ("join", False)):
        seconds, frames = f"data.{name}_seconds", f"data.{name}_frames"
        number = sum(_value_at(config, key) is not None for key in (seconds, frames))
        if number == 2:
            yield (frames, seconds), f"set either {seconds} or {frames}; the other is removed with =null"
        if number == 0 and needed:
            yield (seconds, frames), f"set {seconds} (modalities with a rate) or {frames} (input steps)"
    if data.source is None and data.demo is None:
        yield ("data.source", "data.demo"), "there is nothing to train on: say data=PATH"


def _class_of(slot: Mapping[str, Any], kind: str) -> str:
    return locate(slot["target"], kind).partition(":")[2] if slot else ""


def _value_at(config: StreamConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
    return value


def _suggest(key: str, prefix: str, fields: list[str]) -> str:
    """A close key of the same section, else one of the same name elsewhere."""
    if not difflib.get_close_matches(key, fields, n=1):
        elsewhere = {name.rpartition(".")[2]: name for name in _all_keys(RunConfig, "")}
        close = difflib.get_close_matches(key, elsewhere, n=1)
        if close:
            return f"; did you mean '{elsewhere[close[0]]}'?"
    return did_you_mean(key, fields)


def _all_keys(cls: type[Any], prefix: str) -> Iterator[str]:
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _all_keys(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield prefix + name
