"""Several runs on one page: what they are, how they stand, and their evaluations over one another."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import yaml

from seqssl.config.tree import flatten
from seqssl.data.files import write_atomic
from seqssl.errors import UserError
from seqssl.report import evaluated
from seqssl.report.page import card, document
from seqssl.training import catalogue
from seqssl.training.catalogue import Figure, by_stream
from seqssl.training.log import Record, read_records
from seqssl.training.metrics import Metric

SHOWN = (
    "recipe",
    "size",
    "task.target",
    "encoder.num_layers",
    "encoder.dim",
    "train.num_updates",
    "seed",
    "init",
)


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write a page about several runs; UserError where one is none, or has not begun."""
    columns = [_column(run) for run in runs]
    names = _names(runs)
    rows = list(dict.fromkeys(name for column in columns for name in column))
    lines = [
        "<tr><td></td>" + "".join(f"<td><strong>{escape(name)}</strong></td>" for name in names) + "</tr>"
    ]
    for row in rows:
        cells = "".join(f"<td>{escape(column.get(row, ''))}</td>" for column in columns)
        lines.append(f"<tr><td>{escape(row)}</td>{cells}</tr>")
    body = [
        "<h1>Runs beside each other</h1>",
        "<p>Figures are held out, of the last evaluation. Rows on which all agree are left out.</p>",
        f'<div class="card"><table>{"".join(_differing(lines, columns, rows))}</table></div>',
    ]
    found = {name: _evaluations(run) for name, run in zip(names, runs, strict=True)}
    for task in sorted({task for own in found.values() for task in own}):
        both = [(name, own[task]) for name, own in found.items() if task in own]
        body.append(f"<h2>Evaluation: {escape(task)}</h2>")
        body += [f"<p>{escape(name)}: {escape(values['worth']['sentence'])}</p>" for name, values in both]
        body.append(f'<div class="card">{evaluated.compared(both)}</div>')
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, document("seqssl: runs beside each other", "\n".join(body)))
    return out


def _names(runs: Sequence[Path]) -> list[str]:
    """The last part of each path, with the one before where two are the same."""
    last = [run.resolve().name for run in runs]
    return [
        name if last.count(name) == 1 else f"{run.resolve().parent.name}/{name}"
        for name, run in zip(last, runs, strict=True)
    ]


def _column(run: Path) -> dict[str, str]:
    """What is shown of a run: some of its settings, and its last held-out figures."""
    if not (run / "config.yaml").is_file() or not (run / "metrics.jsonl").is_file():
        raise UserError(f"{run} is no run, or has not begun: there is no config.yaml or metrics.jsonl in it.")
    config = flatten(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))
    found = {name: str(config[name]) for name in SHOWN if config.get(name) is not None}
    records = [record for record in read_records(run / "metrics.jsonl") if record["kind"] == "valid"]
    if records:
        found["update"] = f"{records[-1]['step']:,}"
        found |= _figures(records[-1], run)
    return found


def _figures(record: Record, run: Path) -> dict[str, str]:
    """The figures of a record by their words."""
    found: dict[str, str] = {}
    for part in by_stream(record, catalogue.read(run)):
        grouped: dict[Metric, list[Figure]] = {}
        for figure in part.figures("table"):
            grouped.setdefault(figure.metric, []).append(figure)
        for figures in grouped.values():
            value, _ = card(figures, "")
            words = figures[0].metric.words
            found[f"{part.stream}: {words}" if part.stream else words] = value
    return found


def _differing(lines: Sequence[str], columns: Sequence[Mapping[str, str]], rows: Sequence[str]) -> list[str]:
    """The header, and the lines on which the runs do not all agree."""
    kept = [
        line
        for line, row in zip(lines[1:], rows, strict=True)
        if len({column.get(row) for column in columns}) > 1
    ]
    return [lines[0], *kept]


def _evaluations(run: Path) -> dict[str, evaluated.Evaluation]:
    """The evaluations in a run's folder by the names of theirs: the task, and the stream of a joint run."""
    found = {path.parent.name: evaluated.read(path) for path in run.glob("evaluation-*/evaluation.json")}
    return {name.partition("-")[2]: values for name, values in sorted(found.items()) if values}
