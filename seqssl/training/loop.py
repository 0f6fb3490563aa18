"""The one training loop."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from seqssl.config.schema import RunConfig
from seqssl.errors import HealthHalt, Interrupted
from seqssl.model.protocols import Task
from seqssl.model.types import Batch, MaskedFrames
from seqssl.training import checkpoint, optim
from seqssl.training.log import MetricsLog
from seqssl.training.parallel import Ranks
from seqssl.training.progress import Reporter, describe
from seqssl.training.tally import Window
from seqssl.training.tasks import Draws


class Stream(Protocol):
    """An endless, deterministic sequence of micro-batches that can be entered anywhere."""

    def stream(self, cursor: int, rank: int, world_size: int) -> Iterator[Batch]:
        """This rank's share of the micro-batches from number `cursor` on."""
        ...

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        """The epoch that micro-batch number `cursor` belongs to, and its place in it."""
        ...


@dataclass(frozen=True)
class Units:
    """What turns counts of the loop into figures for people."""

    rate_hz: float | None = None  # input steps per second of real input
    flops_per_input: float | None = None  # forward and backward, per input step
    peak_flops: float | None = None  # of the device at the run's precision


@dataclass
class Trainer:
    """Runs a task to its last update; `fit` reads top to bottom, the rest is its vocabulary.

    `observe` looks at each record and returns findings (anything with a `str`); what happens then is the
    `health` policy's business.
    """

    config: RunConfig
    task: Task
    data: Stream
    held_out: Callable[[], Iterable[Batch]]
    run: Path
    device: torch.device
    ranks: Ranks = field(default_factory=Ranks)
    precision: torch.dtype = torch.float32
    units: Units = field(default_factory=Units)
    observe: Callable[[Mapping[str, Any]], Sequence[object]] = lambda record: ()

    def fit(self) -> dict[str, float]:
        """Train until `train.num_updates` are done, from what the run folder holds; held-out metrics."""
        train = self.config.train
        self.optimizer = optim.make_optimizer(self.config.optim, self.task.model.parameters())
        self.window, self.update, self.cursor, self.best = Window(), 0, 0, math.inf
        problems = self.resume()
        self.log = MetricsLog(self.run, resume_at=self.update) if self.ranks.is_first else None
        self.reporter = Reporter(train.num_updates, self.update, quiet=not self.ranks.is_first)
        for record in self.log.kept if self.log else []:
            self.observe(record)  # the health rules remember what came before
        for text in problems:
            self.event("resume", text)
        self.recent: list[tuple[int, Tensor, list[str]]] = []  # gradient norms since the last log, with keys
        self.started = self.window_started = time.monotonic()
        stream = self.data.stream(self.cursor, self.ranks.rank, self.ranks.size)
        latest: dict[str, float] = {}
        try:
            with interruptible() as interrupted:
                while self.update < train.num_updates:
                    self.step([next(stream) for _ in range(train.accumulate)])
                    last = self.update == train.num_updates
                    if last or self.update % train.log_every == 0:
                        self.write_training_record()
                    if last or self.update % train.eval_every == 0:
                        latest = self.evaluate()
                    if last or self.update % train.save_every == 0:
                        self.save()
                    if self.ranks.any(interrupted(), self.device):
                        self.interrupt()
            self.event("done", f"{self.update} updates")
        finally:
            self.reporter.close()
            if self.log is not None:
                self.log.close()
        return latest or self.evaluate_quietly()

    def step(self, batches: list[Batch]) -> None:
        """One optimizer update from this rank's micro-batches.

        Each micro-batch counts by its share of the masked frames of all of them on all ranks; terms that are
        sums over frames are then exactly those of one big batch.
        """
        config, task = self.config, self.task
        rate = optim.learning_rate(config.optim, self.update, config.train.num_updates)
        temperature = optim.temperature(config.temperature, self.update, config.train.num_updates)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        draws = [
            Draws((config.seed, self.update, micro * self.ranks.size + self.ranks.rank), temperature)
            for micro in range(len(batches))
        ]
        masks = [task.draw(batch, draw) for batch, draw in zip(batches, draws, strict=True)]
        num_masked = self.ranks.sum(torch.tensor(float(sum(len(m.rows) for m in masks)), device=self.device))
        for batch, frames, draw in zip(batches, masks, draws, strict=True):
            self.backward(batch, frames, draw, self.ranks.size / num_masked.clamp(min=1), frames is masks[-1])
        norm = clip_gradients(task.model.parameters(), config.optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.window.add_update(norm)
        self.recent.append((self.update, norm, [key for batch in batches for key in batch.keys]))
        self.update += 1
        self.cursor += len(batches) * self.ranks.size
        self.reporter.advance()

    def backward(
        self, batch: Batch, frames: MaskedFrames, draws: Draws, per_frame: Tensor, is_last: bool
    ) -> None:
        """Forward and backward of one micro-batch; ranks exchange gradients at the last one."""
        task = self.task
        num_masked = len(frames.rows)
        with no_exchange(task.runner, skip=is_last), autocast(self.device, self.precision):
            output = task.step(batch.to(self.device), frames.to(self.device), draws)
            loss = torch.zeros((), device=self.device)
            for name, term in output.terms.items():
                mean = term.total / term.count.clamp(min=1)
                loss = loss + output.weights[name] * mean
        (loss * num_masked * per_frame).backward()  # type: ignore[no-untyped-call]
        self.window.add(output, batch, frames)

    def write_training_record(self) -> None:
        """Close the window: the loop's one wait for the device."""
        optim_config, train = self.config.optim, self.config.train
        self.window.merge(self.ranks, self.device)
        num_inputs = self.window.num_inputs()
        metrics = self.window.close()
        now = time.monotonic()
        done = self.update - 1
        metrics["lr"] = optim.learning_rate(optim_config, done, train.num_updates)
        metrics["temperature"] = optim.temperature(self.config.temperature, done, train.num_updates)
        metrics |= self.speed(num_inputs / (now - self.window_started))
        self.window, self.window_started = Window(), now
        bad = [(step, keys) for step, norm, keys in self.recent if not math.isfinite(norm)]
        self.recent.clear()
        for step, keys in bad:
            self.event("nonfinite", f"the gradient of update {step} is not finite; it was dropped", keys=keys)
        self.record("train", metrics)

    def speed(self, inputs_per_s: float) -> dict[str, float]:
        """Throughput, utilization and memory."""
        units = self.units
        if units.rate_hz is None:
            figures = {"throughput/inputs_per_s": inputs_per_s}
        else:
            figures = {"throughput/input_s_per_s": inputs_per_s / units.rate_hz}
        if units.flops_per_input is not None and units.peak_flops is not None:
            figures["mfu"] = inputs_per_s * units.flops_per_input / (units.peak_flops * self.ranks.size)
        if self.device.type == "cuda":
            figures["memory_mib"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        return figures

    def evaluate(self) -> dict[str, float]:
        """Held-out metrics; keeps the weights with the lowest held-out loss as `best`."""
        began = time.monotonic()
        metrics = self.evaluate_quietly()
        if self.ranks.is_first:
            if metrics["loss"] < self.best:
                self.best = metrics["loss"]
                checkpoint.save(self.checkpoints / "best", self.task.model, None, {"update": self.update})
            self.record("valid", metrics)
        self.ranks.barrier()
        self.window_started += time.monotonic() - began  # no part of the throughput
        return metrics

    def evaluate_quietly(self) -> dict[str, float]:
        """Held-out metrics."""
        if not self.ranks.is_first:
            return {}
        with autocast(self.device, self.precision):
            return self.task.evaluate(self.held_out())

    def record(self, kind: str, metrics: dict[str, float]) -> None:
        """Write a record, show it, and let the health rules see it."""
        if self.log is None:
            return
        where = {"kind": kind, "step": self.update, "epoch": self.data.epoch_of(self.cursor)[0]}
        record = where | {"time_s": round(time.monotonic() - self.started, 3)} | metrics
        self.log.write(record)
        self.reporter.say(describe(record))
        self.check_health(record)

    def check_health(self, record: Mapping[str, Any]) -> None:
        """Let the health rules see a record, and do what the policy says about their findings."""
        if self.config.health == "off":
            return
        findings = [str(finding) for finding in self.observe(record)]
        for text in findings:
            self.event("health", text)
        if findings and self.config.health == "halt":
            self.save()
            raise HealthHalt(f"halted at update {self.update} by health=halt:\n" + "\n".join(findings))

    def event(self, name: str, message: str, **details: object) -> None:
        """Write and show something that happened."""
        if self.log is not None:
            record = {"kind": "event", "step": self.update, "event": name, "message": message} | details
            self.log.write(record)
            self.observe(record)
            if name != "done":
                self.reporter.say(f"{name}: {message}")

    def interrupt(self) -> None:
        """Save and stop."""
        self.save()
        self.event("interrupt", "saved; run the same command again to go on")
        raise Interrupted(f"interrupted at update {self.update}; saved to {self.checkpoints}")

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints live."""
        return self.run / "checkpoints"

    def save(self) -> None:
        """Save everything that the rest of the run depends on."""
        if self.ranks.is_first:
            state = {
                "update": self.update,
                "cursor": self.cursor,
                "best": self.best if math.isfinite(self.best) else None,
                "window": self.window.state(),
            }
            path = self.checkpoints / f"step-{self.update:08d}"
            checkpoint.save(path, self.task.model, self.optimizer, state)
            checkpoint.prune(self.checkpoints, self.config.train.keep_last)
        self.ranks.barrier()

    def resume(self) -> list[str]:
        """Restore the newest whole checkpoint, if there is one; returns what to tell."""
        saved, problems = checkpoint.latest(self.checkpoints)
        if saved is None:
            return problems
        checkpoint.load_weights(self.task.model, saved)
        checkpoint.load_optimizer(self.optimizer, saved)
        self.update, self.cursor = saved.state["update"], saved.state["cursor"]
        self.best = math.inf if saved.state["best"] is None else saved.state["best"]
        self.window = Window.restore(saved.state["window"], self.device)
        return [*problems, f"going on from {saved.path.name} (epoch {self.data.epoch_of(self.cursor)[0]})"]


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale gradients to a global norm of at most `max_norm`; returns the norm before.

    A gradient that is not finite is dropped whole, on the device, so that one bad batch cannot poison the
    weights and nothing has to wait.
    """
    trained = [p for p in parameters if p.grad is not None]
    norm = get_total_norm([p.grad for p in trained if p.grad is not None])
    clip_grads_with_norm_(trained, max_norm, norm)
    for parameter in trained:
        assert parameter.grad is not None
        parameter.grad.masked_fill_(~torch.isfinite(norm), 0.0)
    return norm.detach()


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Matrix products in `precision`; float32 is the identity."""
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)


@contextmanager
def no_exchange(runner: torch.nn.Module, *, skip: bool) -> Iterator[None]:
    """No gradient exchange between ranks inside, unless `skip`."""
    if skip or not isinstance(runner, torch.nn.parallel.DistributedDataParallel):
        yield
    else:
        with runner.no_sync():
            yield


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag; a second one acts at once."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        previous[number] = signal.getsignal(number)
        signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
