"""What all targets must do, tried on a batch of yours and frames of any feature encoder."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from seqssl.model.protocols import Targets
from seqssl.model.types import Batch, Features, MaskedFrames, Quantized, length_mask
from seqssl.testing.harness import (
    Check,
    keeps_global_random_state,
    named,
    require,
    require_close,
    run_checks,
    seeded,
)

Factory = Callable[[], Targets]


def check_targets(factory: Factory, batch: Batch, features: Features) -> None:
    """Run every check on the targets that `factory()` gives; raises `ChecksFailed` naming all that failed.

    `batch` holds rows of several lengths, `features` its frames.
    """
    run_checks("the targets", targets_checks(), factory, batch, features)


def targets_checks() -> list[Check]:
    """The checks by name; each takes the factory, a batch and its frames."""
    return named(
        usable_frames_are_valid,
        sizes_are_as_announced,
        codes_are_in_range,
        usage_sums_to_one,
        a_target_is_its_frames_own,
        everywhere_says_the_same,
        padding_never_changes_a_code,
        is_deterministic_without_noise,
    )


def usable_frames_are_valid(factory: Factory, batch: Batch, features: Features) -> None:
    """`usable` gives a boolean for each frame, and True only on valid ones."""
    usable = factory().usable(batch, features.valid)
    require(usable.dtype == torch.bool, f"usable is {usable.dtype}, not bool")
    shape = [*features.valid.shape]
    require(usable.shape == features.valid.shape, f"usable has shape {[*usable.shape]}, not {shape}")
    require(not (usable & ~features.valid).any(), "a frame of padding is usable")
    require(usable.any(), "no frame is usable: take another batch")


def sizes_are_as_announced(factory: Factory, batch: Batch, features: Features) -> None:
    """n frames have codes (n, g), one for each of `codebook_sizes`, and vectors (n, q) with q = dim."""
    targets, frames = _made(factory, batch, features)
    found, n = _of(targets, batch, features, frames), len(frames)
    wanted = [n, len(targets.codebook_sizes)]
    require([*found.codes.shape] == wanted, f"codes have shape {[*found.codes.shape]}, not {wanted}")
    wanted = [n, targets.dim]
    require([*found.vectors.shape] == wanted, f"vectors have shape {[*found.vectors.shape]}, not {wanted}")
    require(targets.dim or targets.codebook_sizes, "there are neither codes nor vectors")
    identity = found.identity
    require(identity.shape[0] == n, f"identity_codes are {len(identity)}, for {n} frames")


def codes_are_in_range(factory: Factory, batch: Batch, features: Features) -> None:
    """A usable frame has all of its codes, each below the size of its codebook."""
    targets, frames = _made(factory, batch, features)
    codes = _of(targets, batch, features, frames).codes
    for number, size in enumerate(targets.codebook_sizes):
        low, high = int(codes[:, number].min()), int(codes[:, number].max())
        require(0 <= low and high < size, f"codes reach from {low} to {high} in a codebook of {size} entries")


def usage_sums_to_one(factory: Factory, batch: Batch, features: Features) -> None:
    """`usage` (l, v) has a row for each learned codebook, the first of them, which sums to 1."""
    targets, frames = _made(factory, batch, features)
    usage = _of(targets, batch, features, frames).usage
    most = len(targets.codebook_sizes)
    require(usage.dim() == 2 and len(usage) <= most, f"usage is {[*usage.shape]}, for {most} codebooks")
    if len(usage):
        require_close(usage.sum(1).float(), torch.ones(len(usage)), "usage does not sum to 1", tolerance=1e-4)


def a_target_is_its_frames_own(factory: Factory, batch: Batch, features: Features) -> None:
    """The target of a frame does not depend on which others are asked for."""
    targets, frames = _made(factory, batch, features)
    every_other = frames.mask.clone()
    every_other[:, ::2] = False
    some = MaskedFrames.of(every_other)
    kept = every_other[frames.rows, frames.columns]
    whole, part = _of(targets, batch, features, frames), _of(targets, batch, features, some)
    require(torch.equal(part.codes, whole.codes[kept]), "codes depend on the other frames")
    require_close(part.vectors, whole.vectors[kept], "vectors depend on the other frames", tolerance=1e-4)


def everywhere_says_the_same(factory: Factory, batch: Batch, features: Features) -> None:
    """`everywhere` (b, s, g) has the codes of every usable frame, and -1 on padding."""
    targets, frames = _made(factory, batch, features)
    codes = _of(targets, batch, features, frames).codes
    everywhere = targets.everywhere(batch, features)
    wanted = [*features.valid.shape, len(targets.codebook_sizes)]
    require([*everywhere.shape] == wanted, f"everywhere has shape {[*everywhere.shape]}, not {wanted}")
    require(torch.equal(everywhere[frames.rows, frames.columns], codes), "everywhere gives other codes")
    require((everywhere[~features.valid] == -1).all(), "padding has a code")


def padding_never_changes_a_code(factory: Factory, batch: Batch, features: Features) -> None:
    """What stands behind the end of a row does not matter."""
    targets, frames = _made(factory, batch, features)
    clean = _of(targets, batch, features, frames)
    real = length_mask(batch.lengths, batch.inputs.shape[1])
    real = real.reshape(*real.shape, *[1] * (batch.inputs.dim() - 2))
    other = replace(batch, inputs=torch.where(real, batch.inputs, torch.ones_like(batch.inputs)))
    noisy = replace(features, x=torch.where(features.valid[..., None], features.x, 7.0))
    found = _of(targets, other, noisy, frames)
    require(torch.equal(found.codes, clean.codes), "padding changes a code")
    require_close(found.vectors, clean.vectors, "padding changes a vector")


def is_deterministic_without_noise(factory: Factory, batch: Batch, features: Features) -> None:
    """Without temperature and generator nothing is drawn."""
    targets, frames = _made(factory, batch, features)

    def call() -> Quantized:
        return _of(targets, batch, features, frames)

    require(keeps_global_random_state(call), "the global random state was used")
    one, two = call(), call()
    require(torch.equal(one.codes, two.codes), "two calls give different codes")
    require_close(one.vectors, two.vectors, "two calls give different vectors", tolerance=0)


def _made(factory: Factory, batch: Batch, features: Features) -> tuple[Targets, MaskedFrames]:
    """The targets in evaluation, and about half of the usable frames."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        targets = factory()
    if isinstance(targets, nn.Module):
        targets.eval()
    usable = targets.usable(batch, features.valid)
    drawn: Tensor = torch.rand(usable.shape, generator=seeded(2)) < 0.6
    return targets, MaskedFrames.of(usable & drawn)


def _of(targets: Targets, batch: Batch, features: Features, frames: MaskedFrames) -> Quantized:
    """The targets of some frames, without noise and gradient."""
    with torch.no_grad():
        return targets(batch, features, frames, temperature=None, generator=None)
