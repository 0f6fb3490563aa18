"""What every quantizer must do.

A factory takes the width of a frame and gives a quantizer: a class with `functools.partial` for its
keywords will do. One that exposes `codebook` (g, v, e) is held to exact entries; one that also exposes
`logits`, a linear map to g * v, is held to the straight-through Gumbel softmax.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqssl.model.types import Quantized
from seqssl.testing.harness import (
    Check,
    keeps_global_random_state,
    named,
    require,
    require_close,
    require_finite,
    run_checks,
    seeded,
)

Factory = Callable[[int], Any]  # a Quantizer; many have more than that
INPUT_DIM = 6
TEMPERATURES = (None, 1e-3, 1.0, 1e3)


def check_quantizer(factory: Factory) -> None:
    """Run every check; raises `ChecksFailed` (an AssertionError) naming all that failed."""
    run_checks("the quantizer", quantizer_checks(), factory)


def quantizer_checks() -> list[Check]:
    """The checks by name; each takes the factory."""
    return named(
        gives_the_promised_shapes,
        codes_are_in_range,
        usage_is_a_distribution,
        usage_ignores_temperature_and_noise,
        forward_is_one_hot,
        straight_through_gradient_is_that_of_the_soft_path,
        gradient_reaches_every_parameter,
        adds_no_noise_without_a_generator,
        takes_the_argmax_without_a_temperature,
        draws_only_from_its_generator,
        temperature_never_changes_the_draw,
        draws_follow_the_softmax,
        codebooks_are_independent,
        entries_may_be_permuted,
        frames_are_independent,
        bfloat16_agrees_with_float32,
        extreme_inputs_stay_finite,
        no_frames_are_no_problem,
        keeps_no_state,
    )


def gives_the_promised_shapes(factory: Factory) -> None:
    """vectors (n, dim) and usage (g, v) are floats, codes (n, g) int64."""
    quantizer, x = _made(factory)
    out = quantizer(x, temperature=1.0, generator=seeded())
    g, v, n = quantizer.num_codebooks, quantizer.codebook_size, len(x)
    for name, value, shape in (
        ("vectors", out.vectors, (n, quantizer.dim)),
        ("codes", out.codes, (n, g)),
        ("usage", out.usage, (g, v)),
    ):
        require(value.shape == shape, f"{name} have shape {[*value.shape]}, not {[*shape]}")
    require(out.codes.dtype == torch.int64, f"codes are {out.codes.dtype}, not int64")
    require(out.vectors.is_floating_point() and out.usage.is_floating_point(), "vectors and usage are floats")


def codes_are_in_range(factory: Factory) -> None:
    """0 <= code < codebook_size, at every temperature, with and without noise."""
    quantizer, x = _made(factory)
    for out in _everywhere(quantizer, x):
        low, high = int(out.codes.min()), int(out.codes.max())
        require(
            low >= 0 and high < quantizer.codebook_size,
            f"codes reach from {low} to {high} in codebooks of {quantizer.codebook_size}",
        )


def usage_is_a_distribution(factory: Factory) -> None:
    """Each codebook's usage is not negative and sums to one."""
    quantizer, x = _made(factory)
    for out in _everywhere(quantizer, x):
        require((out.usage >= 0).all(), "usage is negative somewhere")
        sums = out.usage.sum(-1).double()
        require_close(sums, torch.ones_like(sums), "usage does not sum to 1")


def usage_ignores_temperature_and_noise(factory: Factory) -> None:
    """usage is the mean of the clean distribution."""
    quantizer, x = _made(factory)
    expected = quantizer(x, temperature=None).usage
    for out in _everywhere(quantizer, x):
        require_close(out.usage, expected, "usage changes with temperature or noise")


def forward_is_one_hot(factory: Factory) -> None:
    """Vectors are codebook entries, bit for bit; at least: equal codes, equal vectors."""
    quantizer, x = _made(factory)
    for out in _everywhere(quantizer, x):
        _, inverse = torch.unique(out.codes, dim=0, return_inverse=True)
        first = torch.stack([(inverse == i).nonzero()[0, 0] for i in inverse])
        require(torch.equal(out.vectors, out.vectors[first]), "frames of equal codes have different vectors")
        if hasattr(quantizer, "codebook"):
            entries = [book[out.codes[:, i]] for i, book in enumerate(quantizer.codebook)]
            require(torch.equal(out.vectors, torch.cat(entries, 1)), "vectors are not the codes' entries")


def straight_through_gradient_is_that_of_the_soft_path(factory: Factory) -> None:
    """In float64: the gradients of `(one_hot + probs - probs.detach()) @ codebook`, and those of usage."""
    quantizer, x = _made(factory)
    if not _has_logits(quantizer):
        return
    quantizer, x = quantizer.double(), x.double().requires_grad_()
    parameters = [x, *quantizer.parameters()]
    for temperature in (None, 0.1, 1.0, 10.0):
        out = quantizer(x, temperature=temperature)
        vectors, usage = straight_through_reference(quantizer, x, out.codes, temperature)
        weights = torch.randn(vectors.shape, generator=seeded(), dtype=vectors.dtype)
        for name, value, expected in (("vectors", out.vectors, vectors), ("usage", out.usage, usage)):
            loss = (value * weights).sum() if name == "vectors" else value.square().sum()
            expected_loss = (expected * weights).sum() if name == "vectors" else expected.square().sum()
            actual = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
            wanted = torch.autograd.grad(expected_loss, parameters, allow_unused=True, retain_graph=True)
            for of, a, b in zip(("input", *dict(quantizer.named_parameters())), actual, wanted, strict=True):
                message = f"at temperature {temperature}, the gradient of {name} to {of}"
                require_close(_or_zero(a), _or_zero(b), message, tolerance=1e-9)


def straight_through_reference(
    quantizer: Any, x: Tensor, codes: Tensor, temperature: float | None, noise: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """The textbook form, by one-hots and a product: (vectors, usage). Slow and plain on purpose."""
    logits = quantizer.logits(x).unflatten(-1, quantizer.codebook.shape[:2])
    probs = logits.softmax(-1) if temperature is None else ((logits + noise) / temperature).softmax(-1)
    one_hot = torch.nn.functional.one_hot(codes, logits.shape[-1]).to(probs.dtype)
    mixture = torch.einsum("ngv,gve->nge", one_hot + probs - probs.detach(), quantizer.codebook)
    return mixture.flatten(1), logits.softmax(-1).mean(0)


def gradient_reaches_every_parameter(factory: Factory) -> None:
    """Targets are trained: a trainable parameter without gradient is a mistake."""
    quantizer, x = _made(factory)
    trained = {name: p for name, p in quantizer.named_parameters() if p.requires_grad}
    if not trained:
        return
    out = quantizer(x, temperature=1.0, generator=seeded())
    costs = 0.0 if out.costs is None else out.costs.sum()
    (out.vectors.square().sum() + out.usage.square().sum() + costs).backward()
    for name, parameter in trained.items():
        require(parameter.grad is not None, f"no gradient reaches {name}")
        if quantizer.codebook_size > 1:  # with a single entry there is nothing to choose
            require(parameter.grad.any(), f"the gradient of {name} is zero")


def adds_no_noise_without_a_generator(factory: Factory) -> None:
    """generator None: the same codes at every temperature, those of the argmax."""
    quantizer, x = _made(factory)
    expected = quantizer(x, temperature=None).codes
    for temperature in (1e-3, 1.0, 1e3):
        codes = quantizer(x, temperature=temperature).codes
        require(torch.equal(codes, expected), f"codes at temperature {temperature} are not the argmax")


def takes_the_argmax_without_a_temperature(factory: Factory) -> None:
    """temperature None: the generator changes nothing, and the codes are the argmax of the logits."""
    quantizer, x = _made(factory)
    codes = quantizer(x, temperature=None, generator=seeded()).codes
    require(torch.equal(codes, quantizer(x, temperature=None).codes), "a generator changes evaluation")
    if _has_logits(quantizer):
        logits = quantizer.logits(x).unflatten(-1, quantizer.codebook.shape[:2])
        require(torch.equal(codes, logits.argmax(-1)), "codes are not the argmax of the logits")


def draws_only_from_its_generator(factory: Factory) -> None:
    """Equal generators give equal results; torch's global random state is never used."""
    quantizer, x = _made(factory)
    for generator_seed in (None, 1):

        def call(seed: int | None = generator_seed) -> Quantized:
            generator = None if seed is None else seeded(seed)
            result: Quantized = quantizer(x, temperature=1.0, generator=generator)
            return result

        require(keeps_global_random_state(call), "the global random state was used")
        one, two = call(), call()
        same = torch.equal(one.codes, two.codes) and torch.equal(one.vectors, two.vectors)
        require(same, "equal generators gave different results")


def temperature_never_changes_the_draw(factory: Factory) -> None:
    """argmax((logits + noise) / temperature) is the same at every temperature: equal noise, equal codes."""
    quantizer, x = _made(factory)
    codes = [quantizer(x, temperature=t, generator=seeded()).codes for t in (1e-3, 0.5, 1.0, 2.0, 1e3)]
    require(all(torch.equal(c, codes[0]) for c in codes), "the sampled codes depend on the temperature")


def draws_follow_the_softmax(factory: Factory) -> None:
    """Gumbel-max: at any temperature the codes of one frame are draws from softmax(logits)."""
    quantizer, x = _made(factory)
    if not _has_logits(quantizer):
        return
    num_draws, frame = 4_000, 0.3 * x[:1]  # small logits: no entry is too rare
    expected = quantizer(frame, temperature=None).usage.detach().double() * num_draws
    for seed, temperature in enumerate((0.01, 1.0, 100.0)):
        frames = frame.expand(num_draws, -1)
        codes = quantizer(frames, temperature=temperature, generator=seeded(seed)).codes
        counts = torch.nn.functional.one_hot(codes, quantizer.codebook_size).sum(0).double()
        for book, (count, wanted) in enumerate(zip(counts, expected, strict=True)):
            message = f"at temperature {temperature}, codes of codebook {book} do not follow softmax(logits)"
            require(_plausible(count, wanted), message)


def _plausible(counts: Tensor, expected: Tensor) -> bool:
    """Chi-square with a false alarm below 1e-6 (Laurent and Massart 2000, lemma 1); rare cells are pooled."""
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    statistic = float(((counts - expected).square() / expected.clamp(min=1e-9)).sum())
    degrees, nats = len(counts), 14.0
    bound: float = degrees + 2 * (degrees * nats) ** 0.5 + 2 * nats
    return statistic <= bound


def codebooks_are_independent(factory: Factory) -> None:
    """Changing one codebook's logits and entries leaves the others' codes and vectors alone."""
    quantizer, x = _made(factory)
    if not hasattr(quantizer, "codebook") or quantizer.num_codebooks == 1:
        return
    before = [*_everywhere(quantizer, x)]
    with torch.no_grad():
        quantizer.codebook[0].copy_(torch.randn(quantizer.codebook[0].shape, generator=seeded()))
        if _has_logits(quantizer):
            rows = quantizer.logits.weight[: quantizer.codebook_size]
            rows.copy_(torch.randn(rows.shape, generator=seeded(1)))
    width = quantizer.dim // quantizer.num_codebooks
    for old, new in zip(before, _everywhere(quantizer, x), strict=True):
        require(torch.equal(old.codes[:, 1:], new.codes[:, 1:]), "one codebook changes another's codes")
        require(torch.equal(old.vectors[:, width:], new.vectors[:, width:]), "... or another's vectors")


def entries_may_be_permuted(factory: Factory) -> None:
    """The order of entries means nothing: codes follow a permutation, vectors do not change."""
    quantizer, x = _made(factory)
    if not hasattr(quantizer, "codebook"):
        return
    before = quantizer(x, temperature=None)
    order = torch.randperm(quantizer.codebook_size, generator=seeded())
    with torch.no_grad():
        quantizer.codebook.copy_(quantizer.codebook[:, order].clone())
        if _has_logits(quantizer):
            for parameter in quantizer.logits.parameters():
                books = parameter.unflatten(0, quantizer.codebook.shape[:2])
                parameter.copy_(books[:, order].flatten(0, 1).clone())
    after = quantizer(x, temperature=None)
    require(torch.equal(order[after.codes], before.codes), "codes do not follow a permutation of the entries")
    require_close(after.vectors, before.vectors, "vectors change with the order of entries")


def frames_are_independent(factory: Factory) -> None:
    """Without noise, a frame's code does not depend on the other frames or on their order."""
    quantizer, x = _made(factory)
    whole = quantizer(x, temperature=None)
    order = torch.randperm(len(x), generator=seeded())
    permuted = quantizer(x[order], temperature=None)
    require(torch.equal(permuted.codes, whole.codes[order]), "codes depend on the order of frames")
    alone = torch.cat([quantizer(x[i : i + 1], temperature=None).codes for i in range(8)])
    require(torch.equal(alone, whole.codes[:8]), "a frame alone gets other codes than among others")


def bfloat16_agrees_with_float32(factory: Factory) -> None:
    """Under autocast, nine codes of ten are those of float32, and all is finite."""
    quantizer, x = _made(factory, num_frames=256)
    x = x.bfloat16()
    expected = quantizer(x.float(), temperature=None).codes
    with torch.autocast("cpu", torch.bfloat16):
        out = quantizer(x, temperature=None)
    require_finite(out.vectors, "vectors under autocast")
    share = (out.codes == expected).double().mean().item()
    require(share >= 0.9, f"only {share:.0%} of the codes agree between bfloat16 and float32")
    sums = out.usage.double().sum(-1)
    require_close(sums, torch.ones_like(sums), "under autocast, usage does not sum to 1", tolerance=1e-3)


def extreme_inputs_stay_finite(factory: Factory) -> None:
    """Inputs of 0, +-1e4 and 1e-30, equal frames, any temperature: values and gradients are finite."""
    quantizer, x = _made(factory)
    for scale in (0.0, 1e-30, 1e4, -1e4):
        scaled = (x * scale).requires_grad_()
        for out in _everywhere(quantizer, scaled):
            require_finite(out.vectors, f"at input scale {scale}: vectors")
            require_finite(out.usage, f"at input scale {scale}: usage")
            total = out.vectors.sum() + out.usage.square().sum()
            if total.requires_grad:
                (grad,) = torch.autograd.grad(total, scaled)
                require_finite(grad, f"at input scale {scale}: the input's gradient")


def no_frames_are_no_problem(factory: Factory) -> None:
    """n = 0 and n = 1 work; without frames, the results are empty and finite."""
    quantizer, x = _made(factory)
    for num_frames in (0, 1):
        for out in _everywhere(quantizer, x[:num_frames]):
            require(len(out.vectors) == len(out.codes) == num_frames, f"{num_frames} frames in, others out")
            require_finite(out.usage, f"usage of {num_frames} frames")


def keeps_no_state(factory: Factory) -> None:
    """A call changes neither its input nor any parameter or buffer: schedules belong to the step."""
    quantizer, x = _made(factory)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    original = x.clone()
    quantizer.train()(x, temperature=1.0, generator=seeded())
    require(torch.equal(x, original), "the input was changed in place")
    changed = [name for name, value in quantizer.state_dict().items() if not torch.equal(value, before[name])]
    require(not changed, f"a call changed {', '.join(changed)}")


def _made(factory: Factory, num_frames: int = 32) -> tuple[Any, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        quantizer = factory(INPUT_DIM)
    return quantizer, torch.randn(num_frames, INPUT_DIM, generator=seeded(1))


def _everywhere(quantizer: Any, x: Tensor) -> list[Quantized]:
    """Results at every temperature, without noise and with it."""
    return [
        quantizer(x, temperature=temperature, generator=generator)
        for temperature in TEMPERATURES
        for generator in (None, seeded())
    ]


def _has_logits(quantizer: Any) -> bool:
    return hasattr(quantizer, "codebook") and hasattr(quantizer, "logits")


def _or_zero(grad: Tensor | None) -> Tensor:
    return torch.zeros(()) if grad is None or not grad.any() else grad
