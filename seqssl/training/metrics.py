"""What a metric means to people, and the metrics that the loop and the codebooks report.

Those of objectives are declared by them: see `seqssl.training.catalogue`, which holds all of a run.
"""

from dataclasses import dataclass
from typing import Literal

# count: so many of its baseline; rate: so many per second
Unit = Literal["share", "nats", "bits", "number", "count", "rate"]
Place = Literal["line", "table", "card"]  # a line of progress, the table of a run, the head of its report
Rule = Literal[
    "", "discrimination", "prediction", "regression", "evenness", "codebook", "variance", "stability"
]

FORMATS: dict[str, str] = {
    "share": ".1%", "nats": ".3f", "bits": ".3f", "number": ".4g", "count": ".0f", "rate": ",.0f"
}  # fmt: skip
EVERYWHERE: tuple[Place, ...] = ("line", "table", "card")


@dataclass(frozen=True)
class Baseline:
    """A metric that another one is compared with: what no learning would give, or the largest value."""

    name: str
    words: str
    short: str = ""  # in a line of progress; "" = the words


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a metric means to people.

    A `*` in the name stands for the number of a codebook, or for the name of a loss term. Metrics with the
    same `panel` share a set of axes of the report. `rule` names the health rule that reads the metric;
    "evenness" marks the loss that keeps codes in use, because remedies name its objective.
    """

    name: str
    words: str
    short: str = ""  # in a line of progress, with `*` as in the name; "" = the words
    unit: Unit = "number"
    against: tuple[Baseline, ...] = ()  # the easiest to beat first
    rule: Rule = ""
    objective: str = ""  # the one that reports it; "" = built in
    panel: str = ""
    is_log: bool = False  # whether the panel's axis is logarithmic
    only_with: str = ""  # the panel is shown where there is such a metric, too; "" = always
    places: tuple[Place, ...] = ()

    def star(self, name: str) -> str | None:
        """What the `*` stands for in a name, "" if this metric has no `*`; None for another's name."""
        start, star, end = self.name.partition("*")
        fits = name.startswith(start) and name.endswith(end) and len(name) > len(start) + len(end)
        if not star:
            return "" if name == self.name else None
        return name[len(start) : len(name) - len(end)] if fits else None

    def print(self, value: float) -> str:
        """A value as text for people."""
        return format(value, FORMATS.get(self.unit, ".4g"))


LOSSES = (
    Metric(name="loss", words="loss", unit="nats", rule="stability", panel="Loss", places=EVERYWHERE),
    Metric(name="loss/*", words="loss of *", short="*", unit="nats", panel="Loss", places=("line",)),
)
_SIZE = (Baseline("perplexity/size", "entries"),)
_CHAIN = (
    Baseline("symbols/entropy_bits", "entropy"),
    Baseline("symbols/markov_bits", "best Markov chain", "Markov"),
)
_USE, _SPREAD, _HIDDEN = "Unused entries, most used entry", "Variation over frames", "Masked, padding"
_TOLD, _CODES = "Frames told apart", "Labels that codes tell"
_PLACES: tuple[Place, ...] = ("line", "table")
_PROBES = (
    Metric(
        name="probe/accuracy_*", words="frames told apart", short="frames", unit="share", panel=_TOLD,
        places=_PLACES,
    ),
    Metric(
        name="probe/nearest_*", words="frames told by their neighbors", short="neighbors", unit="share",
        panel=_TOLD, places=_PLACES,
    ),
    Metric(
        name="probe/rank_*", words="effective rank of frames", short="rank", unit="count",
        panel="Effective rank of frames", places=_PLACES,
    ),
    Metric(
        name="probe/pnmi_*", words="labels that codes tell (PNMI)", short="PNMI", unit="share", panel=_CODES,
        places=_PLACES,
    ),
    Metric(
        name="probe/purity_*", words="purity of codes", short="purity", unit="share", panel=_CODES,
        places=_PLACES,
    ),
    Metric(
        name="probe/abx_within_*", words="ABX error within groups", short="ABX", unit="share",
        panel="ABX error", places=_PLACES,
    ),
    Metric(
        name="probe/abx_across_*", words="ABX error across groups", short="ABX across", unit="share",
        panel="ABX error", places=_PLACES,
    ),
)  # fmt: skip
BUILT_IN = (
    *(
        Metric(
            name=f"{kind}/accuracy", words=f"accuracy of {words}", unit="share", places=("table",),
            against=(Baseline(f"{kind}/trivial", "most frequent code"),),
        )
        for kind, words in (("codes", "learned codes"), ("symbols", "symbols"))
    ),
    Metric(
        name="symbols/bits", words="bits per symbol", short="bits/symbol", unit="bits", against=_CHAIN,
        panel="Bits per symbol", places=EVERYWHERE,
    ),
    Metric(
        name="perplexity/hard_*", words="hard perplexity", short="perplexity", unit="count", against=_SIZE,
        rule="codebook", panel="Codebook perplexity", places=EVERYWHERE,
    ),
    Metric(
        name="perplexity/soft_*", words="soft perplexity", unit="count", against=_SIZE,
        panel="Codebook perplexity",
    ),
    Metric(name="codes/dead_*", words="unused entries", unit="share", panel=_USE, places=("table",)),
    Metric(name="codes/top1_*", words="share of the most used entry", unit="share", panel=_USE),
    *_PROBES,
    Metric(name="features/std", words="feature encoder", rule="variance", panel=_SPREAD, is_log=True),
    Metric(name="context/std", words="context encoder", rule="variance", panel=_SPREAD, is_log=True),
    Metric(name="grad_norm", words="gradient norm", rule="stability", panel="Gradient norm", is_log=True),
    Metric(name="lr", words="learning rate", panel="Learning rate"),
    Metric(
        name="temperature", words="Gumbel temperature", panel="Gumbel temperature",
        only_with="perplexity/soft_*",
    ),
    Metric(name="mask/share", words="masked", unit="share", panel=_HIDDEN),
    Metric(name="padding/share", words="padding", unit="share", panel=_HIDDEN),
    Metric(
        name="throughput/input_s_per_s", words="seconds of input per second", short="s/s", unit="rate",
        panel="Throughput", places=("line", "card"),
    ),
    Metric(
        name="throughput/inputs_per_s", words="inputs per second", short="steps/s", unit="rate",
        panel="Throughput", places=("line", "card"),
    ),
    Metric(name="mfu", words="FLOPs utilization", unit="share", panel="FLOPs utilization"),
)  # fmt: skip
