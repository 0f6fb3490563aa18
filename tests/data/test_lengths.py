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


def test_rounding_loses_no_step() -> None:
    """In binary, 0.57 x 100 is a little less than 57."""
    found = lengths_of(DataConfig(batch_seconds=0.57, max_seconds=0.29, join_seconds=0.5799), spec(100.0))
    assert found == {"batch_length": 57, "max_length": 29, "join_length": 57}


@pytest.mark.parametrize("name", ["batch", "max", "join"])
def test_less_than_a_step_is_told(name: str) -> None:
    """Before, it counted as no limit."""
    config = DataConfig(**{"batch_seconds": 5.0, f"{name}_seconds": 0.5})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"data.{name}_seconds = 0.5: is less than one input step, .* 1 s"):
        lengths_of(config, spec(1.0))
