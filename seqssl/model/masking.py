"""Span masking."""

from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from seqssl.model.bounds import SHARE
from seqssl.model.types import length_mask

FILLS = ("noise", "zero", "learned")


class SpanMasking(nn.Module):
    """Each valid frame starts a masked span with `start_prob`; spans have `span` frames and may overlap.

    wav2vec 2.0, section 3.1, as kept by w2v-BERT: 0.065 and 10 mask 48.9 % of a long row. Every row gets at
    least `min_spans` starts (fewer only where it has fewer frames), so every row has a target. Masked frames
    become fresh draws of N(0, fill_std^2) (`noise`, w2v-BERT), zeros, or one learned vector. But a share
    `kept` of them stays as it is, and a share `exchanged` becomes the frame of another masked place of the
    batch (BERT, 1810.04805, section 3.1: 0.1 each), in training.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        start_prob: float = 0.065,
        span: int = 10,
        min_spans: int = 1,
        fill: str = "noise",
        fill_std: float = 0.1,
        kept: Annotated[float, SHARE] = 0.0,
        exchanged: Annotated[float, SHARE] = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= start_prob <= 1 or span < 1 or min_spans < 0:
            raise ValueError(
                f"masking needs 0 <= start_prob <= 1, span >= 1 and min_spans >= 0; "
                f"got {start_prob}, {span}, {min_spans}"
            )
        if fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(FILLS)}; got {fill!r}")
        if kept + exchanged > 1:
            raise ValueError(f"kept ({kept}) and exchanged ({exchanged}) are shares of one whole")
        self.start_prob, self.span, self.min_spans = start_prob, span, min_spans
        self.fill, self.fill_std = fill, fill_std
        self.kept, self.exchanged = kept, exchanged
        if fill == "learned":
            self.vector = nn.Parameter(torch.rand(input_dim))

    def sample(self, lengths: Int[Tensor, "b"], generator: Generator) -> Bool[Tensor, "b s"]:
        """Draw spans; a span that would leave its row is cut at the row's end."""
        valid = length_mask(lengths, int(lengths.max()))
        draws = torch.rand(valid.shape, generator=generator, device=lengths.device)
        draws = draws.masked_fill(~valid, 2.0)
        starts = draws < self.start_prob
        if self.min_spans:
            nearest = draws.sort(dim=1).values[:, min(self.min_spans, draws.shape[1]) - 1]
            starts |= draws <= nearest[:, None]
        total = (starts & valid).cumsum(dim=1)
        before = torch.zeros_like(total)
        before[:, self.span :] = total[:, : -self.span]
        return (total > before) & valid

    def apply(  # type: ignore[override]  # the seam's name; nn.Module.apply(fn) is not used on this class
        self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"], generator: Generator
    ) -> Float[Tensor, "b s d"]:
        """`x` with its masked frames replaced."""
        if not self.training or not self.kept + self.exchanged:
            return self._filled(x, mask, generator)
        # A mask may be drawn from the very seed of this generator. Its first numbers say where spans start:
        # by the same ones, every start would be kept.
        draws = torch.rand(2, *mask.shape, generator=generator, device=x.device)[1]
        filled = self._filled(x, mask & (draws >= self.kept + self.exchanged), generator)
        exchanged = mask & (draws >= self.kept) & (draws < self.kept + self.exchanged)
        return torch.where(exchanged[..., None], _shuffled(x, mask, generator), filled)

    def _filled(
        self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"], generator: Generator
    ) -> Float[Tensor, "b s d"]:
        if self.fill == "zero":
            return x.masked_fill(mask[..., None], 0.0)
        if self.fill == "learned":
            return torch.where(mask[..., None], self.vector.to(x.dtype), x)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return torch.where(mask[..., None], noise * self.fill_std, x)


def _shuffled(
    x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"], generator: Generator
) -> Float[Tensor, "b s d"]:
    """Every masked frame becomes one of another masked place, drawn for the whole batch."""
    draws = torch.rand(mask.numel(), generator=generator, device=x.device)
    # Masked places come first in this order, themselves in random order; so nothing waits for a GPU.
    order = (draws + (~mask.flatten())).argsort()
    places = order[(mask.flatten().cumsum(0) - 1).clamp(min=0)]
    return x.flatten(0, 1)[places].view_as(x)
