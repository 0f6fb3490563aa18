"""What an adapter may give beside values: codes and labelled stretches, tried on its rows."""

from pathlib import Path

from seqssl.data.adapters import ModalityAdapter
from seqssl.data.problems import codes_problem, segments_problem
from seqssl.testing.harness import require
from seqssl.testing.raw import loads, stored_rows


def codes_fit_the_spec(adapter: ModalityAdapter, source: Path) -> None:
    """Codes have spec.codebook_sizes and spec.code_stride; they are in range, and as many as frames."""
    for row in stored_rows(adapter, source):
        for sample in loads(adapter, row):
            problem = codes_problem(sample, adapter.spec)
            require(not problem, f"{row['key']}: {problem}")


def segments_lie_in_the_row(adapter: ModalityAdapter, source: Path) -> None:
    """Every segment has at least one step, and all of its steps are in the row."""
    for row in stored_rows(adapter, source):
        for sample in loads(adapter, row):
            problem = segments_problem(sample)
            require(not problem, f"{row['key']}: {problem}")


def codes_and_segments_are_given_always_or_never(adapter: ModalityAdapter, source: Path) -> None:
    """What one sample has, all have; a row without a segment has an empty tuple of them."""
    samples = [adapter.load(row, None) for row in stored_rows(adapter, source)]
    for name in ("codes", "segments"):
        given = {getattr(sample, name) is not None for sample in samples}
        require(len(given) == 1, f"some samples have `{name}`, others do not")
