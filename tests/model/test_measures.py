"""Measures of frames against other people's implementations and against their definitions."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

from seqssl.model import measures


def test_the_effective_rank_of_known_frames() -> None:
    frames = torch.eye(4).repeat(50, 1) - 0.25
    assert measures.effective_rank(frames) == pytest.approx(3, abs=1e-3)
    line = torch.randn(100, 1) @ torch.randn(1, 6)
    assert measures.effective_rank(line) == pytest.approx(1, abs=1e-3)
    torch.manual_seed(0)
    assert 5.9 < measures.effective_rank(torch.randn(4000, 6)) <= 6.001


@given(st.integers(0, 2**16))
def test_the_effective_rank_ignores_scale_and_shift(seed: int) -> None:
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed))
    rank = measures.effective_rank(x)
    assert 1 <= rank <= 5 + 1e-9
    assert measures.effective_rank(7 * x + 3) == pytest.approx(rank, rel=1e-3)


def clusters(seed: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (number,), generator=generator)
    return torch.randn(number, 5, generator=generator) + 1.5 * torch.eye(5)[y], y


def test_neighbors_are_those_of_scikit_learn() -> None:
    (x, y), (x_test, y_test) = clusters(0, 200), clusters(1, 100)
    found = measures.nearest_accuracy(x, y, x_test, y_test, k=9)
    center = x.mean(0)
    reference = KNeighborsClassifier(9, metric="cosine", algorithm="brute").fit(x - center, y)
    votes = reference.predict_proba(x_test - center)
    best = votes == votes.max(1, keepdims=True)
    wanted = best[np.arange(100), y_test] / best.sum(1)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_the_linear_probe_is_logistic_regression() -> None:
    (x, y), (x_test, y_test) = clusters(0, 300), clusters(1, 2000)
    said, mix = measures.linear_probe([x], y, [x_test], 3)
    assert mix.tolist() == [1.0]
    mean, std = x.mean(0), x.std(0)
    reference = LogisticRegression(C=1e4 / 300 / 2, max_iter=1000).fit((x - mean) / std, y)
    wanted = reference.predict((x_test - mean) / std)
    assert (said.numpy() == wanted).mean() > 0.99
    assert (said == y_test).float().mean() > 0.7


def test_the_mix_finds_the_layer_that_knows() -> None:
    (x, y), (x_test, y_test) = clusters(0, 300), clusters(1, 300)
    torch.manual_seed(0)
    noise, noise_test = torch.randn(300, 5), torch.randn(300, 5)
    said, mix = measures.linear_probe([noise, x], y, [noise_test, x_test], 3)
    assert mix[1] > 0.8
    assert (said == y_test).float().mean() > 0.7


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=60))
def test_information_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    table = np.zeros((4, 5))
    for label, code in pairs:
        table[label, code] += 1
    labels, codes = zip(*pairs, strict=True)
    assert measures.mutual_information(table) == pytest.approx(mutual_info_score(labels, codes), abs=1e-9)
    if len(set(labels)) > 1:
        assert 0 <= measures.pnmi(table) <= 1 + 1e-9
    best = sum(max(sum(1 for p in pairs if p == (label, code)) for label in range(4)) for code in range(5))
    assert measures.purity(table) == pytest.approx(best / len(pairs))


def test_codes_that_are_the_labels_say_everything() -> None:
    assert measures.pnmi(np.diag([3.0, 1.0, 5.0])) == pytest.approx(1)
    assert measures.pnmi(np.outer([3.0, 1.0], [2.0, 2.0])) == pytest.approx(0, abs=1e-12)


def slow_dtw(x: np.ndarray, y: np.ndarray) -> float:
    """All monotone paths, one after the other."""

    def cost(i: int, j: int) -> float:
        cosine = x[i] @ y[j] / (np.linalg.norm(x[i]) * np.linalg.norm(y[j]))
        return math.acos(float(np.clip(cosine, -1, 1))) / math.pi

    def paths(i: int, j: int) -> list[list[float]]:
        if i == j == 0:
            return [[cost(0, 0)]]
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        return [[*path, cost(i, j)] for a, b in before if a >= 0 and b >= 0 for path in paths(a, b)]

    best = min(paths(len(x) - 1, len(y) - 1), key=sum)
    return sum(best) / len(best)


@settings(max_examples=20)
@given(st.integers(0, 2**16), st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_distances_are_the_best_of_all_paths(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    items = [rng.normal(size=(size, 3)).astype(np.float32) for size in sizes]
    found = measures.distances(items)
    for one, two in itertools.combinations(range(len(items)), 2):
        assert found[one, two] == pytest.approx(slow_dtw(items[one], items[two]), abs=1e-4)
        assert found[one, two] == found[two, one]


def test_abx_by_hand() -> None:
    """One direction a label, but for one item that lies with the other label."""
    right, up = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    items, labels = [right, right, up, up], [0, 0, 1, 1]
    assert measures.abx(items, labels, ["g"] * 4, across=False) == 0.0
    assert measures.abx([*items[:2], right, right], labels, ["g"] * 4, across=False) == 0.5
    assert measures.abx([right, up, up, right], [0, 0, 1, 1], ["g"] * 4, across=False) == pytest.approx(0.75)
    assert math.isnan(measures.abx(items, labels, ["g"] * 4, across=True))
    groups = ["g", "h", "g", "h"]
    assert measures.abx(items, labels, groups, across=True) == 0.0
    assert math.isnan(measures.abx(items, labels, groups, across=False)), "no second item of a label"


def test_abx_of_noise_is_a_coin() -> None:
    rng = np.random.default_rng(0)
    items = [rng.normal(size=(2, 8)).astype(np.float32) for _ in range(160)]
    labels = [n % 4 for n in range(160)]
    groups = [f"g{n // 4 % 2}" for n in range(160)]
    for across in (False, True):
        assert measures.abx(items, labels, groups, across=across) == pytest.approx(0.5, abs=0.06)
