"""The pictures of a report, as text that fits inside one HTML page."""

import colorsys
from collections.abc import Sequence
from functools import partial
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Affine2D

from seqssl.report.drawing import COLORS, REFERENCE, cycle, new_axes, png, styled, svg
from seqssl.report.types import Illustration, Logo, Numbers, Whole

MAX_BOOKS = 4  # of an illustration
MAX_FRAMES = 240  # of an illustration; more cannot be told apart


def codebook_use(usage: Whole) -> str:
    """How often each entry is used, most used first; `usage` is (g, v) counts."""
    with styled():
        figure, axes = new_axes(9.6, 2.5)
        num_entries = usage.shape[1]
        for color, book, counts in zip(cycle(COLORS, len(usage)), range(len(usage)), usage, strict=True):
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
        return svg(figure)


def code_sequence(shown: Illustration) -> str:
    """The picture or lines of an `Illustration`'s input over its codes and mask, as the data URI of a PNG."""
    num_frames = min(len(shown.codes), MAX_FRAMES)
    if shown.names and _is_one_hot(shown.image):
        num_frames = min(num_frames, max(1, MAX_FRAMES * len(shown.codes) // shown.image.shape[1]))
    image = shown.image[:, : max(1, round(shown.image.shape[1] * num_frames / len(shown.codes)))]
    codes, mask = shown.codes[:num_frames, :MAX_BOOKS], shown.mask[:num_frames]
    end = num_frames * (shown.seconds_per_frame or 1.0)
    num_books = codes.shape[1]
    heights = [2.6 if len(shown.names) < 6 else 3.4, *[0.5] * num_books, 0.16]
    with styled(has_grid=False):
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
        rows[-1].set_ylabel("masked" if shown.hides else "targets", rotation=0, ha="right", va="center")
        for axes in rows[1:]:
            axes.set_yticks([])
            axes.tick_params(length=0)
        rows[-1].set_xlabel("frames" if shown.seconds_per_frame is None else _seconds(rows, end))
        return png(figure)


def _image(axes: Axes, image: Numbers, end: float) -> None:
    """Draw a picture of the input, with outliers cut off: bins upward, time to the right."""
    low, high = np.nanpercentile(image, (1, 99.5))
    axes.imshow(
        image, origin="lower", aspect="auto", extent=(0, end, 0, len(image)), cmap="magma",
        vmin=low, vmax=high if high > low else low + 1, interpolation="nearest",
    )  # fmt: skip
    axes.set_ylabel("bins")


def _lines(axes: Axes, image: Numbers, end: float, names: Sequence[str]) -> None:
    """Draw each channel as a line in a band of its own, with open gaps; one-hot bits become marks."""
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


def _is_one_hot(image: Numbers) -> bool:
    return bool(len(image) > 1 and np.isin(image, (0.0, 1.0)).all() and (image.sum(axis=0) == 1).all())


def _seconds(rows: Sequence[Axes], end: float) -> str:
    """Set the ticks of a time axis in a readable unit; returns the unit's name."""
    for size, word in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if end >= 3 * size:
            rows[-1].xaxis.set_major_formatter(partial(_in_units, size))
            step = max(1.0, round(end / size / 10)) * size
            rows[-1].set_xticks(np.arange(0, end + 1e-9, step))
            return word
    return "seconds"


def _in_units(size: float, value: float, position: object) -> str:
    return f"{value / size:g}"


def sequence_logos(logos: Sequence[Logo]) -> str:
    """Sequence logos (Schneider and Stephens 1990) of `Logo`s, as the data URI of a PNG."""
    num_columns = min(4, len(logos))
    num_rows = -(-len(logos) // num_columns)
    with styled(has_grid=False):
        figure = Figure(figsize=(11.0, 1.5 * num_rows + 0.2), layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes in grid[len(logos) :]:
            axes.set_axis_off()
        for axes, logo in zip(grid, logos, strict=False):
            _logo(axes, logo)
        return png(figure)


def _logo(axes: Axes, logo: Logo) -> None:
    """Draw a sequence logo: at each step a stack of letters, as high as its information in bits."""
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


def _code_strip(axes: Axes, codes: Whole, end: float) -> None:
    """Draw a colored cell per frame; runs of one code that are wide enough carry its number."""
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
