"""What can be wrong with a sample: a row that breaks its spec's contract is left out, with the reason."""

import numpy as np

from seqssl.data.adapters import Sample, SampleSpec

MAX_VALUE = 1e15  # float32 can still hold its square


def problem_of(sample: Sample, spec: SampleSpec, length: int) -> str:
    """The first thing that is wrong, in words; "" for nothing. `length`: the input steps that the row has."""
    return (
        _of_values(sample, spec, length)
        or _of_observed(sample)
        or codes_problem(sample, spec)
        or segments_problem(sample)
    )


def _of_values(sample: Sample, spec: SampleSpec, length: int) -> str:
    """What is wrong with the values or their times; "" for nothing."""
    values = sample.values
    if len(values) != length or len(values) == 0:
        return f"{len(values)} input steps where the row says {length}"
    axes = (spec.channels,) if spec.channels else ()
    if str(values.dtype) != spec.dtype or values.shape[1:] != axes:
        found = f"{values.dtype}{list(values.shape[1:])}"
        return f"a step is {found} where the spec says {spec.dtype}{list(axes)}"
    if not np.isfinite(values).all():
        return "not-a-number or infinite values"
    if spec.vocab_size is not None and not 0 <= int(values.min()) <= int(values.max()) < spec.vocab_size:
        return f"ids outside [0, {spec.vocab_size})"
    if values.dtype.kind == "f" and np.abs(values).max() > MAX_VALUE:
        return f"values beyond {MAX_VALUE:g}, too large to compute with"
    if sample.times is not None and sample.times.shape != values.shape[:1]:
        return f"{sample.times.shape} times for {len(values)} input steps"
    return ""


def _of_observed(sample: Sample) -> str:
    """What is wrong with `observed`; "" for nothing."""
    values, observed = sample.values, sample.observed
    if observed is None:
        return ""
    if observed.shape != values.shape or observed.dtype != bool:
        return f"`observed` is {observed.dtype}{[*observed.shape]}, the values {[*values.shape]}"
    if not observed.any():
        return "nothing in it is observed"
    if values.dtype.kind == "f" and values[~observed].any():
        return "a missing value is not 0: set it to 0 where `observed` is False"
    return ""


def codes_problem(sample: Sample, spec: SampleSpec) -> str:
    """What is wrong with the codes that a sample comes with; "" for nothing."""
    codes, sizes = sample.codes, spec.codebook_sizes
    if codes is None:
        return ""
    if sizes is None or spec.code_stride is None:
        return "a sample has codes, and the spec has no codebook_sizes or no code_stride"
    if codes.dtype.kind != "i" or codes.ndim != 2 or codes.shape[1] != len(sizes) or not len(codes):
        return f"codes are {codes.dtype}{[*codes.shape]}; they are whole numbers, {len(sizes)} a frame"
    if (codes < -1).any() or (codes >= np.array(sizes)).any():
        return f"a code is outside [-1, {' or '.join(str(size) for size in sorted(set(sizes)))})"
    frames = -(-len(sample.values) // spec.code_stride)
    if not frames // 2 <= len(codes) <= frames:  # feature encoders without padding make a few less
        return f"{len(codes)} frames of codes for {frames} times {spec.code_stride} input steps"
    return ""


def segments_problem(sample: Sample) -> str:
    """What is wrong with the labelled stretches of a sample; "" for nothing."""
    for segment in sample.segments or ():
        if not 0 <= segment.start < segment.end <= len(sample.values):
            where = f"[{segment.start}, {segment.end})"
            return (
                f"the segment {segment.label!r} at {where} is empty or outside the {len(sample.values)} steps"
            )
    return ""
