"""Worker processes that start fast: they are forked from a server that has done the slow imports."""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from multiprocessing.context import BaseContext
from typing import NamedTuple, TypeVar

from seqssl.data.executors import PROCESS, Pool, opened
from seqssl.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 16  # tasks per message to a worker, at most
CHUNK_S = 1.0  # about so much work: results of long files are large, and all of a message wait in memory
AHEAD = 4  # messages for each worker that are sent before the first is answered
AHEAD_ALONE = 2  # where a message is one task
PATIENCE_S = 10.0  # work shorter than this is done before a pool would have started
SAMPLE_S = 1.0  # of work that is done here to know how much goes into a message, where workers wait already
LOOK_EVERY_S = 1.0  # for the process that started this one
MOST_ON_WINDOWS = 61  # processes that a pool can wait for there
DIED = (
    "A worker process died while reading: out of memory, a decoder crashed, or your script lacks "
    "`if __name__ == '__main__':`. What is done is kept; num_workers=1 reads without workers."
)


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
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    num_workers: int | None,
    preload: str,
    executor: str | Executor = PROCESS,
) -> Iterator[R]:
    """Results in the order of the tasks; those of the first seconds are made here, the rest by an executor.

    `num_workers` None means one per CPU that this process may use, or all that the executor has; 1 means no
    processes. `executor`: see `seqssl.data.executors`. The results depend on neither.
    """
    is_alone = executor == PROCESS and most_workers(num_workers or num_cpus()) == 1
    patience = math.inf if is_alone else PATIENCE_S if executor == PROCESS else SAMPLE_S
    # Processes are started when they are needed; that there is no such cluster is said before work begins.
    with nullcontext() if executor == PROCESS else opened(executor, num_workers) as pool:
        start = time.monotonic()
        done = 0
        while done < len(tasks) and time.monotonic() - start < patience:
            yield function(tasks[done])
            done += 1
        size = _chunk_size(done, time.monotonic() - start)
        chunks = [tasks[first : first + size] for first in range(done, len(tasks), size)]
        if chunks:
            with nullcontext(pool) if pool else _processes(num_workers, preload) as found:
                yield from _map_pool(function, chunks, found)


def _chunk_size(done: int, seconds: float) -> int:
    """How many tasks go into a message, by how many were done in some seconds."""
    return min(max(1, int(done * CHUNK_S / seconds)), CHUNK) if done else CHUNK


def num_cpus() -> int:
    """CPUs that this process may use; a container has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_workers(number: int) -> int:
    """So many workers, or as many as a pool can wait for."""
    return min(number, MOST_ON_WINDOWS) if os.name == "nt" else number


@contextmanager
def _processes(num_workers: int | None, preload: str) -> Iterator[Pool]:
    """Processes of this machine."""
    number = most_workers(num_workers or num_cpus())
    with ProcessPoolExecutor(number, worker_context(preload), start_worker) as executor:
        yield Pool(executor, number, BrokenProcessPool, lambda error: DIED)


def _map_pool(function: Callable[[T], R], chunks: Sequence[Sequence[T]], pool: Pool) -> Iterator[R]:
    """Results in the order of the chunks; what the function raised is raised again.

    Raises UserError where the pool fails.
    """
    for found in _answers(function, chunks, pool):
        if isinstance(found, _Raised):
            raise found.error from RuntimeError(found.where)
        yield from found


def _answers(
    function: Callable[[T], R], chunks: Sequence[Sequence[T]], pool: Pool
) -> Iterator["list[R] | _Raised"]:
    """What became of each chunk, in order, of which only so many are worked on or wait at a time."""
    pending: deque[Future[list[R] | _Raised]] = deque()
    ahead = pool.num_workers * (AHEAD if len(chunks[0]) > 1 else AHEAD_ALONE)  # bounds what waits in memory
    try:
        for chunk in chunks:
            pending.append(pool.executor.submit(_map_chunk, function, chunk))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except pool.failures as error:
        raise UserError(pool.failed(error)) from error
    finally:
        for future in pending:
            future.cancel()


class _Raised(NamedTuple):
    """What a function raised in a worker. As a value: what an executor raises is then its own failure."""

    error: Exception
    where: str  # its traceback


def _map_chunk(function: Callable[[T], R], chunk: Sequence[T]) -> "list[R] | _Raised":
    try:
        return [function(task) for task in chunk]
    except Exception as error:
        return _Raised(error, traceback.format_exc())


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
