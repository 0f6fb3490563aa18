"""prepare.html: what a person can check of a prepared folder; here a wrong reading becomes visible."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqssl.data.adapters import HasPicture, ModalityAdapter, Sample
from seqssl.data.checks import PAGE
from seqssl.data.files import write_atomic
from seqssl.data.rejections import REJECTED, most_frequent, rejections
from seqssl.data.shards import Corpus, Manifest, Split
from seqssl.report.page import document, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_EXAMPLES = 3
MAX_POINTS = 4000  # of a line
MAX_LINES = 8  # channels that are drawn as lines; more are an image
MAX_LETTERS = 240
DATED_S = 1e8  # seconds since 1970; smaller times count from the start of a row
UNITS = (
    (3 * 86_400, 86_400.0, "days"),
    (3 * 3600, 3600.0, "hours"),
    (180, 60.0, "minutes"),
    (0, 1.0, "seconds"),
)
NUM_SAMPLED = 200  # rows of which the range of each channel is taken
MOST_SAMPLED = 2**24  # values of them, which are held at once; fewer rows where they are long


def summary(corpus: Corpus, adapter: ModalityAdapter) -> list[tuple[str, str]]:
    """Titles and texts: amounts, groups, units, times, what was read how, and what was left out."""
    manifest = corpus.manifest
    spec = manifest.spec
    rate = spec.get("rate_hz")
    lines = []
    for name, split in manifest.splits.items():
        groups = sorted({*corpus.groups[corpus.splits == name].tolist()} - {""})
        of = (
            f" of {len(groups):,} {'group' if len(groups) == 1 else 'groups'} ({some(groups)})"
            if groups
            else ""
        )
        lines.append((name, f"{split.num_rows:,} rows{of}, {split.length:,} input steps{_time(split)}"))
    steps = "not a time series"
    if isinstance(rate, int | float):
        steps = f"{rate:g} a second" if rate >= 1 else f"one every {1 / rate:g} s"
    lines.append(("input steps", f"{steps}; {spec.get('units')}"))
    if span := _span(sample for _, sample in sampled(corpus, adapter)):
        lines.append(("times", span))
    reasons = most_frequent(rejections(corpus.folder), 3)
    because = [("because", f"{line.reason} ({count:,} x, as {line.path})") for count, line in reasons]
    return [*lines, *_told(manifest), *because]


def amounts(manifest: Manifest) -> list[tuple[str, str]]:
    """The same as far as the manifest says it, without a look at the rows."""
    lines = [
        (name, f"{split.num_rows:,} rows, {split.length:,} input steps{_time(split)}")
        for name, split in manifest.splits.items()
    ]
    return [*lines, *_told(manifest)]


def _time(split: Split) -> str:
    return f", {duration(split.hours)}" if split.hours is not None else ""


def _told(manifest: Manifest) -> list[tuple[str, str]]:
    """What was read how, and what was left out."""
    lines = [
        (title, f"{sentence} ({files(count)})")
        for title, said in (("read as", manifest.readings), ("notice", manifest.notices))
        for sentence, count in said.items()
    ]
    return [*lines, ("rejected", f"{manifest.num_rejected:,} ({REJECTED} says why)")]


def write_page(folder: Path, adapter: ModalityAdapter) -> Path:
    """Write prepare.html into a prepared folder: a summary, pictures of rows, ranges, reasons."""
    corpus = Corpus(folder)
    good = sampled(corpus, adapter)
    chosen = evenly(len(good), NUM_EXAMPLES)
    sections = [
        f"<h1>{escape(folder.name)}</h1>",
        f"<p>{escape(str(corpus.manifest.modality))}, prepared from "
        f"<code>{escape(corpus.manifest.source)}</code></p>",
        f'<div class="card">{table(summary(corpus, adapter))}</div>',
        *(picture(adapter, *good[place]) for place in chosen),
        _ranges(adapter, [sample for _, sample in good]),
        _reasons(folder),
    ]
    body = "\n".join(filter(None, sections))
    write_atomic(folder / PAGE, document(f"{folder.name}: prepared data", body))
    return folder / PAGE


def sampled(corpus: Corpus, adapter: ModalityAdapter) -> list[tuple[str, Sample]]:
    """Keys and samples of some rows, evenly spread; a row that cannot be loaded is left out."""
    rows = evenly(len(corpus), NUM_SAMPLED)
    values = int(corpus.lengths[rows].sum()) * (adapter.spec.channels or 1)
    if values > MOST_SAMPLED:
        rows = evenly(len(corpus), max(NUM_EXAMPLES, len(rows) * MOST_SAMPLED // values))
    found = ((str(corpus.keys[row]), _loaded(corpus, adapter, row)) for row in rows)
    return [(key, sample) for key, sample in found if sample is not None]


def picture(adapter: ModalityAdapter, key: str, sample: Sample) -> str:
    """A row as a line, lines, an image or letters, with its label and group."""
    from seqssl.report import drawing

    about = " · ".join(
        escape(f"{name} {text}")
        for name, text in (("group", sample.group), ("label", sample.label))
        if text != ""
    )
    title = f"<h2><code>{escape(key)}</code></h2>\n" + (f"<p>{about}</p>\n" if about else "")
    symbols, values = adapter.spec.symbols, sample.values
    if symbols is not None and values.ndim == 1:
        letters = "".join(symbols[int(value)] for value in values[:MAX_LETTERS])
        more = f" ... {len(values):,} in all" if len(values) > MAX_LETTERS else ""
        pieces = " ".join(letters[start : start + 10] for start in range(0, len(letters), 10))
        return (
            f'{title}<div class="card"><pre style="white-space: pre-wrap">{escape(pieces)}{more}</pre></div>'
        )
    with drawing.styled():
        figure, axes = drawing.new_axes(11, 2.4)
        axes.margins(x=0)
        if isinstance(adapter, HasPicture):
            shown = np.asarray(adapter.picture(sample))
            axes.grid(visible=False)
            axes.imshow(shown.T, aspect="auto", origin="lower", cmap="magma", interpolation="nearest",
                        extent=(0, _end(adapter, len(values)), 0, shown.shape[1]))  # fmt: skip
        else:
            _lines(axes, adapter, sample)
        axes.set_xlabel(_unit(adapter, len(values))[1])
        drawn = drawing.png(figure)
    return f'{title}<div class="card"><img alt="the row {escape(key)}" src="{drawn}"></div>'


def duration(hours: float) -> str:
    """Hours as people say them."""
    if hours >= 48 and hours < 1000:
        return f"{hours:,.0f} hours ({hours / 24:,.1f} days)"
    if hours >= 1:
        return f"{hours:,.1f} hours" if hours < 1000 else f"{hours:,.0f} hours"
    return f"{hours * 60:.1f} minutes" if hours * 60 >= 1 else f"{hours * 3600:.1f} seconds"


def files(count: int) -> str:
    """1 file, 2 files."""
    return f"{count:,} {'file' if count == 1 else 'files'}"


def some(names: Sequence[str], count: int = 5) -> str:
    """The first names of many."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def evenly(total: int, count: int) -> list[int]:
    """At most `count` places from 0 to `total`, far from one another."""
    return (
        sorted({*np.linspace(0, total - 1, min(total, count)).round().astype(int).tolist()}) if total else []
    )


def _span(samples: Iterable[Sample]) -> str:
    """The first and the last day of times that count from 1970; "" where samples have none."""
    times = [sample.times[[0, -1]] for sample in samples if sample.times is not None and len(sample.times)]
    ends = np.concatenate(times) if times else np.zeros(0)
    if not len(ends) or ends.min() < DATED_S:
        return ""
    first, last = (str(np.datetime64(int(end), "s"))[:16] for end in (ends.min(), ends.max()))
    return f"from {first} to {last} (UTC), of the rows that were looked at"


def _loaded(corpus: Corpus, adapter: ModalityAdapter, row: int) -> Sample | None:
    stored = corpus.row(row)
    try:
        sample = adapter.load(stored, None)
    except Exception:  # the page is about the others
        return None
    label = sample.label if sample.label != "" else stored["label"]
    return Sample(sample.values, label, stored["group"], sample.observed, sample.times)


def _lines(axes: "Axes", adapter: ModalityAdapter, sample: Sample) -> None:
    """Channels over time, with holes where nothing was observed."""
    from seqssl.report.drawing import COLORS, cycle, label

    values = sample.values.astype(np.float64)
    if sample.observed is not None:
        values = np.where(sample.observed, values, np.nan)
    values = values[:, None] if values.ndim == 1 else values
    names = adapter.spec.channel_names or [""] * values.shape[1]
    if values.shape[1] > MAX_LINES:
        axes.grid(visible=False)
        axes.imshow(values.T, aspect="auto", origin="lower", cmap="magma", interpolation="nearest",
                    extent=(0, _end(adapter, len(values)), 0, values.shape[1]))  # fmt: skip
        axes.set_ylabel("channel")
        return
    every = max(1, len(values) // MAX_POINTS)
    seconds = np.linspace(0, _end(adapter, len(values)), len(values), endpoint=False)[::every]
    for channel, name, color in zip(values.T, names, cycle(COLORS, len(names)), strict=False):
        axes.plot(seconds, channel[::every], color=color, linewidth=0.8, label=label(name) or None)
    if any(names):
        axes.legend(ncols=len(names), loc="lower left", bbox_to_anchor=(0, 1.0))


def _unit(adapter: ModalityAdapter, steps: int) -> tuple[float, str]:
    """How many input steps are one on the axis, and its name: days, hours, minutes, seconds or steps."""
    rate = adapter.spec.rate_hz
    if not rate:
        return 1.0, "input steps"
    seconds, name = next((unit, name) for least, unit, name in UNITS if steps / rate >= least)
    return seconds * rate, name


def _end(adapter: ModalityAdapter, steps: int) -> float:
    return steps / _unit(adapter, steps)[0]


def _ranges(adapter: ModalityAdapter, samples: Sequence[Sample]) -> str:
    """Lowest, middle and highest value of each channel, and how much of it is there."""
    spec = adapter.spec
    if spec.vocab_size is not None or not samples or (spec.channels or 1) > MAX_LINES:
        return ""
    names = spec.channel_names or ("value",)
    rows = []
    for place, name in enumerate(names):
        parts, total = [], 0
        for sample in samples:
            values = sample.values if sample.values.ndim == 2 else sample.values[:, None]
            seen = np.ones(len(values), bool)
            if sample.observed is not None:
                seen = (sample.observed if sample.observed.ndim == 2 else sample.observed[:, None])[:, place]
            parts.append(values[seen, place])
            total += len(values)
        known = np.concatenate(parts)
        if len(known):
            low, middle, high = np.quantile(known, [0, 0.5, 1])
            text = f"{low:.4g} to {high:.4g}, median {middle:.4g}; {len(known) / total:.1%} observed"
            rows.append((name, text))
    words = f"Of {len(samples):,} rows; {escape(spec.units)}."
    return f'<h2>Ranges</h2>\n<p>{words}</p>\n<div class="card">{table(rows)}</div>' if rows else ""


def _reasons(folder: Path) -> str:
    """The most frequent reasons for rejections, each with an example."""
    rows = [
        (f"{count:,} x", f"{line.reason} (for example {line.path})")
        for count, line in most_frequent(rejections(folder), 10)
    ]
    return f'<h2>Rejected</h2>\n<div class="card">{table(rows)}</div>' if rows else ""
