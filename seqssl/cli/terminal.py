"""How commands speak to a person: tables, and progress of long work."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID

    from seqssl.data.files import Progress

EVERY_S = 10.0  # between two lines about one thing, where there is no terminal


def show(what: "RenderableType") -> None:
    """Print tables."""
    from rich.console import Console

    Console(markup=False).print(what, highlight=False)  # a channel may be called [/h]


@contextmanager
def show_progress() -> Iterator["Progress"]:
    """A progress bar on a terminal, plain lines elsewhere; nothing is shown before the first call."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    bar = Bar(console=Console(stderr=True), transient=True)
    tasks: dict[str, TaskID] = {}

    def show(done: int, total: int, what: str) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=None)
        bar.start()
        bar.update(tasks[what], completed=done, total=total or None)
        if total and done >= total:
            bar.stop()  # the training loop brings its own

    try:
        yield show
    finally:
        bar.stop()


def _lines() -> "Progress":
    """A progress callback that prints what begins and, every few seconds, how far it is."""
    shown: dict[str, float] = {}

    def show(done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if what in shown and (now - shown[what] < EVERY_S or not total):
            return
        print(f"{what}: {done:,} of {total:,}" if what in shown else what, file=sys.stderr, flush=True)
        shown[what] = now

    return show
