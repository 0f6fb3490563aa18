"""Linear probes of frozen embeddings, under a fixed protocol."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqssl.errors import UserError

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies, one per held-out part."""

    protocol: str
    accuracies: dict[str, float]
    num_rows: int
    num_classes: int

    @property
    def accuracy(self) -> float:
        """Mean over the held-out parts."""
        return float(np.mean(list(self.accuracies.values())))


def leave_one_group_out(x: Array, labels: Sequence[str], groups: Sequence[str]) -> ProbeResult:
    """Train on all groups but one, test on that one; labels that only one group has are left out.

    x: (n, d). Embeddings are standardized per group first (it needs no label), which removes what is
    constant in a voice, a subject or a station.
    """
    y, who = np.asarray(labels), np.asarray(groups)
    known = {label for label in y if len(set(who[y == label])) > 1}
    keep = np.isin(y, sorted(known))
    x, y, who = x[keep], y[keep], who[keep]
    if len(set(who)) < 2 or len(set(y)) < 2:
        raise UserError("the probe needs at least two groups that share at least two labels")
    centered = np.concatenate([x[who == group] for group in sorted(set(who))])
    order = np.concatenate([np.flatnonzero(who == group) for group in sorted(set(who))])
    standardized = np.empty_like(centered)
    standardized[order] = np.concatenate([standardize(x[who == group]) for group in sorted(set(who))])
    accuracies = {}
    for group in sorted(set(who)):
        test = who == group
        accuracies[str(group)] = fit_and_score(standardized[~test], y[~test], standardized[test], y[test])
    return ProbeResult("leave one group out", accuracies, len(y), len(set(y)))


def standardize(x: Array) -> Array:
    """Zero mean and unit variance per dimension."""
    return np.asarray((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6))


def fit_and_score(
    train_x: Array, train_y: npt.NDArray[np.str_], test_x: Array, test_y: npt.NDArray[np.str_]
) -> float:
    """Accuracy of a multinomial logistic regression, its penalty chosen on the training part alone."""
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(C=1.0, max_iter=2000)
    probe.fit(train_x, train_y)
    return float(probe.score(test_x, test_y))
