"""The input itself as what is to be reconstructed."""

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from seqssl.model.alignment import MIN_OBSERVED, known_frames, present
from seqssl.model.bounds import POSITIVE
from seqssl.model.description import InputDescription
from seqssl.model.features import fold
from seqssl.model.fixed import FixedVectors
from seqssl.model.norms import scaled
from seqssl.model.types import Batch, Features

FLOOR = 1e-3  # of power, as a share of a channel's variance; below it a logarithm would see only noise


class InputVectors(FixedVectors):
    """The steps of a frame as the vector to reconstruct (masked patches of PatchTST, 2211.14730, section 3).

    Each channel is first scaled to zero mean and unit variance over the observed steps of its row. A step
    that is missing is NaN, and no objective may count it. With `log_spectrum`, the vector is instead the
    logarithm of the power spectrum of a window of `window` frames around the frame, for each channel: how it
    moves, without the phase, which no surroundings tell. Where the modality draws a picture of its inputs, a
    frame is what `InputDescription` says of it, scaled alike.
    """

    def __init__(
        self,
        describe_input: InputDescription,
        *,
        log_spectrum: bool = False,
        window: Annotated[int, POSITIVE] = 4,
    ) -> None:
        super().__init__()
        if describe_input.vocab_size is not None:
            raise ValueError("ids are no numbers to reconstruct: predict them, with targets=symbols")
        if log_spectrum and describe_input.draws:
            raise ValueError("log_spectrum is for inputs that are no spectrum already: leave it out")
        self.describe, self.log_spectrum = describe_input, log_spectrum
        self.stride = math.ceil(describe_input.stride)
        self.window = window * self.stride
        bins = self.window // 2 + 1
        self.dim = bins * describe_input.channels if log_spectrum else describe_input.dim

    def vectors_of(self, batch: Batch, features: Features) -> Float[Tensor, "b s q"]:
        """What is to be reconstructed at every frame."""
        num_frames = features.x.shape[1]
        if self.describe.draws:
            known = known_frames(batch, features.valid, self.describe.stride)
            return scaled(self.describe(batch, num_frames), known)
        values = batch.inputs.float().reshape(*batch.inputs.shape[:2], -1)
        known = present(batch).reshape(values.shape)
        values = scaled(values, known)
        if self.log_spectrum:
            return self._spectra(values, known, num_frames)
        spare = max(0, num_frames * self.stride - values.shape[1])
        steps = F.pad(torch.where(known, values, torch.nan), (0, 0, 0, spare), value=torch.nan)
        return fold(steps[:, : num_frames * self.stride], self.stride)

    def _spectra(
        self, x: Float[Tensor, "b t c"], known: Bool[Tensor, "b t c"], num_frames: int
    ) -> Float[Tensor, "b s q"]:
        """Log power of windows centered on frames; NaN where less than half of a window was measured.

        What else is missing counts as the mean, 0.
        """
        before = (self.window - self.stride) // 2
        after = max(0, num_frames * self.stride + self.window - before - x.shape[1])
        windows = F.pad(x, (0, 0, before, after)).unfold(1, self.window, self.stride)[:, :num_frames]
        there = F.pad(known.float(), (0, 0, before, after)).unfold(1, self.window, self.stride)[
            :, :num_frames
        ]
        taper = torch.hann_window(self.window + 2, periodic=False, device=x.device)[1:-1]
        power = torch.fft.rfft(windows * taper, dim=-1).abs().square() / taper.square().sum()
        enough = there.mean(-1, keepdim=True) >= MIN_OBSERVED
        logs: Tensor = (power + FLOOR).log().masked_fill(~enough, torch.nan)
        return logs.flatten(2)
