"""Processes that work side by side, and end when the one that started them does."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from seqssl.data.files import locked
from seqssl.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
LOOK_EVERY_S = 1.0


def side_by_side(
    work: Callable[..., R], items: Sequence[T], arguments: Callable[[T], Sequence[Any]], jobs: int
) -> Iterator[tuple[T, R]]:
    """The result of `work(*arguments(item))` for each item, as it is done, in `jobs` processes.

    `work` is a function of a module. What has begun is dropped where the caller stops or is killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_follow, initargs=(os.getpid(),)) as pool:
        futures = {pool.submit(work, *arguments(item)): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:  # a cell may take minutes
                process.terminate()
            raise


def _follow(parent: int) -> None:
    """End this process soon after the one that started it: no one would read its results."""
    # Ctrl-C reaches every process of a terminal. The first one answers it, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A context that has a folder for itself; UserError where another process has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise UserError(f"{folder} is in use by another process: choose another out=.") from error
        yield


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
