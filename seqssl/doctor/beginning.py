"""What can be seen before the first update: how many codes the frames of some batches have."""

from collections.abc import Iterable

import torch

from seqssl.doctor.bars import START_MIN, START_SHARE
from seqssl.model.objectives import perplexity
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.targets import LearnedCodes
from seqssl.model.types import Batch, MaskedFrames


@torch.no_grad()
def few_codes(model: PretrainingModel, batches: Iterable[Batch]) -> str:
    """A warning where frames begin with so few learned codes that a collapse is near; "" where they do not.

    The codes are the likeliest ones, without noise, of a quantizer that draws them. The model stays as it is.
    """
    # Of this model alone: a teacher or reader inside of it learns no more.
    parts = model.targets.modules() if isinstance(model.targets, torch.nn.Module) else ()
    targets = next((part for part in parts if isinstance(part, LearnedCodes)), None)
    if targets is None:
        return ""
    training, kept = model.training, {name: x.clone() for name, x in targets.state_dict().items()}
    model.eval()
    targets.train()
    counts: torch.Tensor | None = None
    for batch in batches:
        features = model.encode_features(batch)
        if not features.x.isfinite().all():  # other rules say so, with the rows
            continue
        frames = MaskedFrames.of(features.valid)
        # A temperature without a generator: a step of training, scaled by its own batch, and no noise.
        found = targets(batch, features, frames, temperature=1.0, generator=None)
        if found.probs is None or not len(found.codes):
            break
        size = found.probs.shape[-1]
        own = torch.stack([torch.bincount(codes, minlength=size) for codes in found.codes.T])
        counts = own if counts is None else counts + own
    targets.load_state_dict(kept)
    model.train(training)
    if counts is None:
        return ""
    frames_seen, size = int(counts[0].sum()), counts.shape[1]
    used = float(perplexity(counts / counts.sum(1, keepdim=True)).min())
    if used >= max(START_MIN, START_SHARE * size):
        return ""
    advice = (
        "set quantizer_norm=batch and objectives.diversity.weight=1.0"
        if targets.quantizer_norm is None
        else "look at the input: is it constant, or nearly the same everywhere?"
    )
    return (
        f"before the first update {used:.1f} of {size} codes are in use (perplexity over {frames_seen:,} "
        f"frames): frames have much in common, and the codebook may collapse from here; {advice}"
    )
