"""What every feature encoder must do, checked in evaluation on random inputs made by a `SampleSpec`."""

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from seqssl.data.adapters import SampleSpec
from seqssl.model.protocols import FeatureEncoder
from seqssl.model.types import Features
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


def check_feature_encoder(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """Run every check; raises `ChecksFailed` (an AssertionError) naming all that failed."""
    run_checks("the feature encoder", feature_encoder_checks(), encoder, spec)


def feature_encoder_checks() -> list[Check]:
    """The checks by name; each takes the encoder and the spec of its inputs."""
    return named(
        output_lengths_are_real,
        output_lengths_take_any_shape,
        frames_are_finite_and_dim_wide,
        padding_never_changes_a_frame,
        batch_mates_never_change_a_frame,
        missing_values_never_change_a_frame,
        gradient_reaches_every_parameter,
        is_deterministic,
    )


def output_lengths_are_real(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """For every length from 1: frames promised = frames made, and at least one."""
    for length in _lengths(spec):
        lengths = torch.tensor([length])
        features = _encode(encoder, random_inputs(spec, length), lengths)
        promised = int(encoder.output_lengths(lengths))
        made = features.x.shape[1]
        where = f"{length} input steps: output_lengths promises {promised} frames"
        require(promised >= 1, f"{where}; every row needs at least one")
        require(made == promised, f"{where}, {made} came out")
        require(features.lengths.tolist() == [promised], f"{where}, lengths says {features.lengths.tolist()}")


def output_lengths_take_any_shape(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """A table of lengths gives a table of integers, that never fall as rows grow."""
    table = torch.arange(1, 1201).view(3, 400)
    frames = encoder.output_lengths(table)
    require(frames.shape == table.shape, f"shape {[*table.shape]} turns into {[*frames.shape]}")
    require(not frames.is_floating_point(), "lengths are integers")
    require((frames.flatten().diff() >= 0).all(), "a longer row gives fewer frames")


def frames_are_finite_and_dim_wide(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """x is a float (b, s, encoder.dim) and finite; s is that of the longest row."""
    inputs, lengths = _batch(encoder, spec)
    x = _encode(encoder, inputs, lengths).x
    wanted = (len(inputs), int(encoder.output_lengths(lengths).max()), encoder.dim)
    require(x.shape == wanted, f"frames have shape {[*x.shape]}, not {[*wanted]}")
    require(x.is_floating_point(), f"frames are {x.dtype}, not floats")
    require_finite(x, "the output")


def padding_never_changes_a_frame(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """A row alone and the same row with garbage behind it give the same valid frames."""
    inputs, lengths = _batch(encoder, spec)
    padded = _encode(encoder, inputs, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = _encode(encoder, inputs[row : row + 1, :length], lengths[row : row + 1])
        frames = int(alone.lengths)
        message = f"padding changes a row of {length} input steps"
        require(int(padded.lengths[row]) == frames, f"{message}: the number of frames")
        require_close(padded.x[row, :frames], alone.x[0, :frames], message, tolerance=1e-4)


def batch_mates_never_change_a_frame(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """Other rows do not matter."""
    inputs, lengths = _batch(encoder, spec)
    other = inputs.clone()
    other[1:] = random_inputs(spec, inputs.shape[1], seed=9)
    one, two = _encode(encoder, inputs, lengths), _encode(encoder, other, lengths)
    frames = int(one.lengths[0])
    require_close(one.x[0, :frames], two.x[0, :frames], "batch mates change a row", tolerance=1e-4)


def missing_values_never_change_a_frame(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """Where the encoder reads `observed`: what stands in the place of a missing value does not matter."""
    if not reads(encoder, "observed"):
        return
    inputs, lengths = _batch(encoder, spec)
    observed = torch.rand(inputs.shape, generator=seeded(3)) < 0.7
    other = torch.where(observed, inputs, random_inputs(spec, inputs.shape[1], num_rows=4, seed=9))
    one, two = (_encode(encoder, values, lengths, observed).x for values in (inputs, other))
    require_close(one, two, "a missing value changes a frame")
    whole = _encode(encoder, inputs, lengths, torch.ones_like(observed)).x
    require(not torch.equal(whole, one), "`observed` changes nothing")
    plain = _encode(encoder, inputs, lengths)
    for row, frames in enumerate(plain.lengths.tolist()):
        require_close(plain.x[row, :frames], whole[row, :frames], "observed=None is not all observed")


def gradient_reaches_every_parameter(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """Every trainable parameter has a finite gradient."""
    inputs, lengths = _batch(encoder, spec)
    trained = {n: p for n, p in getattr(encoder, "named_parameters", dict)() if p.requires_grad}
    if not trained:
        return
    x = _encode(encoder, inputs, lengths).x
    if reads(encoder, "observed"):  # a vector for what is missing wants something missing
        observed = torch.rand(inputs.shape, generator=seeded(3)) < 0.7
        x = _encode(encoder, inputs, lengths, observed).x
    require(x.requires_grad, "the output carries no gradient")
    grads = torch.autograd.grad(x.square().sum(), [*trained.values()], allow_unused=True)
    for name, grad in zip(trained, grads, strict=True):
        require(grad is not None and grad.any(), f"no gradient reaches {name}")
        require_finite(grad, f"the gradient of {name}")


def is_deterministic(encoder: FeatureEncoder, spec: SampleSpec) -> None:
    """In evaluation nothing is drawn, and inputs are not changed in place."""
    inputs, lengths = _batch(encoder, spec)
    original = inputs.clone()
    require(keeps_global_random_state(lambda: _encode(encoder, inputs, lengths)), "global random state used")
    require(torch.equal(inputs, original), "the inputs were changed in place")
    one, two = _encode(encoder, inputs, lengths).x, _encode(encoder, inputs, lengths).x
    require(torch.equal(one, two), "two calls give different results")


def random_inputs(spec: SampleSpec, length: int, *, num_rows: int = 1, seed: int = 0) -> Tensor:
    """Inputs as the spec describes them: normal floats, or uniform ids."""
    shape = [num_rows, length] if spec.channels is None else [num_rows, length, spec.channels]
    if spec.vocab_size is not None:
        return torch.randint(spec.vocab_size, shape, generator=seeded(seed))
    return 0.1 * torch.randn(shape, generator=seeded(seed))


def _lengths(spec: SampleSpec) -> Iterator[int]:
    """1 to 40, then ever larger steps up to 3,000."""
    length = 1
    while length <= min(spec.max_len or 3_000, 3_000):
        yield length
        length = max(length + 1, int(length * 1.12)) if length >= 40 else length + 1


def _batch(encoder: FeatureEncoder, spec: SampleSpec) -> tuple[Tensor, Tensor]:
    """Rows of very different length; the first is short, so that it has much padding."""
    longest = min(spec.max_len or 1_700, 1_700)
    lengths = torch.tensor([max(1, longest // 3), longest, 1, max(1, longest // 2)])
    return random_inputs(spec, longest, num_rows=4), lengths


def _encode(
    encoder: FeatureEncoder, inputs: Tensor, lengths: Tensor, observed: Tensor | None = None
) -> Features:
    """Encode for evaluation; `observed` only for those who read it."""
    if isinstance(encoder, nn.Module):
        encoder.eval()
    extra = {} if observed is None else {"observed": observed}
    return encoder(inputs, lengths, **extra)


def reads(encoder: FeatureEncoder, name: str) -> bool:
    """Whether a feature encoder asks for `observed` or `times`."""
    return (
        name in inspect.signature(encoder.forward if isinstance(encoder, nn.Module) else encoder).parameters
    )
