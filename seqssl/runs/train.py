"""Whole runs."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from seqssl.assembly import assemble, batching, build_adapter, model_of, set_scaling
from seqssl.config.schema import RunConfig
from seqssl.data.adapters import ModalityAdapter
from seqssl.data.batching import BatchLoader
from seqssl.data.files import Progress, silent
from seqssl.data.mixing import MixedLoader
from seqssl.data.prepare import open_or_prepare
from seqssl.data.shards import Corpus
from seqssl.doctor import Monitor
from seqssl.errors import HealthHalt, UserError
from seqssl.evaluation.markov import markov_bits
from seqssl.model.joint import JointModel
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch
from seqssl.planning import hardware
from seqssl.planning.cost import cost_of
from seqssl.report.illustration import illustrate
from seqssl.report.page import write_report
from seqssl.runs.folder import alone, check_same_run, write_config
from seqssl.training import parallel as distributed
from seqssl.training.loop import Trainer, Units
from seqssl.training.tasks import PretrainTask


@dataclass(frozen=True)
class Run:
    """A finished run."""

    out: Path
    metrics: dict[str, float]  # held-out, at the end
    report: Path
    seconds: float  # of this call


def train(config: RunConfig, *, say: Callable[[str], None] = print, progress: Progress = silent) -> Run:
    """Pre-train as configured; an `out` that holds the same run already is taken up where it stopped.

    Raises UserError for bad input, HealthHalt and Interrupted as their names say (the state is saved).
    """
    began = time.monotonic()
    device = resolve_device(config)
    ranks = distributed.start(device)
    if device.type == "cuda":
        device = torch.device("cuda", ranks.local_rank)
    say = say if ranks.is_first else lambda text: None
    with ExitStack() as stack:
        stack.callback(distributed.stop, ranks)
        out = run_folder(config)
        parts = config.parts()
        model = assemble(config)  # before any work: it refuses impossible settings
        adapters = {name: build_adapter(part) for name, part in parts.items()}
        corpora = {
            name: open_corpus(part, adapters[name], ranks, device, progress) for name, part in parts.items()
        }
        check_same_run(config, out, corpora)
        ranks.first(lambda: stack.enter_context(alone(out)), device)
        ranks.first(lambda: write_config(config, out, corpora), device)
        for name, corpus in corpora.items():
            set_scaling(model_of(model, name), corpus.manifest.statistics)
        runner = distributed.synchronize(
            compiled(model.to(device), config), ranks, some_unused=bool(config.streams)
        )
        task = PretrainTask(model, runner, device=device, seed=config.seed)
        loaders = {split: loaders_of(parts, corpora, adapters, split) for split in ("train", "valid")}
        if ranks.is_first:
            task.references = references(corpora, adapters)
        precision = resolve_precision(config, device)
        units, machine = measure(config, adapters, device, precision)
        say("\n".join([*describe_data(corpora), f"run: {out} | {describe_model(model)} | {machine}"]))
        trainer = Trainer(
            config=config,
            task=task,
            data=mixed(config, loaders["train"], ranks.size),
            held_out=lambda: one_pass(loaders["valid"], config.train.eval_batches),
            run=out,
            device=device,
            ranks=ranks,
            precision=precision,
            units=units,
            observe=Monitor(config.train.num_updates).observe,
        )
        metrics = trainer.fit()
        report = out / "report.html"
        ranks.first(lambda: report_on(task, loaders["valid"], adapters, out), device)
    if metrics and not math.isfinite(metrics["loss"]):
        raise HealthHalt(f"the held-out loss is not a number; `seqssl doctor {out}` says more.")
    return Run(out, metrics, report, time.monotonic() - began)


def report_on(
    task: PretrainTask,
    held_out: Mapping[str, BatchLoader],
    adapters: Mapping[str, ModalityAdapter],
    out: Path,
) -> None:
    """report.html, with a row of each kind of data."""
    shown = [illustrate(task, one_pass({n: rows}), adapters[n], n) for n, rows in held_out.items()]
    write_report(out, shown)


def references(corpora: Mapping[str, Corpus], adapters: Mapping[str, ModalityAdapter]) -> dict[str, float]:
    """Figures of the data alone that held-out metrics are shown beside."""
    return {
        f"{name}/{key}" if name else key: value
        for name, corpus in corpora.items()
        for key, value in markov_bits(corpus, adapters[name]).items()
    }


def loaders_of(
    parts: Mapping[str, RunConfig],
    corpora: Mapping[str, Corpus],
    adapters: Mapping[str, ModalityAdapter],
    split: str,
) -> dict[str, BatchLoader]:
    """The loader of a split for each kind of data."""
    return {name: loader(part, corpora[name], adapters[name], split) for name, part in parts.items()}


def loader(config: RunConfig, corpus: Corpus, adapter: ModalityAdapter, split: str) -> BatchLoader:
    """Batches of a split: of training, with workers and shuffled, or of held-out rows."""
    training = split == "train"
    return BatchLoader(
        corpus,
        adapter,
        split=split,
        **batching(config.data, adapter.spec),
        seed=config.seed,
        workers=config.data.workers if training else 0,
        shuffle=training,
    )


def mixed(config: RunConfig, loaders: Mapping[str, BatchLoader], num_ranks: int) -> BatchLoader | MixedLoader:
    """The one sequence of batches that a run learns from."""
    if not config.streams:
        return loaders[""]
    weights = [config.streams[name].weight for name in loaders]
    return MixedLoader(loaders, weights, seed=config.seed, group=config.train.accumulate * num_ranks)


def run_folder(config: RunConfig) -> Path:
    """`out`, else runs/<recipe>-<size>, with the name of the data where it is not the demo's."""
    if config.out is not None:
        return Path(config.out).expanduser()
    own = f"-{Path(config.data.source).stem}" if config.data.source else ""
    return Path("runs") / f"{Path(config.recipe).stem}-{config.size}{own}"


def resolve_device(config: RunConfig) -> torch.device:
    """`train.device`, with auto = the GPU if there is one."""
    wanted = config.train.device
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("train.device=cuda, but torch sees no GPU here: use train.device=auto or cpu.")
    return torch.device("cuda" if wanted != "cpu" and available else "cpu")


def resolve_precision(config: RunConfig, device: torch.device) -> torch.dtype:
    """`train.precision`, with auto = bfloat16 where the device has instructions for it."""
    if config.train.precision != "auto":
        return torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = hardware.has_fast_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def compiled(model: PretrainingModel | JointModel, config: RunConfig) -> PretrainingModel | JointModel:
    """With `train.compile`, the context encoder's blocks run compiled; draws and gathers stay outside."""
    if config.train.compile:
        for block in model_of(model, next(iter(config.parts()))).encoder.blocks:
            block.compile(dynamic=True)
    return model


def open_corpus(
    config: RunConfig,
    adapter: ModalityAdapter,
    ranks: distributed.Ranks,
    device: torch.device,
    progress: Progress,
) -> Corpus:
    """The corpus; the first rank prepares it while the others wait."""
    opening = partial(open_or_prepare, adapter, config.data, modality=str(config.modality["target"]))
    corpus = ranks.first(partial(opening, progress=progress), device)
    if corpus is None:
        corpus = opening()
    for split in ("train", "valid"):
        if not len(corpus.rows(split)):
            raise UserError(
                f"{config.data.source or corpus.folder} has no rows for the split {split!r} "
                f"({len(corpus)} in all): it takes usable rows on both sides. See data.valid_share and "
                "data.valid_groups, what the source itself names as splits, and "
                f"{corpus.folder}/rejected.jsonl."
            )
    return corpus


def one_pass(loaders: Mapping[str, BatchLoader], limit: int | None = None) -> Iterator[Batch]:
    """Every held-out batch once (or `limit` of each loader), the same in the same order each time."""
    for name, held_out in loaders.items():
        for batch in held_out.batches(0, limit):
            yield replace(batch, stream=name)


def measure(
    config: RunConfig, adapters: Mapping[str, ModalityAdapter], device: torch.device, precision: torch.dtype
) -> tuple[Units, str]:
    """What a unit of input costs, what the device can do, and a sentence about the machine."""
    cost = cost_of(config)
    rate = None if config.streams else adapters[""].spec.rate_hz
    if rate is not None and rate < 1:
        rate = None  # steps per second say more than years per second
    per_input = cost.micro_flops / (cost.rows * cost.row_input) / (rate or 1)
    name = str(precision).removeprefix("torch.")
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
        return Units(rate, per_input, hardware.peak_flops(kind)), f"{kind}, {name}"
    threads = torch.get_num_threads()
    speed = hardware.matmul_speed(name, threads)
    return Units(rate, per_input, speed), (
        f"{threads} CPU threads, {name}, matrix product measured at {speed / 1e9:.0f} GFLOP/s"
    )


def describe_data(corpora: Mapping[str, Corpus]) -> list[str]:
    """A line for each kind of data."""
    return [
        f"data{f' {name}' if name else ''}: {corpus.folder} | {describe_corpus(corpus)}"
        for name, corpus in corpora.items()
    ]


def describe_model(model: torch.nn.Module) -> str:
    """Its size."""
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"


def describe_corpus(corpus: Corpus) -> str:
    """Rows and amounts by split."""
    return ", ".join(
        f"{name}: {split.num_rows} rows" + (f", {hours(split.hours)}" if split.hours is not None else "")
        for name, split in corpus.manifest.splits.items()
    )


def hours(number: float) -> str:
    """Hours as people write them: 1.89 h, 17,520 h."""
    return f"{number:,.0f} h" if number >= 100 else f"{number:.3g} h"
