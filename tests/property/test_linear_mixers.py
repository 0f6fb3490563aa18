"""Mixers of linear cost, each against a reference that goes through frames one by one."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl import Attention, Frames
from seqssl.model import linear_mixers
from seqssl.model.linear_mixers import (
    CausalGatedLinear,
    FFTConvolution,
    GatedLinear,
    LocalAttention,
    SummaryMixing,
    _smooth,
)
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import seeds

DIM, HEADS = 8, 2
WIDTH = DIM // HEADS
row_lengths = st.lists(st.integers(1, 13), min_size=1, max_size=3)


def made(kind: Callable[..., nn.Module], **settings: object) -> nn.Module:
    """In float64, with every parameter away from the values that it starts with."""
    torch.manual_seed(0)
    mixer = kind(DIM, **settings).double().eval()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mixer


def agree(mixer: nn.Module, reference: Callable[[Tensor], Tensor], sizes: list[int], seed: int) -> None:
    """Values and the gradients of every parameter, in a batch with padding and row by row."""
    x = torch.randn(len(sizes), max(sizes), DIM, generator=seeded(seed), dtype=torch.float64)
    valid = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    actual = mixer(x, Frames(valid))[valid]
    expected = torch.cat([reference(row[:size]) for row, size in zip(x, sizes, strict=True)])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    parameters = [*mixer.parameters()]
    grads = [
        torch.autograd.grad(out.sin().sum(), parameters, allow_unused=True) for out in (actual, expected)
    ]
    for a, b, parameter in zip(*grads, parameters, strict=True):
        zero = torch.zeros_like(parameter)
        torch.testing.assert_close(
            zero if a is None else a, zero if b is None else b, rtol=1e-4, atol=1e-5, equal_nan=False
        )


@given(row_lengths, st.integers(1, 6), st.sampled_from(["none", "rotary"]), seeds)
def test_local_attention_is_attention_to_what_is_near(
    sizes: list[int], window: int, position: str, seed: int
) -> None:
    mixer = made(LocalAttention, num_heads=HEADS, window=window, position=position)
    whole = Attention(DIM, num_heads=HEADS, position=position).double()  # type: ignore[arg-type]
    whole.load_state_dict(mixer.state_dict())

    def reference(row: Tensor) -> Tensor:
        """Attention of a frame alone to the frames around it; rotation knows distances only."""
        found = []
        for place in range(len(row)):
            first = max(0, place - window)
            near = row[first : place + window + 1]
            own: Tensor = mixer_of(near)[place - first]
            found.append(own)
        return torch.stack(found)

    def mixer_of(row: Tensor) -> Tensor:
        q, k, v = mixer.query_key_value(row).view(len(row), 3, HEADS, WIDTH).unbind(1)  # type: ignore[operator]
        if position == "rotary":
            q, k = rotated(q), rotated(k)
        scores = torch.einsum("ihe,jhe->hij", q, k) / math.sqrt(WIDTH)
        return mixer.output(torch.einsum("hij,jhe->ihe", scores.softmax(-1), v).flatten(1))  # type: ignore[operator]

    agree(mixer, reference, sizes, seed)
    x = torch.randn(1, window, DIM, dtype=torch.float64, generator=seeded(seed))
    frames = Frames(torch.ones(1, window, dtype=torch.bool))
    torch.testing.assert_close(mixer(x, frames), whole(x, frames), rtol=1e-5, atol=1e-6)


def rotated(x: Tensor) -> Tensor:
    """Pairs of dimensions as complex numbers, turned by the place of the frame."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x))[:, None] * 10_000.0 ** -(2 * torch.arange(half) / x.shape[-1])
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones(()), angles)[:, None]
    return torch.cat([turned.real, turned.imag], -1).double()


@given(row_lengths, seeds)
def test_summary_mixing_is_its_equation(sizes: list[int], seed: int) -> None:
    mixer = made(SummaryMixing)
    assert isinstance(mixer, SummaryMixing)

    def reference(row: Tensor) -> Tensor:
        mean = torch.stack([F.gelu(mixer.summary(frame)) for frame in row]).mean(0)
        return torch.stack([mixer.combine(torch.cat([F.gelu(mixer.local(frame)), mean])) for frame in row])

    agree(mixer, reference, sizes, seed)


@given(row_lengths, st.booleans(), st.sampled_from([1, 3, 5]), seeds)
def test_the_long_convolution_is_a_sum_over_distances(
    sizes: list[int], causal: bool, kernel: int, seed: int
) -> None:
    mixer = made(FFTConvolution, filter_dim=6, frequencies=3, kernel=kernel, causal=causal)
    assert isinstance(mixer, FFTConvolution)

    def short(rows: Tensor, place: int) -> Tensor:
        """The depth-wise convolution at one frame."""
        found: Tensor = mixer.short.bias.clone()  # type: ignore[union-attr]
        for tap in range(kernel):
            other = place + tap - (kernel - 1 if causal else kernel // 2)
            if 0 <= other < len(rows):
                found = found + mixer.short.weight[:, 0, tap] * rows[other]
        return found

    def reference(row: Tensor) -> Tensor:
        projected = mixer.query_key_value(row)
        q, k, v = torch.stack([short(projected, place) for place in range(len(row))]).chunk(3, -1)
        values, found = mixer.filter(len(row)), []
        for i in range(len(row)):
            total = mixer.skip * k[i] * v[i]
            for j in range(len(row) if not causal else i + 1):
                at = values[i - j] if j <= i else values[len(row) - 1 + j - i]
                total = total + at * k[j] * v[j]
            found.append(mixer.output(q[i] * total))
        return torch.stack(found)

    agree(mixer, reference, sizes, seed)


@given(row_lengths, st.integers(1, 5), st.booleans(), seeds)
def test_gated_linear_attention_is_its_recurrence(
    sizes: list[int], chunk: int, causal: bool, seed: int
) -> None:
    mixer = made(CausalGatedLinear if causal else GatedLinear, num_heads=HEADS, chunk=chunk)
    assert isinstance(mixer, GatedLinear)

    def reference(row: Tensor) -> Tensor:
        """Each pair of frames with the product of the gates between them, and head by head."""
        q, k, v = mixer.query_key_value(row).view(len(row), 3, HEADS, WIDTH).unbind(1)
        gates = torch.sigmoid(mixer.decay(row)).unflatten(-1, (-1, HEADS))  # s directions h
        found = []
        for i in range(len(row)):
            heads = []
            for h in range(HEADS):
                total = torch.zeros(WIDTH, dtype=torch.float64)
                for j in range(i + 1):
                    total = total + gates[j + 1 : i + 1, 0, h].prod() * (q[i, h] @ k[j, h]) * v[j, h]
                for j in range(i + 1, len(row) if not causal else 0):
                    total = total + gates[i + 1 : j, 1, h].prod() * (q[i, h] @ k[j, h]) * v[j, h]
                heads.append(mixer.norm(total / math.sqrt(WIDTH)))
            found.append(mixer.output(torch.cat(heads) * F.silu(mixer.gate(row[i]))))
        return torch.stack(found)

    agree(mixer, reference, sizes, seed)


@given(st.integers(1, 10**6))
def test_transforms_have_lengths_of_small_factors(least: int) -> None:
    length = _smooth(least)
    assert least <= length < 2 * least or least == length == 1
    while length % 2 == 0:
        length //= 2
    assert length in (1, 3, 5)


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (LocalAttention, {"num_heads": 5}, "num_heads 5"),
        (LocalAttention, {"num_heads": 8, "position": "rotary"}, "rotary"),
        (FFTConvolution, {"kernel": 4}, "kernel must be odd"),
        (GatedLinear, {"num_heads": 5}, "num_heads 5"),
    ],
)
def test_impossible_settings_are_said(kind: type, settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        kind(DIM, **settings)


def test_gates_are_stable_over_long_rows() -> None:
    """Products of many gates vanish, and nothing overflows: values and gradients stay finite."""
    mixer = made(GatedLinear, num_heads=HEADS, chunk=64).float()
    x = (30 * torch.randn(1, 3000, DIM, generator=seeded())).requires_grad_()
    y = mixer(x, Frames(torch.ones(1, 3000, dtype=torch.bool)))
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert y.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LocalAttention, {"num_heads": HEADS, "window": 5}),
        (FFTConvolution, {"causal": False}),
        (FFTConvolution, {"causal": True}),
        (GatedLinear, {"num_heads": HEADS, "chunk": 3}),
        (CausalGatedLinear, {"num_heads": HEADS, "chunk": 3}),
    ],
)
def test_a_trace_computes_the_same(
    kind: type[nn.Module], settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is exported has no loop over chunks, and no length that a trace would keep."""
    mixer = made(kind, **settings)
    for size in (1, 4, 6, 40):
        x = torch.randn(2, size, DIM, generator=seeded(size), dtype=torch.float64)
        frames = Frames(torch.arange(size) < torch.tensor([[size], [(size + 1) // 2]]))
        expected = mixer(x, frames)
        with monkeypatch.context() as patch:
            patch.setattr(linear_mixers, "is_traced", lambda: True)
            traced = mixer(x, frames)
        torch.testing.assert_close(traced[frames.valid], expected[frames.valid], rtol=1e-5, atol=1e-6)
