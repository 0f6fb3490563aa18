"""What a report shows of a row apart from numbers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Logo:
    """What a code stands for: how often each symbol occurs at each step around its frames."""

    code: int
    share: float  # of all frames
    frequencies: Numbers  # v w: of each symbol at each of w steps
    symbols: str  # one character each
    own_steps: int = 1  # in the middle: the frame's own


@dataclass(frozen=True)
class Illustration:
    """One row as the model sees it; t and s span the same input."""

    title: str
    image: Numbers  # bins t: a picture of the input; NaN is missing
    codes: Whole  # s g; -1 = none
    mask: npt.NDArray[np.bool_]  # s, True = to be predicted, and hidden from the encoder where any is
    usage: Whole  # g v: how often each entry was chosen
    seconds_per_frame: float | None = None  # None: the frames have no rate
    names: tuple[str, ...] = ()  # of the bins, if they are drawn as lines (or letters)
    stream: str = ""
    logos: tuple[Logo, ...] = ()
    hides: bool = True  # False: nothing is hidden, and what is ahead of every frame is a target
