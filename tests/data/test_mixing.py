"""Batches of several kinds in one sequence."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssl import Batch
from seqssl.data import mixing
from seqssl.data.mixing import MixedLoader


class Numbered:
    """A loader whose batch number n holds n; an epoch has `size` batches."""

    def __init__(self, size: int) -> None:
        self.size, self.share = size, 1

    def at(self, numbers: Iterable[int], part: int) -> Iterator[Batch]:
        for number in numbers:
            yield Batch(torch.full((1, 1), float(number)), torch.tensor([1]))

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        return divmod(cursor, self.size)


def mixed(weights: dict[str, float], seed: int = 0, group: int = 1) -> MixedLoader:
    loaders: Any = {name: Numbered(3 + place) for place, name in enumerate(weights)}
    return MixedLoader(loaders, list(weights.values()), seed=seed, group=group)


def names_and_numbers(batches: Iterable[Batch], number: int) -> list[tuple[str, int]]:
    return [(batch.stream, int(batch.inputs)) for batch in islice(batches, number)]


weights = st.lists(st.floats(0.05, 10), min_size=1, max_size=5).map(
    lambda values: {"abcde"[i]: value for i, value in enumerate(values)}
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "BLOCK", 7)


@given(weights, st.integers(0, 5), st.integers(0, 40), st.integers(1, 4))
def test_any_cursor_goes_on_where_the_sequence_is(
    given_weights: Any, seed: int, cursor: int, group: int
) -> None:
    whole = names_and_numbers(mixed(given_weights, seed, group).endless(), cursor + 20)
    assert names_and_numbers(mixed(given_weights, seed, group).endless(cursor), 20) == whole[cursor:]
    for start in range(0, len(whole), group):  # an update's batches are of one kind
        assert len({name for name, _ in whole[start : start + group]}) == 1
    for name in given_weights:
        own = [number for stream, number in whole if stream == name]
        assert own == list(range(len(own)))


@given(weights, st.integers(1, 4), st.integers(0, 10))
def test_ranks_share_the_sequence(given_weights: Any, world_size: int, cursor: int) -> None:
    whole = names_and_numbers(mixed(given_weights).endless(), cursor + 24)
    for rank in range(world_size):
        own = names_and_numbers(mixed(given_weights).endless(cursor, rank, world_size), 5)
        places = islice((m for m in count(cursor) if m % world_size == rank), 5)
        assert own == [whole[m] for m in places if m < len(whole)][: len(own)]


@given(weights, st.integers(0, 100), st.integers(0, 5))
def test_every_stretch_is_mixed_by_weight(given_weights: Any, cursor: int, seed: int) -> None:
    stretch = names_and_numbers(mixed(given_weights, seed).endless(cursor), 60)
    counts = Counter(name for name, _ in stretch)
    for name, weight in given_weights.items():
        assert abs(counts[name] - 60 * weight / sum(given_weights.values())) <= 5


@pytest.mark.parametrize("group", [1, 3])
def test_epochs_are_those_of_the_slowest_stream(group: int) -> None:
    loader = mixed({"a": 1.0, "b": 1.0}, group=group)
    seen = names_and_numbers(loader.endless(), 40)
    for cursor in range(40):
        done = Counter(name for name, _ in seen[:cursor])
        assert loader.epoch_of(cursor)[0] == min(done["a"] // 3, done["b"] // 4)
