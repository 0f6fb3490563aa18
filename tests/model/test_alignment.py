"""Which steps of the input a frame stands for, and what is known of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ids import ids_batch, sizes, strides
from torch import Tensor

from seqssl import Conv1dStack, Conv2dSubsampling, PatchEncoder, TokenEncoder
from seqssl.model import alignment
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import seeds


@pytest.mark.parametrize(
    ("encoder", "stride", "tile"),
    [
        (TokenEncoder(5, stride=4), 4.0, 4),
        (PatchEncoder(3, patch=7), 7.0, 7),
        (Conv1dStack(2, dim=4, kernels=(5, 4), strides=(3, 2)), 6.0, None),
        (Conv1dStack(2, dim=4, kernels=(3,), strides=(3,)), 3.0, None),  # its last steps make no frame
        (Conv2dSubsampling(8), 4.0, 4),
    ],
)
def test_strides(encoder: Any, stride: float, tile: int | None) -> None:
    assert alignment.steps_per_frame(encoder) == pytest.approx(stride, rel=1e-5)
    assert alignment.tiles(encoder) == tile


@given(sizes, strides, seeds, st.sampled_from([(), (1,), (3,)]), st.sampled_from([0.0, 0.5]))
def test_observed_share_counts_a_frames_own_steps(
    row_lengths: Tensor, stride: int, seed: int, channels: tuple[int, ...], gaps: float
) -> None:
    batch = ids_batch(row_lengths, seed, channels, gaps)
    assert batch.observed is not None
    frames = -(-int(row_lengths.max()) // stride)
    share = alignment.observed_share(batch.observed, row_lengths, frames, float(stride))
    for row, length in enumerate(row_lengths.tolist()):
        for frame in range(-(-length // stride)):
            own = batch.observed[row, frame * stride : min((frame + 1) * stride, length)]
            if channels:
                own = own[:, batch.observed[row, :length].any(0)]  # channels that the row has
            expected = float(own.float().mean()) if own.numel() else 0.0
            assert float(share[row, frame]) == pytest.approx(expected, abs=1e-6)


@given(sizes, strides, seeds)
def test_known_frames_hold_half_of_their_values_where_any_does(
    row_lengths: Tensor, stride: int, seed: int
) -> None:
    batch = ids_batch(row_lengths, seed, (), gaps=0.7)
    frames = -(-int(row_lengths.max()) // stride)
    valid = torch.arange(frames) < -(-row_lengths // stride)[:, None]
    known = alignment.known_frames(batch, valid, float(stride))
    share = alignment.observed_share(batch.observed, row_lengths, frames, float(stride))  # type: ignore[arg-type]
    for row in range(len(row_lengths)):
        expected = valid[row] & (share[row] >= 0.5)
        assert torch.equal(known[row], expected if expected.any() else valid[row])
    everything = replace(batch, observed=None)
    assert torch.equal(alignment.known_frames(everything, valid, float(stride)), valid)


@given(sizes, strides, seeds)
def test_spread_is_the_inverse_of_gathering(row_lengths: Tensor, stride: int, seed: int) -> None:
    steps = int(row_lengths.max())
    mask = torch.rand(len(row_lengths), -(-steps // stride), generator=seeded(seed)) < 0.5
    spread = alignment.spread(mask, steps, float(stride))
    for step in range(steps):
        assert torch.equal(spread[:, step], mask[:, step // stride])


@given(sizes, strides, seeds, st.sampled_from([(), (2,)]))
def test_frame_symbols(row_lengths: Tensor, stride: int, seed: int, channels: tuple[int, ...]) -> None:
    batch = ids_batch(row_lengths, seed, channels)
    assert batch.observed is not None
    symbols = alignment.frame_symbols(batch.inputs, batch.lengths, batch.observed, stride)
    for row, length in enumerate(row_lengths.tolist()):
        for frame in range(symbols.shape[1]):
            expected = []
            for step in range(frame * stride, (frame + 1) * stride):
                known = step < length and bool(batch.observed[row, step].all())
                values = (
                    batch.inputs[row, step].reshape(-1).tolist() if known else [-1] * (channels or (1,))[0]
                )
                expected += values
            assert symbols[row, frame].tolist() == expected


@given(sizes, strides, seeds, st.sampled_from([(), (2,)]), st.sampled_from([4, 5, 40]))
def test_a_frames_ids_are_one_code_while_there_are_few_words(
    row_lengths: Tensor, stride: int, seed: int, channels: tuple[int, ...], vocab: int
) -> None:
    batch = ids_batch(row_lengths, seed, channels)
    codes = alignment.Alphabet(vocab, stride, *channels)
    alone = alignment.frame_symbols(batch.inputs, batch.lengths, batch.observed, stride)
    alone = alone.masked_fill(alone >= vocab, -1)  # where the last id means unknown
    found = codes.of(batch.inputs, batch.lengths, batch.observed)
    assert found.shape[-1] == codes.num_codebooks
    if vocab**stride > 1024:
        assert (codes.word, codes.codebook_size) == (1, vocab)
        assert torch.equal(found, alone)
        return
    assert (codes.word, codes.codebook_size, codes.num_codebooks) == (
        stride,
        vocab**stride,
        (*channels, 1)[0],
    )
    for channel in range(codes.num_codebooks):
        own = alone[..., channel :: codes.num_codebooks]
        for ids, code in zip(own.reshape(-1, stride).tolist(), found[..., channel].flatten(), strict=True):
            word = sum(i * vocab**place for place, i in enumerate(reversed(ids)))
            assert int(code) == (-1 if -1 in ids else word)
