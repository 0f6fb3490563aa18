"""What the input is like at each frame, by a formula: nothing of it is learned."""

import math
from copy import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl.model.alignment import present
from seqssl.model.features import fold
from seqssl.model.protocols import DrawsInputs, FeatureEncoder
from seqssl.model.types import Batch, length_mask

NUM_CEPSTRA = 13
LIFTER = 22  # of cepstra, as Kaldi has it
MANY_STEPS = 2**16  # of a trial input, to see how many columns a picture has for each step
SPARE_COLUMNS = 4  # of silence after each row, so that its last columns are the same in any batch


class InputDescription:
    """Vectors that describe the input at each frame.

    `reader` is the modality's own feature encoder, whatever the model reads inputs with. Where it draws a
    picture of them (a logarithmic spectrum), a frame is described by the cepstra of the column at its middle
    and their first and second differences (39 numbers: what HuBERT clusters first). Else it is described by
    its own steps, laid end to end: their values, scaled by `input_norm` if there is one (else the channel of
    the largest numbers would be all of a distance), or their ids as one-hot vectors.
    """

    def __init__(
        self,
        reader: FeatureEncoder,
        stride: float,
        *,
        channels: int | None = None,
        vocab_size: int | None = None,
        input_norm: nn.Module | None = None,
    ) -> None:
        self.reader, self.stride, self.vocab_size = reader, stride, vocab_size
        self.input_norm = input_norm  # the model's own part, not this one's
        self.channels, self.draws, self.columns_per_step = channels or 1, False, 0.0
        if isinstance(reader, DrawsInputs):
            self.draws = True
            self.columns_per_step = columns_per_step(reader, channels)
            self.dim = 3 * NUM_CEPSTRA
        else:
            self.dim = math.ceil(stride) * self.channels * (vocab_size or 1)

    def in_parts(self, number: int) -> "InputDescription":
        """A description of so many equal parts of each frame; ValueError where steps cannot be shared so."""
        part = copy(self)
        part.stride = self.stride / number
        if not self.draws:
            if not part.stride.is_integer():
                raise ValueError(f"a frame of {self.stride:g} steps has no {number} equal parts")
            part.dim = self.dim // number
        return part

    @torch.no_grad()
    def __call__(self, batch: Batch, num_frames: int) -> Float[Tensor, "b s f"]:
        """The description of each frame; beyond a row it means nothing."""
        if isinstance(self.reader, DrawsInputs):
            return self._of_pictures(self.reader, batch, num_frames)
        if self.vocab_size is not None:
            values = F.one_hot(batch.inputs, self.vocab_size).float().flatten(2)
        else:
            inputs, known = batch.inputs.float(), present(batch)
            if self.input_norm is not None:  # a fit may be elsewhere than the model is yet
                inputs = self.input_norm.to(inputs.device)(inputs, known)
            values = (inputs * known).reshape(*inputs.shape[:2], -1)
        inside = length_mask(batch.lengths, values.shape[1])[..., None]
        frames = fold(values * inside, math.ceil(self.stride))
        return F.pad(frames, (0, 0, 0, max(0, num_frames - frames.shape[1])))[:, :num_frames]

    def _of_pictures(self, reader: DrawsInputs, batch: Batch, num_frames: int) -> Float[Tensor, "b s f"]:
        if isinstance(reader, nn.Module):
            reader = reader.to(batch.inputs.device)  # it is no part of the model, which has moved alone
        picture, columns = picture_of(reader, batch, self.columns_per_step)
        last = columns - 1
        described = with_differences(cepstra(picture), last)
        middles = (torch.arange(num_frames, device=picture.device) + 0.5) * self.stride
        places = torch.minimum((middles * self.columns_per_step).long()[None], last[:, None])
        return described.gather(1, places[..., None].expand(-1, -1, described.shape[2]))


def num_columns(reader: DrawsInputs, steps: int, channels: int | None) -> int:
    """How many columns the picture of so many input steps has."""
    trial = torch.zeros(1, steps, *([] if channels is None else [channels]))
    return int(reader.picture(trial, torch.tensor([steps])).shape[1])


def columns_per_step(reader: DrawsInputs, channels: int | None) -> float:
    """How many columns a picture has for each input step, far from the borders of a row."""
    near, far = (num_columns(reader, steps, channels) for steps in (MANY_STEPS, 2 * MANY_STEPS))
    hop = MANY_STEPS / (far - near)
    # A column more or less would move the hop by `hop / (far - near)`. Small errors add up over a long row.
    return 1 / (round(hop) if abs(hop - round(hop)) <= hop / (far - near) else hop)


def picture_of(
    reader: DrawsInputs, batch: Batch, per_step: float
) -> tuple[Float[Tensor, "b p f"], Int[Tensor, "b"]]:
    """The picture of a batch in float32, and how many of its columns each row has: the same in any batch."""
    inputs = batch.inputs.float()
    spare = math.ceil(SPARE_COLUMNS / per_step)
    padded = F.pad(inputs, (0, 0) * (inputs.dim() - 2) + (0, spare))
    picture = reader.picture(padded, batch.lengths).float()
    return picture, (batch.lengths * per_step).ceil().long().clamp(1, picture.shape[1])


def cepstra(picture: Float[Tensor, "b p f"]) -> Float[Tensor, "b p e"]:
    """The first cosine coefficients of each column (an orthonormal DCT-II), liftered as Kaldi does.

    Else the first ones, which tell of loudness and slope, would be nearly all of the distance of two columns.
    """
    bins = picture.shape[2]
    places = (torch.arange(bins, device=picture.device) + 0.5) * (math.pi / bins)
    orders = torch.arange(min(NUM_CEPSTRA, bins), device=picture.device)
    basis = torch.cos(places[:, None] * orders) * math.sqrt(2 / bins)
    basis[:, 0] *= math.sqrt(0.5)
    lifter = 1 + LIFTER / 2 * torch.sin(math.pi * orders / LIFTER)
    found = picture @ (basis * lifter)
    return F.pad(found, (0, NUM_CEPSTRA - found.shape[2]))


def with_differences(x: Float[Tensor, "b p e"], last: Int[Tensor, "b"]) -> Float[Tensor, "b p f"]:
    """Columns with their first and second differences in time; a row ends with its column `last`."""
    places = torch.arange(x.shape[1], device=x.device)
    after = torch.minimum(places + 1, last[:, None])
    before = torch.minimum(places - 1, last[:, None] - 1).clamp(min=0)

    def slope(values: Tensor) -> Tensor:
        def at(where: Tensor) -> Tensor:
            return values.gather(1, where[..., None].expand(-1, -1, values.shape[2]))

        return (at(after) - at(before)) / 2

    first = slope(x)
    return torch.cat([x, first, slope(first)], dim=-1)
