"""How the processes of a run find one another, and part."""

import atexit
import gc
import os
import socket
import sys
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

import torch
import torch.distributed as dist

from seqssl.errors import UserError
from seqssl.training.parallel import Alone, Parallel, Replicated, SideBySide
from seqssl.training.watch import LATE_S, Watch, meet

PATIENCE = timedelta(hours=12)  # of ranks that wait for one another: the first prepares the data
_GROUPS = count()  # numbers of the groups that this process joins, one for each run; all ranks count alike


def is_launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def can_meet() -> bool:
    """Whether this torch can connect processes at all."""
    return dist.is_available()


def start(device: torch.device, *, shards: int = 1) -> Parallel:
    """Join the process group if torchrun started several processes; again for each run that they make.

    `shards`: among how many of them each weight is divided. UserError where that does not divide them evenly.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size % shards:
        raise UserError(
            f"train.shards = {shards}: the number of processes, {size}, must be a multiple of it; torchrun "
            "starts them."
        )
    if size == 1:
        return Alone()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    watch = None
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(local_rank)
        watch = _join("nccl" if device.type == "cuda" else "gloo")
    if shards > 1:
        from seqssl.training.sharded import Sharded  # here, because it takes a second to import

        return Sharded(dist.get_rank(), size, local_rank, watch, shards=shards, device=device.type)
    return Replicated(dist.get_rank(), size, local_rank, watch)


def _join(backend: str) -> Watch:
    """Form the group of all ranks, under a name that no group before had; what watches over it."""
    store, beside, rank, size = _meeting_place()
    name = meet(store, rank, size, next(_GROUPS), patience_s=PATIENCE.total_seconds())
    watch = Watch(dist.PrefixStore(f"{name}/watch", beside), rank, size)  # type: ignore[attr-defined]
    watch.start()
    own = dist.PrefixStore(name, store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
    return watch


@cache
def _meeting_place() -> tuple[Any, Any, int, int]:
    """The store that torchrun's variables lead to, a second way to it, this rank, and how many there are.

    Opened once: where the first rank serves it, the others may still ask while that is between two runs. Who
    waits for a key keeps a connection busy, so the thread that watches needs one of its own.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    patience = timedelta(seconds=LATE_S)
    beside = dist.TCPStore(host, port, None, False, patience, False)  # type: ignore[attr-defined]
    return store, beside, rank, size


def stop(parallel: Parallel, *, failed: bool = False) -> None:
    """Leave the process group; its threads end with the last reference to it, at exit at the latest.

    `failed`: this rank leaves alone, and NCCL would wait for what the others still have to send, as long as
    `PATIENCE`. So it stays a member, and is to end by `end_with_group`; the launcher ends the others.
    """
    if parallel.watch is not None:
        parallel.watch.stop()
    is_member = parallel.size > 1 and dist.is_initialized()
    if is_member and not (failed and dist.get_backend() == "nccl"):
        groups = [dist.group.WORLD]
        dist.destroy_process_group()
        atexit.register(_end_threads, groups)


def end_with_group(code: int) -> None:
    """End this process now where it has failed and is still in a group, for which Python's end would wait."""
    if code and dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_threads(groups: list[dist.ProcessGroup | None]) -> None:
    """Join the threads of left groups while Python still runs.

    A thread that drops a tensor later aborts the process (github.com/pytorch/pytorch/issues/190489). The
    parallel model is in reference cycles and refers to its group, hence the collection. The last reference is
    the one in Python's own hands: it gives up the interpreter lock while it waits for the threads.
    """
    gc.collect()
    groups.clear()


class Meeting:
    """Where processes of one machine find one another: the first opens it, the others are told its port."""

    def __init__(self, rank: int, size: int, port: int = 0) -> None:
        self.rank, self.size = rank, size
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1", port, size, rank == 0, wait_for_workers=False
        )
        self.port = self._store.port

    def arrive(self) -> None:
        """Say that this process has come as far."""
        self._store.set(f"arrived/{self.rank}", "")

    def is_complete(self) -> bool:
        """Whether all but the first have arrived."""
        return bool(self._store.check([f"arrived/{rank}" for rank in range(1, self.size)]))

    def join(self, threads: int = 1) -> SideBySide:
        """Form the group; every process must call it, once all have arrived. `threads`: of all together."""
        before, hook = dict(os.environ), sys.excepthook
        loopback = {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}
        if loopback:  # the name of the machine may lead nowhere, or outside
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback.pop())
        try:
            dist.init_process_group(
                "gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=PATIENCE
            )
        finally:
            sys.excepthook = hook  # torch's would name a rank in every error of the program from now on
            if "GLOO_SOCKET_IFNAME" not in before:
                os.environ.pop("GLOO_SOCKET_IFNAME", None)
        return SideBySide(self.rank, self.size, threads)
