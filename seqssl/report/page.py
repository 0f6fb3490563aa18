"""report.html: one page about one run, which needs no other file and no network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import numpy.typing as npt
import yaml

from seqssl import doctor
from seqssl.config.tree import flatten

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1e293b;
  background: #f8fafc; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; margin: 0; color: #0f172a; }
h2 { font-size: 17px; margin: 36px 0 12px; color: #0f172a; }
p { margin: 4px 0 12px; color: #475569; }
code, pre { font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
pre { overflow-x: auto; margin: 10px 0 0; }
summary { cursor: pointer; color: #475569; }
.card { background: #fff; border: 1px solid #e2e8f0; border-radius: 10px; padding: 14px 16px; }
.grid { display: grid; gap: 14px; }
.figures { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin-top: 18px; }
.figures b { display: block; font-size: 22px; line-height: 1.25; color: #0f172a; font-weight: 650;
             white-space: nowrap; }
.figures span { color: #64748b; font-size: 13px; }
.curves { grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); }
.curves .card { padding: 8px; }
svg, img { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; }
td { padding: 3px 14px 3px 0; vertical-align: top; border-top: 1px solid #f1f5f9; }
tr:first-child td { border-top: 0; }
td:first-child { color: #64748b; white-space: nowrap; }
.badge { display: inline-block; border-radius: 99px; padding: 2px 12px; font-size: 13px; font-weight: 600;
  vertical-align: 4px; margin-left: 10px; }
.ok { background: #dcfce7; color: #166534; }
.warning { background: #fef3c7; color: #92400e; }
.failure { background: #fee2e2; color: #991b1b; }
.finding { border-left: 5px solid #f59e0b; margin-bottom: 10px; }
.finding.is-failure { border-left-color: #dc2626; }
.finding p { margin: 4px 0 0; }
"""

# What the header tells of a configuration: words, and where each value stands.
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


@dataclass(frozen=True)
class Logo:
    """What a code stands for: how often each symbol occurs at each step around its frames."""

    code: int
    share: float  # of all frames
    frequencies: npt.NDArray[Any]  # v w: of each symbol at each of w steps
    symbols: str  # one character each
    own_steps: int = 1  # in the middle: the frame's own


@dataclass(frozen=True)
class Illustration:
    """One row as the model sees it; t and s span the same input."""

    title: str
    image: npt.NDArray[Any]  # bins t: a picture of the input; NaN is missing
    codes: npt.NDArray[Any]  # s g; -1 = none
    mask: npt.NDArray[Any]  # s, True = hidden from the encoder
    usage: npt.NDArray[Any]  # g v: how often each entry was chosen
    seconds_per_frame: float | None = None  # None: the frames have no rate
    names: tuple[str, ...] = ()  # of the bins, which are then lines (or letters)
    stream: str = ""
    logos: tuple[Logo, ...] = ()


def write_report(run: Path, illustrations: Sequence[Illustration] = ()) -> Path:
    """Write report.html into a run folder from its config.yaml and metrics.jsonl; returns its path.

    Raises UserError where the folder has no metrics.
    """
    from seqssl.data.files import write_atomic

    health = doctor.examine(run)
    records = list(doctor.read_records(run / "metrics.jsonl"))
    path = run / "config.yaml"
    source = path.read_text(encoding="utf-8") if path.exists() else ""
    config = flatten(yaml.safe_load(source) or {})
    sections = [
        header(run, config, health),
        key_figures(records),
        findings(health),
        *map(example, illustrations),
        *map(logos, illustrations),
        *(curves(part, name) for name, part in streams_of(records).items()),
        *map(codebooks, illustrations),
        in_order(health),
        configuration(config, source),
    ]
    body = "\n".join(sections)
    title = escape(f"{config.get('recipe') or run.name}: seqssl report")
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    write_atomic(run / "report.html", page)
    return run / "report.html"


def header(run: Path, config: Mapping[str, Any], health: doctor.Report) -> str:
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


def streams_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The records of each kind of data, named "" where there is one; what is common to all comes first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for name, part in doctor.by_stream(record).items():
            found.setdefault(name, []).append(part)
    return found


def key_figures(records: Sequence[Mapping[str, Any]]) -> str:
    """The last figures that matter, held-out where there are any."""
    trained = [record for record in records if record["kind"] == "train"]
    held_out = [record for record in records if record["kind"] == "valid"]
    last, where = (held_out[-1], "held-out") if held_out else (trained[-1], "training")
    cards = [
        (value, f"{name}: {label}" if name else label)
        for name, part in doctor.by_stream(last).items()
        for value, label in _figures(part, where)
    ]
    for key, unit in (("input_s", "seconds of input per second"), ("inputs", "inputs per second")):
        speeds = [record[name] for record in trained if (name := f"throughput/{key}_per_s") in record]
        if speeds:
            cards.append((f"{median(speeds):,.0f}", f"{unit} (median)"))
    minutes, seconds = divmod(round(training_time(trained)), 60)
    cards.append((f"{minutes} min {seconds:02} s", "training"))
    items = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in cards
    )
    return f'<div class="grid figures">{items}</div>'


def training_time(records: Iterable[Mapping[str, Any]]) -> float:
    """Seconds, over all the times that a run was taken up: each starts its clock anew."""
    total = latest = 0.0
    for record in records:
        now = float(record.get("time_s", latest))
        if now < latest:
            total += latest
        latest = now
    return total + latest


def _figures(last: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    if "loss" in last:
        yield f"{float(last['loss']):.3f}", f"{where} loss"
    for task, reference in (("contrastive", "chance"), ("masked_prediction", "trivial")):
        accuracy, base = last.get(f"{task}/accuracy"), last.get(f"{task}/{reference}")
        if accuracy is not None and base is not None:
            words = task.replace("_", " ")
            yield f"{float(accuracy):.1%}", f"{where} {words} accuracy ({reference} {float(base):.1%})"
    perplexities = [float(last[key]) for key in sorted(last) if key.startswith("perplexity/hard_")]
    if perplexities and "perplexity/size" in last:
        shown = ", ".join(f"{value:.0f}" for value in perplexities)
        yield shown, f"{where} hard perplexity of {float(last['perplexity/size']):.0f} entries"
    if "symbols/bits" in last:
        key = "symbols/markov_bits" if "symbols/markov_bits" in last else "symbols/entropy_bits"
        words = "best Markov chain" if "markov" in key else "entropy"
        yield (
            f"{float(last['symbols/bits']):.3f}",
            f"{where} bits per symbol ({words} {float(last[key]):.3f})",
        )


def findings(health: doctor.Report) -> str:
    """What is wrong and what to change."""
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


def curves(records: Sequence[Mapping[str, Any]], stream: str = "") -> str:
    """Every metric over updates."""
    from seqssl.report import figures

    cards = "\n".join(f'<div class="card">{svg}</div>' for svg in figures.curves(records))
    return (
        f"<h2>Curves{_of(stream)}</h2>\n"
        "<p>Lines are training windows; lines with dots are held-out rows, without noise; "
        "dashed gray is what no learning would give, or the size of a codebook.</p>\n"
        f'<div class="grid curves">{cards}</div>'
    )


def codebooks(illustration: Illustration) -> str:
    """Histogram of the entries."""
    from seqssl.report import figures

    return (
        f"<h2>Codebook use{_of(illustration.stream)}</h2>\n"
        "<p>Share of the frames of one held-out batch that each entry stands for.</p>\n"
        f'<div class="card">{figures.codebook_use(illustration.usage)}</div>'
    )


def example(illustration: Illustration) -> str:
    """A row with its codes and mask."""
    from seqssl.report import figures

    picture = figures.code_sequence(illustration)
    return (
        f"<h2>One held-out row and its codes{_of(illustration.stream)}</h2>\n"
        f"<p><code>{escape(illustration.title)}</code>. Each color and number is an entry of the codebook; "
        "masked frames are hidden from the encoder, which must find their codes.</p>\n"
        f'<div class="card"><img alt="input, codes and mask" src="{picture}"></div>'
    )


def logos(illustration: Illustration) -> str:
    """What the codes stand for."""
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


def _of(stream: str) -> str:
    return f": {escape(stream)}" if stream else ""


def in_order(health: doctor.Report) -> str:
    """What the health rules found to be good, with the bars."""
    rows = [(reading.subject, f"{reading.figure}; bar: {reading.bar}") for reading in health.healthy]
    return f'<h2>In order</h2>\n<div class="card">{table(rows)}</div>' if rows else ""


def configuration(config: Mapping[str, Any], source: str) -> str:
    """A summary, and the whole file folded away."""
    rows = []
    for words, keys in SUMMARY:
        known = [f"{key.rpartition('.')[2]} {config[key]}" for key in keys if config.get(key) is not None]
        if known:
            rows.append((words, ", ".join(known)))
    for name, slot in (config.get("objectives") or {}).items():
        rows.append((f"objective {name}", ", ".join(f"{key} {value}" for key, value in slot.items())))
    if not rows:
        return ""
    return (
        f'<h2>Configuration</h2>\n<div class="card">{table(rows)}<details><summary>config.yaml</summary>'
        f"<pre>{escape(source)}</pre></details></div>"
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns."""
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{body}</table>"
