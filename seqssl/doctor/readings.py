"""The health rules: each reads a record and what came before it, and says what it saw, good or bad."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from seqssl.doctor import ailments, bars
from seqssl.doctor.ailments import Ailment
from seqssl.training.catalogue import Part, in_words
from seqssl.training.metrics import Rule


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One thing that a rule looked at; with `ailment` None it is in order."""

    subject: str
    figure: str
    bar: str
    ailment: Ailment | None
    objective: str = ""  # the one that the reading is about; "" = none


@dataclass(frozen=True)
class Vitals:
    """What a record says of one stream, how far the run is, and the training records before it."""

    part: Part
    num_updates: int
    past: dict[str, deque[float]]
    peaks: dict[str, float]
    suspects: tuple[str, ...]

    def get(self, key: str) -> float | None:
        """A metric; None where it is not in the record."""
        return self.part.metrics.get(key)

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return self.part.step / self.num_updates

    @property
    def is_warm(self) -> bool:
        """Whether the codebooks had time to settle."""
        return self.part.step >= min(bars.WARM_UP_SHARE * self.num_updates, bars.WARM_UP_MAX)

    def usual(self, key: str, num_records: int = bars.HISTORY) -> float | None:
        """The median of the last records; None while there are too few of them."""
        values = list(self.past.get(key, ()))[-num_records:]
        return median(values) if len(values) >= bars.HISTORY_MIN else None


def perplexity_bar(num_entries: float) -> float:
    """The hard perplexity below which a codebook counts as collapsed."""
    return min(max(bars.PERPLEXITY_MIN, bars.PERPLEXITY_SHARE * num_entries), num_entries / 2)


def codebooks(now: Vitals) -> Iterator[Reading]:
    """How evenly each codebook is used."""
    size = now.get("perplexity/size")
    if size is None or not now.is_warm:
        return
    for book, perplexity in sorted(hard_perplexities(now).items()):
        bar = perplexity_bar(size)
        top1, dead = now.get(f"codes/top1_{book}") or 0.0, now.get(f"codes/dead_{book}") or 0.0
        ailment = None
        if perplexity < bar:
            ailment = ailments.COLLAPSE
        elif top1 > bars.TOP1_SHARE:
            ailment = ailments.DOMINANT_CODE
        elif dead > bars.DEAD_SHARE:
            ailment = ailments.DEAD_CODES
        yield Reading(
            subject=f"codebook {book}",
            figure=f"hard perplexity {perplexity:.1f} of {size:.0f} entries, the most used takes {top1:.1%}, "
            f"{dead:.1%} are unused",
            bar=f"perplexity at least {bar:.1f}, most used at most {bars.TOP1_SHARE:.0%}, "
            f"unused at most {bars.DEAD_SHARE:.0%}",
            ailment=ailment,
        )


def hard_perplexities(now: Vitals) -> dict[str, float]:
    """The perplexity of the codes that were chosen, for each codebook by its number."""
    found = {}
    for metric in now.part.catalogue.read_by("codebook"):
        for figure in now.part.figures_of(metric):
            found[metric.star(figure.name) or ""] = figure.value
    return found


def beside_baselines(now: Vitals, rule: Rule) -> Iterator[tuple[str, float, float]]:
    """Objective, value and baseline of each metric that a rule reads, if the record has both."""
    for metric in now.part.catalogue.read_by(rule):
        for figure in now.part.figures_of(metric):
            if figure.against:
                yield metric.objective, figure.value, figure.against[0][1]


def discrimination(now: Vitals) -> Iterator[Reading]:
    """Whether each contrastive task is learned, and not too easily."""
    size = now.get("perplexity/size")
    perplexities = hard_perplexities(now).values()
    has_few_codes = size is not None and min(perplexities, default=size) < 2 * perplexity_bar(size)
    for objective, accuracy, chance in beside_baselines(now, "discrimination"):
        loss = now.get(f"loss/{objective}")
        is_solved = accuracy > bars.SOLVED_ACCURACY or (loss is not None and loss < bars.SOLVED_LOSS)
        # Of few negatives chance is high, and twice that is much; near 1, half of the way there is enough.
        bar = min(bars.CHANCE_FACTOR * chance, chance + bars.CHANCE_MARGIN, (1 + chance) / 2)
        ailment = None
        if is_solved and has_few_codes:
            ailment = ailments.EMPTY_TASK
        elif is_solved and now.progress <= bars.EARLY_SHARE:
            hides_none = (now.get("mask/share") or 0.0) > bars.ALL_FRAMES  # all are targets, and all are seen
            ailment = ailments.TOO_GOOD_AHEAD if hides_none else ailments.TOO_GOOD
        elif accuracy < bar and now.progress >= bars.LATE_SHARE:
            ailment = ailments.AT_CHANCE
        yield Reading(
            subject=f"{in_words(objective)} task",
            figure=f"accuracy {accuracy:.1%} where chance is {chance:.1%}"
            + ("" if loss is None else f", loss {loss:.3f}"),
            bar=f"at least {bar:.1%} from half of the run on, not solved in its first {bars.EARLY_SHARE:.0%} "
            "or by a codebook of few codes",
            ailment=ailment,
            objective=objective,
        )


def prediction(now: Vitals) -> Iterator[Reading]:
    """Whether more than the frequencies of the codes is predicted."""
    for objective, accuracy, trivial in beside_baselines(now, "prediction"):
        is_late = now.progress >= bars.LATE_SHARE
        # Where one code is nearly all, half of the rest is enough.
        bar = min(bars.TRIVIAL_FACTOR * trivial, (1 + trivial) / 2)
        yield Reading(
            subject=in_words(objective),
            figure=f"accuracy {accuracy:.1%}, the most frequent code alone gives {trivial:.1%}",
            bar=f"at least {bar:.1%} from half of the run on",
            ailment=ailments.TRIVIAL if is_late and accuracy < bar else None,
            objective=objective,
        )


def regression(now: Vitals) -> Iterator[Reading]:
    """Whether more than the mean of the targets is predicted."""
    for objective, distance, spread in beside_baselines(now, "regression"):
        if not spread > bars.STD_MIN**2:  # what hardly varies has a rule of its own
            continue
        share = distance / spread
        is_late = now.progress >= bars.LATE_SHARE
        yield Reading(
            subject=f"{in_words(objective)} task",
            figure=f"squared distance {distance:.3g}, the mean of the targets alone gives {spread:.3g}",
            bar=f"at most {bars.MEAN_SHARE:.0%} of that from half of the run on",
            ailment=ailments.AT_MEAN if is_late and share > bars.MEAN_SHARE else None,
            objective=objective,
        )


def variance(now: Vitals) -> Iterator[Reading]:
    """Whether frames still differ from one another."""
    for metric in now.part.catalogue.read_by("variance"):
        key, value = metric.name, now.get(metric.name)
        if value is None or math.isnan(value):
            continue
        bar = max(bars.STD_MIN, now.peaks.get(key, 0.0) / bars.STD_FALL)
        was_ever_good = now.peaks.get(key, 0.0) >= bars.STD_MIN
        yield Reading(
            subject=metric.words,
            figure=f"standard deviation over frames {value:.3g}",
            bar=f"at least {bar:.3g}",
            ailment=None if value >= bar else ailments.SHRUNKEN if was_ever_good else ailments.CONSTANT,
        )


def stability(now: Vitals) -> Iterator[Reading]:
    """Whether gradient and loss stay near where they were."""
    for key, factor, too_high in (
        ("grad_norm", bars.GRADIENT_FACTOR, ailments.EXPLODING),
        ("loss", bars.LOSS_FACTOR, ailments.DIVERGING),
    ):
        value, usual = now.get(key), now.usual(key)
        if value is None or not math.isfinite(value):
            continue
        is_gradient = key == "grad_norm"
        ailment = ailments.VANISHING if is_gradient and value < bars.GRADIENT_MIN else None
        if usual is not None and value > factor * usual:
            ailment = too_high
        least = f"at least {bars.GRADIENT_MIN:g}, " if is_gradient else ""
        most = "no median yet" if usual is None else f"at most {factor:g} times the median of {usual:.3g}"
        yield Reading(
            subject="gradient norm" if is_gradient else "loss",
            figure=f"{value:.3g}",
            bar=least + most,
            ailment=ailment,
        )


def numbers(now: Vitals) -> Iterator[Reading]:
    """Whether every loss and gradient is a finite number."""
    names = [key for key in now.part.metrics if key.split("/")[0] == "loss"] + ["grad_norm"]
    bad = [name for name in names if not math.isfinite(now.get(name) or 0.0)]
    skipped = now.get("skipped_updates") or 0.0
    figure = "all finite"
    if bad or skipped:
        figure = ", ".join([*(f"{name} is {now.get(name)}" for name in bad)])
        figure += (", " if bad else "") + f"{skipped:.0f} updates dropped"
        if now.suspects:
            figure += f", batches with {', '.join(now.suspects[:8])}"
    yield Reading(
        subject="numbers",
        figure=figure,
        bar="losses and gradients finite",
        ailment=ailments.NOT_FINITE if bad or skipped else None,
    )


def generalization(now: Vitals) -> Iterator[Reading]:
    """Whether held-out rows are predicted nearly as well as those trained on."""
    value, usual = now.get("loss"), now.usual("loss", bars.HISTORY_MIN)
    if value is None or usual is None or not math.isfinite(value):
        return
    is_late = now.progress >= bars.LATE_SHARE
    yield Reading(
        subject="held-out loss",
        figure=f"{value:.3f} where the training loss is about {usual:.3f}",
        bar=f"at most {bars.GAP_FACTOR:g} times as high from half of the run on",
        ailment=ailments.OVERFITTING if is_late and value > bars.GAP_FACTOR * usual else None,
    )


RULES = {
    "train": (numbers, codebooks, discrimination, prediction, regression, variance, stability),
    "valid": (generalization,),
}
