"""Worker processes that start fast: they are forked from a server that has done the slow imports."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

from seqssl.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 16  # tasks per message to a worker
PATIENCE_S = 10.0  # work shorter than this is done before a pool would have started
LOOK_EVERY_S = 1.0  # for the process that started this one
MOST_ON_WINDOWS = 61  # processes that a pool can wait for there


def check_not_worker_import() -> None:
    """`UserError` in a worker that runs the user's script again because it has no main guard."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "Workers import your script, so what it runs must stand under `if __name__ == '__main__':`."
        )


def worker_context(*preload: str) -> BaseContext:
    """The start method of all our workers; `preload` names modules that every one of them needs."""
    check_not_worker_import()
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["seqssl.data.batching", "seqssl.data.prepare", *preload])
    return context


def map_ordered(
    function: Callable[[T], R], tasks: Sequence[T], *, num_workers: int | None, preload: str
) -> Iterator[R]:
    """Results in the order of the tasks; those of the first seconds are made here, the rest by a pool.

    `num_workers` None means one per CPU that this process may use; 1 means no pool. The results do not depend
    on it.
    """
    num_workers = most_workers(num_workers or num_cpus())
    start = time.monotonic()
    done = 0
    while done < len(tasks) and (num_workers == 1 or time.monotonic() - start < PATIENCE_S):
        yield function(tasks[done])
        done += 1
    chunks = [tasks[first : first + CHUNK] for first in range(done, len(tasks), CHUNK)]
    if chunks:
        yield from _map_pool(function, chunks, num_workers, preload)


def num_cpus() -> int:
    """CPUs that this process may use; a container has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_workers(number: int) -> int:
    """So many workers, or as many as a pool can wait for."""
    return min(number, MOST_ON_WINDOWS) if os.name == "nt" else number


def _map_pool(
    function: Callable[[T], R], chunks: Sequence[Sequence[T]], num_workers: int, preload: str
) -> Iterator[R]:
    """Results in the order of the chunks, from a pool of workers; UserError where a worker dies."""
    pending: deque[Future[list[R]]] = deque()
    with ProcessPoolExecutor(num_workers, worker_context(preload), start_worker) as pool:
        try:
            for chunk in chunks:
                pending.append(pool.submit(_map_chunk, function, chunk))
                if len(pending) > 4 * num_workers:  # bounds what waits in memory
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process died while reading: out of memory, a decoder crashed, or your script lacks "
                "`if __name__ == '__main__':`. What is done is kept; num_workers=1 reads without workers."
            ) from error
        finally:
            for future in pending:
                future.cancel()


def _map_chunk(function: Callable[[T], R], chunk: Sequence[T]) -> list[R]:
    return [function(task) for task in chunk]


def end_with(parent: int) -> None:
    """End this process soon after the one that started it, even if that is killed; leave Ctrl-C to it.

    Ctrl-C reaches every process of a terminal. The first one answers it, and ends the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def start_worker(number: int = 0) -> None:
    """What every worker does first: it takes one thread, and leaves interrupts to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
