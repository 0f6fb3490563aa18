"""What a model is given before the first update: scaling, weights of another run, targets fitted to data."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seqssl.assembly import Model, OpenStream, groups_of, set_scaling
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.errors import UserError
from seqssl.finetuning.head_start import MAX_ROWS
from seqssl.finetuning.supervised import Supervised
from seqssl.model.clusters import Clusters
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import Fits
from seqssl.model.types import Batch
from seqssl.runs.starting import starting_weights
from seqssl.runs.streams import loader
from seqssl.training import checkpoint
from seqssl.training.parallel import Parallel
from seqssl.training.precision import autocast

SPARE = 10  # times the frames that are kept, of large data


def prepare_model(
    model: Model,
    config: RunConfig,
    streams: Sequence[OpenStream],
    out: Path,
    parallel: Parallel,
    device: torch.device,
    progress: Progress = silent,
) -> list[str]:
    """Set the model's scaling and, before the first update, what is fitted or taken over; lines to show."""
    for stream in streams:
        set_scaling(model.of(stream.name), stream.corpus.manifest.statistics)
    if checkpoint.numbered(out / "checkpoints"):
        return []
    lines = [] if config.init is None else starting_weights(model, config.init, config)
    if config.task["target"] == "pretrain":
        fitted = [
            line
            for stream in streams
            for line in _fitted(model.of(stream.name), stream, config.seed, parallel, device, progress)
        ]
        if fitted and config.init is not None:
            # Once more, now that the fit has given targets their shapes: codes keep the meaning that heads
            # of that run know.
            before = targets_of(model)
            lines = starting_weights(model, config.init, config)
            _keep_of_other_teachers(model, before)
            if any(not torch.equal(x, before[name]) for name, x in targets_of(model).items()):
                fitted = [
                    f"targets: those of {config.init} where they fit, in the place of what was fitted here"
                ]
        lines += fitted
    return lines


def start_head(
    task: Supervised,
    stream: OpenStream,
    out: Path,
    parallel: Parallel,
    device: torch.device,
    precision: torch.dtype,
    progress: Progress = silent,
) -> str:
    """Let the head of a task begin at what fits the rows that are learned from; a sentence about it.

    They are read whole and without augmentation; of many, some are drawn.
    """
    if not task.is_fitted or checkpoint.numbered(out / "checkpoints"):
        return ""
    rows = stream.corpus.rows("train")
    chosen = np.sort(np.random.default_rng([task.seed, 11]).permutation(rows)[:MAX_ROWS])
    splits = np.full(len(stream.corpus), "", dtype=object)
    splits[chosen] = "start"
    part = replace(stream, corpus=stream.corpus.assigned(splits))

    def fit() -> str:
        source = loader(part, "start", task.seed, groups_of([stream]), device=device)
        with autocast(device, precision):
            return task.start(counted(source.batches(), len(source.epoch(0))))

    def counted(batches: Iterator[Batch], total: int) -> Iterator[Batch]:
        for number, batch in enumerate(batches, start=1):
            progress(number, total, "fitting the head")
            yield batch

    with parallel.undivided():
        told = parallel.first(fit, device) or ""
    task.model.head.load_state_dict(parallel.from_first(task.model.head.state_dict()))
    task.model.begin_average()
    return told and f"task: {told}"


def _keep_of_other_teachers(model: Model, fitted: dict[str, torch.Tensor]) -> None:
    """Put back what was fitted to a teacher, where the start had another: its centers lie elsewhere."""
    found = targets_of(model)
    parts = tuple(
        name.removesuffix("origin")
        for name, x in fitted.items()
        if name.endswith(".origin") and not torch.equal(x, found[name])
    )
    kept = {name: x for name, x in fitted.items() if name.startswith(parts)} if parts else {}
    model.load_state_dict(kept, strict=False)


def compile_blocks(model: PretrainingModel) -> None:
    """Compile the blocks of the context encoder only: draws and gathers of the step stay outside."""
    for block in model.encoder.blocks:
        block.compile(dynamic=True)


def targets_of(model: Model) -> dict[str, torch.Tensor]:
    """Copies of the weights and buffers of the targets."""
    found = checkpoint.weights_of(model).items()
    return {name: x.detach().clone() for name, x in found if ".targets." in f".{name}"}


@dataclass(frozen=True)
class _Repeated:
    """Batches that are made anew each time they are gone through."""

    make: Callable[[], Iterator[Batch]]

    def __iter__(self) -> Iterator[Batch]:
        return self.make()


def _batches_to_fit(
    model: PretrainingModel, stream: OpenStream, seed: int, device: torch.device, progress: Progress
) -> Iterator[Batch]:
    """The training split, or of a large one an even share, where the targets describe it.

    Targets keep at most `max_frames` frames, drawn evenly. A share that has `SPARE` times as many will do.
    """
    source = loader(stream, "train", seed, shuffle=False, device=device)
    total, most = len(source.epoch(0)), getattr(model.targets, "max_frames", None)
    if most is not None:
        total = min(total, math.ceil(total * SPARE * most * model.stride / source.num_steps))
    # Clusters describe batches where these are. Others read the model itself, which is on the CPU still.
    place = device if isinstance(model.targets, Clusters) else torch.device("cpu")
    for number, batch in enumerate(source.batches(0, total), start=1):
        progress(number, total, "fitting targets")
        yield batch.to(place)


def _fitted(
    model: PretrainingModel,
    stream: OpenStream,
    seed: int,
    parallel: Parallel,
    device: torch.device,
    progress: Progress,
) -> list[str]:
    """Fit targets that are to be fitted to the training split, on the first rank; a line about it."""
    targets = model.targets
    if not isinstance(targets, Fits):
        return []

    def fit() -> dict[str, int | float | str]:
        batches = _Repeated(partial(_batches_to_fit, model, stream, seed, device, progress))
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
