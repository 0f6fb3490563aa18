"""The catalogue of a run: what its metrics mean, how and where they are shown, and which rules read them.

Objectives declare what they report (`stats`, see `seqssl.model.types.Stat`); the rest is built in
(`seqssl.training.metrics`). Progress lines, tables, reports and health rules read the catalogue and know no
objective by name, so an objective may be called anything. Nothing here imports torch.

Metrics are named `<group>/<name>`. The group of an objective's metrics is its name, and its loss is
`loss/<objective>`. In the records of a joint run, `<stream>/` comes before each name.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from seqssl.data.files import write_atomic
from seqssl.errors import UserError
from seqssl.training.log import Value, number_of
from seqssl.training.metrics import BUILT_IN, EVERYWHERE, LOSSES, Baseline, Metric, Place, Rule

if TYPE_CHECKING:
    from seqssl.model.protocols import Objective
    from seqssl.model.types import Stat

FILE = "catalogue.json"


@runtime_checkable
class Declares(Protocol):
    """What an objective may offer: the meaning of its statistics. Without it, only its loss is shown."""

    @property
    def stats(self) -> "tuple[Stat, ...]":
        """Each statistic that people should see."""
        ...


@runtime_checkable
class Explains(Protocol):
    """What a task may offer: the meaning of what its loss terms report. Without it, only losses are shown."""

    def stats(self, stream: str) -> "Mapping[str, tuple[Stat, ...]]":
        """The statistics of each term, for one stream."""
        ...


@dataclass(frozen=True)
class Catalogue:
    """The metrics of one stream, in the order in which people see them."""

    metrics: tuple[Metric, ...]

    @classmethod
    def of(cls, objectives: "Mapping[str, Objective]") -> "Catalogue":
        """The built-in metrics and those that these objectives declare; UserError where names clash."""
        return cls.from_stats({name: stats_of(objective) for name, objective in objectives.items()})

    @classmethod
    def from_stats(cls, stats: "Mapping[str, tuple[Stat, ...]]") -> "Catalogue":
        """The same, from the statistics of each loss term."""
        built_in = cls((*LOSSES, *BUILT_IN))
        for name, part in stats.items():
            if any(built_in.find(f"{name}/{stat.name}") for stat in part):
                raise UserError(f"objectives.{name}: built-in metrics have this name; choose another one.")
        shorts = [stat.short for part in stats.values() for stat in part]
        declared = [
            _declared(name, stat, alone=shorts.count(stat.short) == 1)
            for name, part in stats.items()
            for stat in part
        ]
        return cls((*LOSSES, *declared, *BUILT_IN))

    def find(self, name: str) -> Metric | None:
        """The metric of this name; None for one that was not declared."""
        return next((metric for metric in self.metrics if metric.star(name) is not None), None)

    def read_by(self, rule: Rule) -> list[Metric]:
        """The metrics that a health rule reads."""
        return [metric for metric in self.metrics if metric.rule == rule]

    def objective(self, rule: Rule) -> str:
        """The first objective with a metric that this rule reads; "" where there is none."""
        return next((metric.objective for metric in self.read_by(rule)), "")


def stats_of(objective: "Objective") -> "tuple[Stat, ...]":
    """The statistics that an objective declares; () for one that declares none."""
    return objective.stats if isinstance(objective, Declares) else ()


def in_words(name: str) -> str:
    """A name of the configuration as words: underscores become spaces."""
    return name.replace("_", " ")


def _declared(objective: str, stat: "Stat", *, alone: bool) -> Metric:
    """The metric of a declared statistic; `alone` means that no other one has its short name."""
    if stat.name == "loss":  # the term itself, which is shown as all losses are
        return Metric(
            name=f"loss/{objective}", words=stat.words, unit="nats", rule=stat.rule, objective=objective
        )
    words = f"{in_words(objective)} {stat.words or in_words(stat.name)}"
    short = stat.short if alone or not stat.short else f"{in_words(objective)} {stat.short}"
    against = Baseline(f"{objective}/{stat.against}", stat.against_words or in_words(stat.against))
    return Metric(
        name=f"{objective}/{stat.name}",
        words=words,
        short=short,
        unit=stat.unit,
        against=(against,) if stat.against else (),
        rule=stat.rule,
        objective=objective,
        panel=words[:1].upper() + words[1:] if stat.is_key else "",
        places=EVERYWHERE if stat.is_key else (),
    )


def _classic() -> Catalogue:
    """The catalogue of runs from before catalogues were stored: their objectives had these names."""
    known = (("contrastive", "chance", "contrastive acc"), ("masked_prediction", "trivial", "prediction acc"))
    rules: tuple[Rule, ...] = ("discrimination", "prediction")
    accuracies = [
        Metric(
            name=f"{name}/accuracy",
            words=f"{in_words(name)} accuracy",
            short=short,
            unit="share",
            against=(Baseline(f"{name}/{baseline}", baseline),),
            rule=rule,
            objective=name,
            panel=f"{in_words(name).capitalize()} accuracy",
            places=EVERYWHERE,
        )
        for (name, baseline, short), rule in zip(known, rules, strict=True)
    ]
    diversity = Metric(
        name="loss/diversity", words="loss of diversity", rule="evenness", objective="diversity"
    )
    return Catalogue((*LOSSES, *accuracies, diversity, *BUILT_IN))


CLASSIC = _classic()
Catalogues = Mapping[str, Catalogue]  # by stream, "" for a lone one; empty: CLASSIC holds for all


@dataclass(frozen=True)
class Figure:
    """The value of a metric in a record, with the values of those of its baselines that are there too."""

    name: str
    value: float
    metric: Metric
    against: tuple[tuple[Baseline, float], ...]


@dataclass(frozen=True)
class Part:
    """What a record says of one stream.

    Under the name "" is everything where there is one kind of data, and in a joint run what is common to its
    streams.
    """

    stream: str
    kind: str  # train | valid | event
    step: int
    metrics: Mapping[str, float]  # without the stream's name
    catalogue: Catalogue

    def get(self, name: str) -> float | None:
        """The value of a metric by its name; None where the record lacks it."""
        return self.metrics.get(name)

    def figures(self, place: Place) -> Iterator[Figure]:
        """What is shown at a place, in catalogue order; where each codebook has one, only cards show all."""
        for metric in self.catalogue.metrics:
            if place in metric.places:
                found = self.figures_of(metric)
                has_own_words = "*" in metric.short  # without, figures could not be told apart in a line
                yield from found if has_own_words or place == "card" else islice(found, 1)

    def figures_of(self, metric: Metric) -> Iterator[Figure]:
        """The figure of a metric; several where it is reported for each codebook or loss term."""
        against = [(base, self.metrics[base.name]) for base in metric.against if base.name in self.metrics]
        for name, value in self.metrics.items():
            if metric.star(name) is not None:
                yield Figure(name, value, metric, tuple(against))


def by_stream(record: Mapping[str, Value], catalogues: Catalogues) -> list[Part]:
    """A record in parts, one for each stream, after what is common to all.

    Only numbers are kept. "nan" and "inf", which JSON can hold as text only, are numbers too.
    """
    streams = {name for name in catalogues if name}
    if not catalogues:  # a run from before catalogues: every stream has a loss of its own
        streams = {key.partition("/")[0] for key in record if key.endswith("/loss")} - {"loss"}
    found: dict[str, dict[str, float]] = {"": {}}
    for key, value in record.items():
        stream, _, name = key.partition("/")
        number = number_of(value)
        if number is not None:
            own = name and stream in streams
            found.setdefault(stream if own else "", {})[name if own else key] = number
    step = number_of(record.get("step"))
    step = step if step is not None and math.isfinite(step) else 0.0
    kind = str(record.get("kind", ""))
    return [
        Part(stream, kind, int(step), metrics, catalogues.get(stream, CLASSIC))
        for stream, metrics in found.items()
    ]


def write(run: Path, catalogues: Catalogues) -> None:
    """Store the catalogues of a run in its folder, as catalogue.json."""
    tree = {
        stream: [{key: value for key, value in asdict(metric).items() if value} for metric in each.metrics]
        for stream, each in catalogues.items()
    }
    write_atomic(run / FILE, json.dumps({"streams": tree}, indent=1) + "\n")


def read(run: Path) -> Catalogues:
    """The catalogues of a run folder; none where it has no catalogue.json; UserError for a damaged one."""
    path = run / FILE
    if not path.exists():
        return {}
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}): remove it, and metrics are read by the "
            "names that the base recipes give them."
        ) from error


def _parsed(text: str) -> dict[str, Catalogue]:
    """Catalogues from JSON text; fields that only later versions know are left out."""
    names = {kind: {field.name for field in fields(kind)} for kind in (Metric, Baseline)}
    found = {}
    for stream, entries in json.loads(text)["streams"].items():
        metrics = []
        for entry in entries:
            known = {key: value for key, value in entry.items() if key in names[Metric]}
            bases = entry.get("against", ())
            against = [{key: base[key] for key in base if key in names[Baseline]} for base in bases]
            known["against"] = tuple(Baseline(**base) for base in against)
            known["places"] = tuple(entry.get("places", ()))
            metrics.append(Metric(**known))
        texts = [text for metric in metrics for text in (metric.name, metric.words, metric.panel)]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a name, words or a panel is no text")
        found[stream] = Catalogue(tuple(metrics))
    return found
