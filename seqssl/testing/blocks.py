"""What every block must do: it keeps the contract of mixers, but need not move information between frames."""

from seqssl.testing.harness import Check, run_checks
from seqssl.testing.mixers import Factory, mixer_checks, moves_information_between_frames


def check_block(factory: Factory) -> None:
    """Run every check on what `factory(dim)` gives; raises `ChecksFailed` naming all that failed."""
    run_checks("the block", block_checks(), factory)


def block_checks() -> list[Check]:
    """The checks by name; each takes the factory."""
    return [(name, check) for name, check in mixer_checks() if check is not moves_information_between_frames]
