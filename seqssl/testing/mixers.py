"""What every mixer must do. A factory takes the width and gives a mixer, which is checked in evaluation."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from seqssl.model.mixers import takes_valid
from seqssl.model.protocols import HasStep, Mixer
from seqssl.model.types import Frames, length_mask
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

Factory = Callable[[int], Mixer]
DIM = 16
LENGTHS = (9, 4, 1, 7)


def check_mixer(factory: Factory) -> None:
    """Run every check; raises `ChecksFailed` (an AssertionError) naming all that failed."""
    run_checks("the mixer", mixer_checks(), factory)


def mixer_checks() -> list[Check]:
    """The checks by name; each takes the factory."""
    return named(
        keeps_shape_and_stays_finite,
        moves_information_between_frames,
        padding_never_changes_a_frame,
        padding_gets_no_gradient,
        batch_mates_never_change_a_frame,
        rows_may_be_permuted,
        gradient_reaches_every_parameter,
        is_deterministic,
        bfloat16_agrees_with_float32,
        times_may_be_known,
        step_by_step_is_the_row_at_once,
        the_future_never_changes_the_past,
    )


def keeps_shape_and_stays_finite(factory: Factory) -> None:
    """(b, s, d) in, (b, s, d) out, for one frame too; valid frames are finite."""
    mixer, x, valid = _made(factory)
    for size in (x.shape[1], 1):
        out = mixer(x[:, :size], valid[:, :size])
        require(out.shape == (len(x), size, DIM), f"{[len(x), size, DIM]} turns into {[*out.shape]}")
        require_finite(out[valid[:, :size]], "the output")


def moves_information_between_frames(factory: Factory) -> None:
    """Some frame's output depends on another frame's input."""
    mixer, x, valid = _made(factory)
    x = x.requires_grad_()
    for frame in (0, -1):
        (grad,) = torch.autograd.grad(mixer(x, valid)[0, frame].square().sum(), x)
        others = grad[0].abs().sum(-1)
        others[frame] = 0
        if others.any():
            return
    require(False, "frames do not see each other")


def padding_never_changes_a_frame(factory: Factory) -> None:
    """A row alone and the same row with garbage behind it give the same valid frames."""
    mixer, x, valid = _made(factory)
    padded = mixer(torch.where(valid[..., None], x, 100 * x), valid)
    for row, length in enumerate(LENGTHS):
        alone = mixer(x[row : row + 1, :length], valid[row : row + 1, :length])
        require_close(padded[row, :length], alone[0], f"padding changes a row of {length} frames")


def padding_gets_no_gradient(factory: Factory) -> None:
    """Valid outputs do not depend on padding at all, not even a little."""
    mixer, x, valid = _made(factory)
    x = x.requires_grad_()
    (grad,) = torch.autograd.grad(mixer(x, valid)[valid].square().sum(), x)
    require(not grad[~valid].any(), "padding influences valid frames")


def batch_mates_never_change_a_frame(factory: Factory) -> None:
    """Other rows do not matter."""
    mixer, x, valid = _made(factory)
    other = x.clone()
    other[1:] += 1
    require_close(mixer(other, valid)[0], mixer(x, valid)[0], "batch mates change a row")


def rows_may_be_permuted(factory: Factory) -> None:
    """The order of rows means nothing."""
    mixer, x, valid = _made(factory)
    order = torch.tensor([2, 0, 3, 1])
    out, permuted = mixer(x, valid), mixer(x[order], valid[order])
    require_close(permuted[valid[order]], out[order][valid[order]], "outputs depend on the order of rows")


def gradient_reaches_every_parameter(factory: Factory) -> None:
    """In a row of many frames, every trainable parameter has a finite gradient."""
    mixer, x, valid = _made(factory)
    mixer(x, valid)[valid].square().sum().backward()
    for name, parameter in mixer.named_parameters():
        if parameter.requires_grad:
            require(parameter.grad is not None, f"no gradient reaches {name}")
            assert parameter.grad is not None
            require_finite(parameter.grad, f"the gradient of {name}")


def is_deterministic(factory: Factory) -> None:
    """In evaluation nothing is drawn."""
    mixer, x, valid = _made(factory)
    require(keeps_global_random_state(lambda: mixer(x, valid)), "the global random state was used")
    require_close(mixer(x, valid), mixer(x, valid), "two calls give different results", tolerance=0)


def bfloat16_agrees_with_float32(factory: Factory) -> None:
    """Under autocast the result is near that of float32."""
    mixer, x, valid = _made(factory)
    with torch.autocast("cpu", torch.bfloat16):
        low = mixer(x, valid)
    message = "bfloat16 and float32 disagree"
    require_close(low[valid].float(), mixer(x, valid)[valid], message, tolerance=0.05)


def times_may_be_known(factory: Factory) -> None:
    """Frames may come with times, in seconds; one that reads them stays finite, as others do."""
    mixer, x, valid = _made(factory)
    times = torch.arange(x.shape[1]).expand(valid.shape) * 0.5
    require_finite(mixer(x, valid, times)[valid], "with times, the output")


def step_by_step_is_the_row_at_once(factory: Factory) -> None:
    """Where it offers `init_state` and `step`: frame after frame gives what the whole row gives."""
    mixer, x, valid = _made(factory)
    if not isinstance(mixer.part, HasStep):
        return
    whole, state, outputs = mixer(x, torch.ones_like(valid)), mixer.part.init_state(len(x)), []
    for frame in x.unbind(1):
        y, state = mixer.part.step(frame, state)
        outputs.append(y)
    message = "steps differ from the row at once"
    require_close(torch.stack(outputs, dim=1), whole, message, tolerance=1e-4)


def the_future_never_changes_the_past(factory: Factory) -> None:
    """Where it offers `step`: an output depends on its own frame and those before it."""
    mixer, x, valid = _made(factory)
    if not isinstance(mixer.part, HasStep):
        return
    later, half, everywhere = x.clone(), x.shape[1] // 2, torch.ones_like(valid)
    later[:, half:] += 1
    before, after = mixer(x, everywhere)[:, :half], mixer(later, everywhere)[:, :half]
    require_close(after, before, "later frames change earlier outputs")


def _made(factory: Factory) -> tuple["_Called", Tensor, Tensor]:
    """The part in evaluation, frames (b, s, d), and which of them are valid."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixer = factory(DIM)
    if isinstance(mixer, torch.nn.Module):
        mixer.eval()
    lengths = torch.tensor(LENGTHS)
    x = torch.randn(len(LENGTHS), max(LENGTHS), DIM, generator=seeded(1))
    return _Called(mixer), x, length_mask(lengths, max(LENGTHS))


class _Called:
    """A mixer or block, called with frames of which only the valid ones are known, and perhaps times."""

    def __init__(self, part: Mixer) -> None:
        self.part, self._takes_valid = part, takes_valid(part)

    def __call__(self, x: Tensor, valid: Tensor, times: Tensor | None = None) -> Tensor:
        frames = Frames(valid, times)
        return self.part(x, valid) if self._takes_valid else self.part(x, frames)  # type: ignore[arg-type]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of the part, if it has any."""
        return self.part.named_parameters() if isinstance(self.part, nn.Module) else iter(())
