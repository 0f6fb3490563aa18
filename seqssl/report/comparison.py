"""Several runs on one page: what they are, how they stand, and their evaluations over one another."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import yaml

from seqssl.config.text import read_plain
from seqssl.config.tree import leaves
from seqssl.data.files import write_atomic
from seqssl.errors import UserError
from seqssl.report import evaluated
from seqssl.report.page import card, document
from seqssl.training import catalogue
from seqssl.training.catalogue import Figure, by_stream
from seqssl.training.log import Record, read_records
from seqssl.training.metrics import Metric

FIRST = (
    "recipe",
    "size",
    "task.target",
    "encoder.num_layers",
    "encoder.dim",
    "train.num_updates",
    "seed",
    "init",
)
APART = ("out", "provenance")  # differ for any two runs, and say nothing of what was trained


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
    found: dict[tuple[str, ...], list[tuple[str, evaluated.Evaluation]]] = {}
    for name, run in zip(names, runs, strict=True):
        for task, values in _evaluations(run).items():
            found.setdefault((task, *_judged_by(values)), []).append((name, values))
    for (task, *judge), both in sorted(found.items()):
        heading = f"Evaluation: {task} ({', '.join(part for part in judge if part)})"
        body.append(f"<h2>{escape(heading)}</h2>")
        body += [f"<p>{escape(name)}: {escape(values['worth']['sentence'])}</p>" for name, values in both]
        body.append(f'<div class="card">{evaluated.compared(both)}</div>')
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, document("seqssl: runs beside each other", "\n".join(body)))
    return out


def _names(runs: Sequence[Path]) -> list[str]:
    """As many of the last parts of each path as tell them apart."""
    parts = [run.resolve().parts for run in runs]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(each[-count:]) for each in parts]
        if len({*names}) == len({*parts}):
            break
    return names


def _column(run: Path) -> dict[str, str]:
    """What is shown of a run: its settings and data, and its last held-out figures."""
    if not (run / "config.yaml").is_file() or not (run / "metrics.jsonl").is_file():
        raise UserError(f"{run} is no run, or has not begun: there is no config.yaml or metrics.jsonl in it.")
    config = _settings(run / "config.yaml")
    found = {name: config[name] for name in FIRST if name in config} | config
    records = [record for record in read_records(run / "metrics.jsonl") if record["kind"] == "valid"]
    if records:
        found["update"] = f"{records[-1]['step']:,}"
        found |= _figures(records[-1], run)
    return found


def _settings(path: Path) -> dict[str, str]:
    """Every setting that has a value, as text; UserError where the file is damaged."""
    try:
        tree = read_plain(path.read_text(encoding="utf-8"))
        found = {name: str(value) for name, value in leaves(tree) if value is not None}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it.") from error
    hashes = {
        name.removeprefix("provenance.").removeprefix("streams.").removesuffix("data_hash").rstrip("."): value
        for name, value in found.items()
        if name.startswith("provenance.") and name.endswith("data_hash")
    }
    data = {f"data as prepared {stream}".rstrip(): value for stream, value in hashes.items()}
    return {name: value for name, value in found.items() if name.partition(".")[0] not in APART} | data


def _judged_by(values: evaluated.Evaluation) -> tuple[str, str, str]:
    """What two evaluations must share to be drawn over one another: metric, data, and labels."""
    labels = str(values.get("labels", "*"))
    return str(values["metric_words"]), str(values.get("data", "")), "" if labels == "*" else labels


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
