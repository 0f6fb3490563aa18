"""What the terminal shows of a probe."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from seqssl.evaluation.probe import NO_WEIGHTS, RANDOM, TRAINED, Score

if TYPE_CHECKING:
    from rich.console import RenderableType


def probe_tables(scores: Sequence[Score], headline: str) -> "RenderableType":
    """Accuracies in percent, a line for each task and protocol, and the gain at the stage `headline`."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    stages = list(dict.fromkeys(score.stage for score in scores if score.weights == TRAINED))
    table = Table(title="Linear probe, accuracy in %: trained (random weights)", box=SIMPLE_HEAD)
    for heading in ("labels", "protocol", "classes", "rows", "majority", "input", *stages):
        table.add_column(heading, justify="left" if heading in ("labels", "protocol") else "right")
    gains = []
    for (labels, protocol), group in groupby(scores, key=lambda score: (score.labels, score.protocol)):
        found = {(score.weights, score.stage): score for score in group}
        percent = {name: f"{score.accuracy:.1%}"[:-1] for name, score in found.items()}
        first = next(iter(found.values()))
        plain = (percent.get((NO_WEIGHTS, stage), "") for stage in ("majority", "input"))
        pairs = (f"{percent[TRAINED, stage]} ({percent[RANDOM, stage]})" for stage in stages)
        table.add_row(labels, protocol, str(first.num_classes), str(first.num_rows), *plain, *pairs)
        gain = found[TRAINED, headline].accuracy - found[RANDOM, headline].accuracy
        gains.append(f"{headline}, {labels}, {protocol}: {100 * gain:+.1f} points over random weights")
    return Group(table, *gains)
