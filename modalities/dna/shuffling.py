"""Shuffles that keep the counts of all dinucleotides (Altschul & Erickson 1985, Mol. Biol. Evol. 2, 526)."""

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from modalities.dna import alphabet

NUM_BASES = 4


def shuffled(letters: bytes, rng: np.random.Generator) -> bytes:
    """A uniform draw among all orders of the bases with the same dinucleotides.

    Every run between Ns is shuffled by itself: Ns stay where they are, and so do the first and last base of
    a run. Lower case stays at its positions.
    """
    upper = letters.upper()
    mixed = bytearray(upper)
    for start, stop in _runs(alphabet.ids(upper)):
        mixed[start:stop] = _shuffled_run(upper[start:stop], rng)
    lower = alphabet.codes(letters) & alphabet.LOWER_CASE
    return bytes(np.frombuffer(mixed, np.uint8) | lower)


def _runs(ids: Int[np.ndarray, "t"]) -> Iterator[tuple[int, int]]:
    """Start and stop of each stretch without N."""
    known = np.concatenate([[False], ids != alphabet.MISSING, [False]])
    edges = np.flatnonzero(known[1:] != known[:-1]).tolist()
    yield from zip(edges[::2], edges[1::2], strict=True)


def _shuffled_run(letters: bytes, rng: np.random.Generator) -> bytes:
    """A random Eulerian path over the graph whose edges are the run's dinucleotides.

    Last exits from each base form a tree towards the last base. With that tree drawn in proportion to the
    number of paths that end in it and all other exits in random order, every path is as likely.
    """
    if len(letters) < 4:  # the first and the last base are kept
        return letters
    ids = alphabet.ids(letters)
    last = int(ids[-1])
    tree = _random_tree(_counts(ids), last, rng)
    exits: list[Iterator[int]] = []
    for base in range(NUM_BASES):
        following = ids[1:][ids[:-1] == base].tolist()
        final = [tree[base]] if base != last and following else []
        for way in final:
            following.remove(way)  # before the draw: the first of its kind after it would not be a random one
        exits.append(iter([*rng.permutation(following).tolist(), *final]))
    path = [int(ids[0])]
    for _ in range(len(ids) - 1):
        path.append(next(exits[path[-1]]))
    return bytes(map(alphabet.SYMBOLS.encode().__getitem__, path))


def _counts(ids: Int[np.ndarray, "t"]) -> Int[np.ndarray, "4 4"]:
    """How often each base follows each."""
    pairs = np.bincount(NUM_BASES * ids[:-1] + ids[1:], minlength=NUM_BASES**2)
    return pairs.reshape(NUM_BASES, NUM_BASES)


def _random_tree(counts: Int[np.ndarray, "4 4"], last: int, rng: np.random.Generator) -> tuple[int, ...]:
    """The last exit of each base (that of `last` means nothing).

    With four bases there are 16 trees: each is drawn in proportion to the product of its edges' counts.
    """
    counts = counts.copy()
    absent = counts.sum(axis=1) == 0
    counts[absent, last] = 1  # a base that does not occur has one way, so that it changes nothing
    trees = TREES[last]
    weights = np.prod([counts[base, trees[:, base]] for base in range(NUM_BASES) if base != last], axis=0)
    cumulative = weights.cumsum()
    tree: list[int] = trees[np.searchsorted(cumulative, rng.integers(cumulative[-1]), side="right")].tolist()
    return tuple(tree)


def _trees(root: int) -> Int[np.ndarray, "trees 4"]:
    """All ways to give each base but `root` one exit such that exits lead from everywhere to `root`."""
    found = []
    for exits in itertools.product(range(NUM_BASES), repeat=NUM_BASES):
        reached = set(range(NUM_BASES))
        for _ in range(NUM_BASES):
            reached = {base if base == root else exits[base] for base in reached}
        if reached == {root} and exits[root] == root:
            found.append(exits)
    return np.array(found)


TREES = [_trees(root) for root in range(NUM_BASES)]
