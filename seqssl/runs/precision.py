"""The precision of a run: what the settings ask for, tried on its own data before it is trusted."""

from collections.abc import Sequence
from pathlib import Path

import torch

from seqssl.assembly import Model, OpenStream
from seqssl.config.schema import TrainConfig
from seqssl.errors import UserError
from seqssl.planning import hardware
from seqssl.runs.folder import read_provenance
from seqssl.runs.streams import loader
from seqssl.training import checkpoint
from seqssl.training.precision import MOST_ERROR, name_of, precision_error

KNOWN = (torch.float32, torch.bfloat16)


def resolve_precision(train: TrainConfig, device: torch.device) -> torch.dtype:
    """`train.precision`, with auto = bfloat16 where the device has instructions for it."""
    if train.precision != "auto":
        return torch.bfloat16 if train.precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = hardware.has_fast_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def precision_of_run(
    out: Path, train: TrainConfig, model: Model, streams: Sequence[OpenStream], device: torch.device
) -> tuple[torch.dtype, str]:
    """The precision that the run in `out` trains in, and a warning or "".

    One that has a checkpoint keeps what it began with, on any machine: to decide again would be to decide by
    other weights, and the numbers that are still to come would be others.
    """
    if checkpoint.numbered(out / "checkpoints"):
        kept = read_provenance(out).get("precision")
        for precision in KNOWN:
            if name_of(precision) == kept and train.precision in ("auto", kept):
                return precision, ""
    return trusted_precision(train, model, streams, device)


def trusted_precision(
    train: TrainConfig, model: Model, streams: Sequence[OpenStream], device: torch.device
) -> tuple[torch.dtype, str]:
    """The precision to train in, and a warning or "".

    Some CPUs compute some shapes wrongly in bfloat16, and no loss shows it. So the first batch of each stream
    goes through the model in both precisions: where they differ by more than rounding, `auto` takes float32,
    and UserError for `bfloat16`.
    """
    precision = resolve_precision(train, device)
    if precision == torch.float32:
        return precision, ""
    for stream in streams:
        batch = next(iter(loader(stream, "train", 0, shuffle=False).batches(0)))
        error, stage = precision_error(model.of(stream.name), batch, device, precision)
        if error <= MOST_ERROR:
            continue
        found = (
            f"in bfloat16 this machine computes {stage} wrongly: away from float32 by {error:.2g} of its "
            "size, where rounding is some hundredths"
        )
        if train.precision == "bfloat16":
            raise UserError(f"train.precision=bfloat16: {found}. Set it to float32 or auto.")
        return torch.float32, f"precision: {found}; training in float32"
    return precision, ""
