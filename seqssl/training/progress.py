"""What a person sees while training: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def describe(record: Mapping[str, Any]) -> str:
    """A line for a metrics record, with one more for each stream of a joint run."""
    streams = [name.removesuffix("/loss") for name in record if name.endswith("/loss")]
    head = f"{record['kind']:5} {record['step']:>6}"
    if not streams:
        return " | ".join([head, *_figures(record)])
    lines = [" | ".join([head, f"loss {record['loss']:.3f}", *_speed(record)])]
    for stream in streams:
        part = {key.removeprefix(f"{stream}/"): value for key, value in record.items()}
        speeds = ("throughput/input_s_per_s", "throughput/inputs_per_s")
        lines.append(" | ".join([f"{'':6}{stream:10}", *_figures(part | dict.fromkeys(speeds))]))
    return "\n".join(lines)


def _figures(record: Mapping[str, Any]) -> Iterator[str]:
    """The loss, what it is made of, and how the codes are used."""
    yield f"loss {record['loss']:.3f}"
    yield from (f"{key[5:]} {value:.3f}" for key, value in record.items() if key[:5] == "loss/")
    if "contrastive/accuracy" in record:
        accuracy, chance = record["contrastive/accuracy"], record["contrastive/chance"]
        yield f"contrastive acc {accuracy:.1%} (chance {chance:.1%})"
    if "masked_prediction/accuracy" in record:
        accuracy, trivial = record["masked_prediction/accuracy"], record["masked_prediction/trivial"]
        yield f"prediction acc {accuracy:.1%} (trivial {trivial:.1%})"
    if "symbols/bits" in record:
        chain = f", Markov {record['symbols/markov_bits']:.3f}" if "symbols/markov_bits" in record else ""
        entropy = f"entropy {record['symbols/entropy_bits']:.3f}"
        yield f"bits/symbol {record['symbols/bits']:.3f} ({entropy}{chain})"
    if "perplexity/hard_0" in record:
        yield f"perplexity {record['perplexity/hard_0']:.0f}/{record['perplexity/size']:.0f}"
    yield from _speed(record)


def _speed(record: Mapping[str, Any]) -> Iterator[str]:
    if record.get("throughput/input_s_per_s") is not None:
        yield f"{record['throughput/input_s_per_s']:,.0f} s/s"
    elif record.get("throughput/inputs_per_s") is not None:
        yield f"{record['throughput/inputs_per_s']:,.0f} steps/s"


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
