"""What a model is given before the first update: scaling, weights of another run, targets fitted to data."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from seqssl.assembly import Model, OpenStream, set_scaling
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import Fits
from seqssl.runs.starting import starting_weights
from seqssl.runs.streams import loader
from seqssl.training import checkpoint
from seqssl.training.parallel import Parallel


def prepare_model(
    model: Model,
    config: RunConfig,
    streams: Sequence[OpenStream],
    out: Path,
    parallel: Parallel,
    device: torch.device,
) -> list[str]:
    """Set the model's scaling and, before the first update, what is fitted or taken over; lines to show."""
    for stream in streams:
        set_scaling(model.of(stream.name), stream.corpus.manifest.statistics)
    if config.train.compile:
        compile_blocks(model.of(streams[0].name))
    if checkpoint.numbered(out / "checkpoints"):
        return []
    lines = [] if config.init is None else starting_weights(model, config.init, config)
    if config.task["target"] == "pretrain":
        fitted = [
            line
            for stream in streams
            for line in _fitted(model.of(stream.name), stream, config.seed, parallel, device)
        ]
        if fitted and config.init is not None:
            # Once more, now that the fit has given targets their shapes: codes keep the meaning that heads
            # of that run know.
            before = targets_of(model)
            lines = starting_weights(model, config.init, config)
            if any(not torch.equal(x, before[name]) for name, x in targets_of(model).items()):
                fitted = [
                    f"targets: those of {config.init} where they fit, in the place of what was fitted here"
                ]
        lines += fitted
    return lines


def compile_blocks(model: PretrainingModel) -> None:
    """Compile the blocks of the context encoder only: draws and gathers of the step stay outside."""
    for block in model.encoder.blocks:
        block.compile(dynamic=True)


def targets_of(model: Model) -> dict[str, torch.Tensor]:
    """Copies of the weights and buffers of the targets."""
    found = checkpoint.weights_of(model).items()
    return {name: x.detach().clone() for name, x in found if ".targets." in f".{name}"}


def _fitted(
    model: PretrainingModel, stream: OpenStream, seed: int, parallel: Parallel, device: torch.device
) -> list[str]:
    """Fit targets that are to be fitted to the training split, on the first rank; a line about it."""
    targets = model.targets
    if not isinstance(targets, Fits):
        return []

    def fit() -> dict[str, int | float | str]:
        batches = loader(stream, "train", seed, shuffle=False).batches(0)
        try:
            return targets.fit(batches, torch.Generator().manual_seed(seed))
        except ValueError as error:
            raise UserError(f"the targets cannot be fitted: {error}.") from error

    model.eval()
    with parallel.undivided():
        facts = parallel.first(fit, device) or {}
    model.train()
    assert isinstance(targets, nn.Module)
    targets.load_state_dict(parallel.from_first(targets.state_dict()))
    shown = ", ".join(
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else f'{value:,.6g}'}"
        for name, value in facts.items()
    )
    return [f"targets fitted: {shown}"] if shown else []
