"""Attention against naive references, pair by pair."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from seqssl import Attention, Frames
from seqssl.model.mixers import rotate, shift, sinusoids
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import seeds

DIM, HEADS = 12, 3
WIDTH = DIM // HEADS
row_lengths = st.lists(st.integers(1, 7), min_size=1, max_size=3)


def attention(position: str) -> Attention:
    """In float64, with position biases that are not zero."""
    torch.manual_seed(0)
    mixer = Attention(DIM, num_heads=HEADS, position=position).double()
    if position == "relative":
        nn.init.normal_(mixer.content_bias)
        nn.init.normal_(mixer.distance_bias)
    return mixer


def sinusoid(distance: int) -> Tensor:
    """R of Transformer-XL: sines, then cosines, of a distance that may be negative."""
    angles = [distance / 10_000 ** (2 * i / DIM) for i in range(DIM // 2)]
    values = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor(values, dtype=torch.float64)


def score(mixer: Attention, head: int, q: Tensor, k: Tensor, i: int, j: int) -> Tensor:
    """One pair's score: equation by equation."""
    if mixer.position == "relative":  # (a) + (b) + (c) + (d) of section 3.3
        r = mixer.distance(sinusoid(i - j))[head * WIDTH : (head + 1) * WIDTH]
        return q @ k + q @ r + mixer.content_bias[head] @ k + mixer.distance_bias[head] @ r
    if mixer.position == "rotary":
        return rotated(q, i) @ rotated(k, j)
    return q @ k


def rotated(vector: Tensor, index: int) -> Tensor:
    """Dimensions n and n + e/2 as one complex number, turned by index / 10,000^(2n/e)."""
    half = len(vector) // 2
    number = torch.complex(vector[:half], vector[half:])
    angles = torch.tensor([index / 10_000 ** (2 * n / len(vector)) for n in range(half)], dtype=torch.float64)
    turned = number * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag])


def naive(mixer: Attention, x: Tensor) -> Tensor:
    """Attention over one row without padding, by loops."""
    q, k, v = mixer.query_key_value(x).view(len(x), 3, HEADS, WIDTH).unbind(1)
    rows = []
    for i in range(len(x)):
        heads = []
        for h in range(HEADS):
            scores = torch.stack([score(mixer, h, q[i, h], k[j, h], i, j) for j in range(len(x))])
            heads.append((scores / math.sqrt(WIDTH)).softmax(0) @ v[:, h])
        rows.append(torch.cat(heads))
    return mixer.output(torch.stack(rows))


@given(st.sampled_from(["none", "rotary", "relative"]), row_lengths, seeds)
def test_attention_equals_the_naive_reference(position: str, sizes: list[int], seed: int) -> None:
    """Values, and the gradients of every parameter, in batches with padding."""
    mixer = attention(position)
    x = torch.randn(len(sizes), max(sizes), DIM, generator=seeded(seed), dtype=torch.float64)
    valid = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    actual = mixer(x, Frames(valid))[valid]
    expected = torch.cat([naive(mixer, row[:size]) for row, size in zip(x, sizes, strict=True)])
    # Angles and sinusoids are made in float32.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad(out.square().sum(), [*mixer.parameters()]) for out in (actual, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 9), st.integers(0, 40), seeds)
def test_rotary_scores_depend_on_distance_alone(size: int, offset: int, seed: int) -> None:
    """Equal queries and keys everywhere, moved by any offset: the same table of scores."""
    q, k = torch.randn(2, WIDTH, generator=seeded(seed)).unbind(0)
    whole = size + offset
    turned = [rotate(t.expand(1, 1, whole, WIDTH))[0, 0] for t in (q, k)]
    scores = turned[0] @ turned[1].T
    torch.testing.assert_close(scores[offset:, offset:], scores[:size, :size], rtol=1e-3, atol=1e-3)


@given(st.integers(1, 9), seeds)
def test_rotation_keeps_norms_and_the_first_frame(size: int, seed: int) -> None:
    x = torch.randn(2, 3, size, WIDTH, generator=seeded(seed))
    turned = rotate(x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


@given(st.integers(1, 9))
def test_shift_reads_each_row_at_its_own_distances(size: int) -> None:
    """Entry (i, j) of the result is the column of distance i - j; columns run from s-1 down to -(s-1)."""
    scores = torch.randn(2, 3, size, 2 * size - 1, generator=seeded(size))
    expected = torch.stack(
        [torch.stack([scores[..., i, size - 1 - (i - j)] for j in range(size)], -1) for i in range(size)], -2
    )
    assert torch.equal(shift(scores), expected)


@pytest.mark.parametrize("dim", [4, 5])
def test_sinusoids_tell_left_from_right(dim: int) -> None:
    """Sines change sign with the distance, cosines do not; an odd width is cut."""
    both = sinusoids(torch.tensor([3, -3]), dim)
    half = (dim + 1) // 2
    assert both.shape == (2, dim)
    torch.testing.assert_close(both[0, :half], -both[1, :half])
    torch.testing.assert_close(both[0, half:], both[1, half:])


@pytest.mark.parametrize("position", ["none", "rotary", "relative"])
def test_only_position_breaks_permutation_equivariance(position: str) -> None:
    """Without position attention is blind to order; with it, it is not."""
    mixer, order = attention(position), torch.tensor([3, 1, 0, 2])
    x = torch.randn(1, 4, DIM, generator=seeded(), dtype=torch.float64)
    valid = torch.ones(1, 4, dtype=torch.bool)
    same = torch.allclose(mixer(x, Frames(valid))[:, order], mixer(x[:, order], Frames(valid)), atol=1e-9)
    assert same == (position == "none")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"position": "absolute"}, "position"),
        ({"num_heads": 5}, "num_heads"),
        ({"num_heads": 4, "position": "rotary"}, "rotary"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], named: str) -> None:
    """12 / 4 = 3 dimensions per head cannot be paired."""
    with pytest.raises((ValueError, TypeCheckError), match=named):
        Attention(DIM, **settings)  # type: ignore[arg-type]
