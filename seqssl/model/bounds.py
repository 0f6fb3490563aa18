"""What a number in a signature may be: markers that the configuration reads and checks.

    def __init__(self, dim: int, *, num_heads: Annotated[int, POSITIVE, Divides("dim")] = 8) -> None:

They are read from the source text, so that a wrong number is reported before anything is imported. A rule
that no marker can express is checked by the constructor, with a ValueError.
"""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

_HOLDS = {"above": operator.gt, "at least": operator.ge, "below": operator.lt, "at most": operator.le}


@dataclass(frozen=True)
class Wire:
    """A number that is wired to a constructor, and the key of the configuration that it comes from."""

    key: str
    value: int


class Marker(ABC):
    """A rule about a parameter, written in its annotation: `Annotated[float, marker]`."""

    @abstractmethod
    def remedy(self, value: int | float, wires: Mapping[str, Wire]) -> str:
        """What to do about a number that breaks the rule; "" for one that keeps it.

        `wires` holds by name the wiring that is known from the configuration alone.
        """


@dataclass(frozen=True)
class Bound(Marker):
    """A number lies within limits. `infinite`: it may also be infinite; `advice`: what else to say."""

    above: int | float | None = None
    at_least: int | float | None = None
    below: int | float | None = None
    at_most: int | float | None = None
    infinite: bool = False
    advice: str = ""

    def remedy(self, value: int | float, wires: Mapping[str, Wire]) -> str:
        """The whole interval, as in "must be at least 0 and below 1"; "" for a number in it."""
        limits = zip(_HOLDS, (self.above, self.at_least, self.below, self.at_most), strict=True)
        asked = {words: limit for words, limit in limits if limit is not None}
        if all(_HOLDS[words](value, limit) for words, limit in asked.items()):
            return ""
        interval = " and ".join(f"{words} {_written(limit)}" for words, limit in asked.items())
        return f"must be {interval}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Odd(Marker):
    """A number is odd."""

    def remedy(self, value: int | float, wires: Mapping[str, Wire]) -> str:
        """The rule and its reason; "" for an odd number."""
        return "" if value % 2 else "must be odd, so that it has a middle"


@dataclass(frozen=True)
class Divides(Marker):
    """A number divides another one, which is wired to the constructor under the name `name`."""

    name: str

    def remedy(self, value: int | float, wires: Mapping[str, Wire]) -> str:
        """The number that has to be a multiple; "" where it is one, or is not known yet."""
        wire = wires.get(self.name)
        if wire is None or (value > 0 and wire.value % value == 0):
            return ""
        return f"must divide {wire.key} = {wire.value}"


POSITIVE = Bound(above=0)
NOT_NEGATIVE = Bound(at_least=0)
SHARE = Bound(at_least=0, below=1)
ODD = Odd()


def _written(limit: int | float) -> str:
    """A limit as text; large powers of two are written as such."""
    power = int(math.log2(limit)) if limit > 2**20 else 0
    return f"2**{power}" if power and limit == 2**power else f"{limit:g}"
