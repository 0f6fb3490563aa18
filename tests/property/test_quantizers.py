"""Properties of quantizers on general domains: any sizes, temperatures, scales; float64 where it is exact."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqssl import GumbelProductQuantizer, RandomProjectionQuantizer
from seqssl.model import quantizers
from seqssl.model.quantizers import StraightThroughLookup, gumbel_noise
from seqssl.testing.harness import seeded
from seqssl.testing.quantizers import straight_through_reference
from seqssl.testing.strategies import CodebookSizes, codebook_sizes, seeds, temperatures, tensors

INPUT_DIM = 4
num_frames = st.integers(0, 20)
maybe_temperatures = st.none() | temperatures


def gumbel(sizes: CodebookSizes, seed: int = 0) -> GumbelProductQuantizer:
    torch.manual_seed(seed)
    return GumbelProductQuantizer(
        INPUT_DIM, num_codebooks=sizes.num_codebooks, codebook_size=sizes.codebook_size, dim=sizes.dim
    ).double()


@st.composite
def frames(draw: st.DrawFn) -> Tensor:
    x: Tensor = draw(tensors(draw(num_frames), INPUT_DIM))
    return x


def entries(quantizer: GumbelProductQuantizer, codes: Tensor) -> Tensor:
    """The codes' entries, looked up one by one."""
    rows = [torch.cat([quantizer.codebook[i, code] for i, code in enumerate(row)]) for row in codes]
    return torch.stack(rows) if rows else torch.zeros(0, quantizer.dim, dtype=torch.float64)


@given(codebook_sizes, frames(), maybe_temperatures, st.none() | seeds)
def test_forward_is_one_hot(
    sizes: CodebookSizes, x: Tensor, temperature: float | None, seed: int | None
) -> None:
    """Every vector is exactly the entries of its codes; codes are in range; usage is a distribution."""
    quantizer = gumbel(sizes)
    out = quantizer(x, temperature=temperature, generator=None if seed is None else seeded(seed))
    assert torch.equal(out.vectors, entries(quantizer, out.codes))
    assert out.codes.shape == (len(x), sizes.num_codebooks)
    assert ((out.codes >= 0) & (out.codes < sizes.codebook_size)).all()
    assert (out.usage >= 0).all()
    total = 1.0 if len(x) else 0.0
    torch.testing.assert_close(
        out.usage.sum(-1), torch.full((sizes.num_codebooks,), total, dtype=torch.float64)
    )


@given(codebook_sizes, frames(), maybe_temperatures, st.none() | seeds, st.data())
def test_straight_through_gradient_is_that_of_the_soft_path(
    sizes: CodebookSizes, x: Tensor, temperature: float | None, seed: int | None, data: st.DataObject
) -> None:
    """Input, logit weights and bias, codebook: the gradients of the plain einsum form, with noise too."""
    quantizer = gumbel(sizes)
    x.requires_grad_()
    out = quantizer(x, temperature=temperature, generator=None if seed is None else seeded(seed))
    like = torch.zeros(len(x), sizes.num_codebooks, sizes.codebook_size, dtype=torch.float64)
    noise = (
        torch.zeros_like(like) if seed is None or temperature is None else gumbel_noise(like, seeded(seed))
    )
    expected, _ = straight_through_reference(quantizer, x, out.codes, temperature, noise)
    torch.testing.assert_close(out.vectors, expected)

    upstream = (
        data.draw(tensors(*expected.shape, scales=(1.0,)), label="upstream gradient") if len(x) else expected
    )
    wanted_inputs = (x, *quantizer.parameters())
    actual = torch.autograd.grad(out.vectors, wanted_inputs, upstream)
    wanted = torch.autograd.grad(expected, wanted_inputs, upstream)
    # The softmax Jacobian cancels to about 1e-16 / temperature where one entry holds all the probability.
    tolerance = 1e-10 * max(1.0, 1e-3 / (temperature or 1.0)) * 1e3
    for a, b in zip(actual, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=tolerance)


@given(codebook_sizes, st.integers(1, 6), seeds)
def test_lookup_gradient_by_finite_differences(sizes: CodebookSizes, n: int, seed: int) -> None:
    """The gradient to the codebook is that of the function; the one to probs is that of the mixture."""
    generator = seeded(seed)
    g, v, e = sizes.num_codebooks, sizes.codebook_size, sizes.entry_dim
    codes = torch.randint(v, (n, g), generator=generator)
    probs = torch.rand(n, g, v, generator=generator, dtype=torch.float64, requires_grad=True)
    codebook = torch.randn(g, v, e, generator=generator, dtype=torch.float64, requires_grad=True)

    def looked_up(book: Tensor) -> Tensor:
        vectors: Tensor = StraightThroughLookup.apply(probs.detach(), book, codes)
        return vectors

    assert torch.autograd.gradcheck(looked_up, (codebook,))
    upstream = torch.randn(n, g, e, generator=generator, dtype=torch.float64)
    (actual,) = torch.autograd.grad(StraightThroughLookup.apply(probs, codebook, codes), probs, upstream)
    (soft,) = torch.autograd.grad(torch.einsum("ngv,gve->nge", probs, codebook), probs, upstream)
    torch.testing.assert_close(actual, soft)


@given(codebook_sizes, frames(), temperatures)
def test_without_noise_codes_are_the_argmax_at_any_temperature(
    sizes: CodebookSizes, x: Tensor, temperature: float
) -> None:
    quantizer = gumbel(sizes)
    logits = quantizer.logits(x).unflatten(-1, (sizes.num_codebooks, sizes.codebook_size))
    assert torch.equal(quantizer(x, temperature=temperature).codes, logits.argmax(-1))
    assert torch.equal(quantizer(x, temperature=None).codes, logits.argmax(-1))


@given(codebook_sizes, frames(), seeds, temperatures, temperatures)
def test_the_draw_and_usage_do_not_depend_on_temperature(
    sizes: CodebookSizes, x: Tensor, seed: int, one: float, two: float
) -> None:
    """Gumbel-max: temperature softens the gradient, never the choice."""
    quantizer = gumbel(sizes)
    first = quantizer(x, temperature=one, generator=seeded(seed))
    second = quantizer(x, temperature=two, generator=seeded(seed))
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.usage, second.usage)
    assert torch.equal(first.usage, quantizer(x, temperature=None).usage)


@given(codebook_sizes, seeds)
def test_temperature_limits_of_the_gradient(sizes: CodebookSizes, seed: int) -> None:
    """Hot: the soft path is the codebook's mean. Cold: one entry holds all, and no gradient is left."""
    quantizer = gumbel(sizes)
    x = torch.randn(5, INPUT_DIM, generator=seeded(seed), dtype=torch.float64).requires_grad_()
    upstream = torch.randn(5, sizes.dim, generator=seeded(seed), dtype=torch.float64)
    logits = quantizer.logits(x).unflatten(-1, (sizes.num_codebooks, sizes.codebook_size))

    # To first order in 1 / temperature, probs = 1/v + (logits - mean logits) / (v temperature).
    centered = logits - logits.mean(-1, keepdim=True)
    mixture = torch.einsum("ngv,gve->nge", centered / sizes.codebook_size, quantizer.codebook).flatten(1)
    (wanted,) = torch.autograd.grad(mixture, x, upstream)
    (hot,) = torch.autograd.grad(quantizer(x, temperature=1e6).vectors, x, upstream)
    torch.testing.assert_close(hot * 1e6, wanted, rtol=1e-4, atol=1e-4)

    top = logits.detach().topk(min(2, sizes.codebook_size), dim=-1).values
    margin = float((top[..., 0] - top[..., -1]).min()) if sizes.codebook_size > 1 else 1.0
    (cold,) = torch.autograd.grad(quantizer(x, temperature=max(margin, 1e-9) / 100).vectors, x, upstream)
    torch.testing.assert_close(cold, torch.zeros_like(cold), rtol=0, atol=1e-9)


@given(codebook_sizes, seeds, temperatures)
def test_code_frequencies_follow_the_softmax(sizes: CodebookSizes, seed: int, temperature: float) -> None:
    """By Hoeffding's bound: each of V frequencies of 3,000 draws within 0.06, at odds of 1 to 1e8."""
    quantizer = gumbel(sizes)
    frame = torch.randn(1, INPUT_DIM, generator=seeded(seed), dtype=torch.float64)
    codes = quantizer(frame.expand(3_000, -1), temperature=temperature, generator=seeded(seed)).codes
    frequencies = torch.nn.functional.one_hot(codes, sizes.codebook_size).double().mean(0)
    torch.testing.assert_close(frequencies, quantizer(frame, temperature=None).usage, rtol=0, atol=0.06)


@given(codebook_sizes, frames(), seeds, maybe_temperatures)
def test_permuted_entries_permute_codes(
    sizes: CodebookSizes, x: Tensor, seed: int, temperature: float | None
) -> None:
    """Each codebook by a permutation of its own; ties aside, vectors and gradients do not change."""
    quantizer, permuted = gumbel(sizes), gumbel(sizes)
    g, v = sizes.num_codebooks, sizes.codebook_size
    generator = seeded(seed)
    orders = torch.stack([torch.randperm(v, generator=generator) for _ in range(g)])
    with torch.no_grad():
        permuted.codebook.copy_(torch.stack([quantizer.codebook[i, orders[i]] for i in range(g)]))
        weight = quantizer.logits.weight.view(g, v, INPUT_DIM)
        permuted.logits.weight.copy_(torch.cat([weight[i, orders[i]] for i in range(g)]))
    # Without ties: frames of zeros have equal logits, of which either quantizer takes its first.
    x = x[(x != 0).any(-1)].requires_grad_()
    one, two = quantizer(x, temperature=temperature), permuted(x, temperature=temperature)
    for i in range(g):
        assert torch.equal(orders[i][two.codes[:, i]], one.codes[:, i])
        torch.testing.assert_close(two.usage[i], one.usage[i, orders[i]])
    torch.testing.assert_close(one.vectors, two.vectors)
    grads = [torch.autograd.grad(out.vectors.sum(), x)[0] for out in (one, two)]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-6)


@given(
    codebook_sizes.filter(lambda sizes: sizes.num_codebooks > 1),
    frames(),
    maybe_temperatures,
    seeds,
    st.data(),
)
def test_codebooks_are_independent(
    sizes: CodebookSizes, x: Tensor, temperature: float | None, seed: int, data: st.DataObject
) -> None:
    """New logits and entries in one codebook: no other codebook's codes, vectors or usage change."""
    quantizer = gumbel(sizes)
    changed = data.draw(st.integers(0, sizes.num_codebooks - 1), label="changed codebook")
    others = [i for i in range(sizes.num_codebooks) if i != changed]
    before = quantizer(x, temperature=temperature, generator=seeded(seed))
    with torch.no_grad():
        quantizer.codebook[changed] += 1
        rows = slice(changed * sizes.codebook_size, (changed + 1) * sizes.codebook_size)
        quantizer.logits.weight[rows] = torch.randn(sizes.codebook_size, INPUT_DIM, dtype=torch.float64)
    after = quantizer(x, temperature=temperature, generator=seeded(seed))
    assert torch.equal(before.codes[:, others], after.codes[:, others])
    assert torch.equal(before.usage[others], after.usage[others])
    parts = [out.vectors.unflatten(-1, (sizes.num_codebooks, -1))[:, others] for out in (before, after)]
    assert torch.equal(parts[0], parts[1])


@given(codebook_sizes.filter(lambda s: s.num_codebooks > 1), st.integers(1, 8), seeds, temperatures)
def test_gradients_of_codebooks_are_independent(
    sizes: CodebookSizes, n: int, seed: int, temperature: float
) -> None:
    """A loss on one codebook's part of the vectors leaves the other codebooks' logits and entries alone."""
    quantizer = gumbel(sizes)
    x = torch.randn(n, INPUT_DIM, generator=seeded(seed), dtype=torch.float64)
    vectors = quantizer(x, temperature=temperature, generator=seeded(seed)).vectors
    vectors[:, : sizes.entry_dim].square().sum().backward()
    assert not quantizer.codebook.grad[1:].any()
    assert not quantizer.logits.weight.grad[sizes.codebook_size :].any()


@given(codebook_sizes, frames(), temperatures, seeds)
def test_equal_generators_equal_results(
    sizes: CodebookSizes, x: Tensor, temperature: float, seed: int
) -> None:
    quantizer = gumbel(sizes)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = quantizer(x, temperature=temperature, generator=seeded(seed))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    two = quantizer(x, temperature=temperature, generator=seeded(seed))
    assert torch.equal(one.codes, two.codes) and torch.equal(one.vectors, two.vectors)


@given(codebook_sizes, frames(), maybe_temperatures, seeds)
def test_frames_permute(sizes: CodebookSizes, x: Tensor, temperature: float | None, seed: int) -> None:
    """Without noise, a frame's code is its own affair."""
    quantizer = gumbel(sizes)
    order = torch.randperm(len(x), generator=seeded(seed))
    one, two = quantizer(x, temperature=temperature), quantizer(x[order], temperature=temperature)
    assert torch.equal(one.codes[order], two.codes)
    assert torch.equal(one.vectors[order], two.vectors)
    torch.testing.assert_close(one.usage, two.usage)


@given(codebook_sizes, st.sampled_from([0.0, 1.0, 1e4, -1e4, 1e15]), maybe_temperatures, st.none() | seeds)
def test_extreme_logits_stay_finite(
    sizes: CodebookSizes, logit: float, temperature: float | None, seed: int | None
) -> None:
    """In float32: one huge logit among equal ones, values and every gradient."""
    quantizer = gumbel(sizes).float()
    with torch.no_grad():
        quantizer.logits.weight.zero_()
        quantizer.logits.bias[-1] = logit
    x = torch.ones(3, INPUT_DIM, requires_grad=True)
    out = quantizer(x, temperature=temperature, generator=None if seed is None else seeded(seed))
    if logit >= 1e4:
        assert (out.codes[:, -1] == sizes.codebook_size - 1).all()
    total = out.vectors.sum() + out.usage.square().sum()
    for value in (out.vectors, out.usage, *torch.autograd.grad(total, (x, *quantizer.parameters()))):
        assert value.isfinite().all()


@given(codebook_sizes, seeds)
def test_bfloat16_inputs_agree_where_the_choice_is_clear(sizes: CodebookSizes, seed: int) -> None:
    """Under autocast, a code differs from float32's only where the two best logits are within rounding."""
    quantizer = gumbel(sizes).float()
    x = torch.randn(20, INPUT_DIM, generator=seeded(seed)).bfloat16()
    exact = quantizer(x.float(), temperature=None)
    with torch.autocast("cpu", torch.bfloat16):
        low = quantizer(x, temperature=None)
    assert low.vectors.dtype == low.usage.dtype == torch.float32
    if sizes.codebook_size > 1:
        logits = quantizer.logits(x.float()).unflatten(-1, (sizes.num_codebooks, sizes.codebook_size))
        top = logits.topk(2, dim=-1).values
        size = (x.float().abs() @ quantizer.logits.weight.abs().T).max()  # bounds every partial sum
        clear = top[..., 0] - top[..., 1] > size * 2**-6
        assert (low.codes == exact.codes)[clear].all()
    torch.testing.assert_close(low.usage, exact.usage, rtol=0, atol=0.1)


def test_noise_is_gumbel_and_finite() -> None:
    """Mean 0.5772, variance pi^2 / 6, and no infinity in 4 million draws."""
    noise = gumbel_noise(torch.empty(4_000_000), seeded())
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.005)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.01)


@given(codebook_sizes, st.integers(0, 12), seeds)
def test_random_projection_is_a_nearest_neighbor(sizes: CodebookSizes, n: int, seed: int) -> None:
    """The nearest entry after normalization; scale and offset of a frame change nothing."""
    torch.manual_seed(seed)
    quantizer = RandomProjectionQuantizer(
        8, num_codebooks=sizes.num_codebooks, codebook_size=sizes.codebook_size, dim=sizes.entry_dim
    )
    x = torch.randn(n, 8, generator=seeded(seed))
    out = quantizer(x, temperature=None)
    for i in range(n):
        standardized = (x[i] - x[i].mean()) / (x[i].var(correction=0) + 1e-5).sqrt()
        for j in range(sizes.num_codebooks):
            projected = torch.nn.functional.normalize(standardized @ quantizer.projection[j], dim=0)
            distances = (quantizer.codebook[j] - projected).norm(dim=-1)
            assert distances[out.codes[i, j]] <= distances.min() + 1e-5
    assert not any(p.requires_grad for p in quantizer.parameters())
    assert not out.vectors.requires_grad
    if sizes.entry_dim > 1:  # on a line, an entry is a sign: zero has none
        moved = quantizer(3 * x + 2, temperature=0.5, generator=seeded())
        assert (moved.codes == out.codes).double().mean() >= 0.8 if n else True


@given(seeds, st.sampled_from([1.0, 20.0, 60.0]))
def test_gradients_hold_no_numbers_that_a_processor_is_slow_with(seed: int, deviation: float) -> None:
    """Those that a softmax of far logits leaves are zero, and nothing else changes."""
    torch.manual_seed(seed)
    quantizer = GumbelProductQuantizer(
        8, num_codebooks=2, codebook_size=16, dim=4, logit_init_std=deviation
    ).double()
    x, reached = torch.randn(6, 8, dtype=torch.float64, requires_grad=True), []
    quantizer.logits.register_full_backward_hook(lambda module, before, behind: reached.append(behind[0]))

    def gradients() -> tuple[Tensor, ...]:
        vectors = quantizer(x, temperature=1.0, generator=seeded(seed)).vectors
        return torch.autograd.grad(vectors.square().sum(), [x, *quantizer.parameters()])

    ours = gradients()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantizers, "NO_GRADIENT", 0.0)
        plain = gradients()
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)
    assert ((reached[0] == 0) | (reached[0].abs() > quantizers.NO_GRADIENT)).all()
    if deviation == 60.0:
        assert ((reached[1] != 0) & (reached[1].abs() < quantizers.NO_GRADIENT)).any()


def test_a_gradient_that_is_no_number_is_not_hidden() -> None:
    assert quantizers.without_tiny(torch.tensor([torch.nan, 1e-31, -1e-29, torch.inf])).tolist()[1:] == [
        0.0,
        pytest.approx(-1e-29),
        math.inf,
    ]
    assert quantizers.without_tiny(torch.tensor([torch.nan])).isnan().all()
