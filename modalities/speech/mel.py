"""Log-mel bands of amplitudes, computed inside the model, and how they become frames."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl import Conv2dSubsampling, Features

WINDOW_S, HOP_S = 0.025, 0.010
LOWEST_HZ = 20.0
FLOOR = 1e-6  # added to the mel power: about that of 16-bit rounding noise
# Of Kaldi's bands: 16-bit amplitudes, the filter before the window, the window's power, the least power.
FULL_SCALE, PRE_EMPHASIS, POVEY, SMALLEST, EPS = 2.0**15, 0.97, 0.85, 1.192092955078125e-07, 1e-7
# Mean and standard deviation of each of 80 bands over the training split of the demo corpus (1.89 h).
# fmt: off
LOG_MEL_MEAN = (
    -4.41, -4.02, -2.94, -1.53, -0.23, 0.64, 1.0, 0.75, 0.2, -0.46, -0.74, -0.92, -0.86, -0.86,
    -1.1, -1.41, -1.74, -2.04, -2.13, -2.53, -2.83, -2.66, -2.92, -2.87, -3.07, -3.15, -3.33, -3.37,
    -3.59, -3.79, -3.94, -4.1, -4.18, -4.18, -4.18, -4.17, -4.14, -4.08, -4.02, -4.08, -3.99, -4.1,
    -4.12, -4.22, -4.25, -4.28, -4.33, -4.34, -4.31, -4.28, -4.26, -4.19, -4.15, -4.22, -4.4, -4.6,
    -4.76, -4.85, -4.95, -5.05, -5.04, -5.1, -5.18, -5.11, -5.02, -5.03, -5.13, -5.23, -5.38, -5.51,
    -5.55, -5.56, -5.55, -5.53, -5.41, -5.32, -5.31, -5.3, -5.36, -6.0,
)
LOG_MEL_STD = (
    2.58, 2.93, 3.59, 4.06, 4.38, 4.55, 4.69, 4.8, 4.71, 4.53, 4.5, 4.54, 4.63, 4.65,
    4.59, 4.51, 4.4, 4.33, 4.33, 4.32, 4.31, 4.33, 4.3, 4.25, 4.18, 4.16, 4.14, 4.11,
    4.06, 4.04, 4.01, 3.96, 3.94, 3.94, 3.95, 3.96, 3.97, 3.97, 3.98, 3.98, 3.98, 3.95,
    3.91, 3.88, 3.86, 3.87, 3.91, 3.96, 4.0, 4.01, 3.97, 3.95, 3.94, 3.89, 3.82, 3.72,
    3.62, 3.57, 3.54, 3.52, 3.52, 3.47, 3.44, 3.47, 3.51, 3.51, 3.47, 3.45, 3.42, 3.39,
    3.39, 3.4, 3.4, 3.4, 3.42, 3.44, 3.43, 3.43, 3.39, 3.1,
)
# fmt: on


class MelWindows(nn.Module):
    """What both encoders share: windows of 25 ms every 10 ms, and the filters of their bands."""

    window: Tensor  # what the samples of a window are multiplied by
    filters: Tensor

    def __init__(self, rate_hz: float, num_bins: int) -> None:
        super().__init__()
        self.window_length, self.hop_length = round(WINDOW_S * rate_hz), round(HOP_S * rate_hz)
        self.fft_length = 2 ** math.ceil(math.log2(self.window_length))
        filters = mel_filters(num_bins, fft_length=self.fft_length, rate_hz=round(rate_hz))
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)

    def num_windows(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Windows made of so many samples; a row shorter than one is followed by zeros."""
        return (lengths - self.window_length).clamp(min=0) // self.hop_length + 1

    def mel_power(self, inputs: Float[Tensor, "b t"]) -> Float[Tensor, "b s f"]:
        """The power of every window in the bands; a row shorter than one window is followed by zeros."""
        inputs = F.pad(inputs, (0, max(0, self.window_length - inputs.shape[1])))
        windows = inputs.unfold(1, self.window_length, self.hop_length)
        if windows.device.type != "cpu":
            return self._power(windows)
        # The arrays of one row stay in a processor's cache, which gives a third of the time.
        return torch.stack([self._power(row) for row in windows])

    def _power(self, windows: Float[Tensor, "*b s w"]) -> Float[Tensor, "*b s f"]:
        spectrum = torch.fft.rfft(self.weighted(windows), n=self.fft_length)
        power: Tensor = spectrum.real.square() + spectrum.imag.square()
        return power @ self.filters

    def weighted(self, windows: Float[Tensor, "*b s w"]) -> Float[Tensor, "*b s w"]:
        """The samples of windows as they are transformed."""
        return windows * self.window


class LogMelEncoder(MelWindows):
    """Log-mel power in 25 ms windows every 10 ms, fixed normalization, then 4-fold convolutional subsampling.

    Input (b, t) amplitudes, output (b, s, dim). A window never reaches beyond the row; a row
    shorter than one window is followed by zeros.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, rate_hz: int = 16_000, num_bins: int = 80, conv_channels: int = 32) -> None:
        super().__init__(float(rate_hz), num_bins)
        self.register_buffer(
            "window", torch.hann_window(self.window_length, periodic=False), persistent=False
        )
        bands = np.linspace(0, len(LOG_MEL_MEAN) - 1, num_bins)
        for name, constants in (("mean", LOG_MEL_MEAN), ("std", LOG_MEL_STD)):
            values = np.interp(bands, np.arange(len(constants)), constants)
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.subsampling = Conv2dSubsampling(num_bins, channels=conv_channels)
        self.dim = self.subsampling.dim

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Frames made of so many samples."""
        return self.subsampling.output_lengths(self.num_windows(lengths))

    def forward(self, inputs: Float[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Features:
        """Encode amplitudes."""
        with torch.autocast(inputs.device.type, enabled=False):
            mel = self.picture(inputs, lengths)
        features: Features = self.subsampling(mel, self.num_windows(lengths))
        return features

    def picture(self, inputs: Float[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "b s f"]:
        """What reports show and probes compare with: the input of the subsampling."""
        return (self.log_mel(inputs.float(), lengths) - self.mean) / self.std

    def log_mel(self, inputs: Float[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "b s f"]:
        """Log of mel power, before normalization."""
        inputs = inputs * (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None])
        return (self.mel_power(inputs) + FLOOR).log()


class StackedMelEncoder(MelWindows):
    """80 log-mel bands as Kaldi computes them, scaled over the row, `stack` windows a frame (w2v-BERT 2.0).

    Input (b, t) amplitudes, output (b, s, 80 stack): nothing is learned. Each window of 25 ms, every 10 ms,
    loses its mean, is pre-emphasized by 0.97 and weighted by Povey's window. Each band of a row gets zero
    mean and unit variance. Windows at the end that do not fill a frame are left out.
    """

    def __init__(
        self,
        channels: int | None = None,
        rate_hz: float | None = 16_000.0,
        *,
        num_bins: int = 80,
        stack: int = 2,
    ) -> None:
        if channels not in (None, 1) or stack < 1:
            raise ValueError(f"stacked_mel reads one channel, and stacks 1 or more; got {channels}, {stack}")
        if rate_hz is None:
            raise ValueError("stacked_mel reads samples at a rate, and these inputs have none")
        super().__init__(rate_hz, num_bins)
        self.dim, self.stack = num_bins * stack, stack
        window = torch.hann_window(self.window_length, periodic=False, dtype=torch.float64) ** POVEY
        self.register_buffer("window", window.float(), persistent=False)

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Frames made of so many samples."""
        return (self.num_windows(lengths) // self.stack).clamp(min=1)

    def forward(self, inputs: Float[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Features:
        """Encode amplitudes."""
        with torch.autocast(inputs.device.type, enabled=False):
            picture = self.picture(inputs, lengths)
        size = max(1, picture.shape[1] // self.stack) * self.stack  # a row of one window is one frame
        picture = F.pad(picture, (0, 0, 0, max(0, size - picture.shape[1])))[:, :size]
        return Features(picture.reshape(len(picture), -1, self.dim), self.output_lengths(lengths))

    def picture(self, inputs: Float[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "b s f"]:
        """The scaled bands of every window; 0 beyond the row."""
        x = inputs.float() * (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None])
        bands = self.mel_power(x * FULL_SCALE).clamp(min=SMALLEST).log()
        count = self.num_windows(lengths)[:, None, None]
        inside = torch.arange(bands.shape[1], device=x.device)[:, None] < count
        away = (bands - (bands * inside).sum(1, keepdim=True) / count) * inside
        variance = away.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
        scaled: Tensor = away * (variance + EPS).rsqrt()
        return scaled

    def weighted(self, windows: Float[Tensor, "*b s w"]) -> Float[Tensor, "*b s w"]:
        """Windows without their mean, each sample without most of the one before, weighted."""
        windows = windows - windows.mean(-1, keepdim=True)
        before = torch.cat([windows[..., :1], windows[..., :-1]], dim=-1)
        return (windows - PRE_EMPHASIS * before) * self.window


def mel_filters(num_bins: int, *, fft_length: int, rate_hz: int) -> Float[np.ndarray, "frequency f"]:
    """Triangles that are even on the mel scale (HTK's formula, as in Kaldi), from 20 Hz to half the rate."""

    def mel(hz: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    edges = np.linspace(mel(LOWEST_HZ), mel(rate_hz / 2), num_bins + 2)
    frequencies = mel(np.arange(fft_length // 2 + 1) * rate_hz / fft_length)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    filters: np.ndarray = np.minimum(rising, falling).clip(min=0).astype(np.float32)
    return filters
