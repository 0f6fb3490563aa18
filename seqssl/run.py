"""Whole runs: train one, open one."""

import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

import seqssl
from seqssl import hardware
from seqssl.build import build_adapter, build_model
from seqssl.compose import load_recipe, to_yaml
from seqssl.config import DataConfig, RunConfig
from seqssl.data.batching import BatchLoader
from seqssl.data.files import Progress, locked, silent, write_atomic
from seqssl.data.prepare import open_or_prepare
from seqssl.data.shards import Corpus
from seqssl.doctor import Monitor
from seqssl.errors import UserError
from seqssl.evaluation.encoder import Encoder
from seqssl.illustration import illustrate
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import ModalityAdapter
from seqssl.model.types import Batch, SampleSpec
from seqssl.plan import cost_of
from seqssl.report import flatten, write_report
from seqssl.training import checkpoint, distributed
from seqssl.training.loop import Trainer, Units
from seqssl.training.tasks import PretrainTask

# What may differ when a run is taken up again: none of it changes the numbers that are still to come.
_FREE = {"out", "health", "data.source", "data.workers"}
_FREE |= {f"train.{key}" for key in ("log_every", "eval_every", "save_every", "keep_last")}


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
        adapter = build_adapter(config)
        model = build_model(config).to(device)  # before any work: it refuses impossible settings
        corpus = open_corpus(config, adapter, ranks, progress)
        check_same_run(config, out, corpus)
        if ranks.is_first:
            stack.enter_context(alone(out))
            write_config(config, out, corpus)
        ranks.barrier()
        task = PretrainTask(
            model, distributed.synchronize(compiled(model, config), ranks), device=device, seed=config.seed
        )
        loader = partial(
            BatchLoader, corpus, adapter, **batching(config.data, adapter.spec), seed=config.seed
        )
        held_out = loader(split="valid", shuffle=False)
        precision = resolve_precision(config, device)
        units, machine = measure(config, adapter.spec, device, precision)
        say(f"data: {corpus.folder} | {describe_corpus(corpus)}")
        say(f"run: {out} | {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters | {machine}")
        trainer = Trainer(
            config=config,
            task=task,
            data=loader(split="train", workers=config.data.workers),
            held_out=lambda: one_pass(held_out),
            run=out,
            device=device,
            ranks=ranks,
            precision=precision,
            units=units,
            observe=Monitor(config.train.num_updates).observe,
        )
        metrics = trainer.fit()
        report = out / "report.html"
        if ranks.is_first:
            write_report(out, illustrate(task, one_pass(held_out), adapter.spec))
        ranks.barrier()
    return Run(out, metrics, report, time.monotonic() - began)


def run_folder(config: RunConfig) -> Path:
    """`out`, else runs/<recipe>-<size>, with the name of the data where it is not the demo's."""
    if config.out is not None:
        return Path(config.out).expanduser()
    own = f"-{Path(config.data.source).stem}" if config.data.source else ""
    return Path("runs") / f"{Path(config.recipe).stem}-{config.size}{own}"


def load(path: str | Path, *, tap: str = "", device: str = "auto", weights: str = "last") -> Encoder:
    """The frozen encoder of a run folder or of one of its checkpoint folders.

    `tap`: see `Encoder`. `device`: "auto" is the GPU if there is one. `weights`: "last", "best", or "random"
    (the same architecture at its initial weights: a baseline); a checkpoint folder stands for itself.
    Raises UserError for what is no run, or has no such checkpoint or tap.
    """
    if weights not in ("last", "best", "random"):
        raise UserError(f"weights = {weights}: expected last, best or random.")
    config, folder = find_run(path)
    spec = SampleSpec(**read_provenance(folder)["spec"])
    model = build_model(config)
    if weights != "random":
        checkpoint.load_weights(model, find_checkpoint(Path(path), folder, weights))
    limit = length(config.data, "batch", spec) or 2**20
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Encoder(model.to(device), spec, tap=tap, batch_inputs=limit)


def find_run(path: str | Path) -> tuple[RunConfig, Path]:
    """The configuration and folder of the run that a path (the run, or something in it) belongs to."""
    given = Path(path).expanduser()
    for folder in (given, *given.parents):
        if (folder / "config.yaml").is_file():
            return load_recipe(folder / "config.yaml"), folder
    raise UserError(
        f"{path} is no run: there is no config.yaml in it. `seqssl train` makes runs/<recipe>-<size>."
    )


def find_checkpoint(path: Path, run: Path, weights: str) -> checkpoint.Checkpoint:
    """The checkpoint that a path names, or the run's last or best."""
    if (path / "model.safetensors").is_file():
        return checkpoint.read(path)
    if weights == "best":
        best = run / "checkpoints" / "best"
        if not best.exists():
            raise UserError(f"{run} holds no best checkpoint yet: the first evaluation writes it.")
        return checkpoint.read(best)
    found, problems = checkpoint.latest(run / "checkpoints")
    for problem in problems:
        warnings.warn(f"{problem} An older one is used.", stacklevel=2)
    if found is None:
        raise UserError(f"{run} holds no checkpoint yet: train.save_every decides when the first is written.")
    return found


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


def compiled(model: PretrainingModel, config: RunConfig) -> PretrainingModel:
    """With `train.compile`, the context encoder's blocks run compiled; draws and gathers stay outside."""
    if config.train.compile:
        for block in model.encoder.blocks:
            block.compile(dynamic=True)
    return model


def length(config: DataConfig, name: str, spec: SampleSpec) -> int | None:
    """`data.<name>_seconds` or `data.<name>_frames` in input steps."""
    seconds, frames = getattr(config, f"{name}_seconds"), getattr(config, f"{name}_frames")
    if seconds is None:
        return None if frames is None else int(frames)
    if spec.rate_hz is None:
        raise UserError(
            f"data.{name}_seconds: this modality has no rate; use data.{name}_frames (input steps)."
        )
    return int(seconds * spec.rate_hz)


def batching(config: DataConfig, spec: SampleSpec) -> dict[str, Any]:
    """How rows become batches, in input steps."""
    return {
        "batch_length": length(config, "batch", spec),
        "max_length": length(config, "max", spec),
        "join_length": length(config, "join", spec),
    }


def open_corpus(
    config: RunConfig, adapter: ModalityAdapter, ranks: distributed.Ranks, progress: Progress
) -> Corpus:
    """The corpus; the first rank prepares it while the others wait."""
    opening = partial(open_or_prepare, adapter, config.data, modality=str(config.modality["target"]))
    if ranks.is_first:
        corpus = opening(progress=progress)
        ranks.barrier()
    else:
        ranks.barrier()
        corpus = opening()
    for split in ("train", "valid"):
        if not len(corpus.rows(split)):
            raise UserError(
                f"{config.data.source or corpus.folder} has no rows for the split {split!r} "
                f"({len(corpus)} in all): to hold one out, it takes two usable rows and data.valid_share > 0."
            )
    return corpus


def one_pass(loader: BatchLoader) -> Iterable[Batch]:
    """Every held-out batch once, in the same order each time."""
    return loader.batches(0)


def measure(
    config: RunConfig, spec: SampleSpec, device: torch.device, precision: torch.dtype
) -> tuple[Units, str]:
    """What a unit of input costs, what the device can do, and a sentence about the machine."""
    cost = cost_of(config)
    per_input = cost.micro_flops / (cost.rows * cost.row_input) / (spec.rate_hz or 1)
    name = str(precision).removeprefix("torch.")
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
        return Units(spec.rate_hz, per_input, hardware.peak_flops(kind)), f"{kind}, {name}"
    threads = torch.get_num_threads()
    speed = hardware.matmul_speed(name, threads)
    return Units(spec.rate_hz, per_input, speed), (
        f"{threads} CPU threads, {name}, matrix product measured at {speed / 1e9:.0f} GFLOP/s"
    )


def describe_corpus(corpus: Corpus) -> str:
    """Rows and amounts by split."""
    return ", ".join(
        f"{name}: {split.num_rows} rows" + (f", {split.hours:.3g} h" if split.hours is not None else "")
        for name, split in corpus.manifest.splits.items()
    )


def check_same_run(config: RunConfig, out: Path, corpus: Corpus) -> None:
    """Refuse to go on with another configuration or other data than the run in `out` began with."""
    if not (out / "config.yaml").is_file():
        if out.exists() and any(path.name != ".lock" for path in out.iterdir()):
            raise UserError(f"out={out} is not empty and holds no run: choose another folder.")
        return
    before, now = flatten(read_config(out)), flatten(yaml.safe_load(to_yaml(config)))
    changed = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key)
        and key not in _FREE
        and not key.startswith("provenance")
        and not isinstance(before.get(key, now.get(key)), Mapping)
    )
    if changed:
        lines = "\n".join(f"  {key}: {before.get(key)} there, {now.get(key)} now" for key in changed)
        raise UserError(
            f"{out} holds a run with other settings:\n{lines}\nChoose another out=, or the old values."
        )
    if before.get("provenance.data_hash") != corpus.content_hash:
        raise UserError(f"{out} was trained on other data than {corpus.folder}: choose another out=.")


def write_config(config: RunConfig, out: Path, corpus: Corpus) -> None:
    """config.yaml: the resolved configuration, and where it came from."""
    out.mkdir(parents=True, exist_ok=True)
    provenance = {
        "seqssl": seqssl.__version__,
        "commit": git_commit(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "data": str(corpus.folder),
        "data_hash": corpus.content_hash,
        "spec": corpus.manifest.spec,
    }
    text = to_yaml(config) + yaml.safe_dump({"provenance": provenance}, sort_keys=False)
    write_atomic(out / "config.yaml", text)


def read_provenance(run: Path) -> dict[str, Any]:
    """The `provenance` section of a run's config.yaml."""
    provenance = read_config(run).get("provenance")
    if not isinstance(provenance, dict):
        raise UserError(
            f"{run / 'config.yaml'} has no provenance section: it was not written by seqssl train."
        )
    return provenance


def read_config(run: Path) -> dict[str, Any]:
    """A run's config.yaml as it stands."""
    path = run / "config.yaml"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or choose another out=.") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} is damaged (it holds no settings): restore it, or choose another out=.")
    return tree


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold `out` for one training at a time; UserError where another process has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out / ".lock", wait=False))
        except BlockingIOError as error:
            raise UserError(f"out={out} is being trained by another process: choose another out=.") from error
        yield


def git_commit() -> str | None:
    """The commit of seqssl's own checkout; None for an installed wheel."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
