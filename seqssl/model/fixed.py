"""What targets share that no gradient changes: codes, or vectors to regress."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from seqssl.model.types import Batch, Features, MaskedFrames, Quantized


class FixedVectors(nn.Module, ABC):
    """Vectors to regress that no gradient changes; there are no codes."""

    codebook_sizes: tuple[int, ...] = ()
    dim: int

    @abstractmethod
    def vectors_of(self, batch: Batch, features: Features) -> Float[Tensor, "b s q"]:
        """The vector of every frame; NaN for a value that was not measured."""

    def usable(self, batch: Batch, valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Every frame has a target, or a part of one."""
        return valid

    @torch.no_grad()
    def forward(
        self,
        batch: Batch,
        features: Features,
        frames: MaskedFrames,
        *,
        temperature: float | None,
        generator: Generator | None,
    ) -> Quantized:
        """The vectors of the frames; temperature and noise mean nothing here."""
        vectors = frames.take(self.vectors_of(batch, features))
        return Quantized(vectors, frames.rows.new_empty(len(frames), 0), vectors.new_empty(0, 0))

    def everywhere(self, batch: Batch, features: Features) -> Int[Tensor, "b s g"]:
        """No codes: (b, s, 0)."""
        return features.lengths.new_empty(*features.x.shape[:2], 0)


class FixedCodes(nn.Module, ABC):
    """Codes that do not change while the model learns.

    The vectors that a contrastive objective compares are then a learned linear map of the frames, of width
    `vector_dim`; 0 gives none.
    """

    def __init__(self, codebook_sizes: tuple[int, ...], input_dim: int, vector_dim: int) -> None:
        super().__init__()
        self.codebook_sizes, self.dim = codebook_sizes, vector_dim
        self.project = nn.Linear(input_dim, vector_dim) if vector_dim else None

    @abstractmethod
    def codes_of(self, batch: Batch, num_frames: int) -> Int[Tensor, "b s g"]:
        """The codes of every frame; -1 where there is none. Any device, no gradient."""

    def usable(self, batch: Batch, valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """The valid frames that have all of their codes."""
        return valid & (self.codes_of(batch, valid.shape[1]) >= 0).all(-1)

    def forward(
        self,
        batch: Batch,
        features: Features,
        frames: MaskedFrames,
        *,
        temperature: float | None,
        generator: Generator | None,
    ) -> Quantized:
        """The codes of the frames; temperature and noise mean nothing here."""
        x = frames.take(features.x)
        codes = self.codes_of(batch, features.x.shape[1])[frames.rows, frames.columns]
        vectors = x.new_empty(len(x), 0) if self.project is None else self.project(x)
        return Quantized(vectors, codes, x.new_empty(0, 0))

    def everywhere(self, batch: Batch, features: Features) -> Int[Tensor, "b s g"]:
        """The codes of every frame; -1 where there is none, and on padding."""
        codes = self.codes_of(batch, features.x.shape[1])
        return codes.masked_fill(~features.valid[..., None], -1)
