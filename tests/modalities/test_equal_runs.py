"""Runs of equal samples, against a walk through them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modalities.reading.runs import equal_runs

arrays = hnp.arrays(
    st.sampled_from([np.float32, np.int16]),
    hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=12),
    elements=st.integers(0, 2),
)  # fmt: skip


@given(arrays)
def test_runs_are_those_of_a_walk(values: np.ndarray) -> None:
    runs: list[list[int]] = []
    for place, sample in enumerate(values):
        if runs and np.array_equal(values[runs[-1][0]], sample):
            runs[-1][1] = place + 1
        else:
            runs.append([place, place + 1])
    starts, ends = equal_runs(values)
    assert [*zip(starts.tolist(), ends.tolist(), strict=True)] == [*map(tuple, runs)]


def test_nothing_equals_what_is_missing() -> None:
    starts, _ = equal_runs(np.array([1.0, np.nan, np.nan, 1.0, 1.0]))
    assert starts.tolist() == [0, 1, 2, 3]
