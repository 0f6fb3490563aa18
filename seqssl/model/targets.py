"""Where targets come from: a codebook that learns, the input's own symbols, fixed codes, another model.

Every class keeps the protocol `seqssl.model.protocols.Targets`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from seqssl.model.alignment import Alphabet, known_frames, present
from seqssl.model.description import columns_per_step, picture_of
from seqssl.model.features import fold
from seqssl.model.fixed import FixedCodes
from seqssl.model.norms import MaskedBatchNorm, identity, scaled
from seqssl.model.precision import in_float32
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import DrawsInputs, FeatureEncoder, Fits, HasWords, Quantizer, Targets
from seqssl.model.types import Batch, Features, MaskedFrames, Quantized, length_mask

Teacher = Callable[[Batch], Features]  # frames of another model, without gradient
MANY_FRAMES = 64  # of a trial input; with so many, its borders hardly matter


class FrozenTeacher(nn.Module):
    """The model of another run as a teacher: the frames of one of its taps, or of several side by side.

    `origin`: of which update its weights are, and a number by which others would show; None for a run that
    has not begun.
    """

    def __init__(
        self, model: PretrainingModel, taps: Sequence[str], origin: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.model, self.taps, self.origin = model.requires_grad_(False), taps, origin
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in evaluation: a teacher drops nothing out."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Features:
        """Its frames, where the batch is, and in full precision: targets do not depend on that of a run."""
        device = batch.inputs.device
        if next(self.model.parameters()).device != device:
            self.model.to(device)
        with in_float32(device):
            features = self.model.encode_features(batch)
            found = self.model.contexts(batch, features, self.model.clear(batch, features))
            x = torch.cat([found[tap or self.model.last_tap] for tap in self.taps], dim=-1)
        return replace(features, x=x)


class LearnedCodes(nn.Module):
    """A quantizer's codes of the features, learned end to end (w2v-BERT, wav2vec 2.0).

    With a quantizer that gives vectors and no codes, frames can only be recognized (w2v-Conformer).
    `quantizer_norm` scales what it reads, over the batch: what all frames have in common then fills no codes.
    """

    quantizer: Quantizer

    def __init__(self, quantizer: Quantizer, quantizer_norm: MaskedBatchNorm | None = None) -> None:
        super().__init__()
        self.quantizer, self.quantizer_norm = quantizer, quantizer_norm
        self.codebook_sizes = (quantizer.codebook_size,) * quantizer.num_codebooks
        self.dim = quantizer.dim
        self.all_reduce: Callable[[Tensor], Tensor] = identity  # set by seqssl.training.parallel

    def usable(self, batch: Batch, valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Every frame has a code."""
        return valid

    def forward(
        self,
        batch: Batch,
        features: Features,
        frames: MaskedFrames,
        *,
        temperature: float | None,
        generator: Generator | None,
    ) -> Quantized:
        """Quantize the frames; in training, `usage` is the mean over the frames of all ranks."""
        x = self._scaled(frames.take(features.x), counts=temperature is not None)
        found = self.quantizer(x, temperature=temperature, generator=generator)
        if not (self.training and temperature is not None and len(found.usage)):
            return found
        # Diversity judges the mean use over the global batch, so ranks add sums and counts, not means.
        count = torch.full_like(found.usage[:1], len(x))
        sums = self.all_reduce(torch.cat([found.usage * len(x), count]))
        return replace(found, usage=sums[:-1] / sums[-1:].clamp(min=1))

    def everywhere(self, batch: Batch, features: Features) -> Int[Tensor, "b s g"]:
        """The code that each valid frame has without noise."""
        valid = features.valid
        x = self._scaled(features.x.flatten(0, 1), counts=False)
        codes = self.quantizer(x, temperature=None).codes.view(*valid.shape, -1)
        return codes.masked_fill(~valid[..., None], -1)

    def _scaled(self, x: Float[Tensor, "n d"], *, counts: bool) -> Float[Tensor, "n d"]:
        """What the quantizer reads; the frames of a training step count in the batch's mean, no others do."""
        if self.quantizer_norm is None:
            return x
        every = torch.ones(1, len(x), dtype=torch.bool, device=x.device)
        self.quantizer_norm.train(self.training and counts)
        scaled: Tensor = self.quantizer_norm(x[None], every)
        return scaled[0]


class SymbolCodes(FixedCodes):
    """The ids of a frame's own steps, or the word that they make together (DiscreteBERT)."""

    def __init__(self, alphabet: Alphabet, input_dim: int = 0, vector_dim: int = 0) -> None:
        super().__init__((alphabet.codebook_size,) * alphabet.num_codebooks, input_dim, vector_dim)
        self.alphabet, self.ids_per_code = alphabet, alphabet.word

    def codes_of(self, batch: Batch, num_frames: int) -> Int[Tensor, "b s g"]:
        """Words; -1 where an id is unknown, missing or beyond the row."""
        return self.alphabet.of(batch.inputs, batch.lengths, batch.observed)


class GivenCodes(FixedCodes):
    """The codes that come with the data: `Batch.codes`, given by the adapter (HuBERT, DiscreteBERT)."""

    def __init__(self, codebook_sizes: tuple[int, ...], input_dim: int = 0, vector_dim: int = 0) -> None:
        super().__init__(tuple(codebook_sizes), input_dim, vector_dim)

    def codes_of(self, batch: Batch, num_frames: int) -> Int[Tensor, "b s g"]:
        """The batch's codes, cut or padded with -1 to so many frames; ValueError for codes out of range.

        Their range is looked at on the CPU only, where `usable` gets them: elsewhere the step would wait.
        """
        given, sizes = batch.codes, self.codebook_sizes
        if given is None:
            raise ValueError(
                "targets are given codes, and this batch has none: does the adapter give `codes`?"
            )
        fitting = given.shape[-1] == len(sizes)
        if fitting and given.device.type == "cpu":
            fitting = bool((given < torch.tensor(sizes, device="cpu")).all())
        if not fitting:
            raise ValueError(
                f"batch.codes has {given.shape[-1]} codes a frame, up to {int(given.max())}; the model was "
                f"built for {len(sizes)}, below {' and '.join(map(str, dict.fromkeys(self.codebook_sizes)))}"
            )
        return F.pad(given, (0, 0, 0, max(0, num_frames - given.shape[1])), value=-1)[:, :num_frames]


class InputCodes(FixedCodes):
    """A frozen quantizer's codes of the input itself (BEST-RQ, 2202.01855).

    The input is what the feature encoder shows as its `picture` (a spectrogram), else its values. Each row is
    scaled to zero mean and unit variance per channel, over what is known of it; then the columns of a frame,
    laid end to end, are quantized. Ids are one-hot vectors, which are not scaled.
    """

    quantizer: Quantizer

    def __init__(
        self,
        feature_encoder: FeatureEncoder,
        make_quantizer: Callable[[int], Quantizer],
        stride: float,
        channels: int | None,
        input_dim: int = 0,
        vector_dim: int = 0,
        vocab_size: int | None = None,
    ) -> None:
        steps = math.ceil(MANY_FRAMES * stride)
        inputs = torch.zeros(1, steps, *([] if channels is None else [channels]))
        columns = columns_of(Batch(inputs, torch.tensor([steps])), feature_encoder, vocab_size=vocab_size)
        per_frame = max(1, round(columns.shape[1] / MANY_FRAMES))
        self._per_step = 1.0
        if isinstance(feature_encoder, DrawsInputs):
            self._per_step = columns_per_step(feature_encoder, channels)
        quantizer = make_quantizer(per_frame * columns.shape[2])
        super().__init__((quantizer.codebook_size,) * quantizer.num_codebooks, input_dim, vector_dim)
        self.quantizer, self.per_frame, self.vocab_size = quantizer, per_frame, vocab_size
        self._feature_encoder = (feature_encoder,)  # in a tuple: it is the model's part, not this one's
        for parameter in self.quantizer.parameters() if isinstance(self.quantizer, nn.Module) else ():
            parameter.requires_grad_(False)

    def usable(self, batch: Batch, valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Every frame has a code."""
        return valid

    @torch.no_grad()
    def codes_of(self, batch: Batch, num_frames: int) -> Int[Tensor, "b s g"]:
        """The code of every frame, padding included."""
        columns = columns_of(batch, self._feature_encoder[0], self._per_step, self.vocab_size)
        frames = fold(columns, self.per_frame)
        frames = F.pad(frames, (0, 0, 0, max(0, num_frames - frames.shape[1])))[:, :num_frames]
        codes = self.quantizer(frames.flatten(0, 1), temperature=None).codes
        return codes.view(*frames.shape[:2], -1)


def columns_of(
    batch: Batch, feature_encoder: FeatureEncoder, per_step: float = 1.0, vocab_size: int | None = None
) -> Float[Tensor, "b p f"]:
    """What `InputCodes` reads of each column or step, in float32; 0 where it is not known.

    That are the columns of the feature encoder's picture, of which there are `per_step` for each input step
    (those that are mostly missing are not known), else the values that are present; or ids below
    `vocab_size`, as one-hot vectors.
    """
    if isinstance(feature_encoder, DrawsInputs):
        with in_float32(batch.inputs.device):
            picture, lengths = picture_of(feature_encoder, batch, per_step)
        return scaled(picture, known_frames(batch, length_mask(lengths, picture.shape[1]), 1 / per_step))
    known = present(batch)
    if vocab_size is not None:
        ids = torch.arange(vocab_size, device=batch.inputs.device)
        return ((batch.inputs[..., None] == ids) & known[..., None]).float().flatten(2)
    values = batch.inputs.float()
    return scaled(values[..., None], known[..., None]) if values.dim() == 2 else scaled(values, known)


class TeacherCodes(FixedCodes):
    """The nearest centroid of each frame of another run's model (HuBERT, 2106.07447).

    `run` is a run's folder, of which the newest checkpoint is taken; `tap` is the stage that was clustered.
    `centroids` is a .npy file of shape (v, d): the cluster centers of k-means on `Encoder.embed(...,
    pool="none")` of some rows, say. The teacher is opened when it is first needed and is not saved with the
    model.
    """

    centroids: Tensor

    def __init__(
        self,
        feature_encoder: FeatureEncoder,
        open_teacher: Callable[[str, str], Teacher],
        read_array: Callable[[str], Tensor],
        input_dim: int = 0,
        vector_dim: int = 0,
        *,
        run: str,
        centroids: str,
        tap: str = "",
    ) -> None:
        centers = read_array(centroids)
        if centers.dim() != 2:
            raise ValueError(f"centroids = {centroids}: expected an array (v, d), found {[*centers.shape]}")
        super().__init__((len(centers),), input_dim, vector_dim)
        self.register_buffer("centroids", centers.float(), persistent=False)
        self._open, self._opened = partial(open_teacher, run, tap), list[Teacher]()
        self._output_lengths = feature_encoder.output_lengths

    def usable(self, batch: Batch, valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Every frame has a code; so nothing needs to be computed."""
        return valid

    @torch.no_grad()
    def codes_of(self, batch: Batch, num_frames: int) -> Int[Tensor, "b s g"]:
        """The nearest centroid, of the frame nearest in time if the teacher has fewer or more for the row."""
        if not self._opened:
            self._opened.append(self._open())
        found = self._opened[0](batch)
        # Differences one by one: the product form rounds, and ties would fall to another centroid.
        distances = torch.cdist(found.x.float(), self.centroids, compute_mode="donot_use_mm_for_euclid_dist")
        ratios = found.lengths / self._output_lengths(batch.lengths)
        middles = torch.arange(num_frames, device=found.x.device) + 0.5
        last = (found.lengths - 1).clamp(min=0)[:, None]
        places = torch.minimum((middles * ratios[:, None]).long(), last)
        return distances.argmin(-1).gather(1, places)[..., None]


class Both(nn.Module):
    """The codes of one target after those of another; the vectors are those of the first that has any.

    A negative is told from the positive by the codes that come with the vectors, if there are any, else by
    all codes.
    """

    first: Targets
    second: Targets

    def __init__(self, first: Targets, second: Targets) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.codebook_sizes = (*first.codebook_sizes, *second.codebook_sizes)
        self.dim = first.dim or second.dim
        words = [part.ids_per_code for part in (first, second) if isinstance(part, HasWords)]
        self.ids_per_code = words[-1] if words else 1

    def usable(self, batch: Batch, valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """The frames that have a target in both."""
        return self.second.usable(batch, self.first.usable(batch, valid))

    def forward(
        self,
        batch: Batch,
        features: Features,
        frames: MaskedFrames,
        *,
        temperature: float | None,
        generator: Generator | None,
    ) -> Quantized:
        """The targets of both, codes side by side."""
        found = [
            part(batch, features, frames, temperature=temperature, generator=generator)
            for part in (self.first, self.second)
        ]
        codes = torch.cat([part.codes for part in found], dim=1)
        leader = found[0] if self.first.dim else found[1]
        own = leader.identity if leader.identity.shape[1] else codes
        learned = [part.usage for part in found if len(part.usage)]
        usage = torch.cat(learned) if learned else leader.usage
        return Quantized(leader.vectors, codes, usage, own, probs=found[0].probs, costs=leader.costs)

    def fit(self, batches: Iterable[Batch], generator: Generator) -> dict[str, int | float | str]:
        """Fit those that are to be fitted."""
        facts: dict[str, int | float | str] = {}
        for part in (self.first, self.second):
            if isinstance(part, Fits):
                facts |= part.fit(batches, generator)
        return facts

    def pretend(self) -> None:
        """Do without a fit."""
        for part in (self.first, self.second):
            if isinstance(part, Fits):
                part.pretend()

    def everywhere(self, batch: Batch, features: Features) -> Int[Tensor, "b s g"]:
        """The codes of both, side by side."""
        return torch.cat([part.everywhere(batch, features) for part in (self.first, self.second)], dim=-1)


class LearnedAndSymbols(Both):
    """A quantizer's learned code of a frame, then the ids of the frame."""

    def __init__(self, learned: Targets, symbols: Targets) -> None:
        super().__init__(learned, symbols)
