"""How commands speak to a person: tables, and progress of long work."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import TaskID

    from seqssl.data.files import Progress


def show(what: Any) -> None:
    """Print tables."""
    from rich.console import Console

    Console().print(what, highlight=False)


@contextmanager
def show_progress() -> Iterator["Progress"]:
    """A progress bar on a terminal, plain lines elsewhere; nothing is shown before the first call."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    bar, on_terminal = Bar(console=Console(stderr=True), transient=True), sys.stderr.isatty()
    tasks: dict[str, TaskID] = {}

    def show(done: int, total: int, what: str) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=None)
            if not on_terminal:
                print(what, file=sys.stderr)
        if on_terminal:
            bar.start()
            bar.update(tasks[what], completed=done, total=total or None)
        if total and done >= total:
            bar.stop()  # the training loop brings its own

    try:
        yield show
    finally:
        bar.stop()
