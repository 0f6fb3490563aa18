"""One held-out row, as the model sees it: its input, its codes, its mask."""

import torch

from seqssl.model.types import SampleSpec
from seqssl.report import Illustration
from seqssl.training.tasks import Draws, PretrainTask


@torch.no_grad()
def illustrate(task: PretrainTask, batches: object, spec: SampleSpec) -> Illustration:
    """Picture the first held-out row; the histogram counts the codes of all frames of its batch.

    A feature encoder that has `picture(inputs, lengths) -> (b, t, bins)` is shown by that (a spectrogram,
    say), any other by its own output.
    """
    model = task.model.eval()
    batch = next(iter(batches)).to(task.device)  # type: ignore[call-overload]
    features = model.encode_features(batch)
    codes = model.quantizer(features.x.flatten(0, 1), temperature=None).codes.view(*features.x.shape[:2], -1)
    valid = codes[features.valid].cpu()
    size = model.quantizer.codebook_size
    usage = torch.stack([torch.bincount(column, minlength=size) for column in valid.unbind(1)])
    mask = task.draw(batch.to("cpu"), Draws((task.seed, 0))).mask
    num_frames, num_inputs = int(features.lengths[0]), int(batch.lengths[0])
    picture = getattr(model.feature_encoder, "picture", lambda inputs, lengths: features.x)
    image = picture(batch.inputs[:1], batch.lengths[:1])[0].float().cpu()
    share = num_inputs / batch.inputs.shape[1] if image.shape[0] != features.x.shape[1] else 1.0
    shown = max(1, round(image.shape[0] * share)) if share < 1 else min(len(image), max(num_frames, 1))
    model.train()
    return Illustration(
        title=batch.keys[0] if batch.keys else "first held-out row",
        image=image[: shown if image.shape[0] == features.x.shape[1] else None].T.numpy(),
        codes=codes[0, :num_frames].cpu().numpy(),
        mask=mask[0, :num_frames].numpy(),
        usage=usage.numpy(),
        seconds_per_frame=None if spec.rate_hz is None else num_inputs / num_frames / spec.rate_hz,
    )
