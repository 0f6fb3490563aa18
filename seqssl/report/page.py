"""report.html: one page about one run, which needs no other file and no network."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from statistics import median

from seqssl import doctor
from seqssl.config.text import read_plain
from seqssl.config.tree import flatten
from seqssl.config.values import Value
from seqssl.data.files import write_atomic
from seqssl.report.types import Illustration
from seqssl.training import catalogue
from seqssl.training.catalogue import Catalogues, Figure, Part, by_stream
from seqssl.training.log import Record, number_of, read_records
from seqssl.training.metrics import Metric

STYLE = Path(__file__).with_name("style.css")

# What the report shows of a configuration: words, and the keys of the values.
SUMMARY = (
    ("modality", ("modality.target",)),
    ("encoder", ("encoder.block.target", "encoder.num_layers", "encoder.dim", "encoder.taps")),
    ("mixer", ("mixer.target", "mixer.position")),
    ("quantizer", ("quantizer.target", "quantizer.num_codebooks", "quantizer.codebook_size")),
    ("masking", ("masking.target", "masking.start_prob", "masking.span")),
    ("optimizer", ("optim.name", "optim.lr", "optim.schedule", "optim.warmup_updates")),
    ("data", ("provenance.data", "data.source", "data.demo")),
    ("made by", ("provenance.seqssl", "provenance.commit", "provenance.torch")),
)


def write_report(run: Path, illustrations: Sequence[Illustration] = ()) -> Path:
    """Write report.html into a run folder from its config.yaml and metrics.jsonl; returns its path.

    Raises UserError where the folder has no metrics.
    """
    health = doctor.examine(run)
    meanings = catalogue.read(run)
    records = list(read_records(run / "metrics.jsonl"))
    path = run / "config.yaml"
    source = path.read_text(encoding="utf-8") if path.exists() else ""
    tree = read_plain(source)
    config = flatten(tree if isinstance(tree, dict) else {})
    sections = [
        header(run, config, health),
        key_figures(records, meanings),
        findings(health),
        *map(example, illustrations),
        *map(logos, illustrations),
        *(curves(parts, name) for name, parts in parts_by_stream(records, meanings).items()),
        *map(codebooks, illustrations),
        evaluations(run),
        in_order(health),
        configuration(config, source),
    ]
    body = "\n".join(sections)
    title = f"{config.get('recipe') or run.name}: seqssl report"
    write_atomic(run / "report.html", document(title, body))
    return run / "report.html"


def document(title: str, body: str) -> str:
    """A whole page of HTML in the report's style, which needs no other file and no network."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def header(run: Path, config: Mapping[str, Value], health: doctor.Report) -> str:
    """Name, verdict, and how far the run is."""
    name = " · ".join(str(config[key]) for key in ("recipe", "size") if config.get(key)) or run.name
    severities = {finding.severity for finding in health.findings}
    kind = "ok" if health.ok else "failure" if "failure" in severities else "warning"
    count = len(health.findings)
    verdict = "healthy" if health.ok else f"{count} health finding{'s' if count > 1 else ''}"
    return (
        f'<h1>{escape(name)}<span class="badge {kind}">{verdict}</span></h1>\n'
        f"<p><code>{escape(str(run))}</code>, update {health.step:,} of {health.num_updates:,}</p>"
    )


def parts_by_stream(records: Sequence[Record], catalogues: Catalogues) -> dict[str, list[Part]]:
    """The parts of all records by stream; "" comes first, with all of a lone one or what is common."""
    found: dict[str, list[Part]] = {}
    for record in records:
        for part in by_stream(record, catalogues):
            found.setdefault(part.stream, []).append(part)
    return found


def key_figures(records: Sequence[Record], catalogues: Catalogues) -> str:
    """The last figures that matter, held-out where there are any."""
    trained = [record for record in records if record["kind"] == "train"]
    held_out = [record for record in records if record["kind"] == "valid"]
    last, where = (held_out[-1], "held-out") if held_out else (trained[-1], "training")
    cards = []
    for part in by_stream(last, catalogues):
        found = groupby(part.figures("card"), key=attrgetter("metric"))
        for metric, figures in found:
            if metric.unit != "rate":
                value, label = card(list(figures), where)
                cards.append((value, f"{part.stream}: {label}" if part.stream else label))
    cards += speeds(parts_by_stream(trained, catalogues).get("", ()))
    minutes, seconds = divmod(round(training_time(trained)), 60)
    cards.append((f"{minutes} min {seconds:02} s", "training"))
    items = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in cards
    )
    return f'<div class="grid figures">{items}</div>'


def card(figures: Sequence[Figure], where: str) -> tuple[str, str]:
    """A metric's value, or one for each codebook, and words with the baseline that is hardest to beat."""
    metric, against = figures[0].metric, figures[0].against
    value, label = ", ".join(metric.print(figure.value) for figure in figures), f"{where} {metric.words}"
    if not against:
        return value, label
    baseline, number = against[-1]
    if metric.unit == "count":
        return value, f"{label} of {metric.print(number)} {baseline.words}"
    return value, f"{label} ({baseline.words} {metric.print(number)})"


def speeds(trained: Sequence[Part]) -> list[tuple[str, str]]:
    """Each throughput and its words: the median over all training records."""
    found: dict[Metric, list[float]] = {}
    for part in trained:
        for figure in part.figures("card"):
            if figure.metric.unit == "rate":
                found.setdefault(figure.metric, []).append(figure.value)
    return [(metric.print(median(values)), f"{metric.words} (median)") for metric, values in found.items()]


def training_time(records: Iterable[Record]) -> float:
    """Seconds over all sessions of a run: each time it is resumed, its clock starts again."""
    total = latest = 0.0
    for record in records:
        now = number_of(record.get("time_s"))
        if now is None or not math.isfinite(now):
            continue
        if now < latest:
            total += latest
        latest = now
    return total + latest


def findings(health: doctor.Report) -> str:
    """What is wrong and what to change; "" for a healthy run."""
    if health.ok:
        return ""
    cards = []
    for finding in health.findings:
        since = " (in order since)" if health.has_recovered(finding) else ""
        cards.append(
            f'<div class="card finding is-{finding.severity}"><strong>{escape(finding.rule)}</strong> '
            f"from update {finding.step}{since}: {escape(finding.symptom)}.\n"
            f"<p>Likely cause: {escape(finding.cause)}.</p>\n"
            f"<p>Change <code>{escape(finding.remedy_key)}</code>: {escape(finding.remedy)}.</p></div>"
        )
    return "<h2>Health findings</h2>\n" + "\n".join(cards)


def curves(parts: Sequence[Part], stream: str = "") -> str:
    """Every metric over updates."""
    from seqssl.report.curves import curves as drawn

    cards = "\n".join(f'<div class="card">{svg}</div>' for svg in drawn(parts))
    return (
        f"<h2>Curves{_of(stream)}</h2>\n"
        "<p>Lines are means over the updates between two records; lines with dots are held-out rows, without "
        "noise; dashed gray is what no learning would give, or the size of a codebook.</p>\n"
        f'<div class="grid curves">{cards}</div>'
    )


def codebooks(illustration: Illustration) -> str:
    """How often each entry is used, as a histogram; "" where targets have no codes."""
    from seqssl.report import figures

    if not illustration.usage.size:
        return ""
    return (
        f"<h2>Codebook use{_of(illustration.stream)}</h2>\n"
        "<p>Share of the frames of one held-out batch that each entry stands for.</p>\n"
        f'<div class="card">{figures.codebook_use(illustration.usage)}</div>'
    )


def example(illustration: Illustration) -> str:
    """A row with its codes and mask."""
    from seqssl.report import figures

    picture = figures.code_sequence(illustration)
    title, codes, what = "One held-out row", "", "targets"
    if illustration.usage.size:
        title, codes, what = f"{title} and its codes", "Each color and number is a code. ", "codes"
    hidden = f"Masked frames are hidden from the encoder, which must find their {what}"
    if not illustration.hides:
        hidden = (
            f"Nothing is hidden: the encoder reads up to a frame, and must find the {what} of those ahead"
        )
    return (
        f"<h2>{title}{_of(illustration.stream)}</h2>\n"
        f"<p><code>{escape(illustration.title)}</code>. {codes}"
        f"{hidden}.</p>\n"
        f'<div class="card"><img alt="input, {what} and mask" src="{picture}"></div>'
    )


def logos(illustration: Illustration) -> str:
    """What the codes stand for; "" where there is nothing to show."""
    if not illustration.logos:
        return ""
    from seqssl.report import figures

    picture = figures.sequence_logos(illustration.logos)
    return (
        f"<h2>What the codes used most stand for{_of(illustration.stream)}</h2>\n"
        "<p>Symbols around the frames of a code; a letter's height is its share of the information there, "
        "in bits. The shaded steps are the frame's own.</p>\n"
        f'<div class="card"><img alt="sequence logos" src="{picture}"></div>'
    )


def evaluations(run: Path) -> str:
    """What evaluations in the run's folder found; later ones are put in the same place."""
    from seqssl.report import evaluated

    found = evaluated.sections(run)
    return "\n".join([evaluated.START, *([found] if found else []), evaluated.END])


def _of(stream: str) -> str:
    return f": {escape(stream)}" if stream else ""


def in_order(health: doctor.Report) -> str:
    """What the health rules found to be good, with the bars."""
    rows = [(reading.subject, f"{reading.figure}; bar: {reading.bar}") for reading in health.healthy]
    return f'<h2>In order</h2>\n<div class="card">{table(rows)}</div>' if rows else ""


def configuration(config: Mapping[str, Value], source: str) -> str:
    """A summary, and the whole file folded away."""
    rows = []
    for words, keys in SUMMARY:
        known = [f"{key.rpartition('.')[2]} {config[key]}" for key in keys if config.get(key) is not None]
        if known:
            rows.append((words, ", ".join(known)))
    objectives = config.get("objectives")
    for name, slot in objectives.items() if isinstance(objectives, Mapping) else ():
        said = [f"{key} {value}" for key, value in slot.items()] if isinstance(slot, Mapping) else [str(slot)]
        rows.append((f"objective {name}", ", ".join(said)))
    if not rows:
        return ""
    return (
        f'<h2>Configuration</h2>\n<div class="card">{table(rows)}<details><summary>config.yaml</summary>'
        f"<pre>{escape(source)}</pre></details></div>"
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """An HTML table of two columns."""
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{body}</table>"
