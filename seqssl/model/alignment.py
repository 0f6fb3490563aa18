"""Which input steps a frame stands for: what is missing, what is masked, and which symbols a frame holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor
from torch.nn import functional as F

from seqssl.model.protocols import FeatureEncoder
from seqssl.model.types import Batch, Segment, length_mask

FAR = 2**20  # input steps; enough to see what a feature encoder does far from the borders
MANY_FRAMES = 10**5
TRIAL_FRAMES = 64  # of a row by which is seen what frames read
MIN_OBSERVED = 0.5  # a frame with a smaller share of its values is no target
NONE = -1  # of a frame without a label
MAX_WORDS = 1024  # up to so many possible words, the ids of a frame are one code


def steps_per_frame(feature_encoder: FeatureEncoder) -> float:
    """Input steps between two frames, far from the borders of a row."""
    near, far = feature_encoder.output_lengths(torch.tensor([FAR, 2 * FAR], device="cpu")).tolist()
    stride = FAR / int(far - near)
    # The window of a frame makes this a little too large or small, which would add up over a long row: the
    # whole number near it is tried over so many frames that no other stride makes as many.
    whole = max(1, round(stride))
    ends = torch.tensor([FAR, FAR + MANY_FRAMES * whole], device="cpu")
    near, far = feature_encoder.output_lengths(ends).tolist()
    return float(whole) if far - near == MANY_FRAMES else stride


def tiles(feature_encoder: FeatureEncoder) -> int | None:
    """The stride, where frame j stands for exactly the steps [j stride, (j + 1) stride); else None."""
    stride = round(steps_per_frame(feature_encoder))
    lengths = torch.arange(1, 8 * stride + 2, device="cpu")
    made = feature_encoder.output_lengths(lengths)
    return stride if torch.equal(made, (lengths + stride - 1) // stride) else None


@torch.no_grad()
def first_apart(feature_encoder: FeatureEncoder, channels: int | None, vocab_size: int | None = None) -> int:
    """How many frames ahead of a frame the first one is that shares no input step with it.

    A trial on the CPU shows it: one half of a row is changed, then the other. Where frames reach over both of
    their borders, it may be one more than is needed. Inputs are drawn, or ids below `vocab_size` where that
    is given.
    """
    stride = steps_per_frame(feature_encoder)
    middle, size = round(TRIAL_FRAMES // 2 * stride), round(TRIAL_FRAMES * stride)
    shape, generator = (1, size, *([] if channels is None else [channels])), Generator("cpu").manual_seed(0)
    first = (torch.arange(size, device="cpu") < middle).reshape(1, size, *[1] * (len(shape) - 2))
    if vocab_size is None:
        one, other = (torch.randn(shape, generator=generator, device="cpu") for _ in range(2))
    else:
        one = torch.randint(vocab_size, shape, generator=generator, device="cpu")
        other = (one + 1) % vocab_size
    inputs = torch.cat([one, torch.where(first, one, other), torch.where(first, other, one)])
    x, late, early = feature_encoder(inputs, torch.full((3,), size, device="cpu")).x
    after, before = (
        (~torch.isclose(x, y, rtol=1e-4, atol=1e-4).all(1)).nonzero()[:, 0].tolist() for y in (late, early)
    )  # the frames that read a step of the second half, and of the first
    return max(1, max(before, default=-1) - min(after, default=len(x)) + 2)


def observed_share(
    observed: Bool[Tensor, "b t *c"], lengths: Int[Tensor, "b"], num_frames: int, stride: float
) -> Float[Tensor, "b s"]:
    """The share of observed values among those of each frame's steps.

    Neither padding counts, nor channels that are missing in the whole row (a station without a sensor).
    """
    size = observed.shape[1]
    valid = length_mask(lengths, size)[..., None]
    channels = (observed.flatten(2) if observed.dim() > 2 else observed[..., None]) & valid
    edges = torch.arange(num_frames + 1, device=observed.device, dtype=torch.float64) * stride
    starts, ends = edges[:-1].floor().long().clamp(max=size), edges[1:].ceil().long().clamp(max=size)
    inside = (torch.minimum(ends, lengths[:, None]) - torch.minimum(starts, lengths[:, None])).double()
    # Most rows of sound lack nothing, and running sums over millions of samples take long. A GPU would wait.
    if channels.device.type == "cpu" and (channels == valid).all():
        return (inside / inside.clamp(min=1)).float()
    known = channels.sum(-1).double() / channels.any(1).sum(-1, keepdim=True).clamp(min=1)
    sums = F.pad(known.cumsum(1), (1, 0))
    share: Tensor = (sums[:, ends] - sums[:, starts]) / inside.clamp(min=1)
    return share.float()


def known_frames(batch: Batch, valid: Bool[Tensor, "b s"], stride: float) -> Bool[Tensor, "b s"]:
    """The valid frames that are not mostly missing; all valid ones of a row that has no such frame."""
    if batch.observed is None:
        return valid
    share = observed_share(batch.observed, batch.lengths, valid.shape[1], stride)
    known = valid & (share >= MIN_OBSERVED)
    return torch.where(known.any(1, keepdim=True), known, valid)


def present(batch: Batch) -> Bool[Tensor, "b t *c"]:
    """Which values of the inputs are present: neither padding nor missing."""
    valid = length_mask(batch.lengths, batch.inputs.shape[1])
    valid = valid.reshape(*valid.shape, *[1] * (batch.inputs.dim() - 2))
    return valid.expand_as(batch.inputs) if batch.observed is None else valid & batch.observed


def hide(batch: Batch, mask: Bool[Tensor, "b s"], stride: float) -> Batch:
    """The batch with the steps of masked frames made missing."""
    steps = spread(mask, batch.inputs.shape[1], stride)
    steps = steps.reshape(*steps.shape, *[1] * (batch.inputs.dim() - 2))
    return replace(batch, inputs=batch.inputs.masked_fill(steps, 0), observed=present(batch) & ~steps)


def frame_times(batch: Batch, num_frames: int, stride: float) -> Float[Tensor, "b s"] | None:
    """The time of the step in the middle of each frame, in seconds; None where steps have no times."""
    if batch.times is None:
        return None
    frames = torch.arange(num_frames, device=batch.times.device)
    middles = ((frames + 0.5) * stride).long()
    last = (batch.lengths - 1).clamp(min=0)
    return batch.times.gather(1, torch.minimum(middles[None], last[:, None]))


def spread(mask: Bool[Tensor, "b s"], num_steps: int, stride: float) -> Bool[Tensor, "b t"]:
    """A mask of frames as a mask of the input steps that they stand for."""
    steps = torch.arange(num_steps, device=mask.device)
    frames = (steps / stride).long().clamp(max=mask.shape[1] - 1)
    return mask[:, frames]


@dataclass(frozen=True)
class Alphabet:
    """How the ids of a frame's own steps become codes.

    All ids of a frame are one code together (its word, or k-mer) where there are few possible words, because
    ids depend on each other; else each id is a code. Channels are codes of their own. `vocab_size` counts the
    ids that may be targets; larger ones are unknown.
    """

    vocab_size: int
    stride: int
    channels: int = 1

    @property
    def word(self) -> int:
        """The number of ids in a code."""
        return self.stride if self.vocab_size**self.stride <= MAX_WORDS else 1

    @property
    def num_codebooks(self) -> int:
        """The number of codes of a frame."""
        return self.channels * self.stride // self.word

    @property
    def codebook_size(self) -> int:
        """The number of values that a code may have."""
        return int(self.vocab_size**self.word)

    def of(
        self,
        inputs: Shaped[Tensor, "b t *c"],
        lengths: Int[Tensor, "b"],
        observed: Bool[Tensor, "b t *c"] | None,
    ) -> Int[Tensor, "b s g"]:
        """The codes of each frame; -1 where an id of it is unknown, missing or beyond the row."""
        ids = frame_symbols(inputs, lengths, observed, self.stride)
        ids = ids.masked_fill(ids >= self.vocab_size, -1)
        if self.word == 1:
            return ids
        ids = ids.reshape(*ids.shape[:2], self.word, self.channels)
        places = self.vocab_size ** torch.arange(self.word - 1, -1, -1, device=ids.device)
        words: Tensor = (ids * places[:, None]).sum(2)
        return words.masked_fill((ids < 0).any(2), -1)


def frame_symbols(
    inputs: Shaped[Tensor, "b t *c"],
    lengths: Int[Tensor, "b"],
    observed: Bool[Tensor, "b t *c"] | None,
    stride: int,
) -> Int[Tensor, "b s g"]:
    """The ids of each frame's steps, g = stride x channels; -1 where one is missing or beyond the row."""
    known = length_mask(lengths, inputs.shape[1])
    if observed is not None:
        known = known & observed.flatten(2).all(-1) if observed.dim() > 2 else known & observed
    ids = inputs.flatten(2) if inputs.dim() > 2 else inputs[..., None]
    ids = ids.masked_fill(~known[..., None], -1)
    ids = F.pad(ids, (0, 0, 0, -ids.shape[1] % stride), value=-1)
    return ids.reshape(len(ids), ids.shape[1] // stride, stride * ids.shape[2])


def labels_of_frames(
    segments: Sequence[Segment], num_frames: int, stride: float, number: Mapping[str, int], none: int = NONE
) -> Int[np.ndarray, "s"]:
    """The number of the label at the middle of each frame, `none` where there is no such segment.

    Of overlapping segments the one that starts last counts.
    """
    found = np.full(num_frames, none)
    middles = ((np.arange(num_frames) + 0.5) * stride).astype(np.int64)
    for segment in sorted(segments, key=lambda segment: (segment.start, -segment.end)):
        label = number.get(str(segment.label))
        if label is not None:
            first, last = np.searchsorted(middles, [segment.start, segment.end])
            found[first:last] = label
    return found


def frame_labels(
    batch: Batch, known: Bool[Tensor, "b s"], stride: float, numbers: dict[str, int]
) -> Int[np.ndarray, "n"]:
    """The number of the label of each known frame, -1 without one; `numbers` takes up labels that are new."""
    own = batch.segments or ((),) * len(batch.lengths)
    found = []
    for segments, row in zip(own, known.cpu().numpy(), strict=True):
        for segment in segments:
            numbers.setdefault(str(segment.label), len(numbers))
        found.append(labels_of_frames(segments, len(row), stride, numbers)[row])
    return np.concatenate(found)


def runs(labels: Int[np.ndarray, "s"]) -> Iterator[tuple[int, int]]:
    """Start and end of each run of equal labels."""
    yield from pairwise([0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)])
