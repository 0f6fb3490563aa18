"""The problems of a configuration, reported all at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from seqssl.config.values import Value


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with what to do about it."""

    key: str
    value: Value
    remedy: str
    origin: str


def report(problems: Sequence[Problem]) -> str:
    """All problems as one message."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the configuration:"
    lines = [
        f"  {problem.key}{'' if problem.value is None else f' = {problem.value}'}: {problem.remedy}"
        f"  [{problem.origin}]"
        for problem in problems
    ]
    return "\n".join([count, *lines])
