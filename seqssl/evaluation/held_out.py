"""Which rows the training of an encoder did without."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqssl.data.shards import Corpus


@dataclass(frozen=True)
class Seen:
    """The training rows of an encoder's run and of the runs that this began from, by their keys."""

    keys: frozenset[str] = frozenset()  # learned from without labels
    groups: frozenset[str] = frozenset()  # those of these rows
    labelled: frozenset[str] = frozenset()  # learned from with labels, by a run that was tuned
    is_known: bool = False  # whether the data of all these runs could be opened


def held_out_rows(corpus: Corpus, seen: Seen) -> tuple[npt.NDArray[np.bool_], bool]:
    """The rows to test on, and whether the encoder's training is known to have done without them.

    Of data that holds rows of the training, these are all the others; or those that its own split holds out,
    where it holds out no row of the training (as that of the run does), so that groups stay whole. Of data
    that holds none, the own split is taken, which says nothing of the encoder.
    """
    outside = corpus.splits != "train"
    learned = np.array([key in seen.keys or key in seen.labelled for key in corpus.keys.tolist()], dtype=bool)
    if (outside & learned).any():
        return ~learned, seen.is_known
    return outside, seen.is_known and bool(learned.any())


UNKNOWN = Seen()
