"""Sequences of codes as input: what another run made of the data is read, masked and predicted.

DiscreteBERT (1911.03912) is a masked language model on the codes of vq-wav2vec.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Generator, Tensor, nn

from seqssl.model.bounds import POSITIVE
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import FeatureEncoder
from seqssl.model.targets import Both, GivenCodes, SymbolCodes
from seqssl.model.types import Batch, Features, MaskedFrames, Quantized


class CodeReader(nn.Module):
    """Frames that are looked up by the codes of another run's model, which itself stays as it is.

    A frame is the sum of one learned vector for each of its codes. `run` is a run's folder, of which the
    newest checkpoint is taken; the run must still be there when the model is opened again. `num_codebooks`
    and `codebook_size` say what is expected of its codes; None takes what is there.
    """

    def __init__(
        self,
        open_model: Callable[[str], PretrainingModel],
        *,
        run: str,
        dim: Annotated[int, POSITIVE] = 768,
        num_codebooks: Annotated[int, POSITIVE] | None = None,
        codebook_size: Annotated[int, POSITIVE] | None = None,
    ) -> None:
        super().__init__()
        reader = open_model(run)
        sizes = reader.targets.codebook_sizes
        if not sizes or isinstance(reader.targets, SymbolCodes | GivenCodes | Both):
            raise ValueError(
                f"feature_encoder.run = {run}: this run has no codes to read that every frame has"
            )
        wanted = (num_codebooks or len(sizes), codebook_size or max(sizes))
        if wanted != (len(sizes), max(sizes)):
            raise ValueError(
                f"feature_encoder.run = {run}: this run has {len(sizes)} codebooks of {max(sizes)} entries, "
                f"not {wanted[0]} of {wanted[1]}: set num_codebooks and codebook_size to those, or take "
                "another run"
            )
        self.dim, self.codebook_sizes = dim, sizes
        self.reader = reader.requires_grad_(False).eval()
        self.reader.stands_still = True  # type: ignore[assignment]  # its own running means, too
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size in sizes)

    def train(self, mode: bool = True) -> "CodeReader":
        """Train the tables; the other run's model stays in evaluation."""
        super().train(mode)
        self.reader.eval()
        return self

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """The number of codes: as many as the other model has frames."""
        return self.reader.feature_encoder.output_lengths(lengths)

    def forward(
        self,
        inputs: Shaped[Tensor, "b t *c"],
        lengths: Int[Tensor, "b"],
        observed: Bool[Tensor, "b t *c"] | None = None,
    ) -> Features:
        """Look up the codes of every frame; a frame without codes has those numbered 0."""
        # In full precision always: codes are the input, and must not depend on how the rest is computed.
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            batch = Batch(inputs, lengths, observed=observed)
            features = self.reader.encode_features(batch)
            codes = self.reader.targets.everywhere(batch, features)
        places = codes.clamp(min=0).unbind(-1)
        vectors = [table(place) for table, place in zip(self.tables, places, strict=True)]
        return Features(torch.stack(vectors).sum(0), features.lengths, codes=codes)


class ReadCodes(nn.Module):
    """The codes that the feature encoder reads are what is predicted (DiscreteBERT)."""

    dim = 0

    def __init__(self, feature_encoder: FeatureEncoder) -> None:
        super().__init__()
        sizes = getattr(feature_encoder, "codebook_sizes", ())
        if not sizes:
            raise ValueError(
                f"targets=read_codes needs a feature encoder that reads codes (code_reader), and "
                f"{type(feature_encoder).__name__} does not"
            )
        self.codebook_sizes: tuple[int, ...] = tuple(sizes)

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
        """The codes of the frames; temperature and noise mean nothing here."""
        codes = self.everywhere(batch, features)[frames.rows, frames.columns].clamp(min=0)
        return Quantized(features.x.new_empty(len(codes), 0), codes, features.x.new_empty(0, 0))

    def everywhere(self, batch: Batch, features: Features) -> Int[Tensor, "b s g"]:
        """The codes of every frame; -1 on padding. ValueError for features that come without codes."""
        if features.codes is None:
            raise ValueError("these features were not made from codes")
        return features.codes.masked_fill(~features.valid[..., None], -1)
