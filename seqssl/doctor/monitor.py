"""Readings over time: one that stays bad becomes a finding."""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from seqssl.doctor.bars import HISTORY
from seqssl.doctor.readings import RULES, Reading, Vitals

REMEMBERED = ("loss", "grad_norm", "features/std", "context/std")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something is wrong: what is seen, why it probably is so, and which key to change in which direction."""

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


@dataclass
class Monitor:
    """Watches records as they come; it remembers what its rules need and nothing else."""

    num_updates: int
    readings: dict[str, Reading] = field(default_factory=dict)  # the last of each subject
    _streaks: Counter[tuple[str, str]] = field(default_factory=Counter)
    _past: dict[str, dict[str, deque[float]]] = field(default_factory=dict)  # of each stream
    _peaks: dict[str, dict[str, float]] = field(default_factory=dict)
    _suspects: tuple[str, ...] = ()  # batch keys named by events since the last training record

    def observe(self, record: Mapping[str, Any]) -> list[Finding]:
        """The findings that this record brings; a state that lasts is reported once."""
        if record["kind"] == "event":
            self._suspects += tuple(record.get("keys", ()))
            return []
        findings = []
        for stream, part in by_stream(record).items():
            past, peaks = self._past.setdefault(stream, {}), self._peaks.setdefault(stream, {})
            vitals = Vitals(part, self.num_updates, past, peaks, self._suspects)
            for rule in RULES[record["kind"]]:
                for reading in rule(vitals):
                    named = f"{stream}: {reading.subject}" if stream else reading.subject
                    findings += self._judge(replace(reading, subject=named), int(record["step"]))
            if record["kind"] == "train":
                remember(vitals)
        if record["kind"] == "train":
            self._suspects = ()
        return findings

    def _judge(self, reading: Reading, step: int) -> list[Finding]:
        self.readings[reading.subject] = reading
        ailment = reading.ailment
        for subject, name in list(self._streaks):
            if subject == reading.subject and (ailment is None or name != ailment.name):
                del self._streaks[subject, name]
        if ailment is None:
            return []
        self._streaks[reading.subject, ailment.name] += 1
        if self._streaks[reading.subject, ailment.name] != ailment.patience:
            return []
        return [
            Finding(
                rule=ailment.name,
                subject=reading.subject,
                step=step,
                severity=ailment.severity,
                symptom=f"{reading.subject}: {reading.figure} (should be: {reading.bar})",
                cause=ailment.cause,
                remedy_key=ailment.remedy_key,
                remedy=ailment.remedy,
            )
        ]


def remember(vitals: Vitals) -> None:
    """Keep what later records are compared with."""
    for key in REMEMBERED:
        value = vitals.get(key)
        if value is not None and math.isfinite(value):
            vitals.past.setdefault(key, deque(maxlen=HISTORY)).append(value)
            vitals.peaks[key] = max(value, vitals.peaks.get(key, value))


def by_stream(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The record of each kind of data; a joint run's metrics are named `<stream>/<metric>`.

    What is common to all (loss, gradient norm, speed) stands under "".
    """
    streams = [key.removesuffix("/loss") for key in record if key.endswith("/loss")]
    prefixes = tuple(f"{name}/" for name in streams)
    common = {key: value for key, value in record.items() if not key.startswith(prefixes)}
    parts: dict[str, Mapping[str, Any]] = {"": common}
    for name, prefix in zip(streams, prefixes, strict=True):
        own = {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}
        parts[name] = {"kind": record["kind"], "step": record["step"], **own}
    return parts
