"""Tables whose rows hold samples of one sensor each: which rows are whose."""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from modalities.wearables.recordings import Recording
from modalities.wearables.signals import GAP


def recording_of(
    values: Float[np.ndarray, "t c"],
    times: Float[np.ndarray, "t"],
    labels: Shaped[np.ndarray, "t"] | None = None,
    **known: Any,
) -> Recording:
    """A recording of rows in which each sensor has the samples that are its own."""
    own = samples(times, values[:, :3])
    turned = samples(times, values[:, 3:]) if np.isfinite(values[:, 3:]).any() else own
    if not own.all():
        others = (
            f"{int((~own).sum())} of {len(own)} rows are samples of another sensor than the accelerometer"
        )
        known["readings"] = (*known.get("readings", ()), others)
    labels = None if labels is None else labels[own]
    if (own == turned).all():
        return Recording.of(values[own], times[own], labels=labels, **known)
    apart = Recording.of(values[own, :3], times[own], labels=labels, **known)
    return replace(apart, gyroscope=values[turned, 3:], gyroscope_times=times[turned])


def samples(times: Float[np.ndarray, "t"], values: Float[np.ndarray, "t 3"]) -> Bool[np.ndarray, "t"]:
    """True in rows that are samples of a sensor, missing ones included.

    A row without any of its axes is one of another sensor where those around it are as near to each other as
    samples usually are; where they are further apart, a sample is missing there.
    """
    full = np.isfinite(values).any(axis=1)
    own = np.unique(times[full & np.isfinite(times)])
    if full.all() or len(own) < 3:
        return np.ones(len(full), dtype=bool)
    longest = GAP * np.percentile(np.diff(own), 95)
    following = np.searchsorted(own, times).clip(1, len(own) - 1)
    between = own[following] - own[following - 1] <= longest
    inside = (times >= own[0]) & (times <= own[-1])
    beside = (times > own[0] - longest) & (times < own[-1] + longest)
    found: np.ndarray = full | ~np.where(inside, between, beside)
    return found
