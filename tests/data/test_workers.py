"""Tasks for processes: in order, and few at once where each takes long."""

from collections.abc import Iterator

import pytest

from seqssl.data import workers
from seqssl.data.workers import AHEAD_ALONE, CHUNK, _chunk_size, map_ordered


@pytest.mark.parametrize(
    ("done", "seconds", "size"),
    [(0, 0.0, CHUNK), (0, 12.0, CHUNK), (1, 60.0, 1), (25, 10.0, 2), (9999, 10.0, CHUNK)],
)
def test_a_message_is_about_a_second_of_work(done: int, seconds: float, size: int) -> None:
    assert _chunk_size(done, seconds) == size


class Answer:
    """Of a task that runs when it is asked for."""

    def __init__(self, waiting: list[int], chunk: list[int]) -> None:
        self.waiting, self.chunk = waiting, chunk
        waiting.append(len(chunk))

    def result(self) -> list[int]:
        self.waiting.remove(len(self.chunk))
        return [-number for number in self.chunk]

    def cancel(self) -> None:
        """Nothing runs."""


def test_few_results_of_long_tasks_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty hours of sound were sent to two processes in two messages, and all waited in memory."""
    waiting: list[int] = []

    class Pool:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, _: object, __: object, chunk: list[int]) -> Answer:
            return Answer(waiting, chunk)

    clock = iter(range(0, 1000, 7))
    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(workers, "worker_context", lambda *_: None)
    monkeypatch.setattr(workers.time, "monotonic", lambda: float(next(clock)))

    def read() -> Iterator[int]:
        for answer in map_ordered(lambda number: -number, range(20), num_workers=3, preload=""):
            assert sum(waiting) <= 3 * AHEAD_ALONE
            yield answer

    assert [*read()] == [-number for number in range(20)]
