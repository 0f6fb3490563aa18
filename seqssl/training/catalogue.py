"""The catalogue of a run: what each of its metrics means, how it is printed, who shows and who judges it.

Objectives declare what they report (`stats`, see `seqssl.model.types.Stat`); the rest is built in
(`seqssl.training.metrics`). Progress lines, tables, reports and health rules read the catalogue and know no
objective by name, so an objective may be called anything. Nothing here imports torch.

Metrics are named `<group>/<name>`; those of an objective have its name as their group, and `loss/<objective>`
is its loss. With several kinds of data, `<stream>/` stands before them in a record.
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
    """What an objective may offer: the meaning of what it reports. One without shows its loss alone."""

    @property
    def stats(self) -> "tuple[Stat, ...]":
        """Each statistic that people should see."""
        ...


@runtime_checkable
class Explains(Protocol):
    """What a task may offer: what its loss terms report. Of one without, the losses alone are shown."""

    def stats(self, stream: str) -> "Mapping[str, tuple[Stat, ...]]":
        """The statistics of each term, for one kind of data."""
        ...


@dataclass(frozen=True)
class Catalogue:
    """The metrics of one kind of data, in the order in which people see them."""

    metrics: tuple[Metric, ...]

    @classmethod
    def of(cls, objectives: "Mapping[str, Objective]") -> "Catalogue":
        """What these objectives declare and what is built in; UserError where they cannot be told apart."""
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
        """The metric of this name; None for one that nobody declared."""
        return next((metric for metric in self.metrics if metric.star(name) is not None), None)

    def read_by(self, rule: Rule) -> list[Metric]:
        """The metrics that a health rule reads."""
        return [metric for metric in self.metrics if metric.rule == rule]

    def objective(self, rule: Rule) -> str:
        """The first objective with a metric that this rule reads; "" where there is none."""
        return next((metric.objective for metric in self.read_by(rule)), "")


def stats_of(objective: "Objective") -> "tuple[Stat, ...]":
    """What an objective declares."""
    return objective.stats if isinstance(objective, Declares) else ()


def in_words(name: str) -> str:
    """A name of a configuration as words."""
    return name.replace("_", " ")


def _declared(objective: str, stat: "Stat", *, alone: bool) -> Metric:
    """The metric of a declared statistic; `alone`: no other one says the same in a line of progress."""
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
    """What runs mean that were trained before catalogues were stored: their objectives had these names."""
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
Catalogues = Mapping[str, Catalogue]  # of each stream; that of a lone one is called ""; empty: see CLASSIC


@dataclass(frozen=True)
class Figure:
    """A metric as it stands in a record, with the baselines that stand there too."""

    name: str
    value: float
    metric: Metric
    against: tuple[tuple[Baseline, float], ...]


@dataclass(frozen=True)
class Part:
    """What a record says of one kind of data; under "" stands all of a lone one, else what is common."""

    stream: str
    kind: str  # train | valid | event
    step: int
    metrics: Mapping[str, float]  # without the stream's name
    catalogue: Catalogue

    def get(self, name: str) -> float | None:
        """A metric of this name."""
        return self.metrics.get(name)

    def figures(self, place: Place) -> Iterator[Figure]:
        """What is shown at a place, in the order of the catalogue; of several codebooks, cards show all."""
        for metric in self.catalogue.metrics:
            if place in metric.places:
                found = self.figures_of(metric)
                has_own_words = "*" in metric.short  # others could not be told apart in a line
                yield from found if has_own_words or place == "card" else islice(found, 1)

    def figures_of(self, metric: Metric) -> Iterator[Figure]:
        """The metric, once for each codebook or loss term where there are several."""
        against = [(base, self.metrics[base.name]) for base in metric.against if base.name in self.metrics]
        for name, value in self.metrics.items():
            if metric.star(name) is not None:
                yield Figure(name, value, metric, tuple(against))


def by_stream(record: Mapping[str, Value], catalogues: Catalogues) -> list[Part]:
    """The record of each kind of data, after what is common to all.

    Values that are no numbers are left out; those that JSON cannot hold are read from their names.
    """
    streams = {name for name in catalogues if name}
    if not catalogues:  # a run without: each stream has a loss of its own
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
    """Catalogues from JSON; fields that a later version has added are left out."""
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
