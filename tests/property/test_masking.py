"""Properties of span masking: what is masked, how much, and by which draws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqssl import MaskedFrames, SpanMasking
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, masked_frames, seeds

start_probs = st.sampled_from([0.0, 0.01, 0.065, 0.3, 1.0])
spans = st.integers(1, 15)


def runs(row: Tensor) -> list[tuple[int, int]]:
    """(start, end) of each run of true entries."""
    edges = torch.cat([torch.zeros(1, dtype=torch.bool), row, torch.zeros(1, dtype=torch.bool)]).int().diff()
    return list(
        zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist(), strict=True)
    )


@given(lengths(), start_probs, spans, st.integers(0, 3), seeds)
def test_spans_are_whole_and_padding_is_never_masked(
    sizes: Tensor, start_prob: float, span: int, min_spans: int, seed: int
) -> None:
    """Every run is at least `span` long, unless the row ends; nothing is masked behind the row."""
    mask = SpanMasking(3, start_prob=start_prob, span=span, min_spans=min_spans).sample(sizes, seeded(seed))
    assert mask.shape == (len(sizes), int(sizes.max()))
    for row, length in zip(mask, sizes.tolist(), strict=True):
        assert not row[length:].any()
        for start, end in runs(row):
            assert end - start >= span or end == length


@given(lengths(), spans, st.integers(1, 4), seeds)
def test_every_row_has_its_spans(sizes: Tensor, span: int, min_spans: int, seed: int) -> None:
    """With no start drawn, exactly `min_spans` frames start spans, or all frames where there are fewer."""
    mask = SpanMasking(3, start_prob=0.0, span=span, min_spans=min_spans).sample(sizes, seeded(seed))
    for row, length in zip(mask, sizes.tolist(), strict=True):
        assert min(min_spans, length) <= int(row.sum()) <= min(min_spans * span, length)


@given(lengths(), spans, seeds)
def test_limits_of_the_start_probability(sizes: Tensor, span: int, seed: int) -> None:
    """1 masks every valid frame; 0 without a minimum masks none."""
    everything = SpanMasking(3, start_prob=1.0, span=span).sample(sizes, seeded(seed))
    assert torch.equal(everything.sum(1), sizes)
    assert not SpanMasking(3, start_prob=0.0, span=span, min_spans=0).sample(sizes, seeded(seed)).any()


@pytest.mark.parametrize(("start_prob", "span"), [(0.065, 10), (0.01, 40), (0.3, 1), (0.2, 3)])
def test_masked_share_of_long_rows(start_prob: float, span: int) -> None:
    """1 - (1 - p)^span of a long row: 48.9 % for 0.065 and 10, within two points."""
    sizes = torch.full((50,), 2_000)
    mask = SpanMasking(3, start_prob=start_prob, span=span).sample(sizes, seeded())
    assert mask.double().mean().item() == pytest.approx(1 - (1 - start_prob) ** span, abs=0.02)


def test_every_frame_is_masked_as_often() -> None:
    """Only the first span - 1 frames are masked less: no span starts before the row."""
    masking = SpanMasking(3, start_prob=0.1, span=4, min_spans=0)
    shares = masking.sample(torch.full((20_000,), 12), seeded()).double().mean(0)
    expected = torch.tensor([1 - 0.9 ** min(i + 1, 4) for i in range(12)], dtype=torch.float64)
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.015)


def test_minimum_spans_start_anywhere() -> None:
    """The one guaranteed span starts at each frame of the row equally often."""
    masking = SpanMasking(3, start_prob=0.0, span=1, min_spans=1)
    shares = masking.sample(torch.full((20_000,), 5), seeded()).double().mean(0)
    torch.testing.assert_close(shares, torch.full_like(shares, 0.2), rtol=0, atol=0.015)


@given(lengths(), seeds)
def test_equal_generators_give_equal_masks(sizes: Tensor, seed: int) -> None:
    masking = SpanMasking(3)
    assert torch.equal(masking.sample(sizes, seeded(seed)), masking.sample(sizes, seeded(seed)))


@given(lengths(min_length=1), seeds, st.data())
def test_a_row_is_not_affected_by_the_lengths_of_others(
    sizes: Tensor, seed: int, data: st.DataObject
) -> None:
    """Draws depend on the shape of the batch alone: other rows of other lengths change nothing."""
    others = torch.tensor([data.draw(st.integers(1, int(sizes.max()))) for _ in sizes])
    changed = torch.where(sizes == sizes.max(), sizes, others)
    masking = SpanMasking(3, start_prob=0.1, span=3)
    one, two = masking.sample(sizes, seeded(seed)), masking.sample(changed, seeded(seed))
    assert torch.equal(one[sizes == changed], two[sizes == changed])


@given(masked_frames(), st.sampled_from(["noise", "zero", "learned"]), seeds)
def test_fills(frames: MaskedFrames, fill: str, seed: int) -> None:
    """Frames that are not masked stay bit for bit; masked ones become what the fill says."""
    masking = SpanMasking(5, fill=fill, fill_std=0.1)
    x = torch.randn(*frames.mask.shape, 5, generator=seeded(seed))
    out = masking.apply(x, frames.mask, seeded(seed))
    assert torch.equal(out[~frames.mask], x[~frames.mask])
    filled = out[frames.mask]
    if fill == "zero":
        assert not filled.any()
    elif fill == "learned":
        assert torch.equal(filled, masking.vector.expand_as(filled))
    else:
        assert len(filled.unique(dim=0)) == len(filled)  # fresh at every frame
        assert (filled.abs() < 0.8).all()


def test_noise_has_the_standard_deviation_asked_for() -> None:
    x, mask = torch.zeros(10, 100, 20), torch.ones(10, 100, dtype=torch.bool)
    out = SpanMasking(20, fill_std=0.1).apply(x, mask, seeded())
    assert out.std().item() == pytest.approx(0.1, abs=0.003)
    assert out.mean().item() == pytest.approx(0.0, abs=0.003)


@given(masked_frames(), seeds)
def test_masked_frames_are_indexed_and_packed(frames: MaskedFrames, seed: int) -> None:
    """take, then pack: row by row the same vectors, then zeros."""
    x = torch.randn(*frames.mask.shape, 3, generator=seeded(seed))
    flat = frames.take(x)
    assert torch.equal(flat, x[frames.mask])
    packed = frames.pack(flat)
    assert packed.shape == (len(x), frames.max_per_row, 3)
    for row, mask, line in zip(x, frames.mask, packed, strict=True):
        count = int(mask.sum())
        assert torch.equal(line[:count], row[mask])
        assert not line[count:].any()
    assert torch.equal(packed[frames.rows, frames.slots], flat)


@pytest.mark.parametrize(
    "bad",
    [{"start_prob": 1.5}, {"span": 0}, {"min_spans": -1}, {"fill": "nonsense"}],
    ids=lambda bad: next(iter(bad)),
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"masking needs|fill must be"):
        SpanMasking(3, **bad)  # type: ignore[arg-type]
