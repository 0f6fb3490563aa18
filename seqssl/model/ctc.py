"""Connectionist temporal classification: from scores of frames to symbols (Graves et al. 2006)."""

import math
from collections import defaultdict
from itertools import groupby, pairwise

import numpy as np
from jaxtyping import Float


def fewest_frames(symbols: list[int]) -> int:
    """The frames that a text needs: one for each symbol, and a blank between two that are equal."""
    return len(symbols) + sum(a == b for a, b in pairwise(symbols))


def greedy(log_probs: Float[np.ndarray, "s v"], blank: int = 0) -> list[int]:
    """The most probable symbol of each frame, repetitions as one, without blanks."""
    return [symbol for symbol, _ in groupby(log_probs.argmax(-1).tolist()) if symbol != blank]


def beam_search(log_probs: Float[np.ndarray, "s v"], beam: int, blank: int = 0) -> list[int]:
    """The most probable text, all alignments of it together (prefix search; Hannun et al. 2014, 1408.2873).

    Only the `beam` best texts are kept at each frame.
    """
    # Of each text: the log-probability that its last frame was a blank, and that it was its last symbol.
    kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for line in log_probs:
        likely = np.argsort(-line)[: max(2 * beam, 8)].tolist()
        found: dict[tuple[int, ...], tuple[float, float]] = defaultdict(lambda: (-math.inf, -math.inf))
        for text, (rested, said) in kept.items():
            both = np.logaddexp(rested, said)
            old = found[text]
            again = said + line[text[-1]] if text else -math.inf
            found[text] = (np.logaddexp(old[0], both + line[blank]), np.logaddexp(old[1], again))
            for symbol in likely:
                if symbol == blank:
                    continue
                # A symbol that is said twice needs a blank between.
                before = rested if text and symbol == text[-1] else both
                longer = (*text, symbol)
                old = found[longer]
                found[longer] = (old[0], np.logaddexp(old[1], before + line[symbol]))
        best = sorted(found.items(), key=lambda entry: -np.logaddexp(*entry[1]))[:beam]
        kept = dict(best)
    return list(max(kept.items(), key=lambda entry: np.logaddexp(*entry[1]))[0])
