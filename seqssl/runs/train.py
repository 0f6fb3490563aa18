"""A whole run, from the configuration to the report."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from seqssl.assembly import (
    Model,
    OpenStream,
    Stream,
    assemble,
    build_task,
    groups_of,
    streams_of,
)
from seqssl.config import stages
from seqssl.config import tree as trees
from seqssl.config.schema import DataConfig, RunConfig, TrainConfig
from seqssl.data.files import Progress, silent
from seqssl.data.prepare import fixed_split
from seqssl.doctor import Monitor, together
from seqssl.doctor.beginning import few_codes
from seqssl.errors import FirstRankFailed, HealthHalt, UserError
from seqssl.finetuning.supervised import Supervised
from seqssl.model.protocols import Task
from seqssl.planning import hardware
from seqssl.planning.cost import Cost, cost_of
from seqssl.planning.sharding import why_whole
from seqssl.report.illustration import illustrate
from seqssl.report.page import write_report
from seqssl.report.types import Illustration
from seqssl.runs.fitting import compile_blocks, prepare_model, start_head
from seqssl.runs.folder import alone, check_same_run, write_config, write_facts
from seqssl.runs.precision import precision_of_run
from seqssl.runs.processes import number_of, side_by_side
from seqssl.runs.sharing import shared_out
from seqssl.runs.streams import (
    chosen_rows,
    describe,
    describe_rows,
    held_out,
    labelled,
    loader,
    opened,
    references,
    training_batches,
)
from seqssl.training import checkpoint
from seqssl.training.best import Best
from seqssl.training.catalogue import Catalogue, Catalogues, Explains
from seqssl.training.loop import Settings, Trainer, Units
from seqssl.training.parallel import Parallel
from seqssl.training.precision import name_of
from seqssl.training.ranks import start, stop
from seqssl.training.tasks import PretrainTask

START_BATCHES = 4  # that are looked at before the first update


@dataclass(frozen=True)
class Run:
    """A finished run."""

    out: Path
    metrics: dict[str, float]  # held-out, at the end
    report: Path
    seconds: float  # of this call


def train(
    config: RunConfig, *, say: Callable[[str], None] | None = print, progress: Progress = silent
) -> Run:
    """Train as configured; if `out` holds the same run already, go on where it stopped.

    `say` is given what is to be known before the first update; None trains without a word, also of figures.
    On a CPU, several processes may share the work (`train.processes`).

    Raises UserError for bad input, and HealthHalt or Interrupted as their names say (the state is then
    saved).
    """
    began = time.monotonic()
    check_stages(config)
    device, kinds = resolve_device(config.train), streams_of(config)
    number = number_of(config, kinds, stages.run_folder(config), device, progress)
    if number == 1:
        return train_part(config, start(device, shards=config.train.shards), say, progress, began)
    with side_by_side(config, number, say or (lambda text: None)) as parallel:
        return train_part(config, parallel, say, progress, began)


def train_part(
    config: RunConfig,
    parallel: Parallel,
    say: Callable[[str], None] | None,
    progress: Progress,
    began: float,
) -> Run:
    """This process's part of a run that `began` at a time; see `train`."""
    device, kinds = resolve_device(config.train), streams_of(config)
    if device.type == "cuda":
        device = torch.device("cuda", parallel.local_rank)
    quiet = say is None
    say = say if say and parallel.is_first else lambda text: None
    with ExitStack() as stack:
        stack.push(lambda kind, *_: stop(parallel, failed=kind is not None))
        out = stages.run_folder(config)
        model = assemble(config, kinds)  # before any work: it refuses impossible settings
        if config.train.shards > 1:
            check_shards(config, model)
        for text in check_splits(config, kinds, out):
            say(text)
        streams = [opened(stream, parallel, device, progress) for stream in kinds]
        check_same_run(config, out, streams)
        parallel.first(lambda: stack.enter_context(alone(out)), device)
        check_shared(out, parallel)
        for text in prepare_model(model, config, streams, out, parallel, device, progress):
            say(text)
        all_rows, streams = streams, [labelled(stream, config.finetune) for stream in streams]
        task = build_task(config, model, streams)
        check_best(task, config.train.keep_best)
        if isinstance(task, Supervised):
            streams = [chosen_rows(task, streams[0])]
            for text in (describe_rows(streams[0]), *task.notes):
                say(f"task: {text}")
        task.model.to(device)
        precision, warning = precision_of_run(out, config.train, model, streams, device)
        if config.train.compile:  # once it is known in what precision
            compile_blocks(model.of(streams[0].name))
        own, number, *told = shared_out(config, out, parallel)
        kept = {"processes": parallel.share, "precision": name_of(precision), "micro_batches": number}
        # Not before the task has accepted its labels: a folder with a configuration is a run that has begun.
        parallel.first(lambda: write_config(config, out, all_rows, kept), device)
        if isinstance(task, Supervised):
            told.append(start_head(task, streams[0], out, parallel, device, precision, progress))
            parallel.first(partial(write_facts, out, task.facts), device)
        for text in filter(None, (warning, *told)):
            say(text)
        cost = cost_of(config, kinds) if isinstance(task, PretrainTask) else None
        units, machine = measure(cost, streams, device, precision, parallel.share)
        amount = f"{sum(p.numel() for p in task.model.parameters()) / 1e6:.1f} M parameters"
        say("\n".join([*map(describe, streams), f"run: {out} | {amount} | {machine}"]))
        trainer = trainer_of(own, task, streams, out, device, parallel, precision, units, quiet=quiet)
        metrics = trainer.fit()
        # Where no rank has the whole model, all of them must call it; one alone would wait forever.
        parallel.make_readable(task.model)
        shown = illustrations(task, model, streams, config.seed) if parallel.evaluates else []
        parallel.first(lambda: write_report(out, shown), device)
    if metrics and not math.isfinite(metrics.get("loss", 0.0)):
        raise HealthHalt(f"the held-out loss is not a number; `seqssl doctor {out}` says more.")
    return Run(out, metrics, out / "report.html", time.monotonic() - began)


def check_stages(config: RunConfig) -> None:
    """UserError where a setting stands for a stage that has not run: its model would have initial weights."""
    for key, value in trees.leaves(asdict(config)):
        if isinstance(value, str) and value.startswith(stages.MARK):
            raise UserError(
                f"{key} = {value} stands for a stage that has not run: a recipe with stages is run by "
                "`seqssl train` or `seqssl.runs.stages.train_stages`."
            )


def check_shards(config: RunConfig, model: Model) -> None:
    """UserError where parts of the model, or of its optimizer, read or change weights that are divided."""
    problem = why_whole(config, model)
    if problem:
        raise UserError(f"train.shards = {config.train.shards}: {problem}.")


def check_shared(out: Path, parallel: Parallel) -> None:
    """UserError where ranks do not see the same checkpoints: each would go on from other weights."""
    own = ", ".join(path.name for path in checkpoint.numbered(out / "checkpoints")) or "no checkpoint"
    found = dict.fromkeys(parallel.everyones([own]))
    if len(found) > 1:
        wrong = f"out={out} is not the same folder for all ranks, which find {' | '.join(found)}"
        error = f"{wrong}: it must be on a disk that all nodes share."
        raise UserError(error) if parallel.is_first else FirstRankFailed(error)


def check_splits(config: RunConfig, kinds: Sequence[Stream], out: Path) -> list[str]:
    """Sentences about settings of splits without effect; UserError for `split_by` in a new run.

    A task with labels takes over the settings of the run that it tunes, so there it is only told.
    """
    found = []
    for stream in () if (out / "config.yaml").is_file() else kinds:
        data, usual, why = stream.config.data, DataConfig(), fixed_split(stream.config.data)
        for name in ("split_by", "valid_share") if why else ():
            if getattr(data, name) == getattr(usual, name):
                continue
            key = trees.of_stream(stream.name, f"data.{name}")
            text = f"{key} = {getattr(data, name)} has no effect: {why}."
            if name == "split_by" and config.task["target"] == "pretrain":
                raise UserError(f"{text} Leave it out ({key}=null), or prepare the raw data again with it.")
            found.append(text)
    return found


def check_best(task: Task, keep_best: str) -> None:
    """UserError where weights are to be kept by a metric that the task has not.

    What the objectives and other parts measure shows at the first evaluation only.
    """
    name = Best.read(keep_best).name
    if isinstance(task, Supervised):
        known = ["loss", f"loss/{task.term}", *(f"{task.term}/{metric.name}" for metric in task.metrics)]
        others = f"there is {', '.join(known)}"
    elif isinstance(task, PretrainTask) and "probe/" in name:
        known = task.probe_names()
        others = f"task.probes gives {', '.join(known) or 'none'}"
    else:
        return
    if name not in known:
        raise UserError(f"train.keep_best = {keep_best}: there is no such held-out metric; {others}.")


def trainer_of(
    config: RunConfig,
    task: Task,
    streams: Sequence[OpenStream],
    out: Path,
    device: torch.device,
    parallel: Parallel,
    precision: torch.dtype,
    units: Units,
    *,
    quiet: bool = False,
) -> Trainer:
    """The loop, with what it needs of the configuration and the data."""
    seed, train = config.seed, config.train
    meanings = catalogues_of(task, streams)
    monitor = Monitor(train.num_updates, meanings)
    # One update's micro-batches on all ranks are of one kind, so that ranks can share its statistics.
    group = train.accumulate * parallel.size // parallel.share
    return Trainer(
        settings=Settings(
            train=train, optim=config.optim, temperature=config.temperature, seed=seed, health=config.health
        ),
        task=task,
        data=training_batches(
            streams, seed=seed, group=group, device=device, share=parallel.share, at_once=train.accumulate
        ),
        held_out=lambda: held_out(streams, seed=seed, limit=train.eval_batches, device=device),
        run=out,
        device=device,
        parallel=parallel,
        precision=precision,
        units=units,
        references=references(streams) if parallel.is_first else {},
        catalogues=meanings,
        observe=lambda record: together(monitor.observe(record)),
        notices=notices(config, task, streams, device),
        quiet=quiet,
    )


def notices(config: RunConfig, task: Task, streams: Sequence[OpenStream], device: torch.device) -> list[str]:
    """What the health rules see before the first update, if the task is pre-training.

    The ranks have not met yet: each looks for itself, and the first one tells.
    """
    begun = bool(checkpoint.numbered(stages.run_folder(config) / "checkpoints"))
    if not isinstance(task, PretrainTask) or config.health == "off" or begun:
        return []
    found = []
    for stream in streams:
        batches = islice(loader(stream, "train", config.seed, groups_of(streams)).batches(), START_BATCHES)
        text = few_codes(task.model.of(stream.name), (batch.to(device) for batch in batches))
        found += [f"{stream.name}: {text}" if stream.name else text] if text else []
    return found


def catalogues_of(task: Task, streams: Sequence[Stream]) -> Catalogues:
    """What the metrics of each stream mean."""
    if not isinstance(task, Explains):
        return {stream.name: Catalogue.from_stats({}) for stream in streams}
    return {stream.name: Catalogue.from_stats(task.stats(stream.name)) for stream in streams}


def illustrations(task: Task, model: Model, streams: Sequence[OpenStream], seed: int) -> list[Illustration]:
    """A held-out row of each stream as the model sees it, if the task is pre-training."""
    groups = groups_of(streams)
    return [
        illustrate(model.of(stream.name), held_out([stream], seed=seed, groups=groups), stream.adapter, seed)
        for stream in streams
        if isinstance(task, PretrainTask)
    ]


def resolve_device(train: TrainConfig) -> torch.device:
    """`train.device`, with auto = the GPU if there is one."""
    available = torch.cuda.is_available()
    if train.device == "cuda" and not available:
        raise UserError("train.device=cuda, but torch sees no GPU here: use train.device=auto or cpu.")
    return torch.device("cuda" if train.device != "cpu" and available else "cpu")


def measure(
    cost: Cost | None,
    streams: Sequence[Stream],
    device: torch.device,
    precision: torch.dtype,
    processes: int = 1,
) -> tuple[Units, str]:
    """What a unit of input costs, what the device can do, and a sentence about the machine.

    `cost` None: the work of a step is not known. `processes` share the work of this machine.
    """
    rate = streams[0].spec.rate_hz if len(streams) == 1 else None
    # Of an input step: where data have a rate, `row_input` is seconds.
    per_input = None if cost is None else cost.micro_flops / (cost.rows * cost.row_input * (rate or 1))
    shown = rate if rate is not None and rate >= 1 else None  # steps a second say more than years a second
    name = name_of(precision)
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
        peak = hardware.peak_flops(kind) if precision == torch.bfloat16 else None  # no other figure is known
        return Units(shown, per_input, peak), f"{kind}, {name}"
    threads = torch.get_num_threads()
    speed = hardware.matmul_speed(name, threads)
    workers = (
        f"{processes} processes, {threads} CPU thread{'s' * (threads > 1)} each"
        if processes > 1
        else (f"{threads} CPU thread{'s' * (threads > 1)}")
    )
    return Units(shown, per_input, speed), (
        f"{workers}, {name}, matrix product measured at {speed / 1e9:.0f} GFLOP/s"
        + (" in one" if processes > 1 else "")
    )
