"""The pictures of a report, as text that can stand inside one HTML page."""

import base64
import colorsys
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Affine2D

COLORS = ("#2563eb", "#d97706", "#0f9d76", "#9333ea", "#dc2626", "#64748b")
REFERENCE = "#94a3b8"
MAX_POINTS = 600  # of a curve; a page holds dozens
MAX_BOOKS = 4  # of an illustration
MAX_FRAMES = 240  # of an illustration; more cannot be told apart
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.edgecolor": "#cbd5e1",
    "axes.grid": True,
    "axes.labelcolor": "#475569",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#eef2f7",
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "seqssl",  # the same picture twice is the same text
    "xtick.color": "#64748b",
    "ytick.color": "#64748b",
}


@dataclass(frozen=True)
class Panel:
    """One set of axes over updates: patterns of metric names, and dashed reference lines."""

    title: str
    keys: tuple[str, ...]
    references: tuple[str, ...] = ()
    is_share: bool = False
    is_log: bool = False


PANELS = (
    Panel("Loss", ("loss", "loss/*")),
    Panel("Contrastive accuracy", ("contrastive/accuracy",), ("contrastive/chance",), is_share=True),
    Panel(
        "Masked-prediction accuracy",
        ("masked_prediction/accuracy",),
        ("masked_prediction/trivial",),
        is_share=True,
    ),
    Panel("Bits per symbol", ("symbols/bits",), ("symbols/entropy_bits", "symbols/markov_bits")),
    Panel("Codebook perplexity", ("perplexity/hard_*", "perplexity/soft_*"), ("perplexity/size",)),
    Panel("Unused entries, most used entry", ("codes/dead_*", "codes/top1_*"), is_share=True),
    Panel("Variation over frames", ("features/std", "context/std"), is_log=True),
    Panel("Gradient norm", ("grad_norm",), is_log=True),
    Panel("Learning rate", ("lr",)),
    Panel("Gumbel temperature", ("temperature",)),
    Panel("Masked, padding", ("mask/share", "padding/share"), is_share=True),
    Panel("Throughput", ("throughput/*",)),
    Panel("FLOPs utilization", ("mfu",), is_share=True),
)


def curves(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """One SVG per panel that has something to show; `records` are those of metrics.jsonl."""
    names = sorted({key for record in records for key in record})
    with matplotlib.rc_context(STYLE):
        return [
            _curve(panel, records, names)
            for panel in PANELS
            if any(fnmatch(name, pattern) for name in names for pattern in panel.keys)
        ]


def _curve(panel: Panel, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    figure, axes = _axes(4.6, 2.5)
    shown = [name for pattern in panel.keys for name in names if fnmatch(name, pattern)]
    for color, name in zip(_cycle(COLORS, len(shown)), shown, strict=True):
        steps, values = _series(records, name, "train")
        axes.plot(steps, values, color=color, linewidth=1.3, label=_label(name))
        steps, values = _series(records, name, "valid")
        label = "" if _series(records, name, "train")[0] else _label(name)
        axes.plot(steps, values, "o-", color=color, linewidth=0.8, markersize=2.6, alpha=0.85, label=label)
    for name in panel.references:
        steps, values = max((_series(records, name, kind) for kind in ("valid", "train")), key=_num_points)
        axes.plot(steps, values, "--", color=REFERENCE, linewidth=1.2, label=_label(name))
    if panel.is_log:
        axes.set_yscale("log", nonpositive="clip")
    else:
        axes.set_ylim(bottom=0, top=1.25 * axes.get_ylim()[1])  # room for the legend
    if panel.is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_title(panel.title, loc="left", fontsize=10, color="#0f172a", fontweight="bold")
    axes.set_xlabel("updates")
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(loc="best", ncols=2 if len(shown) > 3 else 1)
    return _svg(figure)


def _series(records: Iterable[Mapping[str, Any]], name: str, kind: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric; a long series is thinned."""
    points = [(record["step"], float(record[name])) for record in records
              if record["kind"] == kind and name in record]  # fmt: skip
    stride = max(1, -(-len(points) // MAX_POINTS))
    kept = points[::-stride][::-1]  # the last one always
    return [step for step, _ in kept], [value for _, value in kept]


def _num_points(series: tuple[list[int], list[float]]) -> int:
    return len(series[0])


def _label(name: str) -> str:
    """Words for a metric's name: "perplexity/hard_0" is "hard 0"."""
    words = name.rpartition("/")[2] if name.split("/")[0] in ("perplexity", "codes", "loss") else name
    if name == "loss":
        return "total"
    return words.removeprefix("throughput/").replace("/", " ").replace("_", " ")


def codebook_use(usage: npt.NDArray[Any]) -> str:
    """How often each entry is used, most used first; `usage` is (g, v) counts."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(9.6, 2.5)
        num_entries = usage.shape[1]
        for color, book, counts in zip(_cycle(COLORS, len(usage)), range(len(usage)), usage, strict=True):
            shares = np.sort(counts)[::-1] / max(counts.sum(), 1)
            axes.stairs(shares, np.arange(num_entries + 1) + 0.5, fill=True, alpha=0.35, color=color)
            used = np.count_nonzero(counts)
            label = f"codebook {book}: {used} of {num_entries} used"
            axes.stairs(shares, np.arange(num_entries + 1) + 0.5, color=color, linewidth=1.2, label=label)
        axes.axhline(1 / num_entries, linestyle="--", color=REFERENCE, linewidth=1.2, label="even use")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_xlim(0.5, num_entries + 0.5)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("entries, most used first")
        axes.set_ylabel("share of frames")
        axes.legend(loc="upper right")
        return _svg(figure)


def code_sequence(shown: Any) -> str:
    """The picture or lines of an `Illustration`'s input over its codes and mask, as the data URI of a PNG."""
    num_frames = min(len(shown.codes), MAX_FRAMES)
    if shown.names and _is_one_hot(shown.image):
        num_frames = min(num_frames, max(1, MAX_FRAMES * len(shown.codes) // shown.image.shape[1]))
    image = shown.image[:, : max(1, round(shown.image.shape[1] * num_frames / len(shown.codes)))]
    codes, mask = shown.codes[:num_frames, :MAX_BOOKS], shown.mask[:num_frames]
    end = num_frames * (shown.seconds_per_frame or 1.0)
    num_books = codes.shape[1]
    heights = [2.6 if len(shown.names) < 6 else 3.4, *[0.5] * num_books, 0.16]
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(11.0, sum(heights) + 0.9), layout="constrained")
        grid = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
        rows: list[Axes] = grid[:, 0].tolist()
        if shown.names:
            _lines(rows[0], image, end, shown.names)
        else:
            _image(rows[0], image, end)
        for book in range(num_books):
            _code_strip(rows[1 + book], codes[:, book], end)
            rows[1 + book].set_ylabel(
                "codes" if num_books == 1 else f"codes {book}", rotation=0, ha="right", va="center"
            )
        rows[-1].imshow(
            mask[None].astype(float), aspect="auto", extent=(0, end, 0, 1), cmap="Greys", vmin=0, vmax=1.4
        )
        rows[-1].set_ylabel("masked", rotation=0, ha="right", va="center")
        for axes in rows[1:]:
            axes.set_yticks([])
            axes.tick_params(length=0)
        rows[-1].set_xlabel("frames" if shown.seconds_per_frame is None else _seconds(rows, end))
        return _png(figure)


def _image(axes: Axes, image: npt.NDArray[Any], end: float) -> None:
    low, high = np.nanpercentile(image, (1, 99.5))
    axes.imshow(
        image, origin="lower", aspect="auto", extent=(0, end, 0, len(image)), cmap="magma",
        vmin=low, vmax=high if high > low else low + 1, interpolation="nearest",
    )  # fmt: skip
    axes.set_ylabel("bins")


def _lines(axes: Axes, image: npt.NDArray[Any], end: float, names: Sequence[str]) -> None:
    """One line a channel, each within a band of its own; gaps stay open. Bits (one-hot) become marks."""
    places = (np.arange(image.shape[1]) + 0.5) * end / image.shape[1]
    if _is_one_hot(image):
        axes.imshow(
            image, origin="lower", aspect="auto", extent=(0, end, 0, len(image)), cmap="Blues",
            interpolation="nearest",
        )  # fmt: skip
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        return
    for band, values in enumerate(image):
        color = COLORS[band % len(COLORS)]
        known = values[np.isfinite(values)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        scaled = (values - low) / max(high - low, 1e-9) * 0.86 + 0.07
        axes.plot(places, scaled + len(names) - 1 - band, color=color, linewidth=0.9)
        label = f"{low:.3g} to {high:.3g}"
        axes.text(end, len(names) - 1 - band + 0.5, f" {label}", va="center", fontsize=7, color=color)
        axes.axhline(len(names) - 1 - band, color="#e2e8f0", linewidth=0.6)
    axes.set_yticks(np.arange(len(names)) + 0.5, names[::-1])
    axes.set_ylim(0, len(names))


def _is_one_hot(image: npt.NDArray[Any]) -> bool:
    return bool(len(image) > 1 and np.isin(image, (0.0, 1.0)).all() and (image.sum(axis=0) == 1).all())


def _seconds(rows: Sequence[Axes], end: float) -> str:
    """A readable unit for a time axis."""
    for size, word in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if end >= 3 * size:
            rows[-1].xaxis.set_major_formatter(partial(_in_units, size))
            step = max(1.0, round(end / size / 10)) * size
            rows[-1].set_xticks(np.arange(0, end + 1e-9, step))
            return word
    return "seconds"


def _in_units(size: float, value: float, position: object) -> str:
    return f"{value / size:g}"


def sequence_logos(logos: Sequence[Any]) -> str:
    """Sequence logos (Schneider and Stephens 1990) of `Logo`s, as the data URI of a PNG."""
    num_columns = min(4, len(logos))
    num_rows = -(-len(logos) // num_columns)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(11.0, 1.5 * num_rows + 0.2), layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes in grid[len(logos) :]:
            axes.set_axis_off()
        for axes, logo in zip(grid, logos, strict=False):
            _logo(axes, logo)
        return _png(figure)


def _logo(axes: Axes, logo: Any) -> None:
    shares = logo.frequencies / np.maximum(logo.frequencies.sum(axis=0), 1e-9)  # v w
    used = shares.max(axis=1) > 0
    top = np.log2(max(2, used.sum()))
    bits = top + np.sum(np.where(shares > 0, shares * np.log2(np.maximum(shares, 1e-12)), 0), axis=0)
    font = FontProperties(family="DejaVu Sans", weight="bold")
    sides = (shares.shape[1] - logo.own_steps) // 2
    axes.axvspan(sides, sides + logo.own_steps, color="#eef2f7", zorder=0)
    for step in range(shares.shape[1]):
        bottom = 0.0
        for symbol in np.argsort(shares[:, step]):
            height = shares[symbol, step] * bits[step]
            if height < 0.01:
                continue
            path = TextPath((0, 0), logo.symbols[symbol], size=1, prop=font)
            box = path.get_extents()
            move = Affine2D().translate(-box.x0, -box.y0)
            move = move.scale(0.92 / box.width, height / box.height).translate(step + 0.04, bottom)
            color = COLORS[int(symbol) % len(COLORS)]
            axes.add_patch(PathPatch(move.transform_path(path), facecolor=color, linewidth=0))
            bottom += height
    axes.set_xlim(0, shares.shape[1])
    axes.set_ylim(0, top)
    axes.set_yticks([0, top])
    axes.set_xticks([])
    axes.set_ylabel("bits", fontsize=7)
    axes.set_title(f"code {logo.code}, {logo.share:.1%} of frames", fontsize=8, loc="left")


def _code_strip(axes: Axes, codes: npt.NDArray[Any], end: float) -> None:
    """A colored cell per frame; runs of one code that are wide enough carry its number."""
    colors = [[_code_color(int(code)) if code >= 0 else (1.0, 1.0, 1.0) for code in codes]]
    axes.imshow(colors, aspect="auto", extent=(0, end, 0, 1), interpolation="nearest")
    start = 0
    for code, run in groupby(codes.tolist()):
        width = len(list(run))
        if width * 120 >= len(codes) and code >= 0:
            middle = (start + width / 2) * end / len(codes)
            axes.text(middle, 0.5, str(code), rotation=90, ha="center", va="center", fontsize=6.5)
        start += width


def _code_color(code: int) -> tuple[float, float, float]:
    """A light color of its own for each code; successive codes are far apart (golden-ratio steps)."""
    return colorsys.hls_to_rgb(code * 0.618034 % 1, 0.62 + 0.16 * (code % 3), 0.6)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes with fixed margins: a layout engine would draw everything several times."""
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.12 / width, bottom=0.45 / height, top=1 - 0.3 / height
    )
    return figure, axes


def _cycle(items: Sequence[str], count: int) -> list[str]:
    return [items[index % len(items)] for index in range(count)]


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element without the header, links and metadata that only files need."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text, count=2)
    return re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", text, count=2)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, transparent=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
