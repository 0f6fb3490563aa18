"""Where a run begins: the weights of another run, or of a folder of transformers."""

import math
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from seqssl.assembly import Model, assemble, streams_of
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.interop.hugging_face import weights_from
from seqssl.model.joint import JointModel
from seqssl.model.norms import ChannelNorm
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import FollowsModel
from seqssl.runs.folder import HF, find_checkpoint, find_run, init_of, stream_of
from seqssl.training import checkpoint

MAX_NAMED = 6  # weights that a sentence lists
# Channels lie elsewhere if their mean is so many deviations off, or their deviation so many times as large.
FAR, WIDER = 2.0, 4.0


def starting_weights(model: Model, run: str, config: RunConfig | None = None) -> list[str]:
    """Take over the weights of another run that fit this model, and say which; UserError where none does.

    Weights fit by name and shape. What does not fit keeps its initial values: heads of other codebooks, a
    feature encoder of another kind of data. The scaling of the input is taken over, too, but for channels
    that lie elsewhere: other sensors or units than the run's.
    """
    if run.startswith(HF):
        return _from_hugging_face(model, run, config)
    path, stream = init_of(run)
    before, folder = find_run(path)
    saved = find_checkpoint(path, folder, "last")
    own = checkpoint.weights_of(model)
    given = checkpoint.renamed(saved, own)
    if config is not None and before.streams and not config.streams:
        given = _of_stream(before, saved, stream)
    lines = [line for name, part in model.named_modules() for line in _scaled_alone(name, part, given)]
    fitting = {name: x for name, x in given.items() if name in own and own[name].shape == x.shape}
    if not fitting:
        raise UserError(f"init = {run}: none of its weights fits this model by name and shape.")
    model.load_state_dict(fitting, strict=False)
    _follow_again(model, fitting)
    lines.insert(0, f"init: {len(fitting)} of {len(own)} tensors are those of {saved.path}")
    missing = [name for name in own if name not in given]
    differing = [name for name in own if name in given and name not in fitting]
    unused = [name for name in given if name not in own]
    for words, names in (
        ("not in that run, so drawn anew", missing),
        ("of another shape there, so drawn anew", differing),
        ("in that run and not in this model", unused),
    ):
        if names:
            shown = ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
            lines.append(f"init: {len(names)} {words}: {shown}")
    return lines


def _scaled_alone(name: str, part: nn.Module, given: dict[str, Tensor]) -> list[str]:
    """Put the scaling of these data into `given`, for channels that lie elsewhere; a line about them."""
    keys = [f"{name}.{key}" for key in ("mean", "std")]
    if not isinstance(part, ChannelNorm) or any(key not in given for key in keys):
        return []
    theirs, spread = (given[key] for key in keys)
    if theirs.shape != part.mean.shape or not (part.mean.any() or (part.std != 1).any()):  # these have none
        return []
    off = (part.mean - theirs).abs() / (FAR * spread)
    off = torch.maximum(off, (part.std / spread).log().abs() / math.log(WIDER)).nan_to_num(0)
    # A channel that never changes has the deviation 1, which says nothing of its units.
    off = off.masked_fill((part.std == 1) | (spread == 1), 0)
    if not (far := off > 1).any():
        return []
    for key, own in zip(keys, (part.mean, part.std), strict=True):
        given[key] = torch.where(far, own, given[key])
    worst = int(off.argmax())
    return [
        f"init: {int(far.sum())} of {len(off)} channels lie elsewhere than in the data of that run (channel "
        f"{worst + 1}: {part.mean[worst]:.4g} ± {part.std[worst]:.3g}, there {theirs[worst]:.4g} ± "
        f"{spread[worst]:.3g}), so these are scaled by their own mean and deviation"
    ]


def _follow_again(model: Model, given: Collection[str]) -> None:
    """Let targets that are made of the model start from its new weights, unless theirs were given, too."""
    if any(".targets." in f".{name}" for name in given):
        return
    for part in model.modules():
        if isinstance(part, PretrainingModel) and isinstance(part.targets, FollowsModel):
            part.targets.follow(part)


def _from_hugging_face(model: Model, run: str, config: RunConfig | None) -> list[str]:
    """Take over the encoder of a folder of transformers; everything else is drawn anew."""
    if config is None or isinstance(model, JointModel):
        raise UserError(f"init = {run}: is for a run of one kind of data.")
    (stream,) = streams_of(config)
    given = weights_from(Path(run.removeprefix(HF)).expanduser(), config, stream.spec)
    model.load_state_dict(given, strict=False)
    _follow_again(model, given)
    drawn = [name for name in checkpoint.weights_of(model) if name not in given]
    return [
        f"init: {len(given)} tensors are those of {run}; {len(drawn)} are drawn anew: "
        f"{', '.join(drawn[:MAX_NAMED])}"
    ]


def _of_stream(joint: RunConfig, saved: checkpoint.Checkpoint, stream: str) -> dict[str, torch.Tensor]:
    """The weights of a stream of a joint run; UserError where there is none of the name."""
    streams = streams_of(joint)
    stream_of(streams, stream)
    model = assemble(joint, streams)
    checkpoint.load_weights(model, saved)
    return checkpoint.weights_of(model.of(stream))
