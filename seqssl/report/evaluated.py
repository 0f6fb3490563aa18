"""What an evaluation found, as a section of a report: score against labels, confusion, map, codes."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from seqssl.data.files import write_atomic
from seqssl.finetuning.scoring import ENOUGH_UNITS, too_few
from seqssl.report.drawing import COLORS, REFERENCE, label, new_axes, png, styled, svg

Evaluation = Mapping[str, Any]  # what evaluation.json holds, or a part of it
START, END = "<!-- evaluations -->", "<!-- end of evaluations -->"
STYLES = {  # color and line of each row
    "classical": (REFERENCE, ":"),
    "random": (REFERENCE, "--"),
    "frozen": (COLORS[2], "--"),
    "scratch": (COLORS[1], "-"),
    "pretrained": (COLORS[0], "-"),
}
MAX_CLASSES = 40  # of a confusion matrix with its numbers written


def write_evaluation_pages(folder: Path, values: Evaluation) -> Path:
    """Write report.html beside evaluation.json, and its section into the report of the run."""
    from seqssl.report.page import document

    body = section(values, heading="h1")
    write_atomic(folder / "report.html", document(f"{values['task']}: seqssl evaluation", body))
    run = Path(str(values["run"]))
    if (run / "report.html").exists() and folder.resolve().parent == run.resolve():
        insert(run)
    return folder / "report.html"


def insert(run: Path) -> None:
    """Put the sections of all evaluations in a run's folder into its report."""
    page = (run / "report.html").read_text(encoding="utf-8")
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if start and end:
        write_atomic(run / "report.html", f"{before}{START}\n{sections(run)}\n{END}{after}")


def sections(run: Path) -> str:
    """The sections of the evaluations in a run's folder."""
    found = [read(path) for path in sorted(run.glob("evaluation-*/evaluation.json"))]
    return "\n".join(section(values) for values in found if values)


def read(path: Path) -> Evaluation:
    """An evaluation; {} where the file is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        needed = {
            "task",
            "metric_words",
            "groups_held_out",
            "results",
            "worth",
            "hardware",
            "date",
            "seconds",
        }
        return values if isinstance(values, dict) and needed <= values.keys() else {}
    except (OSError, ValueError):
        return {}


def section(values: Evaluation, heading: str = "h2") -> str:
    """One evaluation: the sentence, the plot, the table, and what else was found."""
    task, metric = escape(str(values["task"])), escape(str(values["metric_words"]))
    groups = values["groups_held_out"]
    tested = f"{len(groups)} groups held out" if groups else "rows held out one by one"
    units = "groups" if len(groups) > 1 else "rows"
    few = too_few(values.get("num_units", ENOUGH_UNITS), units)
    parts = [
        f"<{heading}>Evaluation: {task}</{heading}>",
        f"<p><strong>{escape(values['worth']['sentence'])}</strong></p>",
        f"<p>{metric}, {tested}; lines are means over seeds, bands and brackets the middle 95 % of "
        f"bootstrap draws over {units}. {few}</p>",
        f'<div class="card picture">{curve(values)}</div>',
        f'<div class="card">{table(values)}</div>',
    ]
    for note in caveats(values):
        parts.append(f"<p>{escape(note)}</p>")
    if "confusion" in values:
        parts += [
            "<h3>Which classes are taken for which</h3>",
            "<p>Pre-trained and fine-tuned, all labels and seeds: a line for each true class, in shares.</p>",
            f'<div class="card"><img alt="confusion matrix" src="{confusion(values["confusion"])}"></div>',
        ]
    if "projection" in values:
        parts += [
            "<h3>Embeddings on a plane</h3>",
            "<p>Rows as the frozen encoder sees them (mean over frames, t-SNE), colored by label and by "
            "group: what lies together is alike to the encoder.</p>",
            f'<div class="card"><img alt="embeddings" src="{projection(values["projection"])}"></div>',
        ]
    if "codes" in values:
        parts += [
            "<h3>Codes against labels</h3>",
            "<p>Of the frames of each code, the share that has each label; codes are sorted by their most "
            "frequent label.</p>",
            f'<div class="card"><img alt="codes against labels" src="{codes(values["codes"])}"></div>',
        ]
    return "\n".join(parts)


def caveats(values: Evaluation) -> list[str]:
    """What a skeptic should know."""
    groups = values.get("test_groups_seen_unlabelled_in_pretraining") or []
    rows = values.get("test_rows_seen_unlabelled_in_pretraining") or 0
    notes = [str(note) for note in values.get("notes") or []]
    if groups:
        seen = f"{len(groups)} of the {len(values['groups_held_out'])} test groups"
    else:
        seen = f"{rows} of the {values.get('num_tested')} test rows"
    if groups or rows:
        notes.append(f"{seen} were in pre-training, without labels.")
    if not values.get("pretraining_known", True):
        notes.append("Whether test rows were in pre-training is not known: its data could not be opened.")
    rates = ", ".join(
        f"{row} {'/'.join(f'{rate:g}' for rate in found)}"
        for row, found in (values.get("learning_rates") or {}).items()
    )
    chosen = (
        "Learning rates, chosen for each fold on a part of what it learns from, with the largest share of "
        "labels that is tried, and taken at every number of labels"
        if values.get("rates_chosen", True)
        else "Learning rates, given"
    )
    fitted = ", from a head that was fitted to its labels at once" if values.get("heads_fitted") else ""
    notes.append(
        f"Each encoder row had {values['num_updates']} updates{fitted}. {chosen}: {rates}. "
        f"{values['hardware']}, {values['date']}, {values['seconds'] / 60:.1f} min."
    )
    return notes


def curve(values: Evaluation, title: str = "") -> str:
    """Score against labels, one line a row, as an <svg>; names stand below it, for narrow pages."""
    with styled():
        figure, axes = new_axes(7.0, 3.9)
        figure.subplots_adjust(left=0.11, bottom=0.27)
        draw_curve(axes, values)
        if title:
            axes.set_title(title, loc="left", fontsize=9)
        return svg(figure)


def draw_curve(axes: Any, values: Evaluation) -> None:
    """The lines of an evaluation, on axes."""
    results = values["results"]
    names = list(dict.fromkeys(entry["row"] for entry in results))
    for row in names:
        found = sorted((e for e in results if e["row"] == row), key=lambda e: e["num_labels"])
        color, line = STYLES.get(row, (COLORS[3], "-"))
        x = [entry["num_labels"] for entry in found]
        axes.plot(x, [e["mean"] for e in found], line, color=color, marker="o", markersize=3.5,
                  label=found[0].get("words", row))  # fmt: skip
        if row in ("scratch", "pretrained") or len(names) < 3:
            axes.fill_between(
                x, [e["low"] for e in found], [e["high"] for e in found], color=color, alpha=0.13
            )
    axes.set_xscale("log")
    ticks = sorted({round(entry["num_labels"]) for entry in results})
    axes.set_xticks(ticks, minor=False)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    if values.get("unit") == "share":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlabel(f"{values.get('examples', 'labels')} to learn from")
    axes.set_ylabel(values["metric_words"])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)


def table(values: Evaluation) -> str:
    """The means with intervals, as an HTML table."""
    results = values["results"]
    fractions = sorted({entry["fraction"] for entry in results})
    heads = []
    for fraction in fractions:
        number = max(e["num_labels"] for e in results if e["fraction"] == fraction)
        heads.append(f"<td>{fraction:.3g} ({number:,.0f})</td>")
    examples = values.get("examples", "labels")
    lines = [f"<tr><td>share of the {examples} (how many)</td>{''.join(heads)}</tr>"]
    scale, form = (100, ".1f") if values.get("unit") == "share" else (1, ".3f")
    for row, words in {entry["row"]: entry.get("words", entry["row"]) for entry in results}.items():
        cells = []
        for fraction in fractions:
            entry = next((e for e in results if e["row"] == row and e["fraction"] == fraction), None)
            texts = (
                ["", "", ""]
                if entry is None
                else [_number(entry[k], scale, form) for k in ("mean", "low", "high")]
            )
            cells.append(f"<td>{texts[0]} ({texts[1]} to {texts[2]})</td>" if entry else "<td></td>")
        lines.append(f"<tr><td>{escape(words)}</td>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _number(value: float | None, scale: float, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(scale * value, form)


def confusion(found: Evaluation) -> str:
    """A confusion matrix in shares of the true class, as the data URI of a PNG."""
    counts = np.array(found["table"], float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [label(str(name)) for name in found["labels"]]
    size = min(11.0, 2.6 + 0.32 * len(names))
    with styled(has_grid=False):
        figure = Figure(figsize=(size, size * 0.86), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_xlabel("said")
        axes.set_ylabel("true")
        if len(names) <= MAX_CLASSES:
            for (row, column), share in np.ndenumerate(shares):
                if share >= 0.005:
                    color = "white" if share > 0.55 else "#334155"
                    axes.text(
                        column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6, color=color
                    )
        return png(figure)


def projection(found: Evaluation) -> str:
    """Points on a plane, colored by label and by group, as the data URI of a PNG."""
    points = np.array(found["points"], float)
    with styled(has_grid=False):
        figure = Figure(figsize=(11.0, 4.6), layout="constrained")
        for axes, what in zip(figure.subplots(1, 2), ("label", "group"), strict=True):
            _scatter(axes, points, [str(name) for name in found[what]], what)
        return png(figure)


def _scatter(axes: Any, points: np.ndarray, names: Sequence[str], what: str) -> None:
    kinds = sorted(set(names), key=lambda name: (-list(names).count(name), name))
    import matplotlib

    colors = matplotlib.colormaps["tab20"]
    for number, kind in enumerate(kinds[:20]):
        chosen = np.array([name == kind for name in names])
        axes.scatter(*points[chosen].T, s=9, color=colors(number % 20), label=label(kind), linewidths=0)
    rest = np.array([name in set(kinds[20:]) for name in names])
    if rest.any():
        axes.scatter(*points[rest].T, s=6, color="#cbd5e1", label="others", linewidths=0)
    axes.set_title(f"by {what}", loc="left", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=6, ncols=1 if len(kinds) <= 24 else 2)


def codes(found: Evaluation) -> str:
    """Shares of labels for each code, as the data URI of a PNG."""
    counts = np.array(found["table"], float)  # labels x codes
    used = counts.sum(0) > 0
    shares = counts[:, used] / counts[:, used].sum(0)
    order = np.lexsort((-shares.max(0), shares.argmax(0)))
    names = [label(str(name)) for name in found["labels"]]
    with styled(has_grid=False):
        figure = Figure(figsize=(11.0, min(9.0, 1.4 + 0.17 * len(names))), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares[:, order], cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(names)), names, fontsize=6)
        axes.set_xticks([])
        axes.set_xlabel(f"{int(used.sum())} codes in use")
        return png(figure)


def compared(evaluations: Sequence[tuple[str, Evaluation]]) -> str:
    """The curves of several runs on one task, as an <svg>: pre-trained and scratch of each."""
    with styled():
        figure, axes = new_axes(9.6, 3.8)
        figure.subplots_adjust(left=0.085)
        first = evaluations[0][1]
        for number, (name, values) in enumerate(evaluations):
            for row, line in (("pretrained", "-"), ("scratch", ":")):
                found = sorted(
                    (e for e in values["results"] if e["row"] == row), key=lambda e: e["num_labels"]
                )
                if found:
                    x = [entry["num_labels"] for entry in found]
                    color = COLORS[number % len(COLORS)]
                    axes.plot(x, [e["mean"] for e in found], line, color=color, marker="o", markersize=3.5,
                              label=label(f"{name}: {row}", 80))  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel(f"{first.get('examples', 'labels')} to learn from")
        axes.set_ylabel(first["metric_words"])
        axes.legend(loc="best")
        return svg(figure)
