"""What is to be reconstructed, against references of one value at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal.windows import hann
from torch import Tensor

from seqssl.model.description import InputDescription
from seqssl.model.features import Conv2dSubsampling, PatchEncoder
from seqssl.model.objectives import RegressionLoss
from seqssl.model.reconstruction import FLOOR, InputVectors
from seqssl.model.types import Batch, Context, Features, MaskedFrames, Quantized
from seqssl.testing import check_targets
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, seeds

CHANNELS = 2


def targets(patch: int, **settings: bool | int) -> InputVectors:
    encoder = PatchEncoder(CHANNELS, dim=6, patch=patch)
    return InputVectors(InputDescription(encoder, float(patch), channels=CHANNELS), **settings)  # type: ignore[arg-type]


def case(row_lengths: Tensor, patch: int, seed: int, gaps: float) -> tuple[Batch, Features]:
    shape = (len(row_lengths), int(row_lengths.max()), CHANNELS)
    inputs = torch.randn(shape, generator=seeded(seed)) * 3 + 5
    observed = torch.rand(shape, generator=seeded(seed + 1)) >= gaps
    made = (row_lengths + patch - 1) // patch
    return Batch(inputs, row_lengths, observed=observed), Features(
        torch.zeros(len(row_lengths), int(made.max()), 6), made
    )


@given(lengths(max_rows=3, max_length=20), st.integers(1, 5), seeds, st.sampled_from([0.0, 0.4]))
def test_a_target_is_the_frames_own_steps_scaled(
    row_lengths: Tensor, patch: int, seed: int, gaps: float
) -> None:
    batch, features = case(row_lengths, patch, seed, gaps)
    found = targets(patch).vectors_of(batch, features)
    assert found.shape[-1] == patch * CHANNELS
    for row, length in enumerate(row_lengths.tolist()):
        for channel in range(CHANNELS):
            assert batch.observed is not None
            known = batch.observed[row, :length, channel]
            values = batch.inputs[row, :length, channel]
            own = values[known].double()
            for step in range(int(features.lengths[row]) * patch):
                value = found[row, step // patch, step % patch * CHANNELS + channel].item()
                if step >= length or not known[step]:
                    assert np.isnan(value), "what was not measured is no target"
                else:
                    scale = max(own.std(correction=0).item(), 1e-6)
                    expected = (values[step].item() - own.mean().item()) / scale
                    assert value == pytest.approx(expected, abs=2e-3 if scale > 1e-3 else 2)


@given(lengths(max_rows=2, max_length=30), st.integers(2, 4), st.integers(1, 4), seeds)
def test_spectra_are_numpys(row_lengths: Tensor, patch: int, window: int, seed: int) -> None:
    batch, features = case(row_lengths, patch, seed, 0.0)
    made = targets(patch, log_spectrum=True, window=window)
    found, size = made.vectors_of(batch, features), window * patch
    taper = hann(size + 2)[1:-1]
    for row, length in enumerate(row_lengths.tolist()):
        values = batch.inputs[row, :length].double().numpy()
        scaled = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
        before = (size - patch) // 2
        padded = np.pad(scaled, ((before, len(batch.inputs[0]) + 3 * size), (0, 0)))
        for frame in range(int(features.lengths[row])):
            own = padded[frame * patch : frame * patch + size] * taper[:, None]
            power = np.abs(np.fft.rfft(own, axis=0)) ** 2 / (taper**2).sum()
            first = frame * patch - before
            inside = sum(0 <= step < length for step in range(first, first + size))
            if inside < size / 2:
                assert found[row, frame].isnan().all()
                continue
            expected = np.log(power + FLOOR).T.reshape(-1)  # channel by channel
            np.testing.assert_allclose(found[row, frame].numpy(), expected, atol=5e-3)
    assert made.dim == found.shape[-1]


@pytest.mark.parametrize("settings", [{}, {"log_spectrum": True}])
def test_they_keep_the_contract_of_targets(settings: dict[str, bool]) -> None:
    batch, features = case(torch.tensor([20, 12, 16]), 4, 0, 0.0)
    check_targets(lambda: targets(4, **settings), batch, features)


class Drawing(Conv2dSubsampling):
    """Four bins of four steps."""

    def picture(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return inputs[:, : inputs.shape[1] // 4 * 4].reshape(len(inputs), -1, 4).cumsum(-1)


def test_a_picture_is_described_and_scaled() -> None:
    encoder = Drawing(4, channels=2)
    described = InputDescription(encoder, 4.0)
    made = InputVectors(described)
    batch = Batch(torch.randn(2, 80, generator=seeded(1)), torch.tensor([80, 64]))
    features = Features(torch.zeros(2, 20, 4), torch.tensor([20, 16]))
    vectors = made.vectors_of(batch, features)
    assert made.dim == vectors.shape[-1] == described.dim
    for row, length in enumerate((20, 16)):
        own = vectors[row, :length, :4]
        torch.testing.assert_close(own.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(own.std(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="no spectrum already"):
        InputVectors(described, log_spectrum=True)


def test_what_is_missing_has_no_part_in_the_scale_of_a_description() -> None:
    made = InputVectors(InputDescription(Drawing(4, channels=2), 4.0))
    inputs = torch.randn(1, 64, generator=seeded(1)) + 2
    alone = made.vectors_of(Batch(inputs, torch.tensor([64])), features_of(16))
    observed = torch.arange(80)[None] < 64
    longer = Batch(torch.cat([inputs, torch.zeros(1, 16)], 1), torch.tensor([80]), observed=observed)
    found = made.vectors_of(longer, features_of(20))
    # Differences, which come behind the 13 cepstra, end with the row.
    torch.testing.assert_close(found[:, :16, :13], alone[..., :13])


def features_of(frames: int) -> Features:
    return Features(torch.zeros(1, frames, 4), torch.tensor([frames]))


def test_ids_are_refused() -> None:
    encoder = PatchEncoder(1)
    with pytest.raises(ValueError, match="ids are no numbers to reconstruct"):
        InputVectors(InputDescription(encoder, 8.0, vocab_size=4))


def test_the_regression_counts_what_was_measured() -> None:
    """A missing value has no part in the loss, and none in the gradient."""
    torch.manual_seed(0)
    objective = RegressionLoss(5, 3)
    frames = MaskedFrames.of(torch.ones(1, 4, dtype=torch.bool))
    x = torch.randn(4, 5, requires_grad=True)
    wanted = torch.randn(4, 3)
    wanted[0, 1] = wanted[2] = torch.nan
    features = Features(torch.zeros(1, 4, 5), torch.tensor([4]))
    codes, usage = torch.zeros(4, 0, dtype=torch.long), torch.zeros(0, 0)
    term = objective(Context(x, frames, features), Quantized(wanted, codes, usage), seeded())
    found = objective.head(x).detach()
    expected = sum(float((found[n] - wanted[n])[~wanted[n].isnan()].square().mean()) for n in (0, 1, 3))
    assert term.total.item() == pytest.approx(expected, rel=1e-5)
    term.total.backward()
    assert x.grad is not None and x.grad.isfinite().all() and not x.grad[2].any()
    known = ~wanted.isnan()
    away = wanted - wanted.nanmean(0)
    assert float(term.stats["distance"]) / 4 == pytest.approx(
        float((found - wanted)[known].square().mean()), rel=1e-5
    )
    assert float(term.stats["variance"]) / 4 == pytest.approx(float(away[known].square().mean()), rel=1e-5)
    assert all(value.isfinite() for value in term.stats.values())
