"""Several processes for one run on a CPU, each with a share of every batch.

Two threads of one process gain little: most tensors of a small model are too short to be worth dividing. Two
processes that halve the rows of a batch meet a few times an update.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import torch
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from seqssl.assembly import Model, Stream, assemble
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.data.lengths import lengths_of
from seqssl.errors import RankLost, UserError
from seqssl.planning import hardware
from seqssl.runs.folder import read_provenance
from seqssl.runs.streams import opened, workers_of
from seqssl.training.parallel import Alone, Parallel
from seqssl.training.ranks import Meeting, can_meet, is_launched

CPU = torch.device("cpu")
PATIENCE_S = 120.0  # for the others to have imported everything
ENDING_S = 10.0  # for a process that fails to end, where others have the cores
MODEL_BYTES = 28  # of a parameter: weight, gradient, two moments, and the gradient as it is exchanged
PROCESS_BYTES = 2**29  # of Python, torch and a batch
MEMORY_SHARE = 0.5  # of the machine, that may be taken
FOLLOWED, REFUSED = 2, 3  # exit codes of helpers: another said why; it printed why


@dataclass(frozen=True)
class Part:
    """What the process of a rank is told."""

    config: RunConfig
    rank: int
    size: int
    port: int
    threads: int
    parent: int
    path: list[str]  # where Python finds code


def number_of(
    config: RunConfig,
    streams: Sequence[Stream],
    out: Path,
    device: torch.device,
    progress: Progress = silent,
) -> int:
    """How many processes share the batches of a run. One that has begun keeps its number if it can.

    Where nothing else limits the length of rows, the data are opened, and prepared if need be.
    UserError for a number that cannot be had.
    """
    asked = config.train.processes
    wanted = hardware.num_cores() if asked == "auto" else asked
    if asked == "auto" and (out / "config.yaml").is_file():
        wanted = min(wanted, processes_of(out))
    elif asked == "auto":
        wanted = min(wanted, torch.get_num_threads())
    if wanted == 1:
        return 1
    obstacle, model = _obstacle(config, device), None
    if not obstacle:
        model = assemble(config, list(streams), "meta")
        obstacle = _whole_batches(model)
    if model is not None and not obstacle:
        rows = min(_rows_of(stream, device, progress) for stream in streams)
        if asked == "auto":
            return max(1, min(wanted, rows, _fitting(model, streams)))
        if wanted > rows:
            obstacle = (
                f"a batch holds no more than {rows} rows of full length: see data.batch_* and data.max_*"
            )
    if obstacle and asked != "auto":
        raise UserError(f"train.processes = {asked}: {obstacle}.")
    return 1 if obstacle else wanted


def _obstacle(config: RunConfig, device: torch.device) -> str:
    """Why this run cannot have several processes here; "" where it can."""
    if device.type != "cpu":
        return "processes share a CPU, and this run is on a GPU; several GPUs take torchrun"
    if is_launched() or config.train.shards > 1:
        return "torchrun divides this run, which takes one process for each of its ranks"
    if not can_meet():
        return "this torch was built without torch.distributed"
    if config.task["target"] != "pretrain":
        return "they are for pre-training"
    return ""


def _whole_batches(model: Model) -> str:
    """Why a part of a batch would not do for a model; "" where it does."""
    for part in model.modules():
        compares = getattr(part, "compares_rows", False) or getattr(part, "compares_views", False)
        if compares or isinstance(part, BatchNorm):
            return f"{type(part).__name__} is a function of all rows of a batch together"
    return ""


def processes_of(run: Path) -> int:
    """How many processes shared the batches of a run."""
    kept = read_provenance(run).get("processes")
    return kept if isinstance(kept, int) and kept > 0 else 1


def _rows_of(stream: Stream, device: torch.device, progress: Progress) -> int:
    """The rows of full length that a batch holds: of more processes, some would often get none."""
    lengths = lengths_of(stream.config.data, stream.spec)
    longest, views = lengths["max_length"], stream.config.data.views
    if longest is None:
        corpus = opened(stream, Alone(), device, progress).corpus
        longest = int(corpus.lengths[corpus.rows("train")].max())
    return lengths["batch_length"] // views // max(1, longest)


def _fitting(model: Model, streams: Sequence[Stream]) -> int:
    """How many fit into memory, with the model and the workers of each."""
    parameters = sum(p.numel() for p in model.parameters())
    workers = max(workers_of(stream.config.data, CPU) for stream in streams)
    each = MODEL_BYTES * parameters + PROCESS_BYTES * (1 + workers)
    return int(MEMORY_SHARE * hardware.main_memory() / each)


@contextmanager
def side_by_side(config: RunConfig, number: int, say: Callable[[str], None]) -> Iterator[Parallel]:
    """This process as the first of `number`, which end with the context; alone where they cannot meet.

    UserError where one of them dies, or refuses its part, while the context lasts.
    """
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        others = list[_Other]()
        try:
            parallel = _start(config, number, threads, stack, others)
        except (OSError, RuntimeError, ValueError) as error:
            problem = (_last_words(others) or str(error)).splitlines()[-1]
            if config.train.processes != "auto":
                raise UserError(f"train.processes = {number}: they cannot meet: {problem}.") from error
            say(f"one process does all the work: {number} could not meet ({problem})")
            for other in others:
                other.end()
            torch.set_num_threads(threads)
            yield Alone()
            return
        try:
            yield parallel
        except RankLost as error:
            lost = [other for other in others if other.has_failed()]
            if not lost:
                raise
            refused = [other.said() for other in lost if other.has_refused()]
            if refused:
                raise UserError(refused[0]) from error
            who, words = f"process {lost[0].rank + 1} of {number} of this run", _last_words(lost)
            if not lost[0].was_killed():
                raise RuntimeError(f"{who} failed:\n{words}") from error
            raise UserError(
                f"{who} died: {words}. The same command goes on from the last checkpoint; with "
                "train.processes=1 it takes less memory."
            ) from error
        for other in others:
            other.wait()


def _start(
    config: RunConfig, number: int, threads: int, stack: ExitStack, others: list["_Other"]
) -> Parallel:
    """Start all but the first process, and join them; they are added to `others` one by one.

    Raises OSError, RuntimeError or ValueError where that fails.
    """
    torch.set_num_threads(max(1, threads // number))
    meeting = Meeting(0, number)
    for rank in range(1, number):
        others.append(stack.enter_context(_Other(config, meeting, rank)))
    end = time.monotonic() + PATIENCE_S
    while not meeting.is_complete():
        if time.monotonic() > end or any(other.has_ended() for other in others):
            raise TimeoutError(f"they did not all come within {PATIENCE_S:.0f} s")
        time.sleep(0.02)
    return meeting.join(threads)


def _last_words(others: Sequence["_Other"]) -> str:
    """How those that have ended did, in words; "" for none."""
    return "; ".join(dict.fromkeys(other.last_words() for other in others if other.has_ended()))


class _Other:
    """Another process of the run; it ends with the context."""

    def __init__(self, config: RunConfig, meeting: Meeting, rank: int) -> None:
        self.rank = rank
        self._said, self._noise = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        threads = torch.get_num_threads()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "seqssl.runs.helper"],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._noise,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        part = Part(config, rank, meeting.size, meeting.port, threads, os.getpid(), sys.path)
        assert self._process.stdin is not None
        with self._process.stdin as stream:
            stream.write(pickle.dumps(part))

    def __enter__(self) -> "_Other":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._said.close()
        self._noise.close()

    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def has_failed(self) -> bool:
        """Whether it ended by itself, and not because another did; it is given a moment to."""
        end = time.monotonic() + ENDING_S
        while not self.has_ended() and time.monotonic() < end:
            time.sleep(0.05)
        return self.has_ended() and self._process.returncode not in (0, FOLLOWED)

    def has_refused(self) -> bool:
        """Whether it found something wrong with the user's input, and said what."""
        return bool(self._process.poll() == REFUSED)

    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return (self._process.poll() or 0) < 0

    def said(self) -> str:
        """What it printed."""
        return _text_of(self._said)

    def wait(self) -> None:
        """Let it end by itself, after its last update."""
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            pass  # the end of the context ends it

    def end(self) -> None:
        """End it now."""
        if not self.has_ended():
            self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """How it ended: what it wrote, or the signal that ended it."""
        code = self._process.wait()
        if code < 0:
            return f"signal {-code}" + (", often for want of memory" if code == -9 else "")
        return _text_of(self._noise) or self.said() or f"exit code {code}"


def _text_of(file: IO[bytes]) -> str:
    """What was written to a file."""
    file.seek(0)
    return file.read().decode(errors="replace").strip()
