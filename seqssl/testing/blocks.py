"""What every block must do: it keeps the contract of mixers, but need not move information between frames."""

from seqssl.testing.harness import Check, named, run_checks
from seqssl.testing.mixers import (
    Factory,
    batch_mates_never_change_a_frame,
    bfloat16_agrees_with_float32,
    gradient_reaches_every_parameter,
    is_deterministic,
    keeps_shape_and_stays_finite,
    padding_gets_no_gradient,
    padding_never_changes_a_frame,
    rows_may_be_permuted,
    step_by_step_is_the_row_at_once,
    the_future_never_changes_the_past,
    times_may_be_known,
)


def check_block(factory: Factory) -> None:
    """Run every check on what `factory(dim)` gives; raises `ChecksFailed` naming all that failed."""
    run_checks("the block", block_checks(), factory)


def block_checks() -> list[Check]:
    """The checks by name; each takes the factory."""
    return named(
        keeps_shape_and_stays_finite,
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
