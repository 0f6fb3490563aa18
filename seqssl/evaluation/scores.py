"""Tables of the scores of a probe, for the terminal."""

from collections.abc import Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

from seqssl.evaluation.forecast import ForecastScore, Protocol
from seqssl.evaluation.frames import FrameScores
from seqssl.evaluation.probe import NO_WEIGHTS, RANDOM, TRAINED, Score
from seqssl.finetuning.scoring import too_few

if TYPE_CHECKING:
    from rich.console import RenderableType


def probe_tables(scores: Sequence[Score], headline: str) -> "RenderableType":
    """Accuracies in percent, a block for each task and protocol; the gain at the stage `headline` is bold."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Linear probe: accuracy in % over all tested rows (95 % interval)", box=SIMPLE_HEAD)
    table.add_column("labels")
    for heading in ("protocol", "stage"):
        table.add_column(heading, no_wrap=True)
    for heading in ("trained", "random", "gain"):
        table.add_column(heading, justify="right")
    notes: list[str] = []
    for (labels, protocol), group in groupby(scores, key=lambda score: (score.labels, score.protocol)):
        found = {(score.weights, score.stage): score for score in group}
        first = next(iter(found.values()))
        sides = [(labels, protocol), ("", f"{first.num_rows} rows, {first.num_classes} classes")]
        notes += [f"{labels}, {protocol}: {text}" for text in _notes(first)]
        for side, line in zip_longest(sides, _lines(found, headline), fillvalue=("", "")):
            table.add_row(*side, *line)
        table.add_section()
    table.caption = "\n".join(notes) or None
    return table


def _notes(score: Score) -> list[str]:
    """What a reader should know of the scores of a protocol."""
    few = too_few(score.num_units, "rows" if score.num_units == score.num_rows else "groups")
    poor = f"{score.num_poor} groups of one label are scaled by the training rows." if score.num_poor else ""
    return [text for text in (few, poor) if text]


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
            marked = _bold(gain) if method == headline else gain
            table.add_row(method, f"{score.mse:.3f}", f"{score.mae:.3f}", f"{random.mse:.3f}", marked)
    return table


def frames_table(found: FrameScores, headline: str) -> "RenderableType":
    """Every stage with its intervals, trained beside random weights; the stage `headline` is bold."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    title = (
        f"Frames: {found.num_frames:,} of {found.num_rows:,} rows, {found.num_classes} labels "
        f"(most frequent {found.majority:.1%}); {found.num_units} {found.unit} held out"
    )
    if few := too_few(found.num_units, found.unit):
        title += f"\n{few}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)  # 80 columns hold it
    table.add_column("stage", no_wrap=True)
    for heading in ("linear, %", "nearest", "rank", "ABX within", "across"):
        table.add_column(heading, justify="right", no_wrap=True)
    weights = ""
    for score in found.scores:
        if score.weights != weights:
            weights = score.weights
            table.add_row("no weights" if weights == NO_WEIGHTS else f"{weights} weights")
        shares = (score.nearest, score.abx_within, score.abx_across)
        near, within, across = ("" if x is None else f"{100 * x:.1f}" for x in shares)
        rank = "" if score.rank is None else f"{score.rank:.0f}"
        linear = f"{100 * score.accuracy:.1f} ({100 * score.low:.1f}-{100 * score.high:.1f})"
        stage = f"  {score.stage}"
        shown = _bold(stage) if score.stage == headline else stage
        table.add_row(shown, linear, near, rank, within, across)
    codes = [
        f"Codes, {weights}: {value:.1%} of what there is to know of the labels (PNMI), "
        f"purity {found.purity[weights]:.1%}"
        for weights, value in found.pnmi.items()
    ]
    return Group(table, *codes)


def _bold(text: str) -> "RenderableType":
    from rich.text import Text

    return Text(text, style="bold")


def _lines(found: dict[tuple[str, str], Score], headline: str) -> list[tuple["RenderableType", ...]]:
    """Stage, trained, random and gain of each row, with intervals; baselines without weights come first."""
    lines: list[tuple[RenderableType, ...]] = []
    for (weights, stage), score in found.items():
        if weights == NO_WEIGHTS:
            lines.append((f"({stage})", _told(score), "", ""))
    for (weights, stage), score in found.items():
        if weights == TRAINED:
            random = found[RANDOM, stage]
            gain = f"{100 * (score.accuracy - random.accuracy):+.1f}"
            marked = _bold(gain) if stage == headline else gain
            lines.append((stage, _told(score), _told(random), marked))
    return lines


def _told(score: Score) -> str:
    """An accuracy and its interval, in percent."""
    return f"{100 * score.accuracy:.1f} ({100 * score.low:.0f}-{100 * score.high:.0f})"
