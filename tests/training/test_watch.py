"""Ranks find one another whatever earlier ones left behind, and say for whom they wait."""

import threading
import time
from collections.abc import Callable

import pytest

from seqssl.errors import RankLost
from seqssl.training.watch import TRIES, Watch, meet


class Shelf:
    """A store in this process."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.held[key] = value

    def get(self, key: str) -> bytes:
        return self.held[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.held for key in keys)

    def add(self, key: str, amount: int) -> int:
        self.held[key] = str(int(self.held.get(key, "0")) + amount)
        return int(self.held[key])


def names(store: Shelf, size: int, number: int = 0) -> list[str]:
    """The names of a group that so many ranks agree on, each in a thread."""
    found: dict[int, str] = {}

    def join(rank: int) -> None:
        found[rank] = meet(store, rank, size, number, patience_s=10)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(size)]


def test_ranks_agree_on_a_name_that_none_before_had() -> None:
    """The launcher's store keeps what ranks wrote that are no more; machines count restarts differently."""
    store, seen = Shelf(), set[str]()
    for number in (0, 0, 1, 0):  # a number comes again where all processes were started again
        found = names(store, 4, number)
        assert len(set(found)) == 1
        assert found[0] not in seen
        seen.add(found[0])


def test_the_first_rank_is_not_believed_where_it_answers_an_earlier_process() -> None:
    store, said = Shelf(), list[str]()
    names(store, 2)
    with pytest.raises(RankLost, match=r"rank 0 of 2 has not joined for"):
        meet(store, 1, 2, 0, patience_s=0.05, late_s=0.01, say=said.append)
    assert said and "rank 0 of 2 has not joined for 0 s: still waiting." in said[0]


def test_ranks_that_do_not_join_are_named() -> None:
    said = list[str]()
    with pytest.raises(RankLost, match=r"ranks 1, 2 of 3 have not joined"):
        meet(Shelf(), 0, 3, 0, patience_s=0.1, late_s=0.02, say=said.append)
    assert 1 <= len(said) <= 4, "ever more seldom"


class Group:
    """Ranks on one clock; each looks at the store once a second, while its process lives."""

    def __init__(self, size: int) -> None:
        self.now, self.dead, self.said = 0.0, set[int](), list[tuple[int, str]]()
        store = Shelf()
        self.ranks = [
            Watch(store, rank, size, late_s=12.0, say=self.saying(rank), clock=lambda: self.now)
            for rank in range(size)
        ]

    def saying(self, rank: int) -> Callable[[str], None]:
        return lambda text: self.said.append((rank, text))

    def reach(self, words: str, *, without: tuple[int, ...] = ()) -> None:
        for rank, watch in enumerate(self.ranks):
            if rank not in without:
                watch.reach(words)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            for rank, watch in enumerate(self.ranks):
                if rank not in self.dead:
                    watch.look()


@pytest.mark.parametrize("late", [0, 2])
def test_a_rank_that_does_not_come_is_named_by_one_other(late: int) -> None:
    group = Group(4)
    group.reach("update 7")
    group.wait(3)
    group.reach("update 8", without=(late,))
    group.wait(11)
    assert not group.said
    group.wait(60)
    assert len(group.said) == 3, "after 16, 28 and 52 seconds"
    assert len({rank for rank, _ in group.said}) == 1 and group.said[0][0] != late
    text = group.said[0][1]
    assert text.startswith(
        f"rank {late} of 4 has not come to update 8 for 16 s: still waiting. Rank {late} is p"
    )
    assert ", last at update 7. If one hangs" in text and "sign of life" not in text
    assert "If one hangs" not in group.said[1][1]
    group.reach("update 8", without=tuple({0, 1, 2, 3} - {late}))
    group.reach("update 9")
    group.wait(1)
    assert group.said[3:] == [(group.said[0][0], "all ranks have come to update 8, after some 72 s.")]
    group.wait(11)
    assert len(group.said) == 4


def test_within_an_update_too() -> None:
    group = Group(2)
    group.reach("update 8")
    group.reach("", without=(1,))
    group.wait(20)
    assert "rank 1 of 2 has not come through update 8 for" in group.said[0][1]


def test_a_process_that_is_gone_is_told_from_one_that_is_late() -> None:
    """Its host may hang when all have come to an exchange, which then hangs too."""
    group = Group(3)
    group.reach("update 8")
    group.wait(3)
    group.dead = {1}
    group.wait(20)
    ((_, text),) = group.said
    assert (
        "rank 1 of 3 has not come through update 8" in text and "last at update 8, and gives no sign" in text
    )
    assert "end its process" not in text, "its watch alone may have ended"


@pytest.mark.parametrize(("told", "advised"), [(False, False), (True, True)])
def test_only_of_a_rank_that_is_known_to_be_behind_the_process_is_to_be_ended(
    told: bool, advised: bool
) -> None:
    """One that has told nothing, or that is as far as the others, may have lost its watch alone."""
    group = Group(2)
    if told:
        group.wait(1)
    group.dead = {1}
    group.reach("update 8", without=(1,))
    group.wait(20)
    ((_, text),) = group.said
    assert text.startswith("rank 1 of 2 has not come to update 8 for")
    assert ("If one hangs, end its process" in text) == advised


def test_who_works_for_all_is_not_late_while_it_lives() -> None:
    group = Group(2)
    with group.ranks[0].busy():
        group.reach("the evaluation", without=(0,))
        group.wait(100)
        assert not group.said
        group.dead = {0}
        group.wait(200)
    assert "rank 0 of 2 has not come to the evaluation" in group.said[0][1]


def test_an_exchange_that_hangs_is_told_when_nobody_is_behind() -> None:
    group = Group(2)
    group.reach("update 8")
    group.wait(100)
    assert not group.said, "a step may take so long"
    group.wait(100)
    assert len(group.said) == 1
    assert group.said[0][1].startswith("update 8 has taken 196 s so far, and no rank is behind the others.")


class Broken(Shelf):
    """A store that fails so many times, and then no more."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def set(self, key: str, value: str) -> None:
        self.times -= 1
        if self.times >= 0:
            raise RuntimeError("Connection reset by peer\nException raised from recvBytes")
        super().set(key, value)


def test_a_watch_ends_with_its_store_and_says_so() -> None:
    said = list[str]()
    watch = Watch(Broken(10**9), 0, 2, late_s=0.12, say=said.append)
    watch.start()
    watch._thread.join(timeout=5)
    assert not watch._thread.is_alive()
    watch.stop()
    (text,) = said
    assert text.startswith("the watch of rank 0 of 2 has ended, ") and "(Connection reset by peer)" in text


def test_a_watch_outlives_a_store_that_fails_for_a_moment() -> None:
    said, store = list[str](), Broken(TRIES - 1)
    watch = Watch(store, 0, 2, late_s=0.12, say=said.append)
    watch.start()
    end = time.monotonic() + 5
    while "rank/0" not in store.held and time.monotonic() < end:
        time.sleep(0.01)
    assert "rank/0" in store.held and watch._thread.is_alive()
    watch.stop()
    assert not said


def test_a_watch_that_is_stopped_says_nothing_about_its_store() -> None:
    """The first rank, which serves it, may have left before."""
    said = list[str]()
    watch = Watch(Broken(10**9), 0, 2, late_s=0.12, say=said.append)
    watch._ended.set()
    watch.start()
    watch._thread.join(timeout=5)
    assert not watch._thread.is_alive() and not said
