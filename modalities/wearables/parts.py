"""Which rows of one subject are a recording of their own: those of one device, position or session."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from modalities.wearables.signals import increasing

DEVICE_NAMES = ("device", "device_id", "sensor", "sensor_id", "phone", "watch", "model")
PART_NAMES = (
    *DEVICE_NAMES, "position", "placement", "body_part", "location", "side", "session", "session_id", "trial",
    "trial_id", "run", "recording", "recording_id", "file",
)  # fmt: skip
MOST_PARTS, LEAST_SAMPLES = (
    100,
    50,
)  # of a subject, and in a part on average: more and shorter ones are measurements
GONE_BACK, LEFT = 0.01, 0.1  # shares of late samples: noticed, and left in a recording that can be used
FEWER = 4  # times as few samples are late where a column tells recordings apart
DENSER = 0.75  # of the step within parts: a shorter one between all samples is that of several at once


@dataclass(frozen=True)
class Part:
    """Rows of a table that are one recording: all of them, a subject's, or one of a subject's."""

    subject: str | None = None
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # what the columns hold in these rows
    read: tuple[str, ...] = ()  # the columns of all parts of the table


def telling(times: Float[np.ndarray, "t"], codes: dict[str, Int[np.ndarray, "t"]]) -> tuple[str, ...]:
    """The column, or the two, with which times no longer go back or belong to several samples; () for none.

    `times` are those of one subject, `codes` say what each column holds in each row. A column whose names
    follow one another, or are states of one recording, divides nothing.
    """
    late = _late(times, np.zeros(len(times), dtype=np.int64))
    for size in (1, 2):
        for columns in combinations(codes, size):
            ids = codes[columns[0]]
            if size > 1:
                ids = pd.factorize(pd.MultiIndex.from_arrays([codes[column] for column in columns]))[0]
            count = int(ids.max(initial=0)) + 1
            if not _may_be_parts(count, len(times)):
                continue
            rest = _late(times, ids)
            apart = late > GONE_BACK and rest <= late / FEWER
            if rest <= LEFT and (apart or _at_once(times, ids)):
                return columns
    return ()


def named(codes: dict[str, Int[np.ndarray, "t"]]) -> tuple[str, ...]:
    """The first column that names several devices, where no times tell more; () for none."""
    return next(((name,) for name, one in codes.items() if _may_be_parts(int(one.max()) + 1, len(one))), ())


def _may_be_parts(count: int, samples: int) -> bool:
    """Whether so many names are few enough to be those of recordings."""
    return 2 <= count <= min(MOST_PARTS, samples / LEAST_SAMPLES)


def _late(times: Float[np.ndarray, "t"], ids: Int[np.ndarray, "t"]) -> float:
    """The share of samples that are not later than all before them of the same id."""
    later = sum(int(increasing(times[rows]).sum()) for rows in rows_of(ids))
    return 1 - later / max(1, len(times))


def _at_once(times: Float[np.ndarray, "t"], ids: Int[np.ndarray, "t"]) -> bool:
    """Whether samples of several ids come in turns, so that they lie closer than those of each."""
    own = np.concatenate([np.diff(times[rows]) for rows in rows_of(ids)])
    own, steps = own[own > 0], np.diff(np.unique(times[np.isfinite(times)]))
    return len(own) > 0 and len(steps) > 0 and bool(np.median(steps) < DENSER * np.median(own))


def rows_of(ids: Int[np.ndarray, "t"]) -> Sequence[Int[np.ndarray, "r"]]:
    """The rows of each id, in order."""
    order = np.argsort(ids, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(ids[order])) + 1)
