"""What every objective must do. A factory makes the objective for parts of the sizes `SIZES`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seqssl.model.protocols import CountsOther, Objective
from seqssl.model.types import Context, Features, LossTerm, MaskedFrames, Quantized
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


@dataclass(frozen=True)
class Sizes:
    """The widths that an objective may be wired to."""

    context_dim: int = 12
    target_dim: int = 12
    num_codebooks: int = 2
    codebook_size: int = 5


SIZES = Sizes()
Factory = Callable[[Sizes], Objective]
Case = tuple[Context, Quantized]


def check_objective(factory: Factory) -> None:
    """Run every check; raises `ChecksFailed` (an AssertionError) naming all that failed."""
    run_checks("the objective", objective_checks(), factory)


def objective_checks() -> list[Check]:
    """The checks by name; each takes the factory."""
    return named(
        names_a_tap_and_a_weight,
        gives_scalars,
        count_is_as_announced,
        totals_are_sums,
        draws_only_from_its_generator,
        something_is_trained,
        gradient_reaches_every_parameter,
        collapsed_targets_stay_finite,
        extreme_contexts_stay_finite,
        rows_of_one_frame_stay_finite,
        no_frames_cost_nothing,
        bfloat16_agrees_with_float32,
    )


def names_a_tap_and_a_weight(factory: Factory) -> None:
    """tap is a string, weight a number."""
    objective = _made(factory)
    require(isinstance(objective.tap, str), f"tap is {objective.tap!r}, not a string")
    require(isinstance(objective.weight, int | float), f"weight is {objective.weight!r}, not a number")


def gives_scalars(factory: Factory) -> None:
    """total and count are scalar tensors; they and every statistic are finite; those carry no gradient."""
    term = _term(_made(factory), *random_case())
    for name, value in {"total": term.total, "count": term.count}.items():
        require(isinstance(value, Tensor) and value.dim() == 0, f"{name} is not a scalar tensor")
        require_finite(value, name)
    for name, value in term.stats.items():
        require_finite(value, name)
        require(not value.requires_grad, f"the statistic {name} carries a gradient")


def count_is_as_announced(factory: Factory) -> None:
    """The count is the number of frames that are read, or what `counted` says before any forward pass."""
    objective = _made(factory)
    for case in (random_case(), repeated(random_case()), random_case(num_masked=(3, 0, 9))):
        count, announced = _term(objective, *case).count, _announced(objective, case[0])
        require(int(count) == announced, f"the count is {int(count)}, announced were {announced}")


def totals_are_sums(factory: Factory) -> None:
    """The same rows twice leave total / count as it is (up to fresh draws), with twice the frames counted.

    Not twice where the objective announces so: a function of the whole batch counts batches.
    """
    objective = _made(factory)
    case = random_case()
    once, twice = _term(objective, *case), _term(objective, *repeated(case))
    if not isinstance(objective, CountsOther):
        require(twice.count == 2 * once.count, "the count of two equal batches is not twice one's")
    one, two = once.total.detach() / once.count, twice.total.detach() / twice.count
    message = f"total / count goes from {one:.4g} to {two:.4g} when a batch is repeated"
    require(abs(two - one) <= 0.2 * abs(one), message)


def draws_only_from_its_generator(factory: Factory) -> None:
    """Equal generators give equal terms; the global random state is never used."""
    objective, case = _made(factory), random_case()
    require(keeps_global_random_state(lambda: _term(objective, *case)), "the global random state was used")
    one, two = _term(objective, *case), _term(objective, *case)
    require(torch.equal(one.total, two.total), "equal generators gave different totals")


def something_is_trained(factory: Factory) -> None:
    """A finite gradient reaches the contexts, the targets' vectors or usage, or the features."""
    case = random_case()
    inputs = _with_gradient(case)
    term = _term(_made(factory), *case)
    grads = torch.autograd.grad(term.total, inputs, allow_unused=True)
    reached = [grad for grad in grads if grad is not None]
    require(any(grad.any() for grad in reached), "no gradient reaches contexts, targets or features")
    for grad in reached:
        require_finite(grad, "a gradient")


def gradient_reaches_every_parameter(factory: Factory) -> None:
    """The objective's own parameters are trained."""
    objective = _made(factory)
    trained = {n: p for n, p in getattr(objective, "named_parameters", dict)() if p.requires_grad}
    if trained:
        _term(objective, *random_case()).total.backward()
    for name, parameter in trained.items():
        require(parameter.grad is not None, f"no gradient reaches {name}")
        require_finite(parameter.grad, f"the gradient of {name}")


def collapsed_targets_stay_finite(factory: Factory) -> None:
    """All frames with one code: no NaN, in the total or in a gradient."""
    context, targets = random_case()
    usage = torch.zeros_like(targets.usage)
    usage[:, 0] = 1
    vectors = targets.vectors[:1].expand_as(targets.vectors).clone()
    _require_finite_step(factory, (context, Quantized(vectors, torch.zeros_like(targets.codes), usage)))


def extreme_contexts_stay_finite(factory: Factory) -> None:
    """Contexts of 0 and of +-1e4."""
    context, targets = random_case()
    for scale in (0.0, 1e4, -1e4):
        _require_finite_step(factory, (replace(context, x=context.x * scale), targets))


def rows_of_one_frame_stay_finite(factory: Factory) -> None:
    """Rows with a single masked frame."""
    _require_finite_step(factory, random_case(num_masked=(1, 1, 1)))
    _require_finite_step(factory, random_case(num_masked=(1, 5, 0)))


def no_frames_cost_nothing(factory: Factory) -> None:
    """Nothing masked: total 0, count 0; but for what counts something else than frames, and finds it."""
    objective, case = _made(factory), random_case(num_masked=(0, 0, 0))
    if _announced(objective, case[0]):
        return
    term = _term(objective, *case)
    for name, value in (("total", term.total), ("count", term.count)):
        require(not value.detach(), f"the {name} of no frames is {value.detach():.4g}")


def bfloat16_agrees_with_float32(factory: Factory) -> None:
    """Under autocast the total is near that of float32."""
    objective, case = _made(factory), random_case()
    expected = _term(objective, *case)
    with torch.autocast("cpu", torch.bfloat16):
        term = _term(objective, *case)
    require_close(
        (term.total / term.count).float(),
        (expected.total / expected.count).float(),
        "bfloat16 and float32 disagree",
        tolerance=0.02,
    )


def random_case(num_masked: tuple[int, ...] = (12, 20, 7), sizes: Sizes = SIZES, seed: int = 0) -> Case:
    """Random contexts and targets of rows with these many masked frames, of 24 frames each."""
    generator = seeded(seed)
    size = max(24, *num_masked)
    ranks = torch.rand(len(num_masked), size, generator=generator).argsort(1).argsort(1)
    frames = MaskedFrames.of(ranks < torch.tensor(num_masked)[:, None])
    n, g, v = len(frames.rows), sizes.num_codebooks, sizes.codebook_size
    codes = torch.randint(v, (n, g), generator=generator)
    codebook = torch.randn(g, v, sizes.target_dim // g, generator=generator)
    vectors = torch.cat([codebook[i, codes[:, i]] for i in range(g)], 1)
    usage = torch.randn(g, v, generator=generator).softmax(-1)
    features = torch.randn(len(num_masked), size, sizes.context_dim, generator=generator)
    lengths = torch.full((len(num_masked),), size)
    x = torch.randn(n, sizes.context_dim, generator=generator)
    return Context(x, frames, Features(features, lengths)), Quantized(vectors, codes, usage)


def repeated(case: Case) -> Case:
    """The same rows twice."""
    context, targets = case
    features = context.features
    doubled = Features(features.x.repeat(2, 1, 1), features.lengths.repeat(2))
    frames = MaskedFrames.of(context.frames.mask.repeat(2, 1))
    return (
        Context(context.x.repeat(2, 1), frames, doubled),
        Quantized(targets.vectors.repeat(2, 1), targets.codes.repeat(2, 1), targets.usage),
    )


def _made(factory: Factory) -> Objective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return factory(SIZES)


def _announced(objective: Objective, context: Context) -> int:
    """What the plan says the term will be a sum over."""
    if isinstance(objective, CountsOther):
        return int(objective.counted(context.frames, context.features.lengths))
    return len(context.frames)


def _term(objective: Objective, context: Context, targets: Quantized) -> LossTerm:
    return objective(context, targets, seeded())


def _with_gradient(case: Case) -> list[Tensor]:
    context, targets = case
    tensors = [context.x, context.features.x, targets.vectors, targets.usage]
    return [tensor.requires_grad_() for tensor in tensors]


def _require_finite_step(factory: Factory, case: Case) -> None:
    inputs = _with_gradient(case)
    term = _term(_made(factory), *case)
    require_finite(term.total, "the total")
    if term.total.requires_grad:
        for grad in torch.autograd.grad(term.total, inputs, allow_unused=True):
            require(grad is None or grad.isfinite().all(), "a gradient holds NaN or infinity")
