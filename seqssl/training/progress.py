"""What a person sees while training: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def describe(record: Mapping[str, Any]) -> str:
    """One line for a metrics record: the loss, what it is made of, and how the codes are used."""
    parts = [f"{record['kind']:5} {record['step']:>6}", f"loss {record['loss']:.3f}"]
    parts += [
        f"{key.removeprefix('loss/')} {value:.3f}" for key, value in record.items() if key[:5] == "loss/"
    ]
    if "contrastive/accuracy" in record:
        accuracy, chance = record["contrastive/accuracy"], record["contrastive/chance"]
        parts.append(f"contrastive acc {accuracy:.1%} (chance {chance:.1%})")
    if "masked_prediction/accuracy" in record:
        accuracy, trivial = record["masked_prediction/accuracy"], record["masked_prediction/trivial"]
        parts.append(f"prediction acc {accuracy:.1%} (trivial {trivial:.1%})")
    parts.append(f"perplexity {record['perplexity/hard_0']:.0f}/{record['perplexity/size']:.0f}")
    if "throughput/input_s_per_s" in record:
        parts.append(f"{record['throughput/input_s_per_s']:.0f} s/s")
    return " | ".join(parts)


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
        """A line above the bar."""
        self.console.print(text, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
