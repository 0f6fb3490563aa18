"""How all pictures of a report are drawn: colors, axes, and figures as text that a page can hold."""

import base64
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

COLORS = ("#2563eb", "#d97706", "#0f9d76", "#9333ea", "#dc2626", "#64748b")
REFERENCE = "#94a3b8"
MAX_NAME = 24  # letters of a name in a picture
# Fonts with the letters of Chinese, Japanese and Korean, which matplotlib's own lacks, on the usual systems.
FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Source Han Sans",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "IPAexGothic", "IPAGothic", "NanumGothic", "Unifont",
    "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS",
    "Yu Gothic", "Microsoft YaHei", "Malgun Gothic",
)  # fmt: skip


@contextmanager
def styled(*, has_grid: bool = True) -> Iterator[None]:
    """A context in which matplotlib draws in the style of the report."""
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context(
            {
                "font.family": fonts(),
                "font.size": 9.0,
                "axes.edgecolor": "#cbd5e1",
                "axes.grid": has_grid,
                "axes.labelcolor": "#475569",
                "axes.spines.right": False,
                "axes.spines.top": False,
                "axes.titley": 1.0,  # a search would find it, too, and takes a quarter of the time
                "grid.color": "#eef2f7",
                "legend.fontsize": 8.0,
                "legend.frameon": False,
                "svg.fonttype": "none",  # text stays text
                "text.parse_math": False,  # a channel may be called $\\frac$
                "svg.hashsalt": "seqssl",  # the same picture twice is the same text
                "xtick.color": "#64748b",
                "ytick.color": "#64748b",
            }
        ),
    ):
        # A letter that no font here has becomes a box; to be told so at each one helps nobody.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


@cache
def fonts() -> list[str]:
    """matplotlib's own font, and those of `FONTS` that are here: it complains of others at each text."""
    here = {font.name for font in fontManager.ttflist}
    return ["sans-serif", *(name for name in FONTS if name in here)]


def label(name: str, most: int = MAX_NAME) -> str:
    """A name for a picture: not too long, and in legends, which leave out what begins with "_"."""
    short = name if len(name) <= most else f"{name[: most - 1]}…"
    return f"\u200b{short}" if short.startswith("_") else short


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes with fixed margins: a layout engine would draw everything several times."""
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.12 / width, bottom=0.45 / height, top=1 - 0.3 / height
    )
    return figure, axes


def cycle(items: Sequence[str], count: int) -> list[str]:
    """`count` items; after the last one, they start again."""
    return [items[index % len(items)] for index in range(count)]


def svg(figure: Figure, *, alone: bool = False) -> str:
    """The figure as an <svg> element for a page; `alone`, for a file, it says what its names are."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    if not alone:
        text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text, count=2)
    return re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", text, count=2)


def png(figure: Figure) -> str:
    """The figure as the data URI of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, transparent=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
