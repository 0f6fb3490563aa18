"""Pairs of bases, counted."""

import numpy as np
from jaxtyping import Float, Int

from modalities.dna import alphabet

MAX_DISTANCE = 12  # bases between the two of a pair that is counted: four codons


def gapped_pairs(values: Int[np.ndarray, "t"]) -> Float[np.ndarray, "k v"]:
    """Counts of the pairs of bases at each distance from 1 to `MAX_DISTANCE`; those with N are left out."""
    size = len(alphabet.SYMBOLS)
    there = [index for index, symbol in enumerate(alphabet.SYMBOLS) if symbol in "ACGT"]
    found = [
        np.bincount(values[:-distance] * size + values[distance:], minlength=size * size).reshape(size, size)
        if distance < len(values)
        else np.zeros((size, size))
        for distance in range(1, MAX_DISTANCE + 1)
    ]
    return np.stack([table[np.ix_(there, there)].ravel() for table in found]).astype(np.float64)
