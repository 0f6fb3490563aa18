"""Dropout, and attention with dropout, at the speed that a CPU can give them.

torch draws a number of 64 bits for each place, one by one, and for attention that drops weights it keeps
three tensors of all pairs of frames. Here a draw has 16 bits, four of them from one number, and weights are
made anew in the backward pass, a few heads at a time, so that they stay in the cache. On other devices, in
a compiled region, and for a share that 16 bits cannot tell well, torch's own are called.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEVELS = 2**16  # of a draw
LEAST = 0.001  # dropped, or kept: a draw tells such a share within 1 %
CACHED = 2**19  # weights that are made at a time: 2 MiB in float32, about what a core's own cache holds
Place = tuple[slice, slice]  # heads of all rows, queries


class Dropout(nn.Dropout):
    """Sets numbers to zero, each with probability `p`, and divides the others by the share that is kept."""

    def forward(self, input: Tensor) -> Tensor:
        """In training; else the input."""
        if not self.training or not draws_are_ours(input, self.p):
            return super().forward(input)
        dropped: Tensor = _Dropped.apply(input, self.p, _seed())  # type: ignore[no-untyped-call]
        return dropped


def attend(
    q: Float[Tensor, "b h s e"],
    k: Float[Tensor, "b h t e"],
    v: Float[Tensor, "b h t f"],
    mask: Bool[Tensor, "#b #h #s t"] | Float[Tensor, "#b #h #s t"],
    dropout: float,
) -> Float[Tensor, "b h s f"]:
    """Scaled dot-product attention; each weight is dropped with probability `dropout`.

    `mask`: which keys a query sees, or what is added to their scores. A query that sees none gives zeros.
    """
    if not draws_are_ours(q, dropout):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    q, k = q.to(v.dtype), k.to(v.dtype)
    mixed: Tensor = _DroppedAttention.apply(q, k, v, mask, dropout, _seed())  # type: ignore[no-untyped-call]
    return mixed


def draws_are_ours(x: Tensor, p: float) -> bool:
    """Whether draws of 16 bits do for a share on this tensor's device."""
    return x.device.type == "cpu" and LEAST <= p <= 1 - LEAST and not torch.compiler.is_compiling()


def _seed() -> int:
    """From torch's own generator, which a step seeds and a recomputed block finds as it was."""
    return int(torch.randint(2**63 - 1, ()))


def _threshold(p: float) -> int:
    """How many of the levels of a draw drop."""
    return round(p * LEVELS)


def _kept(shape: Sequence[int], p: float, generator: Generator) -> Float[Tensor, "..."]:
    """One where a place is kept and zero where it is dropped, by draws of 16 bits."""
    size = math.prod(shape)
    draws = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    # Compared as float32, which holds 16 bits: what makes numbers of truth values is three times slower.
    return draws.view(torch.int16)[:size].view(*shape).float().ge_(_threshold(p) - LEVELS // 2)


def _scale(p: float) -> float:
    """One over the share that is kept, which is a whole number of levels."""
    return LEVELS / (LEVELS - _threshold(p))


class _Dropped(torch.autograd.Function):
    """A tensor without what the seed drops; the backward pass draws the same again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        return _drop(x, p, seed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Dropped.apply(grads[0], ctx.p, ctx.seed), None, None  # type: ignore[no-untyped-call]


def _drop(x: Tensor, p: float, seed: int) -> Tensor:
    kept = _kept(x.shape, p, Generator().manual_seed(seed))
    return kept.to(x.dtype).mul_(x).mul_(_scale(p))


class _DroppedAttention(torch.autograd.Function):
    """Attention whose weights are made part by part, forward and again backward; none of them is saved.

    Heads of all rows stand in one dimension, n. Weights are at least float32.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float, seed: int) -> Tensor:
        q = (q / math.sqrt(q.shape[-1])).flatten(0, 1)
        k, v, heads = k.flatten(0, 1), v.flatten(0, 1), k.shape[1]
        bias = torch.where(mask, 0.0, -torch.inf) if mask.dtype == torch.bool else mask
        generator, mixed = Generator().manual_seed(seed), v.new_empty(*q.shape[:2], v.shape[2])
        parts = _Bias(bias, heads)
        for place in _places(q, k):
            weights = _weights(q[place], k[place[0]], parts.part(place))
            weights.mul_(_kept(weights.shape, dropout, generator))
            mixed[place] = weights.to(v.dtype) @ v[place[0]]
        mixed.mul_(_scale(dropout))
        ctx.save_for_backward(q, k, v, bias, mixed)
        ctx.heads, ctx.dropout, ctx.seed = heads, dropout, seed
        whole: Tensor = mixed.unflatten(0, (-1, heads))
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, mixed = ctx.saved_tensors
        grad = grads[0].flatten(0, 1)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        parts = _Bias(bias, ctx.heads)
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        grad_parts = None if grad_bias is None else _Bias(grad_bias, ctx.heads)
        # What a softmax takes off the gradients of a query's weights: their mean by the weights.
        mean = (grad * mixed).sum(-1, keepdim=True, dtype=torch.promote_types(grad.dtype, torch.float32))
        grad, generator = grad * _scale(ctx.dropout), Generator().manual_seed(ctx.seed)
        for place in _places(q, k):
            own = place[0]
            weights = _weights(q[place], k[own], parts.part(place))
            kept = _kept(weights.shape, ctx.dropout, generator)
            scores = (grad[place] @ v[own].transpose(1, 2)).to(weights.dtype)
            scores.mul_(kept).sub_(mean[place]).mul_(weights)
            grad_v[own] += weights.mul_(kept).to(v.dtype).transpose(1, 2) @ grad[place]
            if grad_parts is not None:
                grad_parts.add(place, scores)
            scores = scores.to(v.dtype)
            grad_q[place] = scores @ k[own]
            grad_k[own] += scores.transpose(1, 2) @ q[place]
        grad_q.div_(math.sqrt(q.shape[-1]))
        back = (t.unflatten(0, (-1, ctx.heads)) for t in (grad_q, grad_k, grad_v))
        return *back, grad_bias, None, None


def _places(q: Tensor, k: Tensor) -> Iterator[Place]:
    """Parts of about CACHED weights: of whole heads, or else of queries of one head."""
    (heads, queries), keys = q.shape[:2], max(1, k.shape[1])
    step = max(1, min(queries, CACHED // keys))
    together = max(1, CACHED // (keys * queries)) if queries else 1
    for head in range(0, heads, together):
        for query in range(0, queries, step):
            yield slice(head, min(heads, head + together)), slice(query, min(queries, query + step))


class _Bias:
    """What is added to scores, (b h s t), of which b, h and s may be 1; parts of it by heads of all rows."""

    def __init__(self, bias: Tensor, heads: int) -> None:
        self.flat, self.rows, self.of_row, self.heads = bias.flatten(0, 1), *bias.shape[:2], heads

    def part(self, place: Place) -> Tensor:
        """Of the heads and queries of a part."""
        return self._queries(place).index_select(0, self._index(place))

    def add(self, place: Place, scores: Tensor) -> None:
        """Take in the gradients of a part."""
        own = self._queries(place)
        size = (len(scores), *own.shape[1:])
        own.index_add_(0, self._index(place), scores.sum_to_size(size).to(own.dtype))

    def _queries(self, place: Place) -> Tensor:
        return self.flat if self.flat.shape[1] == 1 else self.flat[:, place[1]]

    def _index(self, place: Place) -> Tensor:
        heads = torch.arange(place[0].start, place[0].stop)
        row, head = heads // self.heads, heads % self.heads
        return (row if self.rows > 1 else 0 * row) * self.of_row + (head if self.of_row > 1 else 0 * head)


def _weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """The weights of a part; zeros for a query that sees no key."""
    scores = q @ k.transpose(1, 2)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).add_(bias)
    weights = scores.softmax(-1)
    if weights[..., :1].isnan().any():  # a look at one key is enough: such a query has NaN at each
        weights = weights.masked_fill(scores.isneginf().all(-1, keepdim=True), 0.0)
    return weights
