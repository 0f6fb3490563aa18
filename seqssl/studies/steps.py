"""Updates to be timed: a recipe's on a made-up batch, and those of its peer in transformers."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from seqssl.assembly import Stream, assemble, streams_of
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.interop import hugging_face, peers
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import Fits
from seqssl.model.types import Batch, Draws
from seqssl.planning.cost import Shape
from seqssl.planning.plan import load_recipe
from seqssl.runs.train import resolve_device
from seqssl.training import optim
from seqssl.training.parallel import Alone
from seqssl.training.precision import autocast

OURS, THEIRS = "seqssl", "transformers"
PRECISIONS = ("float32", "bfloat16")
WARM_UP = 2  # steps of each that do not count
Step = Callable[[], None]
Update = Callable[[Callable[[], Tensor]], None]  # of the weights, by a loss


@dataclass(frozen=True)
class Work:
    """What is measured: a recipe with its settings, and the batch of a step."""

    recipe: str
    settings: tuple[str, ...]
    rows: int = 2
    length: float = 0.0  # of the longest row, in seconds or input steps; 0: as the recipe has it

    def __post_init__(self) -> None:
        if not 0 <= self.length < math.inf:
            raise UserError(f"length = {self.length:g}: expected seconds or input steps above 0.")

    def config(self, precision: str = PRECISIONS[0]) -> RunConfig:
        """The configuration at a precision."""
        return load_recipe(self.recipe, *self.settings, f"train.precision={precision}")

    def stream(self, config: RunConfig) -> Stream:
        """The one kind of data of the recipe; UserError where it has several."""
        streams = streams_of(config)
        if len(streams) > 1:
            raise UserError(f"bench: {self.recipe} has several streams; name a recipe of one.")
        return streams[0]

    def shape(self, stream: Stream, model: PretrainingModel) -> Shape:
        """The shape of the batch."""
        full = Shape.of(stream, model)
        steps = int(self.length * (stream.spec.rate_hz or 1)) if self.length else full.row_steps
        frames = int(model.feature_encoder.output_lengths(torch.tensor([steps]))[0])
        if frames < 2:
            raise UserError(f"length = {self.length:g}: too short for a frame; leave it out, or give more.")
        return replace(full, rows=self.rows, row_steps=steps, frames=frames)

    def batch(self, stream: Stream, model: PretrainingModel) -> Batch:
        """Noise: rows from full length down to half of it, as those of a corpus differ."""
        shape, generator = self.shape(stream, model), torch.Generator().manual_seed(0)
        made = shape.batch(stream, model)
        lengths = torch.linspace(1.0, 0.5, self.rows).mul(shape.row_steps).long()
        size, symbols = made.inputs.shape, stream.spec.vocab_size
        if symbols is not None:
            inputs = torch.randint(symbols, size, generator=generator).to(made.inputs.dtype)
        else:
            inputs = 0.1 * torch.randn(size, generator=generator)
        return replace(made, inputs=inputs, lengths=lengths)


def own_step(model: PretrainingModel, config: RunConfig, batch: Batch, device: torch.device) -> Step:
    """One update of ours, from the batch to the optimizer; masks and negatives are drawn in it."""
    if isinstance(model.targets, Fits):
        model.targets.pretend()
    model.to(device).train()
    update = _update(model, config, device)
    draws, moved = Draws((config.seed,), config.temperature.start), batch.to(device)

    def loss() -> Tensor:
        plan = model.plan(batch, draws).to(device)
        assert plan.frames is not None
        output = model(moved, plan.frames, temperature=draws.temperature, generator=draws.generator(device))
        terms = [
            output.weights[name] * total / plan.counts[name].clamp(min=1)
            for name, total in output.terms.items()
        ]
        return torch.stack(terms).sum()

    return partial(update, loss)


def peer_step(config: RunConfig, stream: Stream, batch: Batch, device: torch.device) -> Step:
    """One update of theirs on the same batch and masks; masks and negatives are drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        peer = peers.peer_of(config, stream.spec).to(device).train()
    draws = Draws((config.seed,), config.temperature.start)
    frames = assemble(config, [stream]).of("").plan(batch, draws).frames
    assert frames is not None
    number = int(str(config.objectives["contrastive"]["num_negatives"]))
    negatives = peers.negatives_of(frames, number, draws.generator()).to(device)
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


def interleaved(steps: dict[str, Step], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each step; they take turns, so that a busy machine is as busy for each."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM_UP + repeats):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found[WARM_UP:]) for name, found in times.items()}


def peak_mib(work: Work, name: str, precision: str) -> float:
    """The most memory that two steps take above what was there before, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_mib, work, name, precision).result()


def _peak_mib(work: Work, name: str, precision: str) -> float:
    config = work.config(precision)
    device, stream = resolve_device(config.train), work.stream(config)
    hugging_face.library()  # in both processes, so that it counts for neither
    before = _resident_mib()
    step = steps_of(work, config, stream, device, [name])[name]
    for _ in range(2):
        step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return _resident_mib() - before


def _resident_mib() -> float:
    """The most memory that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return float(lines["VmHWM"].split()[0]) / 2**10
    import resource
    import sys

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def steps_of(
    work: Work, config: RunConfig, stream: Stream, device: torch.device, names: Sequence[str]
) -> dict[str, Step]:
    """The updates of the models named."""
    model = assemble(config, [stream]).of("")
    batch = work.batch(stream, model)
    made: dict[str, Callable[[], Step]] = {
        OURS: lambda: own_step(model, config, batch, device),
        THEIRS: lambda: peer_step(config, stream, batch, device),
    }
    return {name: made[name]() for name in names}
