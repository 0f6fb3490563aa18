"""Named checks, run one by one or all at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

Check = tuple[str, Callable[..., None]]
NUM_NAMED = 3  # of the checks that fail for one reason


class ChecksFailed(AssertionError):
    """Every check that a part failed, by name, with what is wrong; one cause is told once."""

    def __init__(self, part: str, failures: dict[str, str], num_checks: int) -> None:
        causes: dict[str, list[str]] = {}
        for name, message in failures.items():
            causes.setdefault(message, []).append(name)
        lines = [f"  {_some_of(names)}: {message}" for message, names in causes.items()]
        title = f"{part} fails {len(failures)} of {num_checks} checks:"
        super().__init__("\n".join([title, *lines]))
        self.failures = failures


def _some_of(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def named(*checks: Callable[..., None]) -> list[Check]:
    """Checks with their names, ready for `pytest.mark.parametrize("name, check", ...)`."""
    return [(check.__name__, check) for check in checks]


def run_checks(part: str, checks: Sequence[Check], *arguments: object) -> None:
    """Run every check; raises `ChecksFailed` with all that failed."""
    failures = {}
    for name, check in checks:
        try:
            check(*arguments)
        except (Exception, SystemExit) as error:  # whatever a broken part raises is a finding, not a crash
            kind = "" if isinstance(error, AssertionError) else f"raised {type(error).__name__}: "
            failures[name] = f"{kind}{error}"
    if failures:
        raise ChecksFailed(part, failures, len(checks))


def require(condition: object, message: str) -> None:
    """An assertion that `python -O` keeps."""
    if not condition:
        raise AssertionError(message)


def require_close(actual: Tensor, expected: Tensor, message: str, *, tolerance: float = 1e-5) -> None:
    """Equal shapes, and values within `tolerance` of the larger scale of the two."""
    require(
        actual.shape == expected.shape, f"{message}: shapes {[*actual.shape]} and {[*expected.shape]} differ"
    )
    if not actual.numel():
        return
    scale = max(1.0, float(expected.detach().abs().max()))
    gap = float((actual.detach().double() - expected.detach().double()).abs().max())
    require(gap <= tolerance * scale, f"{message}: values differ by up to {gap:.3g}")


def require_finite(value: Tensor, message: str) -> None:
    """No NaN, no infinity."""
    require(value.isfinite().all(), f"{message} holds NaN or infinity")


def seeded(seed: int = 0) -> Generator:
    """A fresh generator."""
    return Generator().manual_seed(seed)


def keeps_global_random_state(call: Callable[[], object]) -> bool:
    """Whether `call` leaves torch's global random state untouched."""
    before = torch.get_rng_state()
    call()
    return torch.equal(before, torch.get_rng_state())
