"""Baselines of ids: Markov chains and n-grams; views; what a code stands for."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import Letters

from seqssl import Batch, Sample
from seqssl.evaluation.embedding import ngrams
from seqssl.evaluation.markov import bits_of_order, markov_bits
from seqssl.report.illustration import logos

ids_lists = st.lists(st.integers(-1, 2), min_size=1, max_size=60)


def slow_bits(train: list[int], test: list[int], order: int, vocab: int) -> float:
    """By dictionaries, one symbol at a time."""

    def contexts(ids: list[int]) -> list[tuple[tuple[int, ...], int]]:
        found = [(tuple(ids[i - order : i]), ids[i]) for i in range(order, len(ids))]
        return [(before, after) for before, after in found if min([after, *before]) >= 0]

    counts: dict[tuple[int, ...], list[float]] = {}
    for before, after in contexts(train):
        counts.setdefault(before, [1 / vocab] * vocab)[after] += 1
    bits = []
    for before, after in contexts(test):
        row = counts.get(before, [1 / vocab] * vocab)
        bits.append(-math.log2(row[after] / sum(row)))
    return sum(bits) / len(bits) if bits else 0.0


@given(ids_lists, ids_lists, st.integers(0, 3))
def test_markov_bits_agree_with_a_slow_count(train: list[int], test: list[int], order: int) -> None:
    found = bits_of_order([np.array(train)], [np.array(test)], order, 3)
    assert found == pytest.approx(slow_bits(train, test, order, 3), rel=1e-9)


class Chain:
    """Rows of a Markov chain of order 2 with a known entropy, as corpus and adapter."""

    spec = Letters().spec

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        sizes = {"train": 30, "valid": 10}
        self.splits = np.array([split for split, size in sizes.items() for _ in range(size)])
        self.series = []
        for _ in self.splits:
            ids = [0, 1]
            for _ in range(2000):
                surest = (ids[-1] + 2 * ids[-2] + 1) % 4
                ids.append(surest if rng.random() < 0.7 else int(rng.integers(4)))
            self.series.append(np.array(ids))

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.splits == split)

    def row(self, number: int) -> int:
        return number

    def load(self, row: int, rng: object) -> Sample:
        return Sample(self.series[row], observed=np.ones(len(self.series[row]), bool))


def test_the_best_chain_is_the_one_that_made_the_data() -> None:
    chain: Any = Chain()
    found = markov_bits(chain, chain)
    p = 0.7 + 0.3 / 4
    entropy = -p * math.log2(p) - 3 * (0.3 / 4) * math.log2(0.3 / 4)
    assert found["symbols/markov_order"] == 2
    assert found["symbols/markov_bits"] == pytest.approx(entropy, rel=0.02)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50), st.data())
def test_ngrams_agree_with_a_slow_count(ids: list[int], data: st.DataObject) -> None:
    observed = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    sample = Sample(np.array(ids), observed=np.array(observed))
    found = ngrams([sample], 5)
    size = 4  # 5**4 <= 1024
    runs = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1) if all(observed[i : i + size])]
    expected = [runs.count(run) / max(1, len(runs)) for run in product(range(5), repeat=size)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_compound_ids_have_a_histogram_per_channel() -> None:
    sample = Sample(np.array([[1, 40], [1, 41], [3, 40], [1, 40]]))
    found = ngrams([sample], 64).reshape(2, 64)
    assert found[0, 1] == 0.75 and found[0, 3] == 0.25
    assert found[1, 40] == 0.75 and found[1, 41] == 0.25


def test_a_logo_counts_the_symbols_around_a_code() -> None:
    """Code 1 is always where 'c' is; the steps beyond the row count for nothing."""
    ids = torch.tensor([[0, 1, 2, 3, 0, 2, 1, 2, 0, 0]])
    batch = Batch(ids, torch.tensor([10]), observed=torch.ones(1, 10, dtype=torch.bool))
    codes = (ids == 2).long()[..., None]
    found = {logo.code: logo for logo in logos([batch], [codes], "abcd?", 1.0)}
    assert found[1].share == pytest.approx(0.3)
    middle = found[1].frequencies[:, found[1].frequencies.shape[1] // 2]
    assert middle.tolist() == [0, 0, 1, 0, 0]
    assert found[0].frequencies[:, 4].tolist() == pytest.approx([4 / 7, 2 / 7, 0, 1 / 7, 0])
    assert found[1].frequencies[:, 0].sum() == pytest.approx(2 / 3)  # one of the three is too near the start
