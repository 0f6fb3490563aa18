"""Tables of the scores of a probe, for the terminal."""

from collections.abc import Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

from seqssl.evaluation.forecast import ForecastScore, Protocol
from seqssl.evaluation.probe import NO_WEIGHTS, RANDOM, TRAINED, Score

if TYPE_CHECKING:
    from rich.console import RenderableType


def probe_tables(scores: Sequence[Score], headline: str) -> "RenderableType":
    """Accuracies in percent, a block for each task and protocol; the gain at the stage `headline` is bold."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Linear probe: accuracy in % over all tested rows", box=SIMPLE_HEAD)
    for heading in ("labels", "protocol", "stage"):
        table.add_column(heading)
    for heading in ("trained", "random", "gain"):
        table.add_column(heading, justify="right")
    for (labels, protocol), group in groupby(scores, key=lambda score: (score.labels, score.protocol)):
        found = {(score.weights, score.stage): score for score in group}
        first = next(iter(found.values()))
        sides = [(escape(labels), protocol), ("", f"{first.num_rows} rows, {first.num_classes} classes")]
        for side, line in zip_longest(sides, _lines(found, headline), fillvalue=("", "")):
            table.add_row(*side, *line)
        table.add_section()
    return table


def forecast_table(scores: Sequence[ForecastScore], headline: str, protocol: Protocol) -> "RenderableType":
    """Errors of every method; the gain over random weights at the stage `headline` is bold."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = (
        f"Linear forecast of {protocol.horizon} steps from {protocol.lookback}, "
        f"{scores[0].num_windows} windows of held-out rows"
    )
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("method")
    for heading in ("MSE", "MAE", "random MSE", "gain"):
        table.add_column(heading, justify="right")
    found = {(score.weights, score.method): score for score in scores}
    for (weights, method), score in found.items():
        if weights == NO_WEIGHTS:
            table.add_row(f"({method})", f"{score.mse:.3f}", f"{score.mae:.3f}", "", "")
    for (weights, method), score in found.items():
        if weights == TRAINED:
            random = found[RANDOM, method]
            gain = f"{random.mse - score.mse:+.3f}"
            gain = f"[bold]{gain}[/bold]" if method == headline else gain
            table.add_row(method, f"{score.mse:.3f}", f"{score.mae:.3f}", f"{random.mse:.3f}", gain)
    return table


def _lines(found: dict[tuple[str, str], Score], headline: str) -> list[tuple[str, ...]]:
    """Stage, trained, random and gain of each row; baselines without weights come first."""
    lines: list[tuple[str, ...]] = []
    for (weights, stage), score in found.items():
        if weights == NO_WEIGHTS:
            lines.append((f"({stage})", f"{100 * score.accuracy:.1f}", "", ""))
    for (weights, stage), score in found.items():
        if weights == TRAINED:
            random = found[RANDOM, stage].accuracy
            gain = f"{100 * (score.accuracy - random):+.1f}"
            gain = f"[bold]{gain}[/bold]" if stage == headline else gain
            lines.append((stage, f"{100 * score.accuracy:.1f}", f"{100 * random:.1f}", gain))
    return lines
