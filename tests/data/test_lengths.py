"""Lengths in seconds and in input steps."""

import pytest

from seqssl import SampleSpec, UserError
from seqssl.config.schema import DataConfig
from seqssl.data.lengths import lengths_of


def spec(rate_hz: float | None) -> SampleSpec:
    return SampleSpec(dtype="float32", units="one", rate_hz=rate_hz)


def test_seconds_become_input_steps() -> None:
    config = DataConfig(batch_seconds=4.0, max_seconds=1.99, join_frames=7)
    found = lengths_of(config, spec(10.0))
    assert found == {"batch_length": 40, "max_length": 19, "join_length": 7}


def test_seconds_need_a_rate() -> None:
    with pytest.raises(UserError, match=r"data\.batch_frames"):
        lengths_of(DataConfig(batch_seconds=1.0), spec(None))
