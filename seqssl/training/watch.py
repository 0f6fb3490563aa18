"""Ranks that wait say for whom: a thread beside the training tells a common store how far each is."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

from seqssl.errors import RankLost

LATE_S = 60.0  # that a rank is waited for before it is named; named again whenever that has doubled
LONGEST_PAUSE_S = 0.25  # between two looks into the store while ranks meet
NAMED = 4  # ranks that are named with their processes; of more, the numbers alone
TRIES = 4  # of one look into the store, before a rank's watch ends
NO_SIGN = ", and gives no sign of life"
ADVICE = "If one hangs, end its process: torchrun --max-restarts starts all anew, from the last checkpoint."
EVEN = (
    "{} has taken {:.0f} s so far, and no rank is behind the others. If it is not the computation that takes "
    "so long, the exchange between ranks hangs (NCCL_DEBUG=INFO tells more)."
)
ENDED = (
    "the watch of rank {} of {} has ended, because the store that ranks share does not answer ({}). The run "
    "goes on, but this rank names no late ranks any more, and others may say that it gives no sign of life."
)


class Store(Protocol):
    """What is used of torch's stores: text by key, common to all ranks."""

    def set(self, key: str, value: str, /) -> object:
        """Keep a value, in the place of an earlier one."""
        ...

    def get(self, key: str, /) -> bytes:
        """The value of a key that is there."""
        ...

    def check(self, keys: list[str], /) -> bool:
        """Whether all the keys are there."""
        ...

    def add(self, key: str, amount: int, /) -> int:
        """Add to a number, 0 at first; the sum."""
        ...


def tell(text: str) -> None:
    """Say something beside the run's own lines."""
    print(f"seqssl: {text}", file=sys.stderr, flush=True)


def meet(
    store: Store,
    rank: int,
    size: int,
    number: int,
    *,
    patience_s: float,
    late_s: float | None = None,
    say: Callable[[str], None] = tell,
) -> str:
    """A name for the group of all ranks, which no group before had; every rank must call it.

    `number`: in how many groups this process was before. Ranks that are late are named; RankLost where some
    have not come after `patience_s` seconds.

    A launcher's store outlives its processes, so what is in it may be of one that is no more
    (github.com/pytorch/pytorch/issues/135712), and each machine counts restarts for itself (issues/108158).
    So each rank shows a mark of its own, and believes the first rank where that answers this very mark.
    """
    room, mark = f"seqssl-{number}", f"{own_name()}, {time.time_ns()}"
    patience = _Patience(rank, size, patience_s, LATE_S if late_s is None else late_s, say)
    if rank == 0:
        name, absent = f"{room} of {mark}", dict.fromkeys(range(1, size), "")
        while absent := _answer(store, room, name, absent):
            patience.wait(absent)
        return name
    store.set(f"{room}/{rank}/mark", mark)
    while not (answer := _read(store, f"{room}/{rank}/answer")).startswith(f"{mark} -> "):
        patience.wait({0: ""})
    store.set(f"{room}/{rank}/seen", answer)
    return answer.removeprefix(f"{mark} -> ")


def _answer(store: Store, room: str, name: str, absent: Mapping[int, str]) -> dict[int, str]:
    """Answer the marks of ranks; those that have not seen their answer yet, each with its mark."""
    left = {}
    for rank, known in absent.items():
        # An old mark may be answered first: the process that is there now shows another one soon.
        mark = _read(store, f"{room}/{rank}/mark")
        if mark and mark != known:
            store.set(f"{room}/{rank}/answer", f"{mark} -> {name}")
        if not mark or _read(store, f"{room}/{rank}/seen") != f"{mark} -> {name}":
            left[rank] = mark
    return left


class _Patience:
    """Of a rank that waits for others to join."""

    def __init__(
        self, rank: int, size: int, patience_s: float, late_s: float, say: Callable[[str], None]
    ) -> None:
        self._size, self._patience_s, self._due_s, self._say = size, patience_s, late_s, say
        self._speaks = rank <= 1  # that the first rank is late is not told by all others
        self._began, self._pause_s = time.monotonic(), 0.005

    def wait(self, absent: Mapping[int, str]) -> None:
        """Wait a moment for ranks, and say so now and then; RankLost where patience is at its end."""
        waited = time.monotonic() - self._began
        text = f"{_have(sorted(absent), self._size)} not joined for {waited:.0f} s"
        if waited > self._patience_s:
            raise RankLost(f"{text}.")
        if waited > self._due_s:
            self._due_s *= 2
            if self._speaks:
                self._say(f"{text}: still waiting.")
        time.sleep(self._pause_s)
        self._pause_s = min(LONGEST_PAUSE_S, 1.2 * self._pause_s)


@dataclass(frozen=True)
class At:
    """How far a rank is."""

    count: int  # of the places where ranks wait for one another; all of them come by the same ones
    words: str  # for people: the update
    since: float  # on this rank's clock


@dataclass(frozen=True)
class Word:
    """What a rank has told the others last."""

    count: int
    words: str
    busy: bool  # whether it does what the others wait for, however long it takes
    beat: int  # grows while its process lives
    process: str


@dataclass
class _Wait:
    """A wait that has become long."""

    at: At
    due_s: float  # when ranks are named next
    speaks: bool | None = None  # whether this rank does that; None: not asked yet
    told: bool = False
    before: dict[int, Word] | None = None  # what the others had told when this rank asked
    asked: float = 0.0


class Watch:
    """Names the ranks for which this one waits, while it waits.

    The training says where it is by `reach`, which costs nothing. A thread tells that to the store now and
    then, and looks there for others only where this rank has been at one place for `late_s` seconds; of all
    ranks that wait at the same place, the first to notice speaks. The run goes on as if nothing was said.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        *,
        late_s: float | None = None,
        say: Callable[[str], None] = tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self.rank, self.size, self._say, self._clock = store, rank, size, say, clock
        self.late_s = LATE_S if late_s is None else late_s
        self.pulse_s = self.late_s / 12
        self._at, self._busy, self._beat = At(0, "the start", clock()), 0, 0
        self._wait: _Wait | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="seqssl-watch", daemon=True)

    def reach(self, words: str = "") -> None:
        """This rank has come to where ranks wait for one another; `words`: what people are told of it."""
        self._at = At(self._at.count + 1, words or self._at.words, self._clock())

    @contextmanager
    def busy(self) -> Iterator[None]:
        """A context in which this rank works while the others wait: it is not late."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that waits for a store which is gone is left alone."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        failed = 0  # looks in a row
        while failed < TRIES:
            try:
                self.look()
                failed = 0
            except RuntimeError as error:  # the store is busy, or gone, as it is when the first rank is
                failed += 1
                if failed == TRIES and not self._ended.is_set():
                    reason = str(error).partition("\n")[0]  # torch adds where in its own code that was
                    self._say(ENDED.format(self.rank, self.size, reason))
            if self._ended.wait(self.pulse_s):
                return

    def look(self) -> None:
        """Tell how far this rank is; where it has waited for long, find out for whom, and say it."""
        at, now = self._at, self._clock()
        self._beat += 1
        word = Word(at.count, at.words, bool(self._busy), self._beat, own_name())
        self._store.set(f"rank/{self.rank}", json.dumps(asdict(word)))
        wait = self._wait
        if wait is None or wait.at.count != at.count:
            if wait is not None and wait.told:
                self._say(f"all ranks have come to {wait.at.words}, after some {now - wait.at.since:.0f} s.")
            wait = self._wait = _Wait(at, self.late_s)
        if now - at.since < wait.due_s or self._busy or wait.speaks is False:
            return
        if wait.speaks is None:
            wait.speaks = self._store.add(f"speaker/{at.count}", 1) == 1
        if not wait.speaks:
            return
        if wait.before is None:
            wait.before, wait.asked = self._words_of_others(), now
        elif now - wait.asked >= 4 * self.pulse_s:  # long enough for a living process to say something new
            text = self._found(at, now - at.since, wait.before, self._words_of_others(), first=not wait.told)
            if text:
                self._say(text)
                wait.told = True
            wait.before = None
            wait.due_s *= 2

    def _words_of_others(self) -> dict[int, Word]:
        found = {rank: _read(self._store, f"rank/{rank}") for rank in range(self.size) if rank != self.rank}
        return {rank: Word(**json.loads(text)) for rank, text in found.items() if text}

    def _found(
        self, at: At, waited: float, before: Mapping[int, Word], after: Mapping[int, Word], *, first: bool
    ) -> str:
        """Sentences about the ranks that are waited for; "" where nothing is amiss, or this one is late.

        `before` and `after`: what the others had told, and what they have told a little later.
        """
        others = [rank for rank in range(self.size) if rank != self.rank]
        dead = {r for r in others if r not in after or (r in before and after[r].beat == before[r].beat)}
        behind = {r for r in others if r in after and after[r].count < at.count and not after[r].busy}
        late = sorted(dead | behind)
        if late:
            inside = all(rank in after and after[rank].words == at.words for rank in late)
            text = f"{_have(late, self.size)} not come {'through' if inside else 'to'} {at.words} for"
            known = [rank for rank in late if rank in after][:NAMED]
            told = [
                f"Rank {r} is {after[r].process}, last at {after[r].words}{NO_SIGN * (r in dead)}."
                for r in known
            ]
            # A rank that gives no sign may only have lost its watch, unless it is known to be behind.
            advised = first and any(after[r].count < at.count for r in late if r in after)
            return " ".join([f"{text} {waited:.0f} s: still waiting.", *told, *([ADVICE] if advised else [])])
        even = all(word.count == at.count and not word.busy for word in after.values())
        return EVEN.format(at.words, waited) if even and waited >= 10 * self.late_s else ""


def own_name() -> str:
    """This process, to people on other machines."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _read(store: Store, key: str) -> str:
    """The value of a key; "" where there is none."""
    return store.get(key).decode() if store.check([key]) else ""


def _have(ranks: Sequence[int], size: int) -> str:
    """`rank 3 of 4 has`, or `ranks 1, 3 of 4 have`."""
    shown = ", ".join(map(str, ranks))
    return f"rank {shown} of {size} has" if len(ranks) == 1 else f"ranks {shown} of {size} have"
