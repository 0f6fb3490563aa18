"""The health rules applied to a whole run, and their verdict as text."""

from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from seqssl.config.stages import FOLDER
from seqssl.config.text import read_plain
from seqssl.doctor.bars import HISTORY_MIN
from seqssl.doctor.monitor import Finding, Monitor
from seqssl.doctor.readings import Reading
from seqssl.errors import UserError
from seqssl.training import catalogue
from seqssl.training.log import Record, number_of, read_records


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the rules say about a whole run."""

    run: Path
    step: int
    num_updates: int
    num_records: int  # of training
    notes: tuple[str, ...]  # what was seen before the first update
    findings: tuple[Finding, ...]
    healthy: tuple[Reading, ...]  # what the last record showed to be in order

    @property
    def ok(self) -> bool:
        """Whether there is no finding."""
        return not self.findings

    def has_recovered(self, finding: Finding) -> bool:
        """Whether what a finding is about is in order at the end."""
        return any(reading.subject == finding.subject for reading in self.healthy)

    def render(self) -> str:
        """Plain text: findings with their remedies, then what is in order, each with its bar."""
        verdict = f"{len(self.findings)} finding{'s'[: len(self.findings) > 1]}"
        if self.ok:
            judged = self.num_records >= HISTORY_MIN
            verdict = "healthy" if judged else "no finding, but too few records to be sure"
        lines = [f"{self.run}: {verdict} at update {self.step} of {self.num_updates}"]
        lines += [f"\nNOTE {text}" for text in self.notes]
        for finding in self.findings:
            since = "; in order since" if self.has_recovered(finding) else ""
            lines += [
                "",
                f"{finding.severity.upper()} {finding.rule}, from update {finding.step}{since}",
                f"  seen    {finding.symptom}",
                f"  cause   {finding.cause}",
                f"  change  {finding.remedy_key}: {finding.remedy}",
            ]
        if self.healthy:
            lines += ["", "In order"]
        for reading in self.healthy:
            lines += [f"  {reading.subject:17} {reading.figure}", f"  {'':17} bar: {reading.bar}"]
        return "\n".join(lines)


def is_note(record: Record) -> bool:
    """Whether a record says what was seen before the first update."""
    return record["kind"] == "event" and record.get("event") == "health" and record["step"] == 0


def examine(run: Path) -> Report:
    """Apply the rules to the metrics of a run folder; UserError where there are none, or damaged files.

    What they find in the stages before it comes first: a run on a broken stage may look well by itself.
    """
    records = list(read_records(run / "metrics.jsonl"))
    steps = [int(number_of(record["step"]) or 0) for record in records if record["kind"] != "event"]
    if not steps:
        raise UserError(
            f"{run} has no metrics: it is no run folder (the `out` of a train command), or its first record "
            "is still to come (every train.log_every updates)"
        )
    num_updates = planned_updates(run) or steps[-1]
    monitor = Monitor(num_updates, catalogue.read(run))
    findings = [finding for record in records for finding in monitor.observe(record)]
    healthy = [reading for reading in monitor.readings.values() if reading.ailment is None]
    before = [of_stage(path.parent) for path in sorted(run.glob(f"{FOLDER}/*/metrics.jsonl"))]
    return Report(
        run=run,
        step=steps[-1],
        num_updates=num_updates,
        num_records=sum(record["kind"] == "train" for record in records),
        notes=tuple(
            [note for stage in before for note in stage.notes]
            + [str(record["message"]) for record in records if is_note(record)]
        ),
        findings=tuple([finding for stage in before for finding in stage.findings] + findings),
        healthy=tuple([reading for stage in before for reading in stage.healthy] + healthy),
    )


def of_stage(run: Path) -> Report:
    """`examine` for a stage of a recipe, with its name in every line."""
    found, name = examine(run), f"stage {run.name}: "
    return replace(
        found,
        notes=tuple(name + note for note in found.notes),
        findings=tuple(
            replace(finding, subject=name + finding.subject, symptom=name + finding.symptom)
            for finding in found.findings
        ),
        healthy=tuple(replace(reading, subject=name + reading.subject) for reading in found.healthy),
    )


def planned_updates(run: Path) -> int | None:
    """`train.num_updates` of a run folder's config.yaml; None where it does not say."""
    path = run / "config.yaml"
    if not path.exists():
        return None
    try:
        config = read_plain(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or remove it.") from error
    section = config.get("train") if isinstance(config, dict) else None
    number = section.get("num_updates") if isinstance(section, dict) else None
    return number if isinstance(number, int) and number > 0 else None
