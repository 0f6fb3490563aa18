"""Processes that work side by side, and end when the one that started them does."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from seqssl.data.files import locked
from seqssl.data.workers import end_with, most_workers
from seqssl.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(
    work: Callable[..., R], items: Sequence[T], arguments: Callable[[T], Sequence[Any]], jobs: int
) -> Iterator[tuple[T, R]]:
    """The result of `work(*arguments(item))` for each item, as it is done, in `jobs` processes.

    One job is done in this process. `work` is a function of a module. What others have begun is dropped where
    the caller stops or is killed.
    """
    if jobs == 1:  # another process would spend seconds on imports, and do the same
        for item in items:
            with _as_before():
                result = work(*arguments(item))
            yield item, result
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        most_workers(jobs), context, initializer=end_with, initargs=(os.getpid(),)
    ) as pool:
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


@contextmanager
def _as_before() -> Iterator[None]:
    """A context after which torch has as many threads, and the same random state, as before."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A context that has a folder for itself; UserError where another process has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise UserError(f"{folder} is in use by another process: choose another out=.") from error
        yield
