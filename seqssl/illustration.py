"""One held-out row, as the model sees it: its input, its codes, its mask."""

from collections.abc import Iterable

import torch

from seqssl.model.types import Batch, SampleSpec
from seqssl.report import Illustration
from seqssl.training.tasks import Draws, PretrainTask


@torch.no_grad()
def illustrate(task: PretrainTask, batches: Iterable[Batch], spec: SampleSpec) -> Illustration:
    """Picture the longest row of the first batch; the histogram counts the codes of all its frames.

    A feature encoder that has `picture(inputs, lengths) -> (b, t, bins)` is shown by that (a spectrogram,
    say), any other by its own output.
    """
    model = task.model.eval()
    batch = next(iter(batches))
    row, length = int(batch.lengths.argmax()), int(batch.lengths.max())
    alone = Batch(batch.inputs[row : row + 1, :length], batch.lengths[row : row + 1]).to(task.device)
    codes = [codes_of(task, part) for part in (batch.to(task.device), alone)]
    size = int(model.quantizer.codebook_size)
    usage = torch.stack([torch.bincount(column, minlength=size) for column in codes[0].unbind(1)])
    picture = getattr(model.feature_encoder, "picture", lambda *inputs: model.encode_features(alone).x)
    mask = task.draw(alone.to("cpu"), Draws((task.seed, 0))).mask
    image = picture(alone.inputs, alone.lengths)[0].float().cpu()
    model.train()
    return Illustration(
        title=batch.keys[row] if batch.keys else "a held-out row",
        image=image.T.numpy(),
        codes=codes[1].cpu().numpy(),
        mask=mask[0].numpy(),
        usage=usage.cpu().numpy(),
        seconds_per_frame=None if spec.rate_hz is None else length / len(codes[1]) / spec.rate_hz,
    )


def codes_of(task: PretrainTask, batch: Batch) -> torch.Tensor:
    """Codes (n, g) of all valid frames, without noise."""
    features = task.model.encode_features(batch)
    codes: torch.Tensor = task.model.quantizer(features.x[features.valid], temperature=None).codes
    return codes
