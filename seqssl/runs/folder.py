"""A run's folder: what is stored in it, and how a run is opened again."""

import json
import platform
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import seqssl
from seqssl.assembly import OpenStream, Stream, assemble, build_task, set_scaling, streams_of
from seqssl.config import stages
from seqssl.config.compose import to_yaml
from seqssl.config.schema import RunConfig
from seqssl.config.text import read_plain, write
from seqssl.config.tree import flatten, within_stream
from seqssl.data.adapters import HasViews, SampleSpec
from seqssl.data.files import locked, refuse_linked_folders, sha256_json, write_atomic
from seqssl.data.lengths import length_of
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.evaluation.frozen import Encoder
from seqssl.finetuning.facts import Facts
from seqssl.finetuning.supervised import Supervised
from seqssl.finetuning.tuned import Tuned
from seqssl.interop.hugging_face import is_idle
from seqssl.model.protocols import Fits
from seqssl.model.targets import LearnedCodes
from seqssl.planning.plan import load_recipe
from seqssl.training import checkpoint

FACTS = "facts.json"
HF = "hf:"  # begins an `init` that is a folder of Hugging Face transformers

# What may differ when a run is taken up again: none of it changes what is learned, and all but the number of
# processes leave the numbers that are still to come as they were.
_FREE = {"out", "health", "data.source", "data.workers"}
_FREE |= {
    f"train.{key}"
    for key in ("log_every", "eval_every", "save_every", "keep_last", "trackers", "processes", "shards")
}


def load(
    path: str | Path, *, tap: str = "", device: str = "auto", weights: str = "last", stream: str = ""
) -> Encoder:
    """The frozen encoder of a run folder, of one of its checkpoint folders, or of an export with our names.

    `tap`: see `Encoder`. `device`: "auto" is the GPU if there is one. `weights`: "last", "best", or "random"
    (the same architecture at its initial weights: a baseline); for a checkpoint folder, "last" and "best" are
    the checkpoint itself. `stream`: which kind of data, for a joint run.

    Raises UserError for a path that is no run, or has no such checkpoint, tap or stream.
    """
    if weights not in ("last", "best", "random"):
        raise UserError(f"weights = {weights}: expected last, best or random.")
    config, folder = find_run(path)
    streams = streams_of(config)
    chosen, origin = stream_of(streams, stream), read_provenance(folder, stream)
    spec = SampleSpec.restore(origin["spec"])
    model = assemble(config, streams, trained=True)
    set_scaling(model.of(stream), origin.get("statistics"))
    whole: nn.Module = model
    if (folder / FACTS).exists():  # a task's head stands around the model, and its adapters in it
        whole = build_task(config, model, (), read_facts(folder, spec)).model
    if weights == "random":
        _load_fitted(whole, model.of(stream).targets, folder)
    else:
        saved = find_checkpoint(Path(path).expanduser(), folder, weights)
        exported = saved.path == folder  # without the heads of pre-training, which nothing reads here
        checkpoint.load_weights(whole, saved, lambda name: exported and is_idle(name, config))
        if isinstance(whole, Tuned):
            whole.settle()
    limit = length_of(chosen.config.data, "batch", spec) or 2**20
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    views = chosen.adapter.views if isinstance(chosen.adapter, HasViews) else None
    return Encoder(model.of(stream).to(device), spec, tap=tap, batch_inputs=limit, views=views)


def _load_fitted(whole: nn.Module, targets: object, folder: Path) -> None:
    """Take over targets that were fitted to data: no model learns them, so none has them at random.

    Learned codes that only started at a fit are the model's own, and stay random.
    """
    if not isinstance(targets, Fits) or isinstance(targets, LearnedCodes):
        return
    (place,) = [name for name, part in whole.named_modules() if part is targets]
    given = checkpoint.renamed(find_checkpoint(folder, folder, "last"), checkpoint.weights_of(whole))
    whole.load_state_dict({k: x for k, x in given.items() if k.startswith(f"{place}.")}, strict=False)


def stream_of(streams: Sequence[Stream], name: str) -> Stream:
    """The stream of a run by its name; UserError where the run has no such stream."""
    found = {stream.name: stream for stream in streams}
    if name not in found:
        lone = "no stream: it has one kind"
        there = lone if "" in found else f"stream=NAME with one of {', '.join(found)}"
        raise UserError(f"stream = {name or '(not given)'}: this run wants {there} of data.")
    return found[name]


def write_facts(out: Path, facts: Facts) -> None:
    """Write what a task knows of its labels, without which the run could not be opened again."""
    stored = {"sha256": sha256_json(facts.found), "facts": facts.found}
    write_atomic(out / FACTS, json.dumps(stored, indent=2, ensure_ascii=False) + "\n")


def read_facts(run: Path, spec: SampleSpec) -> Facts:
    """What `write_facts` wrote; UserError where it is missing, damaged or edited."""
    try:
        stored = json.loads((run / FACTS).read_text(encoding="utf-8"))
        if not isinstance(stored, dict) or not isinstance(known := stored.get("facts"), dict):
            raise ValueError("it holds no facts")
        # A label renamed or moved by hand would make every prediction wrong without a word.
        if stored.get("sha256") != sha256_json(known):
            raise ValueError("it is not as the run wrote it")
    except (OSError, ValueError) as error:
        raise UserError(f"{run / FACTS} cannot be read ({error}): it says what the labels are.") from error
    return Facts(spec, None, known)


def load_task(path: str | Path, *, device: str = "auto", weights: str = "last") -> Supervised:
    """The task of a fine-tuned run, with its weights, "last" or "best"; UserError for a run that is none."""
    if weights not in ("last", "best"):
        raise UserError(f"weights = {weights}: expected last or best.")
    config, folder = find_run(path)
    if not (folder / FACTS).exists():
        raise UserError(
            f"{folder} was not fine-tuned: `seqssl finetune run={folder} task=...` makes such a run."
        )
    (stream,) = streams_of(config)
    origin = read_provenance(folder)
    model = assemble(config, [stream])
    set_scaling(model.of(""), origin.get("statistics"))
    task = build_task(config, model, (), read_facts(folder, SampleSpec.restore(origin["spec"])))
    assert isinstance(task, Supervised)
    checkpoint.load_weights(task.model, find_checkpoint(Path(path).expanduser(), folder, weights))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    task.model.to(device).eval()
    return task


def init_of(text: str) -> tuple[Path, str]:
    """The run or checkpoint of `init`, and the stream: `RUN#STREAM` for a joint run."""
    path = Path(text).expanduser()
    if path.exists() or "#" not in text:
        return path, ""
    run, _, stream = text.rpartition("#")
    return Path(run).expanduser(), stream


def check_contract(spec: SampleSpec, run: Path, stream: str) -> None:
    """UserError where an adapter's spec differs from that of the data that the run was trained on."""
    stored = SampleSpec.restore(read_provenance(run, stream)["spec"])
    for name, wanted in asdict(stored).items():
        found = asdict(spec)[name]
        if found != wanted:
            raise UserError(
                f"the run was trained on data with {name}={wanted}, these settings of the modality give "
                f"{name}={found}: `seqssl info {run}` shows the whole input contract."
            )


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


def check_same_run(config: RunConfig, out: Path, streams: Sequence[OpenStream]) -> None:
    """UserError where `out` holds a run with other settings or data, or something that is no run."""
    if not (out / "config.yaml").is_file():
        if out.exists() and any(path.name not in (".lock", stages.FOLDER) for path in out.iterdir()):
            raise UserError(f"out={out} is not empty and holds no run: choose another folder.")
        return
    written = read_config(out)  # says what is damaged
    old = load_recipe(out / "config.yaml")  # with the defaults of what was not there when it was written
    if "head_start" not in written.get("finetune", {}) and old.task["target"] != "pretrain":
        old = replace(old, finetune=replace(old.finetune, head_start="zeros"))  # as heads of its time did
    trees = (read_plain(to_yaml(each)) for each in (old, config))
    before, now = (flatten(stages.with_marks(tree, out)) for tree in trees)
    changed = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key)
        and within_stream(key) not in _FREE
        and not isinstance(before.get(key, now.get(key)), Mapping)
    )
    if changed:
        lines = "\n".join(f"  {key}: {before.get(key)} there, {now.get(key)} now" for key in changed)
        raise UserError(
            f"{out} holds a run with other settings:\n{lines}\nChoose another out=, or the old values."
        )
    for stream in streams:
        corpus = stream.corpus
        if read_provenance(out, stream.name).get("data_hash") != corpus.content_hash:
            raise UserError(f"{out} was trained on other data than {corpus.folder}: choose another out=.")


def check_data(corpus: Corpus, run: Path, stream: str) -> None:
    """UserError where a run's data has changed since it was trained."""
    if read_provenance(run, stream).get("data_hash") != corpus.content_hash:
        raise UserError(
            f"the data that {run} was trained on has changed since; say source= to take what is there now."
        )


def write_config(
    config: RunConfig,
    out: Path,
    streams: Sequence[OpenStream],
    kept: Mapping[str, object] | None = None,
) -> None:
    """Write config.yaml: the resolved configuration, where it came from, and what a run that goes on keeps.

    `kept`: how many `processes` share it, in what `precision` it trains, and how many `micro_batches` an
    update has.
    """
    out.mkdir(parents=True, exist_ok=True)
    origins = {
        stream.name: {
            "data": str(stream.corpus.folder),
            "data_hash": stream.corpus.content_hash,
            "spec": stream.corpus.manifest.spec,
            "statistics": stream.corpus.manifest.statistics,
        }
        for stream in streams
    }
    provenance = {
        "seqssl": seqssl.__version__,
        "commit": git_commit(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        **(kept or {}),
        **(origins[""] if "" in origins else {"streams": origins}),
    }
    text = write(stages.with_marks(asdict(config), out)) + yaml.safe_dump(
        {"provenance": provenance}, sort_keys=False
    )
    write_atomic(out / "config.yaml", text)


def read_provenance(run: Path, stream: str = "") -> dict[str, Any]:
    """The `provenance` section of a run's config.yaml, or its part about one stream."""
    provenance = read_config(run).get("provenance")
    if isinstance(provenance, dict) and stream:
        provenance = (provenance.get("streams") or {}).get(stream)
    if not isinstance(provenance, dict):
        raise UserError(
            f"{run / 'config.yaml'} has no provenance section: it was not written by seqssl train."
        )
    return provenance


def read_config(run: Path) -> dict[str, Any]:
    """A run's config.yaml as it is written; UserError where it is damaged."""
    path = run / "config.yaml"
    try:
        tree = read_plain(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or choose another out=.") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} is damaged (it holds no settings): restore it, or choose another out=.")
    return tree


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """A context that holds `out` for one training; UserError where another process has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out / ".lock", wait=False))
        except BlockingIOError as error:
            raise UserError(f"out={out} is being trained by another process: choose another out=.") from error
        refuse_linked_folders(out)
        yield


def git_commit() -> str | None:
    """The commit of seqssl's own checkout; None for an installed wheel."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
