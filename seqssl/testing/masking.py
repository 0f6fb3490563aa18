"""What every masking must do. A factory takes the width of a frame and gives a masking."""

from collections.abc import Callable

import torch
from torch import Tensor

from seqssl.model.protocols import Masking
from seqssl.testing.harness import Check, keeps_global_random_state, named, require, run_checks, seeded

Factory = Callable[[int], Masking]
INPUT_DIM = 6
LENGTHS = (1, 2, 7, 40, 150, 150, 150)


def check_masking(factory: Factory) -> None:
    """Run every check; raises `ChecksFailed` (an AssertionError) naming all that failed."""
    run_checks("the masking", masking_checks(), factory)


def masking_checks() -> list[Check]:
    """The checks by name; each takes the factory."""
    return named(
        sample_has_one_entry_per_frame,
        padding_is_never_masked,
        long_rows_are_masked_in_part,
        rows_get_masks_of_their_own,
        sample_draws_only_from_its_generator,
        apply_leaves_other_frames_alone,
        apply_hides_what_is_masked,
        apply_draws_only_from_its_generator,
        apply_keeps_type_and_input,
        gradient_reaches_every_parameter,
    )


def sample_has_one_entry_per_frame(factory: Factory) -> None:
    """sample gives Bool (b, max(lengths)), for a single row of one frame too."""
    masking = factory(INPUT_DIM)
    for lengths in (LENGTHS, (1,), (3, 1)):
        mask = masking.sample(torch.tensor(lengths), seeded())
        require(mask.dtype == torch.bool, f"the mask is {mask.dtype}, not bool")
        wanted = (len(lengths), max(lengths))
        require(mask.shape == wanted, f"the mask has shape {[*mask.shape]}, not {[*wanted]}")


def padding_is_never_masked(factory: Factory) -> None:
    """No masked frame at or beyond a row's length."""
    for mask in _samples(factory(INPUT_DIM)):
        for row, length in zip(mask, LENGTHS, strict=True):
            require(not row[length:].any(), f"padding is masked in a row of {length} frames")


def long_rows_are_masked_in_part(factory: Factory) -> None:
    """Over 20 draws, rows of 150 frames have some frames masked and some not."""
    long = torch.stack([mask[-3:] for mask in _samples(factory(INPUT_DIM))])
    require(long.any(), "nothing is ever masked")
    require(not long.all(), "every frame is always masked: nothing is left to predict from")


def rows_get_masks_of_their_own(factory: Factory) -> None:
    """Rows of equal length do not share one mask."""
    samples = _samples(factory(INPUT_DIM))
    require(any(not torch.equal(mask[-1], mask[-2]) for mask in samples), "all rows share one mask")


def sample_draws_only_from_its_generator(factory: Factory) -> None:
    """Equal generators give equal masks, others other masks; the global random state is never used."""
    masking, lengths = factory(INPUT_DIM), torch.tensor(LENGTHS)

    def call(seed: int = 0) -> Tensor:
        mask: Tensor = masking.sample(lengths, seeded(seed))
        return mask

    require(keeps_global_random_state(call), "the global random state was used")
    require(torch.equal(call(), call()), "equal generators gave different masks")
    require(any(not torch.equal(call(), call(seed)) for seed in range(1, 5)), "the generator has no effect")


def apply_leaves_other_frames_alone(factory: Factory) -> None:
    """Frames that are not masked come out bit for bit; with nothing masked, all of them."""
    masking, x, mask = _applied(factory)
    for chosen in (mask, torch.zeros_like(mask)):
        out = masking.apply(x, chosen, seeded())
        require(out.shape == x.shape, f"apply turns shape {[*x.shape]} into {[*out.shape]}")
        require(torch.equal(out[~chosen], x[~chosen]), "apply changes frames that are not masked")


def apply_hides_what_is_masked(factory: Factory) -> None:
    """What stands at masked frames does not depend on what was there."""
    masking, x, mask = _applied(factory)
    other = torch.where(mask[..., None], x + 1, x)
    same = torch.equal(masking.apply(x, mask, seeded()), masking.apply(other, mask, seeded()))
    require(same, "masked frames show through")


def apply_draws_only_from_its_generator(factory: Factory) -> None:
    """Equal generators give equal fills; the global random state is never used."""
    masking, x, mask = _applied(factory)

    def call() -> Tensor:
        out: Tensor = masking.apply(x, mask, seeded())
        return out

    require(keeps_global_random_state(call), "the global random state was used")
    require(torch.equal(call(), call()), "equal generators gave different fills")


def apply_keeps_type_and_input(factory: Factory) -> None:
    """The input's type comes out, and the input itself is not changed in place."""
    masking, x, mask = _applied(factory)
    for dtype in (torch.float32, torch.bfloat16):
        typed = x.to(dtype)
        original = typed.clone()
        out = masking.apply(typed, mask, seeded())
        require(out.dtype == dtype, f"apply turns {dtype} into {out.dtype}")
        require(torch.equal(typed, original), "apply changed its input in place")


def gradient_reaches_every_parameter(factory: Factory) -> None:
    """Learned fills are trained, and the gradient to frames is that of the identity where not masked."""
    masking, x, mask = _applied(factory)
    x = x.requires_grad_()
    masking.apply(x, mask, seeded()).sum().backward()
    grad = torch.zeros_like(x) if x.grad is None else x.grad
    require((grad[~mask] == 1).all(), "the gradient of frames that are kept is not that of the identity")
    require(not grad[mask].any(), "a gradient reaches the frames that are hidden")
    for name, parameter in getattr(masking, "named_parameters", dict)():
        if parameter.requires_grad:
            require(parameter.grad is not None and parameter.grad.any(), f"no gradient reaches {name}")


def _samples(masking: Masking) -> list[Tensor]:
    return [masking.sample(torch.tensor(LENGTHS), seeded(seed)) for seed in range(20)]


def _applied(factory: Factory) -> tuple[Masking, Tensor, Tensor]:
    x = torch.randn(3, 8, INPUT_DIM, generator=seeded(1))
    mask = torch.rand(3, 8, generator=seeded(2)) < 0.5
    return factory(INPUT_DIM), x, mask
