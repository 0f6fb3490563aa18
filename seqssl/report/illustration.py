"""One held-out row, as the model sees it: its input, its codes, its mask; and what the codes stand for."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqssl.data.adapters import HasPicture, ModalityAdapter, Sample
from seqssl.model.joint import JointModel
from seqssl.model.types import Batch
from seqssl.report.page import Illustration, Logo
from seqssl.training.tasks import Draws, PretrainTask

MAX_LINES = 12  # channels that are drawn as lines; more make a picture
MAX_BATCHES = 8  # that the counts of codes come from
NUM_LOGOS = 12
LOGO_SIDES = 4  # input steps shown on either side of a frame's own


@torch.no_grad()
def illustrate(
    task: PretrainTask, batches: Iterable[Batch], adapter: ModalityAdapter, stream: str = ""
) -> Illustration:
    """Picture the longest row of the first batch; counts are over all frames of a few batches."""
    whole = task.model.eval()
    model = whole.of(stream) if isinstance(whole, JointModel) else whole
    some = list(islice(batches, MAX_BATCHES))
    found = [model.codes(batch.to(task.device)).cpu() for batch in some]
    flat = torch.cat([codes[(codes >= 0).all(-1)] for codes in found])
    usage = torch.stack([torch.bincount(column, minlength=model.codebook_size) for column in flat.unbind(1)])
    row, length = int(some[0].lengths.argmax()), int(some[0].lengths.max())
    alone = row_of(some[0], row, length)
    codes = model.codes(alone.to(task.device))[0].cpu()
    mask = task.draw(alone, Draws((task.seed, 0))).mask[0]
    whole.train()
    spec = adapter.spec
    learned = int(model.quantizer.num_codebooks)
    if learned:  # ids that follow them are seen in the input itself
        codes, usage = codes[:, :learned], usage[:learned, : model.quantizer.codebook_size]
    image, names = picture_of(model, alone, adapter)
    return Illustration(
        title=some[0].keys[row] if some[0].keys else "a held-out row",
        image=image.T,
        names=names,
        codes=codes.numpy(),
        mask=mask.numpy(),
        usage=usage.numpy(),
        seconds_per_frame=None if spec.rate_hz is None else length / len(codes) / spec.rate_hz,
        stream=stream,
        logos=logos(some, found, spec.symbols, model.stride) if learned and spec.symbols else (),
    )


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


def picture_of(model: Any, row: Batch, adapter: ModalityAdapter) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """A row as a picture (t, bins), and names of the bins where they are to be drawn as lines or letters.

    The adapter's `picture(sample)`, or the feature encoder's `picture(inputs, lengths)`, or the channels.
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
    """What the ids around a frame are, for the codes used most (of the first codebook)."""
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
