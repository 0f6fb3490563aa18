"""k-means: centers of frames, fitted to a uniform sample of a stream that is read once.

It is our own because targets must be the same on every run: libraries add up frames in threads, in an order
that changes from run to run, and so round differently.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

CHUNK = 2**12  # frames whose distances to all centers are held at once: what a cache holds
MAX_STEPS = 100
MIN_SHIFT = 1e-4  # of the centers in a step, as a share of the frames' spread: below it they stand still


def sample(
    batches: Iterable[Float[Tensor, "_ f"]], size: int, generator: Generator
) -> tuple[Float[Tensor, "n f"], int]:
    """Up to `size` frames, each as likely as any other, and how many there were; the rest is forgotten.

    Every frame draws a number, and those with the smallest are kept: so memory does not grow with the data.
    """
    kept: Tensor | None = None
    keys, order, total = torch.empty(0), torch.empty(0, dtype=torch.long), 0
    for frames in batches:
        total += len(frames)
        keys = torch.cat([keys, torch.rand(len(frames), generator=generator)])
        places = torch.arange(len(keys))
        if len(keys) > size:
            keys, places = keys.topk(size, largest=False)
        stay, come = places < len(order), places[places >= len(order)] - len(order)
        kept = frames[:0] if kept is None else kept
        if len(places) > len(kept):
            kept = torch.cat([kept, frames.new_empty(len(places) - len(kept), frames.shape[1])])
        # Those that come take the places of those that go: what stays is not moved for every batch.
        free = torch.ones(len(kept), dtype=torch.bool).index_fill(0, order[places[stay]], False)
        kept[free] = frames[come]
        now = torch.empty(len(places), dtype=torch.long)
        now[stay], now[~stay] = order[places[stay]], free.nonzero()[:, 0]
        order = now
    return torch.empty(0, 0) if kept is None else kept[order], total


def nearest(
    x: Float[Tensor, "n f"], centers: Float[Tensor, "v f"]
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """The nearest center of each frame, and the squared distance to it."""
    places, distances = [], []
    # Differences from a common point: squares of large numbers would drown what tells centers apart.
    origin = centers.mean(0)
    shifted = centers - origin
    squares = shifted.square().sum(1)
    for part in x.split(CHUNK):
        moved = part - origin
        # The square of the frame itself is the same for all centers, and is added to the least.
        least, place = torch.addmm(squares, moved, shifted.T, alpha=-2).min(1)
        places.append(place)
        distances.append((least + moved.square().sum(1)).clamp(min=0))
    return torch.cat(places), torch.cat(distances)


def spread_out(x: Float[Tensor, "n f"], k: int, generator: Generator) -> Float[Tensor, "k f"]:
    """`k` of the frames, far from one another: each drawn by its squared distance to those before it.

    k-means++ (Arthur and Vassilvitskii 2007).
    """
    moved = x - x.mean(0)  # squares of large numbers would drown what tells frames apart
    squares = moved.square().sum(1)

    def away(place: int) -> Float[Tensor, "n"]:
        found = (squares - moved @ (2 * moved[place]) + squares[place]).clamp(min=0)
        found[place] = 0  # whatever was rounded
        return found

    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    least = away(chosen[0])
    for _ in range(k - 1):
        total = least.double().cumsum(0)
        place = torch.searchsorted(total, torch.rand(1, generator=generator, dtype=torch.double) * total[-1])
        chosen.append(min(int(place), len(x) - 1))
        least = torch.minimum(least, away(chosen[-1]))
    return x[chosen]


def step(x: Float[Tensor, "n f"], centers: Float[Tensor, "v f"]) -> Float[Tensor, "v f"]:
    """The mean of the frames that are nearest to each center; one without frames moves to the farthest."""
    places, distances = nearest(x, centers)
    counts = torch.bincount(places, minlength=len(centers))
    sums = torch.zeros_like(centers).index_add(0, places, x)
    moved = sums / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    far = distances.topk(len(empty)).indices
    moved[empty] = x[far]
    return moved


def k_means(
    x: Float[Tensor, "n f"], k: int, generator: Generator, *, max_steps: int = MAX_STEPS
) -> Float[Tensor, "k f"]:
    """The centers of `k` clusters (Lloyd's algorithm, from `spread_out`); ValueError for too few frames."""
    if len(x) < k:
        raise ValueError(f"{k} clusters need as many frames, and there are {len(x)}")
    centers = spread_out(x, k, generator)
    spread = float(x.var(0, unbiased=False).mean().sqrt())
    for _ in range(max_steps):
        moved = step(x, centers)
        shift = float((moved - centers).square().mean().sqrt())
        centers = moved
        if shift <= MIN_SHIFT * spread:
            break
    return centers
