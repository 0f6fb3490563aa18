"""Where a head starts: at a linear fit to what the encoder gives before the first update (LP-FT, 2202.10054).

A head of zeros sends gradients through an encoder before it knows what to ask for, and takes most of a short
run to find out. A fit takes seconds.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from seqssl.finetuning.scoring import Array

Estimator = Any  # of scikit-learn, which has no types
STRENGTHS = (0.001, 0.03, 1.0)  # of a logistic regression: the inverse of its penalty
ALPHAS = (1e5, 1e3, 30.0, 1.0)  # penalties of a ridge; the first one leaves next to nothing
# Steps of the solver: of thousands of classes each takes seconds, and a start need not have converged.
FEWEST_STEPS, MOST_STEPS, MOST_PRODUCTS = 10, 300, 5e9
DEV_SHARE = 1 / 3  # of the groups, on which the penalty is chosen
MIN_STD = 1e-6
LEAST_SPREAD = 1e-3  # of a value, in root mean squares over all
MAX_ROWS = 4_000  # that a head is fitted to: more cost time, and it is only a start


@dataclass(frozen=True)
class Linear:
    """A linear map that was fitted: of vectors x, it gives weight ((x - mean) / std) + bias."""

    weight: Array  # (size, d)
    bias: Array  # (size,)
    mean: Array  # (d,)
    std: Array  # (d,)
    penalty: float = 0.0  # that it was fitted with


def classifier(x: Tensor, classes: Sequence[int], size: int, groups: Sequence[str]) -> Linear:
    """Logistic regression from vectors x (n, d) to classes; those that no row has get the lowest score.

    The penalty is the one with the lowest cross-entropy on a third of the groups.
    """
    from sklearn.linear_model import LogisticRegression

    def cost(model: Estimator, inside: Array, wanted: Array) -> float:
        place = {name: number for number, name in enumerate(model.classes_)}
        known = np.array([name in place for name in wanted])
        if not known.any():
            return 0.0
        said = model.predict_log_proba(inside[known])
        return -float(np.mean([line[place[name]] for line, name in zip(said, wanted[known], strict=True)]))

    y = np.asarray(classes)
    if len(set(classes)) < 2:
        return Linear(np.zeros((size, x.shape[1])), np.zeros(size), *spread(x))
    steps = min(max(int(MOST_PRODUCTS / (x.numel() * size)), FEWEST_STEPS), MOST_STEPS)
    model, mean, std, penalty = _chosen(
        lambda strength: LogisticRegression(C=strength, max_iter=steps), STRENGTHS, cost, x, y, groups
    )
    coef, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # it holds the second class alone, as the difference to the first
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    weight, bias = np.zeros((size, x.shape[1])), np.full(size, intercept.min())
    weight[model.classes_], bias[model.classes_] = coef, intercept
    return Linear(weight, bias, mean, std, penalty)


def regressor(x: Tensor, values: Array, groups: Sequence[str], *, bias: bool = True) -> Linear:
    """Ridge from vectors x (n, d) to values (n, k), with a `bias` or through zero.

    The penalty is the one with the least squared error on a third of the groups.
    """
    from sklearn.linear_model import Ridge

    def cost(model: Estimator, inside: Array, wanted: Array) -> float:
        said = model.predict(inside).reshape(wanted.shape)  # it drops the axis of a single value
        return float(np.square(said - wanted).mean())

    make = partial(Ridge, fit_intercept=bias)
    model, mean, std, penalty = _chosen(make, ALPHAS, cost, x, values, groups, centered=bias)
    return Linear(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_), mean, std, penalty)


def spread(x: Tensor) -> tuple[Array, Array]:
    """Mean and deviation of each value over vectors (n, d), 1 where it does not change.

    A deviation far below those of other values is raised: of few rows it may be so by chance.
    """
    rows = x.double().cpu().numpy()
    std = rows.std(0)
    raised = np.maximum(std, LEAST_SPREAD * np.sqrt(np.square(std).mean()))
    return rows.mean(0), np.where(std > MIN_STD, raised, 1.0)


def _chosen(
    make: Callable[[float], Estimator],
    penalties: Sequence[float],
    cost: Callable[[Estimator, Array, Array], float],
    x: Tensor,
    y: Array,
    groups: Sequence[str],
    *,
    centered: bool = True,
) -> tuple[Estimator, Array, Array, float]:
    """The estimator fitted to all rows with the best penalty, the scale of its inputs, and the penalty."""
    from sklearn.model_selection import GroupShuffleSplit
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

    rows, (mean, std) = x.double().cpu().numpy(), spread(x)
    mean = mean * centered
    inside = ((rows - mean) / std).astype(np.float32)  # twice as fast
    units = np.arange(len(rows)) if len(set(groups)) < 2 else np.unique(groups, return_inverse=True)[1]
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about convergence
        best = penalties[len(penalties) // 2]
        if len(np.unique(units)) >= round(1 / DEV_SHARE):
            ((part, rest),) = GroupShuffleSplit(1, test_size=DEV_SHARE, random_state=0).split(rows, y, units)
            if len(np.unique(y[part], axis=0)) > 1:
                costs = [cost(make(p).fit(inside[part], y[part]), inside[rest], y[rest]) for p in penalties]
                best = penalties[int(np.argmin(costs))]
        return make(best).fit(inside, y), mean, std, best
