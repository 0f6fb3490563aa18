"""Readings over time: one that stays bad becomes a finding."""

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from seqssl.doctor.bars import HISTORY
from seqssl.doctor.readings import RULES, Reading, Vitals
from seqssl.training.catalogue import Catalogue, Catalogues, by_stream, in_words
from seqssl.training.log import Record


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong: what is seen, its probable cause, and which key to change, and how."""

    rule: str
    subject: str
    step: int
    severity: str
    symptom: str
    cause: str
    remedy_key: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"{self.rule} ({self.severity}) at update {self.step}: {self.symptom}. "
            f"Likely cause: {self.cause}. Change {self.remedy_key}: {self.remedy}."
        )


def together(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of a moment, with those of one rule and one remedy told as one: of two heads, say."""
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for each in findings:
        alike.setdefault((each.rule, each.remedy_key, each.remedy), []).append(each)
    return [
        replace(
            own[0],
            subject="; ".join(each.subject for each in own),
            symptom="; ".join(each.symptom for each in own),
            cause="; ".join(dict.fromkeys(each.cause for each in own)),
        )
        for own in alike.values()
    ]


@dataclass
class Monitor:
    """Watches records as they come, and remembers what its rules need and nothing else."""

    num_updates: int
    catalogues: Catalogues = field(default_factory=dict)  # what the metrics mean; empty: see CLASSIC
    readings: dict[str, Reading] = field(default_factory=dict)  # the last of each subject
    _streaks: Counter[tuple[str, str]] = field(default_factory=Counter)
    _past: dict[str, dict[str, deque[float]]] = field(default_factory=dict)  # of each stream
    _peaks: dict[str, dict[str, float]] = field(default_factory=dict)
    _suspects: tuple[str, ...] = ()  # batch keys named by events since the last training record

    def observe(self, record: Record) -> list[Finding]:
        """The findings that this record brings; a state that lasts is reported once."""
        # Events come before the training record that they explain, so their batch keys wait for it.
        if record["kind"] == "event":
            keys = record.get("keys")
            self._suspects += tuple(keys) if isinstance(keys, list) else ()
            return []
        findings = []
        for part in by_stream(record, self.catalogues):
            past = self._past.setdefault(part.stream, {})
            peaks = self._peaks.setdefault(part.stream, {})
            vitals = Vitals(part, self.num_updates, past, peaks, self._suspects)
            for rule in RULES.get(part.kind, ()):
                findings += [found for reading in rule(vitals) for found in self._judge(reading, vitals)]
            # Only now, so that a record is not compared with itself. Held-out losses have another level, and
            # would shift the medians.
            if part.kind == "train":
                remember(vitals)
        if record["kind"] == "train":
            self._suspects = ()
        return findings

    def _judge(self, reading: Reading, now: Vitals) -> list[Finding]:
        """One finding, if this reading completes a row of bad ones; else none."""
        if now.part.stream:  # else the codebooks of two streams would be one subject
            reading = replace(reading, subject=f"{now.part.stream}: {reading.subject}")
        self.readings[reading.subject] = reading
        ailment = reading.ailment
        # Patience counts readings in a row: a good one, or another ailment, starts it again.
        for subject, name in list(self._streaks):
            if subject == reading.subject and (ailment is None or name != ailment.name):
                del self._streaks[subject, name]
        if ailment is None:
            return []
        self._streaks[reading.subject, ailment.name] += 1
        # Equal, not at least: a state that lasts is reported once.
        if self._streaks[reading.subject, ailment.name] != ailment.patience:
            return []
        ailment = ailment.about(names_for(reading, now.part.catalogue))
        return [
            Finding(
                rule=ailment.name,
                subject=reading.subject,
                step=now.part.step,
                severity=ailment.severity,
                symptom=f"{reading.subject}: {reading.figure} (should be: {reading.bar})",
                cause=ailment.cause,
                remedy_key=ailment.remedy_key,
                remedy=ailment.remedy,
            )
        ]


def names_for(reading: Reading, catalogue: Catalogue) -> dict[str, str]:
    """The names for an ailment's texts, of this run's objectives; "evening" is "" where there is none."""
    discriminating = catalogue.objective("discrimination")
    return {
        "objective": reading.objective,
        "words": in_words(reading.objective),
        "besides": f"the {in_words(discriminating)} accuracy" if discriminating else "the loss",
        "evening": catalogue.objective("evenness"),
    }


def remember(now: Vitals) -> None:
    """Keep the values that later records are compared with."""
    for rule in ("stability", "variance"):
        for metric in now.part.catalogue.read_by(rule):
            value = now.get(metric.name)
            if value is not None and math.isfinite(value):  # others have a rule of their own
                now.past.setdefault(metric.name, deque(maxlen=HISTORY)).append(value)
                now.peaks[metric.name] = max(value, now.peaks.get(metric.name, value))
