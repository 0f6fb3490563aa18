"""Updates to be timed: a recipe's on a made-up batch, and those of its peer in transformers."""

import gc
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from seqssl.assembly import Stream, assemble, streams_of
from seqssl.config.schema import RunConfig
from seqssl.data.workers import end_with
from seqssl.errors import UserError
from seqssl.interop import peers
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import Fits
from seqssl.model.types import Batch, Draws, length_mask
from seqssl.planning.cost import Shape
from seqssl.planning.plan import load_recipe, stage_of
from seqssl.runs.fitting import compile_blocks
from seqssl.runs.train import resolve_device
from seqssl.training import optim
from seqssl.training.parallel import Alone
from seqssl.training.precision import autocast
from seqssl.training.tasks import PretrainTask

OURS, THEIRS = "seqssl", "transformers"
PRECISIONS = ("float32", "bfloat16")
WARM_UP = 2  # steps of each that do not count
Step = Callable[[], None]
Update = Callable[[Callable[[], Tensor]], None]  # of the weights, by a loss


@dataclass(frozen=True)
class Work:
    """What is measured: a recipe with its settings, and the batch of a step.

    `length` is that of the longest row, in seconds, or in input steps for a modality without a rate; None:
    as the recipe has it.
    """

    recipe: str
    settings: tuple[str, ...]
    rows: int = 2
    length: float | None = None

    def __post_init__(self) -> None:
        if self.length is not None and not 0 < self.length < math.inf:
            raise UserError(f"length = {self.length:g}: expected seconds or input steps, above 0.")

    def config(self, precision: str = "auto") -> RunConfig:
        """The configuration at a precision; "auto": as the settings have it."""
        own = () if precision == "auto" else (f"train.precision={precision}",)
        return load_recipe(self.recipe, *self.settings, *own)

    def stream(self, config: RunConfig) -> Stream:
        """The one kind of data of the recipe; UserError where it has several."""
        streams = streams_of(config, stage_of(self.recipe, *self.settings))
        if len(streams) > 1:
            raise UserError(f"{self.recipe} has several streams: a step is of one; name a recipe of one.")
        return streams[0]

    def batch(self, config: RunConfig, stream: Stream) -> Batch:
        """Noise: rows from full length down to half of it, as those of a corpus differ."""
        model, spec = sketch(config, stream), stream.spec
        full = Shape.of(stream, model)
        steps = full.row_steps if self.length is None else round(self.length * (spec.rate_hz or 1))
        frames = int(model.feature_encoder.output_lengths(torch.tensor([steps]))[0])
        if frames < 4:
            raise UserError(
                f"length = {self.length or full.row_input:g}: such a row is {max(0, frames)} frames, too few "
                "to train on."
            )
        shape = replace(full, rows=self.rows, row_steps=steps, frames=frames)
        return noise(stream, model, shape, torch.linspace(1.0, 0.5, self.rows).mul(steps).long())


def noise(stream: Stream, model: PretrainingModel, shape: Shape, lengths: Tensor) -> Batch:
    """A batch of noise of a shape, with rows of so many input steps."""
    spec, made = stream.spec, shape.batch(stream, model)
    size, generator = made.inputs.shape, torch.Generator().manual_seed(0)
    if spec.vocab_size is not None:
        inputs = torch.randint(spec.vocab_size, size, generator=generator)
    else:
        inputs = 0.1 * torch.randn(size, generator=generator)
    present = length_mask(lengths, shape.row_steps).view(shape.rows, shape.row_steps, *[1] * (len(size) - 2))
    views = stream.config.data.views
    return replace(
        made,
        inputs=(inputs * present).to(made.inputs.dtype),
        lengths=lengths,
        clips=torch.arange(shape.rows) // views if views > 1 else None,
    )


def sketch(config: RunConfig, stream: Stream) -> PretrainingModel:
    """The model without its weights: enough for shapes and masks."""
    return assemble(config, [stream], "meta").of(stream.name)


def own_step(config: RunConfig, stream: Stream, batch: Batch, device: torch.device) -> Step:
    """One update of ours, from the batch to the optimizer; masks and negatives are drawn in it.

    Targets that are fitted before the first update are fitted to this batch.
    """
    return own_steps(config, stream, batch, device)(batch)


def own_steps(
    config: RunConfig, stream: Stream, first: Batch, device: torch.device
) -> Callable[[Batch], Step]:
    """What makes updates of one model out of batches; targets are fitted to the `first`."""
    model = assemble(config, [stream]).of(stream.name)
    targets = model.eval().targets
    if isinstance(targets, Fits):
        try:
            targets.fit([first], torch.Generator().manual_seed(config.seed))
        except ValueError as error:
            raise UserError(
                f"the targets cannot be fitted to this batch: {error}. Take more rows."
            ) from error
    if config.train.compile:
        compile_blocks(model)
    task = PretrainTask(model.to(device).train(), config.seed)
    update = _update(model, config, device)
    draws = Draws((config.seed,), config.temperature.start)

    def loss(batch: Batch, moved: Batch) -> Tensor:
        plan = task.plan(batch, draws).to(device)
        output = task.step(moved, plan, draws)
        terms = [
            output.weights[name] * total / plan.counts[name].clamp(min=1)
            for name, total in output.terms.items()
        ]
        return torch.stack(terms).sum()

    def step(batch: Batch, moved: Batch) -> None:
        update(partial(loss, batch, moved))
        task.after_update()

    return lambda batch: partial(step, batch, batch.to(device))


def peer_step(config: RunConfig, stream: Stream, batch: Batch, device: torch.device) -> Step:
    """One update of theirs on the same batch and masks; masks and negatives are drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        peer = peers.peer_of(config, stream.spec).build().to(device).train()
    draws = Draws((config.seed,), config.temperature.start)
    frames = sketch(config, stream).plan(batch, draws).frames
    assert frames is not None
    negatives = peers.negatives_of(frames, peer.config.num_negatives, draws.generator()).to(device)
    frames, batch, update = frames.to(device), batch.to(device), _update(peer, config, device)
    return partial(update, lambda: peers.peer_loss(peer, batch, frames, negatives))


def _update(model: nn.Module, config: RunConfig, device: torch.device) -> Update:
    """What follows a loss, the same for both: backward pass, clipped gradients, an update of the weights."""
    trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    optimizer = optim.make_optimizer(config.optim, [optim.ParameterGroup(params=trained, lr_scale=1.0)])
    precision = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32

    def update(loss: Callable[[], Tensor]) -> None:
        with autocast(device, precision):
            value = loss()
        value.backward()
        optim.clip_gradients(trained, Alone().norm(trained), config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def steps_of(
    config: RunConfig, stream: Stream, batch: Batch, device: torch.device, names: Sequence[str]
) -> dict[str, Step]:
    """The updates of the models named."""
    makers = {OURS: own_step, THEIRS: peer_step}
    return {name: makers[name](config, stream, batch, device) for name in names}


def interleaved(steps: dict[str, Step], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step; they take turns, so that a busy machine is as busy for each."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM_UP + repeats):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - begun)
    return {name: found[WARM_UP:] for name, found in times.items()}


def peak_mib(work: Work, name: str, precision: str, *, beside: bool) -> float:
    """The most memory of two steps above that of a process that has imported all, in a process of its own.

    `beside`: transformers is imported, too, whichever model it is.
    """
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=end_with, initargs=(os.getpid(),)) as pool:
        try:
            return pool.submit(_peak_mib, work, name, precision, beside).result()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            raise UserError(
                f"the memory does not suffice for a step of {name} in {precision}: take a smaller size, "
                "fewer rows, or a shorter length."
            ) from error


def _peak_mib(work: Work, name: str, precision: str, beside: bool) -> float:
    config = work.config(precision)
    device, stream = resolve_device(config.train), work.stream(config)
    batch = work.batch(config, stream)
    if beside:
        peers.peer_of(config, stream.spec).load()
    gc.collect()
    before = resident_mib("VmRSS")
    step = steps_of(config, stream, batch, device, [name])[name]
    for _ in range(2):
        step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident_mib("VmHWM") - before


def resident_mib(kind: str) -> float:
    """MiB of this process: now (VmRSS), or the most so far (VmHWM); 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return float(lines[kind].split()[0]) / 2**10
    import sys

    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
