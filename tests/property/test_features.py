"""Properties of the generic feature encoders."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from seqssl import Conv1dStack, Conv2dSubsampling
from seqssl.model.features import Windows, convolve, standard_deviation
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, seeds

stacks = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=4)


def conv1d(layers: list[tuple[int, int]], channels: int = 1) -> Conv1dStack:
    torch.manual_seed(0)
    kernels, strides = zip(*layers, strict=True)
    return Conv1dStack(channels, dim=4, kernels=kernels, strides=strides)


@given(stacks, st.integers(1, 120))
def test_conv1d_lengths_are_real(layers: list[tuple[int, int]], length: int) -> None:
    """Also where a kernel is shorter than its stride, and below the receptive field."""
    encoder = conv1d(layers)
    features = encoder(torch.ones(1, length), torch.tensor([length]))
    assert features.x.shape == (1, int(features.lengths), 4)
    assert int(features.lengths) == int(encoder.output_lengths(torch.tensor(length))) >= 1


@given(stacks)
def test_receptive_field_is_what_one_frame_sees(layers: list[tuple[int, int]]) -> None:
    """One frame up to it, and its first frame depends on nothing behind it."""
    encoder = conv1d(layers)
    field = encoder.receptive_field
    assert int(encoder.output_lengths(torch.tensor(field))) == 1
    x = torch.randn(1, field + 20, generator=seeded(), requires_grad=True)
    (grad,) = torch.autograd.grad(encoder(x, torch.tensor([field + 20])).x[0, 0].square().sum(), x)
    assert not grad[0, field:].any()


def test_wav2vec_kernels_give_fifty_frames_a_second_at_16_khz() -> None:
    encoder = Conv1dStack(1)
    assert encoder.receptive_field == 400
    assert int(encoder.output_lengths(torch.tensor(16_000))) == 49


@given(stacks, lengths(max_rows=4, max_length=60), seeds, st.sampled_from([None, 3]))
def test_conv1d_padding_is_inert(
    layers: list[tuple[int, int]], sizes: Tensor, seed: int, channels: int | None
) -> None:
    encoder = conv1d(layers, channels or 1)
    shape = (len(sizes), int(sizes.max()), *([channels] if channels else []))
    x = torch.randn(shape, generator=seeded(seed))
    batch = encoder(x, sizes)
    for row, length in enumerate(sizes.tolist()):
        alone = encoder(x[row : row + 1, :length], sizes[row : row + 1])
        frames = int(alone.lengths)
        assert int(batch.lengths[row]) == frames
        torch.testing.assert_close(batch.x[row, :frames], alone.x[0, :frames], rtol=1e-4, atol=1e-4)


@given(lengths(max_rows=4, max_length=40), st.integers(1, 9), seeds)
def test_conv2d_padding_is_inert_and_lengths_are_ceilings(sizes: Tensor, num_bins: int, seed: int) -> None:
    torch.manual_seed(0)
    encoder = Conv2dSubsampling(num_bins, channels=2)
    x = torch.randn(len(sizes), int(sizes.max()), num_bins, generator=seeded(seed))
    batch = encoder(x, sizes)
    assert batch.x.shape[2] == encoder.dim
    assert batch.lengths.tolist() == [-(-length // 4) for length in sizes.tolist()]
    for row, length in enumerate(sizes.tolist()):
        alone = encoder(x[row : row + 1, :length], sizes[row : row + 1])
        frames = alone.x.shape[1]
        torch.testing.assert_close(batch.x[row, :frames], alone.x[0], rtol=1e-4, atol=1e-4)


@given(stacks, st.integers(0, 30), st.integers(1, 3), seeds)
def test_convolve_equals_the_convolution(
    layers: list[tuple[int, int]], more: int, channels: int, seed: int
) -> None:
    """Values and gradients of torch's own."""
    kernel, stride = layers[0]
    torch.manual_seed(seed)
    conv = nn.Conv1d(channels, 4, kernel, stride).double()
    x = torch.randn(2, kernel + more, channels, dtype=torch.float64, requires_grad=True)
    results = [convolve(conv, x), conv(x.transpose(1, 2)).transpose(1, 2)]
    torch.testing.assert_close(*results)
    inputs = (x, *conv.parameters())
    grads = [torch.autograd.grad(result.square().sum(), inputs) for result in results]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_w2v_bert_subsampling_is_640_wide() -> None:
    """80 bins, 32 channels: the Z of reference sheets."""
    assert Conv2dSubsampling(80).dim == 640


def test_standard_deviation_shows_collapse() -> None:
    x = torch.randn(500, 8, generator=seeded())
    assert standard_deviation(3 * x).item() == pytest.approx(3, rel=0.1)
    assert standard_deviation(torch.ones(500, 8)).item() == 0


@pytest.mark.parametrize("kernels", [(), (3, 3)])
def test_kernels_and_strides_must_match(kernels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="same length"):
        Conv1dStack(1, kernels=kernels, strides=(2,) if kernels else ())


def test_frames_of_a_fresh_encoder_do_not_fade_out() -> None:
    """With group norm, six of seven convolutions have nothing behind them that would scale them up again."""
    torch.manual_seed(0)
    inputs, lengths = torch.randn(2, 4000, generator=seeded(1)), torch.tensor([4000, 4000])
    for norm in ("group", "layer"):
        frames = Conv1dStack(1, dim=64, norm=norm)(inputs, lengths).x  # type: ignore[arg-type]
        assert frames.square().mean().sqrt() > 0.1, norm


@given(kernel=st.integers(1, 12), stride=st.integers(1, 6), more=st.integers(0, 20))
def test_gradients_of_windows_are_those_of_slices_bit_for_bit(kernel: int, stride: int, more: int) -> None:
    """With sums of three and more, too, where the order of adding can be seen in the last digit."""
    generator = torch.Generator().manual_seed(kernel + 100 * stride + 10_000 * more)
    x = torch.randn(2, kernel + more, 3, generator=generator, requires_grad=True)
    slices = [x[:, i : i + more + 1 : stride] for i in range(kernel)]
    found, expected = Windows.apply(x, kernel, stride), torch.cat(slices, dim=-1)
    assert torch.equal(found, expected)
    weights = torch.randn(expected.shape, generator=generator)
    (one,), (two,) = (torch.autograd.grad(each, x, weights) for each in (found, expected))
    assert torch.equal(one, two)
