"""How good frames are, without training an encoder: with labels of frames, and without any."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MAX_ITERATIONS = 60
MAX_ABX_ITEMS = 8  # of a label in a group
MAX_ABX_TOTAL = 800
MAX_ABX_FRAMES = 20  # of an item
PAIRS_AT_ONCE = 8_000
PENALTY = 1e-4  # on the weights of a linear probe, per row


def effective_rank(x: Float[Tensor, "n d"]) -> float:
    """The exponential of the entropy of the singular values (RankMe, 2210.02885): 1 to d.

    Frames that lie in few directions have a low one, whatever their scale.
    """
    centered = x.double() - x.double().mean(0)
    values = torch.linalg.svdvals(centered)
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * (shares + 1e-12).log()).sum()))


def nearest_accuracy(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, "n"],
    x_test: Float[Tensor, "m d"],
    y_test: Int[Tensor, "m"],
    k: int = 10,
) -> Float[Tensor, "m"]:
    """1 where most of the k nearest frames by cosine have the test frame's label, else 0; ties are shared."""
    near, found = F.normalize(x - x.mean(0), dim=-1), []
    size = int(max(y.max(), y_test.max())) + 1
    votes = F.one_hot(y, size).float()
    for part, wanted in zip((x_test - x.mean(0)).split(2048), y_test.split(2048), strict=True):
        scores = F.normalize(part, dim=-1) @ near.T
        counts = votes[scores.topk(min(k, len(x)), dim=-1).indices].sum(1)
        best = counts == counts.max(-1, keepdim=True).values
        found.append(best.float().gather(1, wanted[:, None])[:, 0] / best.sum(-1))
    return torch.cat(found)


def linear_probe(
    layers: Sequence[Float[Tensor, "n d"]],
    y: Int[Tensor, "n"],
    tests: Sequence[Float[Tensor, "m d"]],
    num_classes: int,
) -> tuple[Int[Tensor, "m"], Float[Tensor, "l"]]:
    """What softmax regression says of test frames, and the share of each layer.

    Layers are standardised by the training frames; of several, a mix is learnt with the regression. Fitted
    to the end by L-BFGS from zero: there is nothing to draw.
    """
    scaled, outside = [], []
    for x, test in zip(layers, tests, strict=True):
        mean, std = x.mean(0), x.std(0) + 1e-5
        scaled.append((x - mean) / std)
        outside.append((test - mean) / std)
    inside, size = torch.stack(scaled), scaled[0].shape[1]
    weight = torch.zeros(size, num_classes, requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    mix = torch.zeros(len(layers), requires_grad=len(layers) > 1)
    learned = [weight, bias, *([mix] if len(layers) > 1 else [])]
    optimizer = torch.optim.LBFGS(learned, max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def scores(x: Tensor) -> Tensor:
        return torch.einsum("l,lnd->nd", mix.softmax(0), x) @ weight + bias

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scores(inside), y) + PENALTY * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        return scores(torch.stack(outside)).argmax(-1), mix.softmax(0)


def mutual_information(table: Float[np.ndarray, "y z"]) -> float:
    """The mutual information of two labellings, in nats, from how often their labels meet."""
    joint = table / table.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / apart[there])).sum())


def entropy(counts: Float[np.ndarray, "y"]) -> float:
    """The entropy of a labelling, in nats, from how often each label occurs."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def pnmi(table: Float[np.ndarray, "y z"]) -> float:
    """How much of the uncertainty about labels (lines) the codes (columns) remove (HuBERT, 2106.07447)."""
    uncertainty = entropy(table.sum(1))
    return mutual_information(table) / uncertainty if uncertainty > 0 else math.nan


def purity(table: Float[np.ndarray, "y z"]) -> float:
    """The share of frames whose label is the most frequent one of their code."""
    return float(table.max(0).sum() / table.sum())


def dtw(
    x: Float[np.ndarray, "p s d"],
    y: Float[np.ndarray, "p t d"],
    x_sizes: Int[np.ndarray, "p"],
    y_sizes: Int[np.ndarray, "p"],
) -> Float[np.ndarray, "p"]:
    """The mean angle along the best monotone path between two stretches of frames, in units of pi.

    For p pairs at once: `x_sizes` and `y_sizes` say how many frames of each are real. The path minimises the
    sum of angles; the mean is over its steps.
    """
    cosine = np.einsum("psd,ptd->pst", _unit(x), _unit(y))
    costs = np.arccos(np.clip(cosine, -1, 1)) / np.pi
    pairs, rows, columns = costs.shape
    total = np.full((pairs, rows + 1, columns + 1), np.inf)
    steps = np.zeros((pairs, rows + 1, columns + 1))
    total[:, 0, 0] = 0.0
    every = np.arange(pairs)
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            before = np.stack(
                [total[:, row - 1, column - 1], total[:, row - 1, column], total[:, row, column - 1]]
            )
            counts = np.stack(
                [steps[:, row - 1, column - 1], steps[:, row - 1, column], steps[:, row, column - 1]]
            )
            way = before.argmin(0)
            total[:, row, column] = costs[:, row - 1, column - 1] + before[way, every]
            steps[:, row, column] = 1 + counts[way, every]
    return np.asarray(total[every, x_sizes, y_sizes] / steps[every, x_sizes, y_sizes])


def _unit(x: Float[np.ndarray, "*b d"]) -> Float[np.ndarray, "*b d"]:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9))


def distances(items: Sequence[Float[np.ndarray, "_ d"]]) -> Float[np.ndarray, "n n"]:
    """The distance by `dtw` of all pairs of items, of each at most its first `MAX_ABX_FRAMES` frames."""
    cut = [item[:MAX_ABX_FRAMES] for item in items]
    sizes = np.array([len(item) for item in cut])
    found = np.zeros((len(items), len(items)))
    ones, twos = np.triu_indices(len(items), 1)
    order = np.argsort(np.maximum(sizes[ones], sizes[twos]), kind="stable")  # like lengths, little padding
    for start in range(0, len(order), PAIRS_AT_ONCE):
        part = order[start : start + PAIRS_AT_ONCE]
        one, two = ones[part], twos[part]
        x, y = _stacked([cut[n] for n in one]), _stacked([cut[n] for n in two])
        found[one, two] = found[two, one] = dtw(x, y, sizes[one], sizes[two])
    return found


def _stacked(items: Sequence[Float[np.ndarray, "_ d"]]) -> Float[np.ndarray, "p s d"]:
    table = np.zeros((len(items), max(map(len, items)), items[0].shape[1]), np.float32)
    for line, item in zip(table, items, strict=True):
        line[: len(item)] = item
    return table


def abx(
    items: Sequence[Float[np.ndarray, "_ d"]],
    labels: Sequence[int],
    groups: Sequence[str],
    *,
    across: bool,
    seed: int = 0,
) -> float:
    """The ABX error: how often X is nearer to B, of another label, than to A, of its own (Schatz 2016).

    Within: A, B and X are of one group. Across: X is of another group than A and B. The error is the mean
    over pairs of labels, then over groups (or pairs of groups). NaN where no such triple exists. At most
    `MAX_ABX_ITEMS` items of a label in a group are compared, and `MAX_ABX_TOTAL` in all, drawn from the seed.
    """
    order = np.random.default_rng(seed).permutation(len(items)).tolist()
    by_place: dict[str, dict[int, list[int]]] = {}
    chosen: list[int] = []
    for number in order:
        own = by_place.setdefault(groups[number], {}).setdefault(labels[number], [])
        if len(own) < MAX_ABX_ITEMS and len(chosen) < MAX_ABX_TOTAL:
            own.append(len(chosen))
            chosen.append(number)
    apart = distances([items[number] for number in chosen])
    names = sorted(by_place)
    places = [(a, x) for a in names for x in names if (a != x) == across]
    errors = []
    for place, other in places:
        found = [
            _error(apart, by_place[place][a], by_place[place][b], by_place[other][a])
            for a in by_place[place]
            for b in by_place[place]
            if a != b and by_place[place][a] and by_place[place][b] and by_place[other].get(a)
        ]
        kept = [error for error in found if not math.isnan(error)]
        if kept:
            errors.append(sum(kept) / len(kept))
    return sum(errors) / len(errors) if errors else math.nan


def _error(
    apart: Float[np.ndarray, "n n"], own: Sequence[int], other: Sequence[int], asked: Sequence[int]
) -> float:
    """The share of triples in which the other label is nearer; equal distances count a half."""
    near = apart[np.ix_(asked, own)][:, :, None]
    far = apart[np.ix_(asked, other)][:, None, :]
    wrong = (far < near) + 0.5 * (far == near)
    usable = (np.array(asked)[:, None] != np.array(own)[None, :])[:, :, None] & np.ones_like(wrong, bool)
    return float(wrong[usable].mean()) if usable.any() else math.nan
