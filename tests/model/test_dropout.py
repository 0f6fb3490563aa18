"""Dropout by draws of 16 bits, and attention whose dropped weights are made part by part."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seqssl.model import dropout
from seqssl.model.dropout import Dropout, attend
from seqssl.testing.strategies import seeds

shares = st.floats(dropout.LEAST, 1 - dropout.LEAST)


def drawn(seed: int, call: Callable[[], Tensor]) -> Tensor:
    """What a call gives that draws from torch's own generator, set to a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return call()


def scale(p: float) -> float:
    """By how much what is kept is larger; of 65,536 levels of a draw a whole number drops."""
    return 1 / (1 - round(p * 2**16) / 2**16)


@given(seeds, shares, st.lists(st.integers(0, 7), min_size=1, max_size=3))
def test_numbers_are_zero_or_scaled_and_so_are_their_gradients(seed: int, p: float, sizes: list[int]) -> None:
    x = torch.rand(sizes, dtype=torch.float64).add(0.5).requires_grad_()
    y = drawn(seed, lambda: Dropout(p)(x))
    kept = y != 0
    torch.testing.assert_close(y, torch.where(kept, x * scale(p), 0.0))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, kept.double() * scale(p))
    assert torch.equal(y, drawn(seed, lambda: Dropout(p)(x)))
    (once,) = torch.autograd.grad(drawn(seed, lambda: Dropout(p)(x)).square().sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad(once.sum(), x)
    torch.testing.assert_close(twice, 2 * scale(p) ** 2 * kept.double())


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.75, 0.999])
def test_as_many_are_dropped_as_is_asked_for(p: float) -> None:
    """In each of the four draws that a number of 64 bits gives, and neighbors do not know of each other."""
    size = 400_000
    dropped = drawn(1, lambda: Dropout(p)(torch.ones(size)) == 0).double()
    deviation = math.sqrt(p * (1 - p) / size)
    for lane in range(4):
        assert abs(dropped[lane::4].mean() - p) < 5 * 2 * deviation + 2**-17
    for apart in (1, 2, 3, 4):
        both = (dropped[apart:] * dropped[:-apart]).mean()
        assert abs(both - p * p) < 5 * math.sqrt(p * p * (1 - p * p) / size) + 2**-16


def test_what_draws_of_16_bits_cannot_tell_is_torch_s() -> None:
    x = torch.ones(1000)
    for p in (0.0, 1e-5, 1 - 1e-5, 1.0):
        ours, theirs = (drawn(3, lambda each=each: each(x)) for each in (Dropout(p), nn.Dropout(p)))  # type: ignore[misc]
        assert torch.equal(ours, theirs)
    assert Dropout(0.1)(x.to("meta")).shape == x.shape
    assert Dropout(0.1).eval()(x) is x


def test_two_calls_differ() -> None:
    layer, x = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(0)
    assert not torch.equal(layer(x), layer(x))


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, kept: Tensor, p: float) -> Tensor:
    """Attention, written out, with the weights that a call has kept."""
    bias = torch.where(mask, 0.0, -torch.inf) if mask.dtype == torch.bool else mask
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
    sees = (bias > -torch.inf).any(-1, keepdim=True)
    return torch.where(sees, scores, 0.0).softmax(-1) * sees * kept * scale(p) @ v


@given(
    seeds,
    st.sampled_from([0.1, 0.5, 0.9]),
    st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 5)] * 3),
    st.tuples(*[st.booleans()] * 3),
    st.booleans(),
    st.sampled_from([1, 7, 2**19]),
)
def test_attention_is_that_written_out(
    seed: int,
    p: float,
    sizes: tuple[int, int, int, int, int],
    broadcast: tuple[bool, bool, bool],
    truths: bool,
    at_once: int,
) -> None:
    """Values and all gradients, whatever a mask is broadcast over, and by parts of any size."""
    rows, heads, queries, keys, width = sizes
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(rows, heads, size, width, dtype=torch.float64, generator=generator).requires_grad_()
        for size in (queries, keys, keys)
    )
    shape = [1 if one else size for one, size in zip(broadcast, (rows, heads, queries), strict=True)]
    mask = torch.randn(*shape, keys, dtype=torch.float64, generator=generator)
    mask = mask > -0.5 if truths else mask.requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dropout, "CACHED", at_once)
        eye = torch.eye(keys, dtype=torch.float64).expand(rows, heads, keys, keys)
        kept = drawn(seed, lambda: attend(q, k, eye, mask, p)) != 0
        ours = drawn(seed, lambda: attend(q, k, v, mask, p))
        theirs = reference(q, k, v, mask, kept, p)
        torch.testing.assert_close(ours, theirs)
        upstream = torch.randn(ours.shape, dtype=torch.float64, generator=generator)
        wanted = [q, k, v] if truths else [q, k, v, mask]
        seen, right = (torch.autograd.grad(each, wanted, upstream) for each in (ours, theirs))
    torch.testing.assert_close(seen, right)


def test_weights_are_dropped_at_the_share_that_is_asked_for() -> None:
    q, k = (torch.randn(2, 3, 100, 8, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    valid = torch.ones(2, 1, 1, 100, dtype=torch.bool)
    eye = torch.eye(100).expand(2, 3, 100, 100)
    weights = drawn(0, lambda: attend(q, k, eye, valid, 0.1))
    whole = F.scaled_dot_product_attention(q, k, eye)
    kept = weights != 0
    torch.testing.assert_close(weights[kept], whole[kept] * scale(0.1))
    assert abs(kept.double().mean() - 0.9) < 5 * math.sqrt(0.09 / kept.numel())


def test_a_query_that_sees_no_key_gives_zeros_and_nothing_else_is_hidden() -> None:
    q, k, v = (torch.randn(2, 1, 4, 3).requires_grad_() for _ in range(3))
    valid = torch.tensor([[True] * 4, [False] * 4])[:, None, None]
    mixed = attend(q, k, v, valid, 0.5)
    assert (mixed[1] == 0).all()
    gradients = torch.autograd.grad(mixed.sum(), (q, k, v))
    assert all((gradient[1] == 0).all() and gradient.isfinite().all() for gradient in gradients)
    ill = q.detach().clone()
    ill[0, 0, 2] = torch.nan
    mixed = attend(ill, k, v, valid, 0.5)
    assert mixed[0, 0, 2].isnan().all()
    assert (mixed[1] == 0).all()


def test_half_precision_is_near_to_single() -> None:
    """The same weights are dropped, and sums are as good as numbers of 8 bits allow."""
    q, k, v = (torch.randn(2, 4, 30, 16, generator=torch.Generator().manual_seed(1)) for _ in range(3))
    bias = torch.randn(2, 4, 30, 30)
    single = drawn(5, lambda: attend(q, k, v, bias, 0.3))
    lower = [t.bfloat16() for t in (q, k, v, bias)]
    half = drawn(5, lambda: attend(lower[0], lower[1], lower[2], lower[3], 0.3))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), single, atol=0.05, rtol=0.05)


def test_a_recomputed_block_drops_the_same() -> None:
    layer = nn.Sequential(nn.Linear(6, 6), Dropout(0.5), nn.Linear(6, 6), Dropout(0.3))
    x = torch.randn(10, 6, requires_grad=True)

    def gradients(call: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(drawn(7, call).sum(), [x, *layer.parameters()])

    torch.testing.assert_close(
        gradients(lambda: checkpoint(layer, x, use_reentrant=False)), gradients(lambda: layer(x))
    )
