"""A Markov chain of the ids: the baseline for models of symbols."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from seqssl.data.adapters import ModalityAdapter
from seqssl.data.shards import Corpus

MAX_CONTEXTS = 2**18  # of the longest order tried
MAX_STEPS = 10_000_000  # of the training rows that are counted
Ids = npt.NDArray[np.int64]


def markov_bits(corpus: Corpus, adapter: ModalityAdapter) -> dict[str, float]:
    """Bits per id on held-out rows of the best Markov chain fitted to the training rows, and its order.

    A chain of order k gives an id after k others the probability (count + p) / (total + V p) with p = 1 / V.
    The order is the best on the held-out rows, which flatters the chain a little. The chain sees all that
    comes before, and nothing else; a masked model sees both sides, and nothing within a span. Empty for
    inputs that are no ids, or have channels.
    """
    spec = adapter.spec
    if spec.vocab_size is None or spec.channels is not None:
        return {}
    vocab = spec.vocab_size
    train, test = (_runs(corpus, adapter, split) for split in ("train", "valid"))
    best: dict[str, float] = {}
    order = 0
    while vocab**order <= MAX_CONTEXTS:
        bits = bits_of_order(train, test, order, vocab)
        if not best or bits < best["symbols/markov_bits"]:
            best = {"symbols/markov_bits": bits, "symbols/markov_order": float(order)}
        order += 1
    return best


def bits_of_order(train: Iterable[Ids], test: Iterable[Ids], order: int, vocab: int) -> float:
    """Mean bits per id of `test` under the chain of one order fitted to `train`; -1 breaks a run of ids."""
    counts = np.zeros(vocab ** (order + 1), np.int64)
    for ids in train:
        counts += np.bincount(_grams(ids, order, vocab), minlength=len(counts))
    table = counts.reshape(-1, vocab) + 1 / vocab
    surprise = -np.log2(table / table.sum(axis=1, keepdims=True)).reshape(-1)
    total = number = 0.0
    for ids in test:
        grams = _grams(ids, order, vocab)
        total, number = total + surprise[grams].sum(), number + len(grams)
    return total / max(1.0, number)


def _grams(ids: Ids, order: int, vocab: int) -> Ids:
    """Every run of order + 1 known ids, as a number."""
    steps = max(0, len(ids) - order)
    grams, whole = np.zeros(steps, np.int64), np.ones(steps, bool)
    for i in range(order + 1):
        part = ids[i : i + steps]
        grams, whole = grams * vocab + part, whole & (part >= 0)
    return grams[whole]


def _runs(corpus: Corpus, adapter: ModalityAdapter, split: str) -> list[Ids]:
    """The ids of rows, -1 where they are not observed; joined, so that there are few and long runs."""
    parts: list[Ids] = []
    size = 0
    for number in corpus.rows(split):
        sample = adapter.load(corpus.row(int(number)), None)
        ids = sample.values if sample.observed is None else np.where(sample.observed, sample.values, -1)
        parts += [np.asarray(ids, np.int64), np.array([-1])]
        size += len(ids)
        if size > MAX_STEPS:
            break
    return [np.concatenate(parts)] if parts else []
