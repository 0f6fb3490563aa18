"""What a person sees while training: a bar on a terminal, plain lines elsewhere."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from seqssl.training.catalogue import Catalogues, Figure, by_stream
from seqssl.training.log import Record


def describe(record: Record, catalogues: Catalogues) -> str:
    """A line for a metrics record, with one more for each stream of a joint run."""
    common, *streams = by_stream(record, catalogues)
    lines = [" | ".join([f"{common.kind:5} {common.step:>6}", *map(_words, common.figures("line"))])]
    lines += [" | ".join([f"{'':6}{part.stream:10}", *map(_words, part.figures("line"))]) for part in streams]
    return "\n".join(lines)


def _words(figure: Figure) -> str:
    """A metric in a progress line: its words, its value, and the baselines that it is compared with."""
    metric, value = figure.metric, figure.metric.print(figure.value)
    words = (metric.short or metric.words).replace("*", metric.star(figure.name) or "")
    against = [(base.short or base.words, metric.print(number)) for base, number in figure.against]
    if metric.unit == "rate":
        return f"{value} {words}"
    if metric.unit == "count":
        return "/".join([f"{words} {value}", *(number for _, number in against)])
    known = ", ".join(" ".join(pair) for pair in against)
    return f"{words} {value} ({known})" if known else f"{words} {value}"


class Reporter:
    """Progress of a run of `total` updates; `quiet` (ranks other than the first) shows nothing."""

    def __init__(self, total: int, done: int, *, quiet: bool = False) -> None:
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet)
        self._bar: Progress | None = None
        if self.console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("training", total=total, completed=done)

    def advance(self) -> None:
        """One update is done."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
