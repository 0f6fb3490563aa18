"""The one training loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from seqssl.config.schema import OptimConfig, TemperatureConfig, TrainConfig
from seqssl.data.order import CountsEpochs
from seqssl.errors import FirstRankFailed, HealthHalt, Interrupted, UserError
from seqssl.model.protocols import FollowsUpdates, Summarizes, Task
from seqssl.model.types import Batch, Draws, Plan, sent
from seqssl.training import checkpoint, optim
from seqssl.training.best import Best
from seqssl.training.catalogue import Catalogues, write
from seqssl.training.log import MetricsLog, Value
from seqssl.training.parallel import Alone, Parallel
from seqssl.training.precision import autocast
from seqssl.training.progress import Reporter, describe
from seqssl.training.saving import Saver
from seqssl.training.signals import interruptible
from seqssl.training.tally import Tally
from seqssl.training.tasks import StepModule
from seqssl.training.trackers import start


class Batches(Protocol):
    """An endless, deterministic sequence of micro-batches that can be entered anywhere."""

    def endless(self, cursor: int, rank: int, world_size: int) -> Iterator[Batch]:
        """This rank's share of the micro-batches from number `cursor` on."""
        ...

    def epoch_of(self, cursor: int) -> tuple[int, int]:
        """The epoch that micro-batch number `cursor` belongs to, and its place in it."""
        ...


@dataclass(frozen=True)
class Units:
    """What turns counts of input steps into figures for people."""

    rate_hz: float | None = None  # input steps per second of real input
    flops_per_input: float | None = None  # forward and backward, per input step
    peak_flops: float | None = None  # of the device at the run's precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The part of a configuration that the loop reads."""

    train: TrainConfig
    optim: OptimConfig
    temperature: TemperatureConfig
    seed: int = 0
    health: Literal["off", "warn", "halt"] | str = "warn"


@dataclass
class Trainer:
    """Trains a task to its last update. Read `fit` first: the other methods are its steps.

    `observe` looks at each record and returns findings (anything with a `str`); the `health` policy decides
    what happens then.
    """

    settings: Settings
    task: Task
    data: Batches
    held_out: Callable[[], Iterable[Batch]]
    run: Path
    device: torch.device
    parallel: Parallel = field(default_factory=Alone)
    precision: torch.dtype = torch.float32
    units: Units = field(default_factory=Units)
    references: Mapping[str, float] = field(default_factory=dict)  # figures of the held-out data alone
    catalogues: Catalogues = field(default_factory=dict)  # what the metrics of each kind of data mean
    observe: Callable[[Mapping[str, Value]], Sequence[object]] = lambda record: ()
    notices: Sequence[str] = ()  # what is to be said before the first update
    quiet: bool = False  # whether nothing is shown

    def fit(self) -> dict[str, float]:
        """Train until `train.num_updates` are done, from what the run folder holds; the held-out metrics."""
        train = self.settings.train
        self.chosen_by = Best.read(train.keep_best)
        # Wrapping comes first: where ranks share out the weights, an optimizer must know the shares.
        self.runner = self.parallel.wrap(StepModule(self.task), self.precision)
        self.optimizer = optim.make_optimizer(self.settings.optim, optim.trained_parameters(self.task))
        self.tally, self.update, self.cursor, self.best = Tally(), 0, 0, math.inf
        self.inputs_before = 0.0  # input steps in the tally that another process has seen, before a resume
        problems = self.resume()
        self.saver = Saver(self.checkpoints, train.keep_last, self.parallel, self.device)
        self.log = None
        if self.parallel.is_first:
            told = start(train.trackers, self.run, self.settings, self.update)
            self.log = MetricsLog(self.run, resume_at=self.update, trackers=told)
        if self.parallel.is_first and self.catalogues:
            write(self.run, self.catalogues)
        self.reporter = Reporter(
            train.num_updates, self.update, quiet=self.quiet or not self.parallel.is_first
        )
        for record in self.log.kept if self.log else []:
            self.observe(record)  # the health rules remember what came before
            self.chosen_by.seen.update(record if record["kind"] == "valid" else ())
        for text in problems:
            self.event("resume", text)
        for text in self.notices if self.update == 0 else ():
            self.event("health", text)
        self.recent: list[tuple[int, Tensor, list[str]]] = []  # update, norm and keys since the last record
        self.findings: list[str] = []  # of the health rules, on the first rank
        self.started = self.interval_started = time.monotonic()
        batches = self.data.endless(self.cursor, self.parallel.rank, self.parallel.size)
        latest: dict[str, float] = {}
        try:
            with interruptible() as interrupted, self.saver:
                while self.update < train.num_updates:
                    self.step([next(batches) for _ in range(train.accumulate)])
                    last = self.update == train.num_updates
                    if last or self.update % train.log_every == 0:
                        self.write_training_record()
                    if last or self.update % train.eval_every == 0:
                        latest = self.evaluate()
                    if last or self.update % train.save_every == 0:
                        self.save()
                    # The first rank alone sees findings, and a signal may reach one alone: all stop together.
                    if self.settings.health == "halt" and self.parallel.any(bool(self.findings), self.device):
                        found = "\n".join(self.findings)
                        self.halt(HealthHalt(f"halted at update {self.update} by health=halt:\n{found}"))
                    if self.parallel.any(interrupted() or self.saver.has_failed, self.device):
                        self.interrupt()
                self.saver.finish()
            self.event("done", f"{self.update} updates")
        finally:
            self.reporter.close()
            if self.log is not None:
                self.log.close()
        return latest or self.evaluate_quietly()  # a run that was finished before has no update left

    def step(self, batches: list[Batch]) -> None:
        """One optimizer update from this rank's micro-batches."""
        settings, task, ranks = self.settings, self.task, self.parallel
        ranks.reach(f"update {self.update + 1:,}")
        num_updates = settings.train.num_updates
        rate = optim.learning_rate(settings.optim, self.update, num_updates)
        temperature = optim.temperature(settings.temperature, self.update, num_updates)
        optim.set_rate(self.optimizer, rate)
        # Numbered over ranks, as batches are: two ranks draw what one with twice the micro-batches draws.
        draws = [
            Draws((settings.seed, self.update, micro * ranks.size + ranks.rank), temperature)
            for micro in range(len(batches))
        ]
        plans = [task.plan(batch, draw) for batch, draw in zip(batches, draws, strict=True)]
        counts = self.global_counts(plans)
        for batch, plan, draw in zip(batches, plans, draws, strict=True):
            self.backward(batch, plan, draw, counts, is_last=plan is plans[-1])
        ranks.exchange(task.model.parameters())
        norm = ranks.norm(task.model.parameters())
        optim.clip_gradients(task.model.parameters(), norm, settings.optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if isinstance(task, FollowsUpdates):
            task.after_update()
        self.tally.add_update(norm)
        self.recent.append((self.update, norm, [key for batch in batches for key in batch.keys]))
        self.update += 1
        self.cursor += len(batches) * ranks.size // ranks.share
        self.reporter.advance()

    def global_counts(self, plans: Sequence[Plan]) -> dict[str, Tensor]:
        """What each term is a sum over in this update: all micro-batches of all ranks together.

        One exchange for all terms, before the first forward pass, because every micro-batch divides by these
        numbers.
        """
        names = [*plans[0].counts]
        local = [sum(float(plan.counts[name]) for plan in plans) for name in names]
        total = self.parallel.sum(sent(torch.tensor(local), self.device))
        return dict(zip(names, total.unbind(), strict=True))

    def backward(
        self, batch: Batch, plan: Plan, draws: Draws, counts: Mapping[str, Tensor], *, is_last: bool
    ) -> None:
        """Forward and backward pass of one micro-batch; ranks exchange gradients at the last one.

        Each term is divided by its global count, never by its own: two micro-batches, or two ranks, then give
        the gradient of one big batch, whatever a term counts.
        """
        # Dropout draws from torch's global generator, which must not depend on what came before.
        torch.manual_seed(draws.generator().initial_seed())
        with self.parallel.micro_step(self.runner, is_last=is_last):
            with autocast(self.device, self.precision):
                output = self.runner(batch.to(self.device), plan.to(self.device), draws)
                loss = torch.zeros((), device=self.device)
                for name, total in output.terms.items():
                    # A product drops a term without counts: to branch on a count would wait for the device.
                    mean = total / counts[name].clamp(min=1) * (counts[name] > 0)
                    loss = loss + output.weights[name] * mean
            self.parallel.reach()
            # Ranks average their gradients, where the sum is wanted.
            (loss * self.parallel.size).backward()
        self.tally.add(output, plan, batch)

    def write_training_record(self) -> None:
        """Turn the sums since the last record into metrics: the loop's one wait for the device."""
        settings, train = self.settings, self.settings.train
        tally = self.tally.merged(self.parallel, self.device)
        num_inputs = tally.num_inputs() - self.inputs_before
        metrics = tally.close(self.task.summarize if isinstance(self.task, Summarizes) else None)
        now = time.monotonic()
        done = self.update - 1
        metrics["lr"] = optim.learning_rate(settings.optim, done, train.num_updates)
        metrics["temperature"] = optim.temperature(settings.temperature, done, train.num_updates)
        metrics |= self.speed(num_inputs / (now - self.interval_started))
        self.tally, self.inputs_before, self.interval_started = Tally(), 0.0, now
        bad = [(step, keys) for step, norm, keys in self.recent if not math.isfinite(norm)]
        self.recent.clear()
        for step, keys in bad:  # before the record: the health rule that reads it names these rows
            keys = self.parallel.everyones(keys)  # the norm is that of all ranks, and so are the rows
            self.event("nonfinite", f"the gradient of update {step} is not finite; it was dropped", keys=keys)
        self.record("train", metrics)

    def speed(self, inputs_per_s: float) -> dict[str, float]:
        """Figures of throughput, utilization and memory, from input steps per second on all ranks."""
        units, figures = self.units, {"throughput/inputs_per_s": inputs_per_s}
        if units.rate_hz is not None:
            figures = {"throughput/input_s_per_s": inputs_per_s / units.rate_hz}
        if units.flops_per_input is not None and units.peak_flops is not None:
            figures["mfu"] = inputs_per_s * units.flops_per_input / (units.peak_flops * self.parallel.size)
        if self.device.type == "cuda":
            figures["memory_mib"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        return figures

    def evaluate(self) -> dict[str, float]:
        """Held-out metrics; keeps the weights that are best by `train.keep_best` as `best`."""
        began = time.monotonic()
        self.parallel.reach(f"the evaluation after update {self.update:,}")
        metrics = self.evaluate_quietly()
        # The first rank decides alone, and tells all: gathering the weights takes every rank.
        cost = self.chosen_by.cost(metrics) if self.parallel.is_first else math.inf
        if self.parallel.any(cost < self.best, self.device):
            self.best = min(self.best, cost)
            self.saver.save("best", self.task.model, None, self.state(Tally()))
        if self.parallel.is_first:
            self.record("valid", metrics)
        is_unknown = self.parallel.is_first and self.chosen_by.is_unknown(metrics)
        if self.parallel.any(is_unknown, self.device):
            wrong = f"train.keep_best = {self.settings.train.keep_best}: there is no such held-out metric"
            self.halt(UserError(f"{wrong}; there is {', '.join(sorted(metrics))}. Set it to one of them."))
        self.parallel.barrier()
        self.interval_started += time.monotonic() - began  # no part of the throughput
        return metrics

    def evaluate_quietly(self) -> dict[str, float]:
        """Held-out metrics, without a record; {} on ranks that take no part."""
        if not self.parallel.evaluates:
            return {}
        with self.parallel.undivided(), autocast(self.device, self.precision):
            return self.task.evaluate(self.held_out()) | dict(self.references)

    def record(self, kind: str, metrics: Mapping[str, float]) -> None:
        """Write a record, show it, and let the health rules see it; on the first rank alone."""
        if self.log is None:
            return
        record: dict[str, Value] = {"kind": kind, "step": self.update}
        record["epoch"] = self.data.epoch_of(self.cursor)[0]
        record |= {"time_s": round(time.monotonic() - self.started, 3), **metrics}
        self.log.write(record)
        self.reporter.say(describe(record, self.catalogues))
        self.check_health(record)

    def check_health(self, record: Mapping[str, Value]) -> None:
        """Let the health rules see a record, and do what the policy says about their findings."""
        if self.settings.health == "off":
            return
        for finding in self.observe(record):
            self.event("health", str(finding))
            self.findings.append(str(finding))

    def event(self, name: str, message: str, **details: list[str]) -> None:
        """Write and show something that happened."""
        if self.log is not None:
            record: dict[str, Value] = {"kind": "event", "step": self.update, "event": name}
            record |= {"message": message, **details}
            self.log.write(record)
            self.observe(record)
            if name != "done":
                self.reporter.say(f"{name}: {message}")

    def halt(self, error: Exception) -> None:
        """Save, and stop all ranks; the first one, which knows why, with the error."""
        try:
            self.save()
            self.saver.finish()
        except UserError as failed:  # which alone would not say why the run was to stop
            raise type(failed)(f"{failed}\n{error}") from failed
        raise error if self.parallel.is_first else FirstRankFailed("the first rank has stopped the run")

    def interrupt(self) -> None:
        """Save, say so, and raise Interrupted; or what has failed when something was saved before."""
        self.saver.finish()
        self.save()
        self.saver.finish()
        self.event("interrupt", "saved; run the same command again to go on")
        raise Interrupted(f"interrupted at update {self.update}; saved to {self.checkpoints}")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.run / "checkpoints"

    def state(self, tally: Tally) -> checkpoint.State:
        """How far the run is, without its weights and its optimizer; `tally` is that of all ranks."""
        return checkpoint.State(
            update=self.update,
            cursor=self.cursor,
            best=self.best if math.isfinite(self.best) else None,
            tally=tally.state(),
            epochs=self.data.counted if isinstance(self.data, CountsEpochs) else {},
        )

    def save(self) -> None:
        """Save everything that the rest of the run depends on; it is written while the run goes on."""
        self.parallel.reach(f"the checkpoint of update {self.update:,}")
        state = self.state(self.tally.merged(self.parallel, self.device))
        self.saver.save(f"step-{self.update:08d}", self.task.model, self.optimizer, state)

    def resume(self) -> list[str]:
        """Restore the newest whole checkpoint, if there is one; returns lines for the user."""
        saved, problems = checkpoint.latest(self.checkpoints)
        if saved is None:
            return problems
        model = self.task.model
        self.parallel.load_state(model, checkpoint.fitting(model, saved), self.optimizer, saved.optimizer)
        # The batches of an update are of one kind, so an update of another size begins at a multiple of it.
        group = self.settings.train.accumulate * self.parallel.size // self.parallel.share
        self.update, self.cursor = saved.state["update"], -(-saved.state["cursor"] // group) * group
        self.best = math.inf if saved.state["best"] is None else saved.state["best"]
        self.tally = Tally.restore(saved.state["tally"], self.device, holds_sums=self.parallel.is_first)
        self.inputs_before = self.tally.num_inputs()
        if isinstance(self.data, CountsEpochs):
            self.data.recall(saved.state.get("epochs", {}))
        return [*problems, f"going on from {saved.path.name} (epoch {self.data.epoch_of(self.cursor)[0]})"]
