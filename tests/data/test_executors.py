"""Records read by any executor: threads, a real dask cluster, and stand-ins for what is not installed."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbers_adapter import Numbers, read_numbers, write_numbers

from seqssl import Record, UserError, cli
from seqssl.data import workers, writing
from seqssl.data.executors import check_executor, opened
from seqssl.data.fingerprint import Witness
from seqssl.data.prepare import prepare
from seqssl.data.shards import Manifest
from seqssl.data.workers import map_ordered


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read in this process first, and a message holds one record."""
    monkeypatch.setattr(workers, "SAMPLE_S", 0.0)
    monkeypatch.setattr(workers, "CHUNK", 1)
    monkeypatch.setattr(writing, "SHARD_BYTES", 600)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    write_numbers(folder)
    (folder / "group1" / "broken.num").write_text("1 2 three")
    return folder


def run(source: Path, out: Path, **options: Any) -> Manifest:
    return prepare(Numbers(), source, out, modality="numbers", **options)


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


class Later(Executor):
    """Answers the calls that wait in an order of its own, and fails where it is told to."""

    def __init__(self, choose: Callable[[int], int] = lambda number: 0, fail_at: int = -1) -> None:
        self.choose, self.fail_at = choose, fail_at
        self.waiting: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self.submitted = self.most = self.closed = 0

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a call; it is answered when somebody waits for it or one before it."""
        executor = self

        class Answer(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                while not self.done():
                    executor.answer()
                return super().result()

        future = Answer()
        self.waiting.append((future, call, args))
        self.submitted += 1
        self.most = max(self.most, len(self.waiting))
        return future

    def answer(self) -> None:
        """Answer one of the calls that wait."""
        future, call, args = self.waiting.pop(self.choose(len(self.waiting)))
        self.fail_at -= 1
        if self.fail_at == -1:
            future.set_exception(ConnectionError("the line is dead"))
        elif future.set_running_or_notify_cancel():
            future.set_result(call(*args))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Count how often."""
        self.closed += 1


@given(st.lists(st.integers(), max_size=60), st.integers(1, 3), st.integers(1, 5), st.randoms())
def test_results_come_in_order_and_only_so_many_wait(
    tasks: list[int], num_workers: int, size: int, draw: Any
) -> None:
    executor = Later(draw.randrange)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "CHUNK", size)
        patch.setattr(workers, "SAMPLE_S", 0.0)
        found = map_ordered(str, tasks, num_workers=num_workers, preload="", executor=executor)
        assert list(found) == [*map(str, tasks)]
    assert executor.most <= num_workers * workers.AHEAD + 1
    assert executor.submitted == -(-len(tasks) // size) and not executor.closed


@pytest.mark.parametrize("error", [UserError("the file is odd"), KeyError("a bug")])
def test_what_a_call_raises_is_raised_and_what_the_executor_raises_is_told(error: Exception) -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise error
        return number

    options: dict[str, Any] = {"num_workers": 2, "preload": ""}
    with pytest.raises(type(error)) as caught, ThreadPoolExecutor(2) as threads:
        list(map_ordered(fail, range(9), **options, executor=threads))
    assert caught.value is error and "in fail" in str(caught.value.__cause__)
    executor = Later(fail_at=4)
    with pytest.raises(UserError, match=r"Later failed \(ConnectionError: the line is dead\).* kept"):
        list(map_ordered(str, range(99), **options, executor=executor))
    assert all(future.cancelled() for future, *_ in executor.waiting)


def test_any_executor_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    whole = run(source, tmp_path / "whole", num_workers=1)
    assert len(whole.shards) > 3
    with ThreadPoolExecutor(3) as threads:
        executors = {"threads": threads, "later": Later(lambda number: number - 1)}
        for name, executor in executors.items():
            run(source, tmp_path / name, executor=executor, num_workers=2)
            assert content(tmp_path / name) == content(tmp_path / "whole"), name
        assert threads.submit(int, "1").result() == 1, "what was given stays open"


def test_what_is_done_is_kept_where_an_executor_fails(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "whole", num_workers=1)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="the line is dead"):
        run(source, out, executor=Later(fail_at=15), num_workers=1)
    assert list(out.glob("*.parquet")) and not (out / "manifest.json").exists()
    rest = Later()
    run(source, out, executor=rest)
    assert content(out) == content(tmp_path / "whole") and 0 < rest.submitted < 15


def test_a_relative_source_is_read_in_any_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(ThreadPoolExecutor):
        def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            os.chdir(tmp_path / "elsewhere")
            return super().submit(call, *args, **kwargs)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Elsewhere(1) as executor:
        manifest = run(Path("raw"), tmp_path / "out", executor=executor)
    assert manifest.source == "raw" and manifest.num_rejected == 1


def hidden(path: Path, call: Callable[..., Any], *args: Any) -> Any:
    """A call on a machine that has nothing under a path."""
    path.rename(path.with_name("hidden"))
    try:
        return call(*args)
    finally:
        path.with_name("hidden").rename(path)


class Blind(ThreadPoolExecutor):
    """Workers that see the source first, and from the call `after` on no more."""

    def __init__(self, source: Path, after: int) -> None:
        super().__init__(1)
        self.source, self.after = source, after

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.after -= 1
        return super().submit(partial(hidden, self.source, call) if self.after < 0 else call, *args, **kwargs)


@pytest.mark.parametrize("after", [0, 4])
def test_a_worker_that_does_not_see_the_source_is_no_reason_to_reject_all(
    source: Path, tmp_path: Path, after: int
) -> None:
    writing._check_once.cache_clear()
    with Blind(source, after) as executor, pytest.raises(UserError, match=r"does not see .*raw/group0/row0"):
        run(source, tmp_path / "out", executor=executor, num_workers=1)
    assert not (tmp_path / "out" / "rejected.jsonl").exists()
    assert run(source, tmp_path / "out", num_workers=1).num_rejected == 1


def test_another_source_under_the_same_path_is_noticed_and_one_changed_file_is_not(source: Path) -> None:
    files = sorted(source.rglob("*.num"))
    witness = Witness.of(source, [(str(p.relative_to(source)), p.stat().st_size, 0) for p in files])
    assert len(witness.files) == 3
    files[0].write_text("")
    files[-1].unlink()
    witness.check()
    files[len(files) // 2].write_text("1 2 3 4 5 6 7 8 9 10 11 12")
    with pytest.raises(UserError, match="does not see"):
        witness.check()
    Witness.of(source, []).check()
    alone = Witness.of(files[0], [(".", 0, 0)])
    alone.check()
    assert alone.files == ((str(files[0]), 0),)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dsk:tcp://x:1", "expected process, dask:tcp://HOST:PORT"),
        ("dask", "of which scheduler"),
        ("mpi:8", "mpi takes no address"),
        ("dask:tcp://x:1", r"needs the package distributed, as by `pip install 'seqssl\[cluster\]'`"),
        ("mpi", "needs the package mpi4py"),
        ("ray:auto", "needs the package ray"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_before_anything_is_read(
    name: str, words: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("distributed", "mpi4py", "ray"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=words):
        run(source, tmp_path / "out", executor=name)
    assert not (tmp_path / "out").exists()


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: object) -> ModuleType:
    """A module that takes a package's place."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_the_ranks_of_mpi_read(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ranks(ThreadPoolExecutor):
        num_workers = 3

    for name in ("mpi4py", "mpi4py.MPI"):
        stand_in(monkeypatch, name)
    stand_in(monkeypatch, "mpi4py.futures", MPIPoolExecutor=Ranks)
    with opened("mpi", None) as pool:
        assert pool.num_workers == 3
    run(source, tmp_path / "whole", num_workers=1)
    run(source, tmp_path / "mpi", executor="mpi")
    assert content(tmp_path / "mpi") == content(tmp_path / "whole")
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    with pytest.raises(UserError, match="MPI itself is not found"):
        run(source, tmp_path / "none", executor="mpi")


def test_the_workers_of_ray_read(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, object] = {"up": False}

    def remote(call: Callable[..., Any]) -> Any:
        def begun(*args: Any) -> Any:
            return SimpleNamespace(future=lambda: threads.submit(call, *args))

        return SimpleNamespace(remote=begun)

    def init(address: str | None, log_to_driver: bool) -> None:
        if address == "nowhere":
            raise ConnectionError("nobody is there")
        state.update(up=True, address=address)

    with ThreadPoolExecutor(2) as threads:
        stand_in(
            monkeypatch,
            "ray",
            init=init,
            is_initialized=lambda: state["up"],
            shutdown=lambda: state.update(up=False),
            cluster_resources=lambda: {"CPU": 2.0},
            remote=remote,
        )
        run(source, tmp_path / "whole", num_workers=1)
        for name in ("ray", "ray:ray://head:10001"):
            run(source, tmp_path / name.replace("/", "_"), executor=name)
            assert content(tmp_path / name.replace("/", "_")) == content(tmp_path / "whole")
            assert state == {"up": False, "address": name.partition(":")[2] or None}
        with pytest.raises(UserError, match="no cluster answers there"):
            run(source, tmp_path / "none", executor="ray:nowhere")


# A real cluster: a scheduler, and two workers in processes of their own.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("distributed")
    import dask
    from distributed import LocalCluster

    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.admin.tick.limit": "1h"}
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as found,
    ):
        yield found


class Deadly(Numbers):
    """Numbers, one file of which ends the process that reads it."""

    def records(self, source: Path, split: str) -> Iterator[Any]:
        for record in super().records(source, split):
            yield Record(record.key, partial(read_or_die, source / record.key), record.group, record.label)


def read_or_die(path: Path) -> dict[str, object]:
    if path.parts[-2:] == ("group1", "row4.num") and not (path.parents[2] / "cured").exists():
        time.sleep(0.3)  # what was read before has come back by then
        os._exit(1)
    return read_numbers(path)


def test_a_dask_cluster_writes_the_same_bytes(cluster: Any, source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "whole", num_workers=1)
    run(source, tmp_path / "dask", executor=f"dask:{cluster.scheduler_address}")
    assert content(tmp_path / "dask") == content(tmp_path / "whole")


def test_where_a_worker_of_dask_dies_what_is_done_is_kept(cluster: Any, source: Path, tmp_path: Path) -> None:
    name, out = f"dask:{cluster.scheduler_address}", tmp_path / "out"
    (source / "group1" / "broken.num").unlink()
    reading = partial(prepare, Deadly(), source, modality="numbers", num_workers=1)
    with pytest.raises(UserError, match=rf"executor={name} failed \(KilledWorker: .*What is done is kept"):
        reading(out, executor=name)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert kept and not list(out.glob("*.tmp"))
    (tmp_path / "cured").touch()
    reading(out, executor=name)
    reading(tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())


def test_a_scheduler_that_is_not_there_is_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("seqssl.data.executors.CONNECT_S", 0.2)
    command = ["prepare", "modality=numbers_adapter:Numbers", f"source={source}", f"out={tmp_path / 'out'}"]
    for name, words in (
        ("dask:tcp://127.0.0.1:9", "no scheduler answers there"),
        ("dask:odd://127.0.0.1:9", "no scheduler answers there"),
        (f"dask:{tmp_path}/scheduler.json", "there is no such file"),
    ):
        assert cli.main([*command, f"executor={name}"]) == 2
        assert words in capsys.readouterr().err
    check_executor("process")
