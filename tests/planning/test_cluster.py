"""The time of an update on many devices, by hand and in general."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssl.planning.assumptions import Assumptions
from seqssl.planning.cluster import Choice, cheapest, choices_of
from seqssl.planning.cost import Cost, Kept, Memory
from seqssl.planning.hardware import Gpu
from seqssl.planning.sharding import Unit, Weight

GB = 10**9
BLOCK = Unit((Weight(64, GB // 64, True),), is_block=True, sent=2, passes=2)  # 10^9 weights
REST = Unit((Weight(64, GB // 128, True),), is_block=False)  # half as many
COST = Cost(
    parts=[],
    memory=Memory(
        weights=10 * GB, model_buffers=0, gradients=10 * GB, optimizer=20 * GB,
        kept=(Kept(saved=4 * GB, blocks=4 * GB, block_inputs=GB, copies=0, block_copies=0, num_blocks=2),),
    ),
    checkpointed=False, precision="bfloat16", unit="s", rows=1, row_input=1.0, row_frames=1,
    once_flops=30e12, block_flops=10e12, units=(BLOCK, BLOCK, REST), why_whole="",
)  # fmt: skip
GPU = Gpu(flops=100e12, memory=80 * GB, link=100 * GB)
ASSUMED = Assumptions(utilization=0.5, bandwidth=50.0, overlap=0.0)


def way(devices: int, shards: int, accumulate: int, assumed: Assumptions = ASSUMED) -> Choice:
    found = choices_of(
        COST, GPU, assumed, devices=devices, accumulate=accumulate * devices, own_shards=shards
    )
    return next(choice for choice in found if choice.shards == shards and not choice.checkpointed)


def test_computing_is_flops_over_the_share_of_the_peak() -> None:
    once, twice = choices_of(COST, GPU, ASSUMED, devices=1, accumulate=3)
    assert (once.compute, twice.compute) == pytest.approx((3 * 30 / 50, 3 * 40 / 50))
    assert once.network == twice.network == 0


def test_whole_weights_are_summed_over_once_an_update() -> None:
    """10 GB go around a ring twice: in a machine at 100 GB/s, between machines at 50."""
    assert way(8, 1, 4).network == pytest.approx(2 * 7 / 8 * 10 / 100)
    assert way(16, 1, 4).network == pytest.approx(2 * 15 / 16 * 10 / 50)
    assert way(16, 1, 4, replace(ASSUMED, link=20.0)).network == pytest.approx(2 * 15 / 16 * 10 / 20)


def test_divided_weights_are_gathered_at_each_micro_step() -> None:
    """Two blocks of 2 GB, twice; once an update, the rest of 2 GB, and at its end 10 GB of gradients."""
    each, once = 2 * 2 * 2, 2 + 10
    assert way(8, 8, 4).network == pytest.approx(7 / 8 * (4 * each + once) / 100)
    assert way(16, 16, 4).network == pytest.approx(15 / 16 * (4 * each + once) / 50)
    # Two machines hold copies: each of eight pieces of the gradients, over an eighth of the bandwidth.
    copies = 2 * 1 / 2 * (10 / 8) / (50 / 8)
    assert way(16, 8, 4).network == pytest.approx(7 / 8 * (4 * each + once) / 100 + copies)


@given(
    st.sampled_from([1, 2, 8, 12, 64]),
    st.integers(1, 4),
    st.floats(0, 1),
    st.floats(0.01, 1),
    st.floats(1, 1e4),
)
def test_an_update_takes_as_long_as_the_longer_of_both_and_no_longer_than_both(
    devices: int, accumulate: int, overlap: float, utilization: float, bandwidth: float
) -> None:
    assumed = Assumptions(utilization=utilization, bandwidth=bandwidth, overlap=overlap)
    for choice in choices_of(COST, GPU, assumed, devices=devices, accumulate=accumulate * devices):
        both = choice.compute + choice.network
        assert max(choice.compute, choice.network) <= choice.seconds * (1 + 1e-9)
        assert choice.seconds <= both * (1 + 1e-9)
        if overlap == 0:
            assert choice.seconds == pytest.approx(both)


def test_the_cheapest_is_the_fastest_that_fits_else_the_smallest() -> None:
    ways = choices_of(COST, GPU, ASSUMED, devices=8, accumulate=8)
    assert cheapest(ways) == min(ways, key=lambda choice: choice.seconds)
    tight = choices_of(COST, replace(GPU, memory=30 * GB), ASSUMED, devices=8, accumulate=8)
    assert cheapest(tight).shards == 8 and cheapest(tight).fits
    none = choices_of(COST, replace(GPU, memory=GB), ASSUMED, devices=8, accumulate=8)
    assert cheapest(none).load.total == min(choice.load.total for choice in none)


def test_an_update_that_more_devices_share_than_it_has_micro_batches_grows() -> None:
    (choice, _, *_) = choices_of(COST, GPU, ASSUMED, devices=64, accumulate=3)
    assert choice.accumulate == 1
