"""From the scored rows of all cells to the table, its intervals, and what pre-training is worth in labels."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from seqssl.finetuning.scoring import ENOUGH_UNITS, Metric, Resampling, Scored, interval, too_few
from seqssl.ruler.cells import CLASSICAL, PRETRAINED, RANDOM, SCRATCH, WORDS

Array = npt.NDArray[Any]
NUM_DRAWS = 1000
BARELY = 0.02  # above the most frequent label, in shares of right answers
GAIN = ("gain", "low", "high")

Told = dict[str, Any]  # figures by their names, as a page and `evaluation.json` have them


@dataclass(frozen=True)
class Entry:
    """One row at one fraction: each seed's test rows, of all folds that it tested."""

    row: str
    fraction: float
    num_labels: float  # mean over seeds and folds
    by_seed: Mapping[int, Sequence[Scored]]


@dataclass(frozen=True)
class Table:
    """All entries, with the draws that their intervals share."""

    metric: Metric
    entries: Sequence[Entry]
    groups_held_out: Sequence[str]  # empty where rows are the units
    num_updates: int  # of each row that learns
    examples: str = "labels"  # what is learned from, in a word

    def __post_init__(self) -> None:
        by_row = len(self.groups_held_out) < 2
        object.__setattr__(self, "_by_row", by_row)
        tested = [row for entry in self.entries for rows in entry.by_seed.values() for row in rows]
        units = [row.group if row.group and not by_row else row.key for row in tested]
        object.__setattr__(self, "_resampling", Resampling.of(units, num_draws=NUM_DRAWS))
        object.__setattr__(self, "_draws", {})

    @property
    def num_units(self) -> int:
        """The number of groups, or rows, that intervals are over."""
        resampling: Resampling = self._resampling  # type: ignore[attr-defined]
        return len(resampling.units)

    def draws(self, entry: Entry) -> Array:
        """The metric of an entry, mean over seeds, for each draw of test groups."""
        known: dict[tuple[str, float], Array] = self._draws  # type: ignore[attr-defined]
        place = (entry.row, entry.fraction)
        if place not in known:
            resampling: Resampling = self._resampling  # type: ignore[attr-defined]
            by_row: bool = self._by_row  # type: ignore[attr-defined]
            known[place] = resampling.values(self.metric, list(entry.by_seed.values()), by_row)
        return known[place]

    def line(self, entry: Entry) -> Told:
        """An entry as plain values."""
        by_seed = {str(seed): self.metric(rows) for seed, rows in sorted(entry.by_seed.items())}
        low, high = interval(self.draws(entry))
        return {
            "row": entry.row,
            "words": WORDS.get(entry.row, entry.row),
            "fraction": entry.fraction,
            "num_labels": entry.num_labels,
            "mean": float(np.mean([*by_seed.values()])),
            "low": low,
            "high": high,
            "by_seed": by_seed,
        }

    def of(self, row: str) -> list[Entry]:
        """The entries of a row, by rising number of labels."""
        return sorted((e for e in self.entries if e.row == row), key=lambda e: e.num_labels)

    def mean(self, entry: Entry) -> float:
        """The metric, mean over seeds."""
        return float(np.mean([self.metric(rows) for rows in entry.by_seed.values()]))

    def differences(self, row: str, other: str) -> list[Told]:
        """How much better one row is than another at each fraction, with the interval of the difference."""
        sign = 1 if self.metric.higher_is_better else -1
        found = []
        for one, two in zip(self.of(row), self.of(other), strict=True):
            low, high = interval(sign * (self.draws(one) - self.draws(two)))
            value = sign * (self.mean(one) - self.mean(two))
            found.append(
                {
                    "fraction": one.fraction,
                    "num_labels": one.num_labels,
                    "gain": value,
                    "low": low,
                    "high": high,
                }
            )
        return found

    def worth(self) -> Told:
        """How many labels scratch needs for what pre-training reaches, and a sentence about it.

        `shown`: whether a gain is sure, and nothing without pre-training is surely better there.
        """
        scratch, tuned = self.of(SCRATCH), self.of(PRETRAINED)
        if not scratch or not tuned:
            sentence = "Not measured: it takes the rows scratch and pretrained."
            return {"sentence": sentence, "shown": False, "at": []}
        sign = 1 if self.metric.higher_is_better else -1
        labels = [entry.num_labels for entry in scratch]
        curves = np.stack([sign * self.draws(entry) for entry in scratch])  # fraction, draw
        means = [sign * self.mean(entry) for entry in scratch]
        rivals = {row: self.differences(row, PRETRAINED) for row in (CLASSICAL, RANDOM) if self.of(row)}
        at = []
        for place, (entry, gain) in enumerate(zip(tuned, self.differences(PRETRAINED, SCRATCH), strict=True)):
            drawn = sign * self.draws(entry)
            whole = np.isfinite(drawn) & np.isfinite(curves).all(axis=0)  # a draw may hold one class alone
            needed = [
                labels_for(labels, curve, value)
                for curve, value in zip(curves.T[whole].tolist(), drawn[whole].tolist(), strict=True)
            ] or [math.inf]
            low, high = np.quantile(needed, [0.025, 0.975], method="nearest")
            value = labels_for(labels, means, sign * self.mean(entry))
            ends = {"worth": _finite(value), "worth_low": _finite(low), "worth_high": _finite(high)}
            beside = {row: {name: found[place][name] for name in GAIN} for row, found in rivals.items()}
            at.append({**gain, **ends, "rivals": beside})
        claim = self.claim(at)
        sure = claim is not None and not any(each["low"] > 0 for each in claim["rivals"].values())
        return {
            "sentence": self.sentence(at, max(labels)),
            "shown": sure and self.num_units >= ENOUGH_UNITS,
            "most_labels": max(labels),
            "at": at,
        }

    def claim(self, at: Sequence[Told]) -> Told | None:
        """Where pre-training is worth most, of the numbers of labels with a gain; None where there is none.

        Where scratch did as well with fewer labels, a gain over it is worth nothing.
        """
        if not all(math.isfinite(each["gain"]) for each in at):
            return None
        times = [(math.inf if each["worth"] is None else each["worth"]) / each["num_labels"] for each in at]
        gains = [n for n, each in enumerate(at) if each["low"] > 0 and times[n] >= 1]
        return at[max(gains, key=times.__getitem__)] if gains else None

    def sentence(self, at: Sequence[Told], most: float) -> str:
        """What a person should take from the table."""
        if not all(math.isfinite(each["gain"]) for each in at):
            if self._diverged:
                return "Not measured: some scores are no numbers. The training diverged: lower lrs=."
            return (
                f"Not measured: the {self.metric.words} of some tests is not defined, for instance because "
                "they hold one class alone. Choose other folds=, or another metric=."
            )
        name, examples, claim = self.metric.words, self.examples, self.claim(at)
        if claim:
            number, above = claim["num_labels"], f"more than {most:,.0f}"
            worth, *ends = (
                above if claim[end] is None else f"{claim[end]:,.0f}"
                for end in ("worth", "worth_low", "worth_high")
            )
            between = f" ({ends[0]} to {ends[1]})" if ends[0] != ends[1] else ""
            text = (
                f"With {number:,.0f} {examples}, pre-training is worth {worth} {examples}{between}: training "
                f"from scratch would need so many for the same {name} in the same {self.num_updates:,} "
                "updates."
            )
        else:
            claim = max(at, key=lambda each: float(each["gain"]))
            is_sure = claim["low"] > 0
            gain, *ends = (self._signed(claim[end]) for end in GAIN)
            compared = (
                f"{gain.lstrip('+-')} {'better' if claim['gain'] >= 0 else 'worse'} than that of scratch"
            )
            before = f", but with fewer {examples} scratch had as much" if is_sure else ""
            chance = ", which may be chance" if not is_sure and claim["high"] >= 0 else ""
            text = (
                f"No gain {f'in {examples}' if is_sure else 'is shown'}: with {claim['num_labels']:,.0f} "
                f"{examples} the {name} of the pre-trained encoder is {compared}{chance} (interval of the "
                f"gain {ends[0]} to {ends[1]}){before}."
            )
        losses = [f"{each['num_labels']:,.0f}" for each in at if each["high"] < 0]
        if losses:
            text += f" With {', '.join(losses)} {examples} it is worse than scratch."
        places = {f"{each['num_labels']:,.0f}": each["rivals"] for each in (claim, at[-1])}
        text += (
            self._untaught()
            + self._falling()
            + "".join(self._beside(number, rivals) for number, rivals in places.items())
        )
        few = too_few(self.num_units, "rows" if self._by_row else "groups")  # type: ignore[attr-defined]
        return f"{text} {few}".rstrip()

    def _untaught(self) -> str:
        """That neither encoder tells classes apart, with most labels; "" where one does."""
        last = [self.of(row)[-1] for row in (SCRATCH, PRETRAINED)]
        rows = [[*chain(*entry.by_seed.values())] for entry in last]
        if any(row.sums is not None or row.scores is None for row in chain(*rows)):
            return ""  # these are no classes of whole rows
        wanted = Counter(row.wanted for row in rows[0])
        usual = max(wanted.values()) / wanted.total()
        right = [float(np.mean([row.wanted == row.said for row in each])) for each in rows]
        if len(wanted) < 2 or max(right) > usual + BARELY:
            return ""
        number, more = f"{last[1].num_labels:,.0f} {self.examples}", f"or more {self.examples}"
        return (
            f" With {number}, neither tells them apart: the most frequent one is right in {usual:.1%} of the "
            f"tests. More updates than {self.num_updates:,}, {more}, may show more."
        )

    def _falling(self) -> str:
        """Where training from scratch did worse with more labels; "" for nowhere."""
        sign = 1 if self.metric.higher_is_better else -1
        best, worse = -math.inf, []
        for entry in self.of(SCRATCH):
            value = sign * self.mean(entry)
            worse += [f"{entry.num_labels:,.0f}"] if value < best else []
            best = max(best, value)
        if not worse:
            return ""
        numbers = ", ".join(worse)
        examples = self.examples
        return f" The curve of scratch is not rising: with {numbers} {examples} it did worse than with fewer."

    def _beside(self, number: str, rivals: Mapping[str, Mapping[str, float]]) -> str:
        """What does as well without pre-training as fine-tuned with it, with so many; "" for nothing."""
        names = {CLASSICAL: "a method without an encoder", RANDOM: f"a {WORDS[RANDOM]},"}
        better = [names[row] for row, each in rivals.items() if each["low"] > 0]
        level = [names[row] for row, each in rivals.items() if each["gain"] > 0 >= each["low"]]
        both = ((better, "did better"), (level, "did no worse"))
        parts = [f"{' and '.join(rows)} {did}" for rows, did in both if rows]
        return f" With {number} {self.examples}, {', '.join(parts)}." if parts else ""

    @property
    def _diverged(self) -> bool:
        """Whether a row was scored with something that is no number."""
        return not all(
            all(part is None or np.isfinite(part).all() for part in (row.sums, row.scores))
            for entry in self.entries
            for rows in entry.by_seed.values()
            for row in rows
        )

    def _signed(self, value: float) -> str:
        """A difference, in points where the metric is a share."""
        return (
            f"{round(100 * value, 1) + 0.0:+.1f} points" if self.metric.unit == "share" else f"{value:+.3g}"
        )


def labels_for(labels: Sequence[float], curve: Sequence[float], value: float) -> float:
    """The labels at which a curve first reaches a value: infinite where it never does.

    Between two numbers of labels the curve is a straight line over their logarithm. Where it falls, the
    highest point so far counts. At or below its first point, the first number is the answer: what fewer
    labels give is not known.
    """
    best = -math.inf
    for place, (number, height) in enumerate(zip(labels, curve, strict=True)):
        if height >= value:
            if place == 0:
                return number
            share = (value - best) / (height - best)
            before = math.log(labels[place - 1])
            return math.exp(before + share * (math.log(number) - before))
        best = max(best, height)
    return math.inf


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def markdown(values: Mapping[str, Any]) -> str:
    """The table of an evaluation in Markdown: a line for each row, a column for each number of labels."""
    results = values["results"]
    numbers = sorted(
        {(each["fraction"], each["num_labels"]) for each in results if each["row"] != "classical"}
    )
    numbers = numbers or sorted({(each["fraction"], each["num_labels"]) for each in results})
    heads = [f"{fraction:.3g} ({number:,.0f} {values['examples']})" for fraction, number in numbers]
    lines = [
        f"| {values['metric']} | " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(heads),
    ]
    for row in dict.fromkeys(each["row"] for each in results):
        cells = []
        for fraction, _ in numbers:
            found = [e for e in results if e["row"] == row and e["fraction"] == fraction]
            cells.append(printed(found[0], values["unit"]) if found else "")
        lines.append(f"| {WORDS.get(row, row)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def printed(entry: Mapping[str, Any], unit: str) -> str:
    """A mean with its interval: in percent where the metric is a share."""
    scale, form = (100, ".1f") if unit == "share" else (1, ".3f")
    mean, low, high = (format(scale * entry[name], form) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
