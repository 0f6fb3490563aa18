"""Lengths of a configuration, in seconds or input steps, as input steps."""

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
    """`data.<name>_seconds` or `data.<name>_frames` in input steps; None where neither is set."""
    seconds, frames = getattr(config, f"{name}_seconds"), getattr(config, f"{name}_frames")
    if seconds is None:
        return None if frames is None else int(frames)
    if spec.rate_hz is None:
        raise UserError(
            f"data.{name}_seconds: this modality has no rate; use data.{name}_frames (input steps)."
        )
    return int(seconds * spec.rate_hz)


def lengths_of(config: DataConfig, spec: SampleSpec) -> Lengths:
    """How rows become batches, in input steps."""
    return Lengths(
        batch_length=length_of(config, "batch", spec) or 1,
        max_length=length_of(config, "max", spec),
        join_length=length_of(config, "join", spec),
    )
