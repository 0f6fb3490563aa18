"""One held-out row as the model sees it: its input, its codes, its mask; and what the codes stand for."""

from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch

from seqssl.data.adapters import HasPicture, ModalityAdapter, Sample
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, Draws, MaskedFrames
from seqssl.report.types import Illustration, Logo, Numbers

MAX_LINES = 12  # channels that are drawn as lines; more make a picture
MAX_BATCHES = 8  # that the counts of codes come from
NUM_LOGOS = 12
LOGO_SIDES = 4  # input steps shown on either side of a frame's own


@torch.no_grad()
def illustrate(
    model: PretrainingModel, batches: Iterable[Batch], adapter: ModalityAdapter, seed: int = 0
) -> Illustration:
    """Picture the longest row of the first batch; counts are over all frames of a few batches."""
    model.eval()
    device = next(model.parameters()).device
    some = list(islice(batches, MAX_BATCHES))
    found = [model.codes(batch.to(device)).cpu() for batch in some]
    flat = torch.cat([codes[(codes >= 0).all(-1)] for codes in found])
    size = max(model.targets.codebook_sizes, default=0)
    counts = [torch.bincount(column, minlength=size) for column in flat.unbind(1)]
    usage = torch.stack(counts) if counts else torch.zeros(0, 0)  # targets may be vectors alone
    row, length = int(some[0].lengths.argmax()), int(some[0].lengths.max())
    alone = row_of(some[0], row, length)
    codes = model.codes(alone.to(device))[0].cpu()
    mask = model.draw_mask(alone, Draws((seed, 0)).generator()).mask[0]
    model.train()
    spec = adapter.spec
    learned, entries = learned_books(model, alone.to(device))
    if learned:  # codes of ids follow them; those are in the picture of the input
        codes, usage = codes[:, :learned], usage[:learned, :entries]
    image, names = picture_of(model, alone.to(device), adapter)
    return Illustration(
        title=some[0].keys[row] if some[0].keys else "a held-out row",
        image=image.T,
        names=names,
        codes=codes.numpy(),
        mask=mask.numpy(),
        usage=usage.numpy(),
        seconds_per_frame=None if spec.rate_hz is None else length / len(codes) / spec.rate_hz,
        stream=some[0].stream,
        logos=logos(some, found, spec.symbols, model.stride) if learned and spec.symbols else (),
        hides=getattr(model.masking, "hides", True),
    )


def learned_books(model: PretrainingModel, row: Batch) -> tuple[int, int]:
    """How many codebooks are learned, and how many entries each has."""
    features = model.encode_features(row)
    first = torch.zeros_like(features.valid)
    first[:, 0] = True
    targets = model.targets(row, features, MaskedFrames.of(first), temperature=None, generator=None)
    return targets.usage.shape[0], targets.usage.shape[1]


def row_of(batch: Batch, row: int, length: int) -> Batch:
    """One row of a batch, without its padding."""

    def cut(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor[row : row + 1, :length]

    return Batch(
        batch.inputs[row : row + 1, :length],
        batch.lengths[row : row + 1],
        observed=cut(batch.observed),
        times=cut(batch.times),
        stream=batch.stream,
    )


def picture_of(
    model: PretrainingModel, row: Batch, adapter: ModalityAdapter
) -> tuple[Numbers, tuple[str, ...]]:
    """A row as a picture (t, bins), and names of the bins where they are to be drawn as lines or letters.

    It is the adapter's `picture(sample)`, else the feature encoder's `picture(inputs, lengths)`, else the
    channels.
    """
    spec = adapter.spec
    values = row.inputs[0].cpu().numpy()
    observed = None if row.observed is None else row.observed[0].cpu().numpy()
    if isinstance(adapter, HasPicture):
        return adapter.picture(Sample(values, observed=observed)), ()
    drawn = getattr(model.feature_encoder, "picture", None)
    if drawn is not None:
        return drawn(row.inputs, row.lengths)[0].float().cpu().numpy(), ()
    if spec.vocab_size is not None and values.ndim == 1:
        letters = tuple(spec.symbols or ())
        return np.eye(spec.vocab_size)[values], letters
    image = values.reshape(len(values), -1).astype(np.float64)
    if observed is not None:
        image = np.where(observed.reshape(image.shape), image, np.nan)
    names = spec.channel_names or tuple(f"channel {c}" for c in range(image.shape[1]))
    return image, names if image.shape[1] <= MAX_LINES else ()


def logos(batches: list[Batch], codes: list[torch.Tensor], symbols: str, stride: float) -> tuple[Logo, ...]:
    """Which ids are around the frames of a code, for the codes used most (of the first codebook)."""
    width = round(stride) + 2 * LOGO_SIDES
    windows, chosen = [], []
    for batch, found in zip(batches, codes, strict=True):
        ids = batch.inputs.clone()
        ids[torch.arange(ids.shape[1]) >= batch.lengths[:, None]] = -1
        if batch.observed is not None:
            ids[~batch.observed] = -1
        rows, frames = (found[..., 0] >= 0).nonzero(as_tuple=True)
        starts = (frames * stride).long() - LOGO_SIDES
        steps = starts[:, None] + torch.arange(width)
        inside = (steps >= 0) & (steps < ids.shape[1])
        window = ids[rows[:, None], steps.clamp(0, ids.shape[1] - 1)].masked_fill(~inside, -1)
        windows.append(window)
        chosen.append(found[rows, frames, 0])
    window, code = torch.cat(windows), torch.cat(chosen)
    counts = torch.bincount(code)
    best = counts.argsort(descending=True)[:NUM_LOGOS].tolist()
    return tuple(
        Logo(
            code=number,
            share=float(counts[number] / len(code)),
            frequencies=np.stack(
                [
                    (window[code == number] == letter).double().mean(0).numpy()
                    for letter in range(len(symbols))
                ]
            ),
            symbols=symbols,
            own_steps=round(stride),
        )
        for number in best
        if counts[number]
    )
