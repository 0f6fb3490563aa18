"""Scores of predictions: from rows to metrics, and from the groups of rows to intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seqssl.errors import UserError

Array = npt.NDArray[Any]
ENOUGH_UNITS = 6  # of five, all are on one side of zero by chance more than once in 20 times (2 * 0.5 ** 5)
DRAWS_AT_ONCE = 50  # whose sums are held together


@dataclass(frozen=True)
class Scored:
    """A test row: what was wanted, what was said, and sums from which metrics are made.

    `sums` of several rows are added up: so a metric of any set of rows costs one addition a row. None where
    `wanted` and `said` are numbers of classes: these say all that a confusion matrix would.
    """

    key: str
    group: str
    wanted: object
    said: object
    sums: Array | None
    scores: Array | None = None  # of each class; for metrics of a ranking, and where there are no sums


@dataclass(frozen=True)
class Metric:
    """A figure of merit. `of` takes added-up sums; `of_rows` what cannot be added up (a ranking)."""

    name: str
    words: str
    higher_is_better: bool
    of: Callable[[Array], float] | None = None
    of_rows: Callable[[Sequence[Scored]], float] | None = field(default=None)
    unit: Literal["share", "number"] = "number"  # a share is shown in percent

    def __call__(self, rows: Sequence[Scored]) -> float:
        """The metric of some rows; NaN where it is not defined."""
        if self.of is not None:
            return self.of(total(rows))
        assert self.of_rows is not None
        return self.of_rows(rows)


def total(rows: Sequence[Scored]) -> Array:
    """The sums of rows, added up; of rows without, their confusion matrix."""
    if rows[0].sums is None:
        return confusion(*_classes(rows))
    return np.asarray(np.sum([row.sums for row in rows if row.sums is not None], axis=0))


def _classes(rows: Sequence[Scored]) -> tuple[Array, Array, int]:
    """The class that was wanted of each row, the one that was said, and how many classes there are."""
    assert rows[0].scores is not None
    return np.array([row.wanted for row in rows]), np.array([row.said for row in rows]), len(rows[0].scores)


def confusion(wanted: Array, said: Array, num_classes: int, weights: Array | None = None) -> Array:
    """How often each wanted class (row) was called each class (column); `weights`: how much each counts."""
    places = np.asarray(wanted) * num_classes + np.asarray(said)
    counts = np.bincount(places, weights, num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(float)


def accuracy(table: Array) -> float:
    """The share of the confusion matrix on its diagonal."""
    return float(np.trace(table) / table.sum()) if table.sum() else float("nan")


def macro_f1(table: Array) -> float:
    """The mean of F1 over the classes that were wanted or said."""
    hits, wanted, said = np.diag(table), table.sum(1), table.sum(0)
    known = wanted + said > 0
    return float(np.mean(2 * hits[known] / (wanted + said)[known])) if known.any() else float("nan")


def mcc(table: Array) -> float:
    """Matthews' correlation for any number of classes (Gorodkin 2004); 0 where it is not defined."""
    total, hits = table.sum(), np.trace(table)
    if not total:
        return float("nan")
    wanted, said = table.sum(1), table.sum(0)
    covariance = hits * total - wanted @ said
    scale = np.sqrt((total**2 - said @ said) * (total**2 - wanted @ wanted))
    return float(covariance / scale) if scale > 0 else 0.0


def auroc(rows: Sequence[Scored]) -> float:
    """The area under the ROC curve; of several classes the plain mean of one against the rest."""
    from scipy.stats import rankdata

    if not rows:
        return float("nan")
    wanted = np.array([row.wanted for row in rows])
    scores = np.stack([row.scores for row in rows if row.scores is not None])
    areas = []
    for number in range(scores.shape[1]) if scores.shape[1] > 2 else [1]:
        positive = wanted == number
        if not 0 < positive.sum() < len(positive):
            continue
        ranks = rankdata(scores[:, number])
        count = positive.sum()
        area = (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count))
        areas.append(area)
    return float(np.mean(areas)) if areas else float("nan")


def ratio(sums: Array) -> float:
    """The first sum over the last, which counts."""
    return float(sums[0] / sums[-1]) if sums[-1] else float("nan")


CLASSES = (
    Metric("accuracy", "accuracy", True, accuracy, unit="share"),
    Metric("macro_f1", "macro F1", True, macro_f1, unit="share"),
    Metric("mcc", "Matthews correlation", True, mcc),
)
AUROC = Metric("auroc", "area under the ROC curve", True, of_rows=auroc)
ERRORS = (
    Metric("mse", "mean squared error", False, ratio),
    Metric("mae", "mean absolute error", False, lambda sums: ratio(sums[1:])),
)
TEXTS = (
    Metric("wer", "word error rate", False, lambda sums: ratio(sums[:2]), unit="share"),
    Metric("cer", "character error rate", False, lambda sums: ratio(sums[2:]), unit="share"),
)


def sums_of_errors(wanted: Array, said: Array, known: Array | None = None) -> Array:
    """Squared errors, absolute errors, and their number; where `known` is false nothing counts."""
    error = np.asarray(said, float) - np.asarray(wanted, float)
    chosen = error if known is None else error[known]
    return np.array([np.square(chosen).sum(), np.abs(chosen).sum(), chosen.size], float)


def sums_of_texts(wanted: str, said: str) -> Array:
    """Word errors and words, character errors and characters of one text, as jiwer counts them."""
    import jiwer

    words = jiwer.process_words(wanted, said)
    marks = jiwer.process_characters(wanted, said)
    return np.array([_errors(words), len(wanted.split()), _errors(marks), len(wanted.strip())], float)


def _errors(found: Any) -> int:
    return int(found.substitutions + found.deletions + found.insertions)


def find_metric(metrics: Sequence[Metric], name: str) -> Metric:
    """A metric by name, "" for the first; UserError for one that the task has not."""
    found = {metric.name: metric for metric in metrics}
    if name and name not in found:
        raise UserError(f"metric = {name}: this task has {', '.join(found)}.")
    return found[name] if name else metrics[0]


@dataclass(frozen=True)
class Resampling:
    """Bootstrap over groups, the same draws for whatever is compared (Efron 1979; paired).

    Where there is one group, rows are drawn instead: the interval then says nothing of other groups.
    """

    draws: Array  # how often each unit is drawn: b u, in bytes, as no unit is drawn 256 times
    units: tuple[str, ...]

    @classmethod
    def of(cls, units: Sequence[str], seed: int = 0, num_draws: int = 1000) -> "Resampling":
        """Draws of these units, with replacement."""
        names = tuple(sorted(set(units)))
        rng = np.random.default_rng(seed)
        shares = np.full(len(names), 1 / len(names))
        draws = [rng.multinomial(len(names), shares).astype(np.uint8) for _ in range(num_draws)]
        return cls(np.stack(draws), names)

    def places(self, names: Sequence[str]) -> Array:
        """The number of the unit that each name is."""
        number = {unit: place for place, unit in enumerate(self.units)}
        return np.array([number[name] for name in names])

    def values(self, metric: Metric, runs: Sequence[Sequence[Scored]], by_row: bool = False) -> Array:
        """The metric, mean over several runs that tested the units, for each draw."""
        columns = []
        for rows in runs:
            places = self.places([row.key if by_row else row.group for row in rows])
            columns.append(self._one(metric, rows, places))
        with np.errstate(invalid="ignore"):
            table = np.array(columns)
            known = np.isfinite(table)
            summed = np.where(known, table, 0).sum(0)
            return np.asarray(np.where(known.any(0), summed / np.maximum(known.sum(0), 1), np.nan))

    def _one(self, metric: Metric, rows: Sequence[Scored], places: Array) -> Array:
        if metric.of is None:
            by_unit: dict[int, list[Scored]] = {}
            for row, place in zip(rows, places.tolist(), strict=True):
                by_unit.setdefault(place, []).append(row)
            return np.array([metric(_drawn(by_unit, draw)) for draw in self.draws])
        if rows[0].sums is None:  # a table for each draw, not for each unit: there may be many
            wanted, said, size = _classes(rows)
            return np.array([metric.of(confusion(wanted, said, size, draw[places])) for draw in self.draws])
        sums = np.zeros((len(self.units), *rows[0].sums.shape))
        for row, place in zip(rows, places.tolist(), strict=True):
            sums[place] += row.sums
        return np.array([metric.of(each) for each in self._added(sums)])

    def _added(self, sums: Array) -> Iterator[Array]:
        """For each draw, the sums of its units, added up."""
        for start in range(0, len(self.draws), DRAWS_AT_ONCE):
            yield from np.tensordot(self.draws[start : start + DRAWS_AT_ONCE].astype(float), sums, axes=1)

    def interval_of_mean(self, values: Array, names: Sequence[str]) -> tuple[float, float]:
        """The 95 % interval of the mean of values, each of the unit that is named."""
        places, number = self.places(names), len(self.units)
        sums = np.stack([np.bincount(places, values, number), np.bincount(places, minlength=number)], axis=1)
        return interval(np.array([ratio(each) for each in self._added(sums)]))


def _drawn(by_unit: Mapping[int, list[Scored]], draw: Array) -> list[Scored]:
    """The rows of the units drawn, as often as they were."""
    return [row for unit, rows in by_unit.items() for row in rows * int(draw[unit])]


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the draws that have a value."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def too_few(number: int, units: str = "groups") -> str:
    """A sentence where an interval over so many units is none to rely on; else ""."""
    return f"{number} {units} are too few to be sure." if number < ENOUGH_UNITS else ""
