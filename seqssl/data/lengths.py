"""Lengths of a configuration, in seconds or input steps, as input steps."""

import math
from typing import TypedDict

from seqssl.config.schema import DataConfig
from seqssl.data.adapters import SampleSpec
from seqssl.errors import UserError


class Lengths(TypedDict):
    """How rows become batches, in input steps."""

    batch_length: int
    max_length: int | None
    join_length: int | None


def length_of(config: DataConfig, name: str, spec: SampleSpec) -> int | None:
    """`data.<name>_seconds` or `data.<name>_frames` in input steps; None where neither is set.

    UserError for seconds without a rate, or for less than one step.
    """
    seconds, frames = getattr(config, f"{name}_seconds"), getattr(config, f"{name}_frames")
    if seconds is None:
        return None if frames is None else int(frames)
    if spec.rate_hz is None:
        raise UserError(
            f"data.{name}_seconds: this modality has no rate; use data.{name}_frames (input steps)."
        )
    steps: int = math.floor(seconds * spec.rate_hz + 1e-6)  # 0.57 s at 100 Hz are 57, not 56.99999999999999
    if steps < 1:
        raise UserError(
            f"data.{name}_seconds = {seconds:g}: is less than one input step, which takes "
            f"{1 / spec.rate_hz:g} s; say more."
        )
    return steps


def lengths_of(config: DataConfig, spec: SampleSpec) -> Lengths:
    """How rows become batches, in input steps."""
    return Lengths(
        batch_length=length_of(config, "batch", spec) or 1,
        max_length=length_of(config, "max", spec),
        join_length=length_of(config, "join", spec),
    )


def longest_row(config: DataConfig, spec: SampleSpec) -> int:
    """Input steps of the longest row that a batch can hold."""
    lengths = lengths_of(config, spec)
    longest = lengths["max_length"]
    if longest is None and spec.max_len:
        longest = max(spec.max_len, lengths["join_length"] or 0)
    return min(lengths["batch_length"], longest or lengths["batch_length"])
