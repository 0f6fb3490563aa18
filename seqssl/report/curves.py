"""The curves of a report: the metrics of a run over its updates, one set of axes for each panel."""

from collections.abc import Iterable, Sequence

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from seqssl.report.drawing import COLORS, REFERENCE, cycle, new_axes, styled, svg
from seqssl.training.catalogue import Part
from seqssl.training.metrics import Metric

MAX_POINTS = 600  # of a curve; a page holds dozens


def curves(parts: Sequence[Part]) -> list[str]:
    """One SVG for each panel of the catalogue that has something to show; `parts` are of one kind of data."""
    panels: dict[str, list[Metric]] = {}
    for metric in parts[0].catalogue.metrics if parts else ():
        if metric.panel:
            panels.setdefault(metric.panel, []).append(metric)
    names = sorted({name for part in parts for name in part.metrics})
    with styled():
        return [
            _curve(title, metrics, parts, names)
            for title, metrics in panels.items()
            if any(metric.star(name) is not None for name in names for metric in metrics)
            and all(_is_there(metric.only_with, names) for metric in metrics)
        ]


def _is_there(pattern: str, names: Sequence[str]) -> bool:
    """Whether there is a metric of this name, which may end with `*`; "" always is."""
    return not pattern or any(name.startswith(pattern.rstrip("*")) for name in names)


def _curve(title: str, metrics: Sequence[Metric], parts: Sequence[Part], names: Sequence[str]) -> str:
    """The SVG of a panel: its metrics over updates, with their baselines as dashed lines."""
    figure, axes = new_axes(4.6, 2.5)
    shown = [name for metric in metrics for name in names if metric.star(name) is not None]
    for color, name in zip(cycle(COLORS, len(shown)), shown, strict=True):
        steps, values = series(parts, name, "train")
        axes.plot(steps, values, color=color, linewidth=1.3, label=legend(name))
        steps, values = series(parts, name, "valid")
        label = "" if series(parts, name, "train")[0] else legend(name)
        axes.plot(steps, values, "o-", color=color, linewidth=0.8, markersize=2.6, alpha=0.85, label=label)
    references = dict.fromkeys(baseline.name for metric in metrics for baseline in metric.against)
    for name in references:
        if name in names:
            steps, values = max((series(parts, name, kind) for kind in ("valid", "train")), key=_num_points)
            axes.plot(steps, values, "--", color=REFERENCE, linewidth=1.2, label=legend(name))
    if any(metric.is_log for metric in metrics):
        axes.set_yscale("log", nonpositive="clip")
        # Plain numbers: matplotlib writes its own as formulas, which are off. Marks between powers of
        # ten have numbers where there are few of those.
        low, high = axes.get_ylim()
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        few = high < 30 * low
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5) if few else ()))
        axes.yaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}") if few else NullFormatter()
        )
    else:
        low, high = axes.get_ylim()
        low = min(0.0, low)
        axes.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
    if metrics[0].unit == "share":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_title(title, loc="left", fontsize=10, color="#0f172a", fontweight="bold")
    axes.set_xlabel("updates")
    # Below numbers of one line, as a search would find that measures all numbers of both axes.
    axes.xaxis.set_label_coords(0.5, -0.16)
    axes.yaxis.set_label_coords(-0.1, 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(loc="best", ncols=2 if len(shown) > 3 else 1)
    return svg(figure)


def series(parts: Iterable[Part], name: str, kind: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric in records of one kind; a long series is thinned."""
    points = [(part.step, part.metrics[name]) for part in parts if part.kind == kind and name in part.metrics]
    stride = max(1, -(-len(points) // MAX_POINTS))
    kept = points[::-stride][::-1]  # the last one always
    return [step for step, _ in kept], [value for _, value in kept]


def _num_points(series: tuple[list[int], list[float]]) -> int:
    return len(series[0])


def legend(name: str) -> str:
    """A metric's name as words: "perplexity/hard_0" is "hard 0"."""
    words = name.rpartition("/")[2] if name.split("/")[0] in ("perplexity", "codes", "loss") else name
    if name == "loss":
        return "total"
    return words.removeprefix("throughput/").replace("/", " ").replace("_", " ")
