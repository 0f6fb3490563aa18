"""Who does the work: processes of this machine, or any `concurrent.futures.Executor`, such as a cluster's."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from seqssl.data.wording import shortened
from seqssl.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

PROCESS = "process"  # processes of this machine: seqssl.data.workers
FORMS = "process, dask:tcp://HOST:PORT, dask:SCHEDULER.json, mpi, ray or ray:ADDRESS"
AT_ONCE = 8  # calls at a time, of an executor that does not say how many it takes
CONNECT_S = 30.0  # a scheduler that has just been started may need some


@dataclass(frozen=True)
class Pool:
    """An executor, and what has to be known of it to keep it busy and to say how it failed."""

    executor: Executor
    num_workers: int  # calls that it works on at a time
    failures: type[Exception]  # what it raises where it fails; what a call raises is handed back as a value
    failed: Callable[[Exception], str]  # a message for one of these


def check_executor(executor: str | Executor) -> None:
    """UserError for a name that is none, lacks its address, or wants a package that is not installed."""
    if isinstance(executor, Executor) or executor == PROCESS:
        return
    kind, _, address = executor.partition(":")
    if kind not in _OPENERS:
        raise UserError(f"executor = {executor}: expected {FORMS}.")
    if kind == "dask" and not address:
        raise UserError("executor = dask: of which scheduler? Say dask:tcp://HOST:PORT.")
    if kind == "mpi" and address:
        raise UserError(f"executor = {executor}: mpi takes no address; mpiexec says where the workers are.")
    package, remedy = _PACKAGES[kind]
    if find_spec(package) is None:
        raise UserError(f"executor = {executor}: it needs the package {package}, as by `{remedy}`.")


@contextmanager
def opened(executor: str | Executor, num_workers: int | None) -> Iterator[Pool]:
    """A pool around an executor that is given, or that a name stands for and that ends with the context.

    `num_workers` says how many calls it gets at a time; None: as many as it has workers. Raises UserError
    where its package is not installed, or nothing answers.
    """
    if isinstance(executor, Executor):
        yield _pool(executor, num_workers or AT_ONCE, type(executor).__name__)
        return
    kind, _, address = executor.partition(":")
    with _OPENERS[kind](address) as (found, workers):
        yield _pool(found, num_workers or workers or AT_ONCE, f"executor={executor}")


def _pool(executor: Executor, num_workers: int, name: str) -> Pool:
    """A pool whose every failure is told in one sentence."""

    def failed(error: Exception) -> str:
        what = shortened(f"{type(error).__name__}: {error}".removesuffix(": "))
        return (
            f"{name} failed ({what}). What is done is kept: the same command goes on after it. Workers need "
            "the packages of this machine, in the same versions, and memory for several files at a time."
        )

    return Pool(executor, num_workers, Exception, failed)


@contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    """The workers of a dask scheduler, by its address or by the file that it wrote."""
    distributed: Any = import_module("distributed")
    where = {"scheduler_file": address} if Path(address).suffix == ".json" else {"address": address}
    if "scheduler_file" in where and not Path(address).is_file():
        raise UserError(f"executor = dask:{address}: there is no such file.")
    try:
        client = distributed.Client(**where, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:  # a timeout is an OSError, an unknown protocol a ValueError
        what = shortened(str(error))
        raise UserError(f"executor = dask:{address}: no scheduler answers there ({what}).") from error
    with client:
        # Not pure: else a file that was changed would have the result that the scheduler still holds of it.
        yield client.get_executor(pure=False), sum(client.nthreads().values())


@contextmanager
def _mpi(address: str) -> Iterator[tuple[Executor, int]]:
    """The other ranks of `mpiexec -n N python -m mpi4py.futures -m seqssl ...`."""
    try:
        import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:  # the package is there, and loads the library only now
        raise UserError(f"executor = mpi: MPI itself is not found ({shortened(str(error))}).") from error
    futures: Any = import_module("mpi4py.futures")
    with futures.MPIPoolExecutor() as executor:
        yield executor, executor.num_workers


@contextmanager
def _ray(address: str) -> Iterator[tuple[Executor, int]]:
    """The workers of a ray cluster: of an address, else of $RAY_ADDRESS, else ones that are started here."""
    ray: Any = import_module("ray")
    is_ours = not ray.is_initialized()
    if is_ours:
        try:
            ray.init(address=address or None, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            what = shortened(str(error))
            raise UserError(f"executor = ray:{address}: no cluster answers there ({what}).") from error
    try:
        yield _RayExecutor(ray), int(ray.cluster_resources().get("CPU", 0))
    finally:
        if is_ours:
            ray.shutdown()


class _RayExecutor(Executor):
    """Each call as a task of ray."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def submit(self, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Run a call on any worker."""
        future: Future[R] = self._ray.remote(call).remote(*args, **kwargs).future()
        return future


_OPENERS: dict[str, Callable[[str], AbstractContextManager[tuple[Executor, int]]]] = {
    "dask": _dask,
    "mpi": _mpi,
    "ray": _ray,
}

_PACKAGES = {  # and how they are installed
    "dask": ("distributed", "pip install 'seqssl[cluster]'"),
    "mpi": ("mpi4py", "pip install mpi4py"),
    "ray": ("ray", "pip install ray"),
}
