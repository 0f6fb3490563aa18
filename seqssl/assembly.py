"""The one place where parts meet: from a configuration to adapters, a model and a task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from seqssl.config import stages
from seqssl.config.components import Lazy, construct
from seqssl.config.compose import resolve
from seqssl.config.schema import RunConfig, Slot, StreamConfig
from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter, SampleSpec
from seqssl.data.shards import Corpus
from seqssl.encoders import (
    build_encoder,
    build_feature_encoder,
    build_feature_norm,
    build_input_norm,
    check_frames,
    check_objectives,
    frames_apart,
)
from seqssl.errors import UserError
from seqssl.finetuning.facts import Facts, Labelled
from seqssl.model.encoder import ContextEncoder
from seqssl.model.joint import JointModel
from seqssl.model.norms import ChannelNorm
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import (
    FrameWiring,
    Masking,
    Objective,
    Targets,
    TargetWiring,
    Task,
)
from seqssl.model.targets import FrozenTeacher
from seqssl.targeting import build_targets
from seqssl.training import checkpoint

Model = PretrainingModel | JointModel
Stages = Callable[[str], RunConfig]  # the configuration of a stage that has not run, by its name


@dataclass(frozen=True)
class Stream:
    """A kind of data: its name ("" where there is only one), its settings, and the adapter that reads it."""

    name: str
    config: StreamConfig
    adapter: ModalityAdapter
    weight: float = 1.0  # share of the micro-batches, relative to other streams
    waiting: Stages | None = None  # what `stage:NAME` stands for in its settings; None: nothing may wait

    @property
    def spec(self) -> SampleSpec:
        """What an input is."""
        return self.adapter.spec


@dataclass(frozen=True, kw_only=True)
class OpenStream(Stream):
    """A stream with its prepared rows."""

    corpus: Corpus


def streams_of(config: RunConfig, waiting: Stages | None = None) -> tuple[Stream, ...]:
    """The streams of a run, each with its adapter; `waiting`: see `Stream`."""
    weights = {name: stream.weight for name, stream in config.streams.items()}
    return tuple(
        Stream(name, part, build_adapter(part.modality), weights.get(name, 1.0), waiting)
        for name, part in config.parts().items()
    )


def build_adapter(modality: Slot) -> ModalityAdapter:
    """The adapter of a modality's slot."""
    adapter: ModalityAdapter = construct(modality, "modality", {}, ModalityAdapter)
    return adapter


def build_model(
    config: RunConfig, device: torch.device | str = "cpu", waiting: Stages | None = None
) -> PretrainingModel:
    """The model of a run of one kind of data, with initial weights drawn from `config.seed`.

    On "meta" it has shapes and no weights. The caller's random state is left as it was. `waiting`: see
    `Stream`; `seqssl.planning.plan.stage_of` makes it of a recipe.
    """
    model = assemble(config, streams_of(config, waiting), device)
    if isinstance(model, JointModel):
        raise UserError("this run has several kinds of data: seqssl.build_joint_model builds their model.")
    return model


def build_joint_model(config: RunConfig, device: torch.device | str = "cpu") -> JointModel:
    """A model for each stream of the configuration, over one context encoder."""
    model = assemble(config, streams_of(config), device)
    return model if isinstance(model, JointModel) else JointModel({"lone": model})


def assemble(
    config: RunConfig,
    streams: Sequence[Stream],
    device: torch.device | str = "cpu",
    *,
    trained: bool = False,
) -> Model:
    """The model of a run: its streams over one context encoder; for a lone stream, that stream's model.

    `trained`: the run is over, and is only read: what its training would make no sense of is no error.
    """
    with seeded(config.seed, device):
        encoder: ContextEncoder | None = None
        models: dict[str, PretrainingModel] = {}
        # Parts draw their weights as they are made: in another order, a seed would give another model.
        if len(streams) > 1 or streams[0].name:
            encoder = _encoder_of(config)
        for stream in streams:
            models[stream.name] = _assemble(stream, config, encoder, trained)
    return models[""] if "" in models else JointModel(models)


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """A context where weights are drawn from the seed alone; the random state outside stays as it was."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        yield


def _encoder_of(config: RunConfig) -> ContextEncoder:
    return build_encoder(config.encoder, config.mixer, config.train.checkpoint_activations)


def _assemble(
    stream: Stream, config: RunConfig, shared: ContextEncoder | None, trained: bool
) -> PretrainingModel:
    """The model of a stream; where `shared` is None it gets a context encoder of its own."""
    own, spec, dim = stream.config, stream.spec, config.encoder.dim
    mask_input = masks_input(own, spec)
    mask_projection = own.mask_at == "projection" and not mask_input
    make_features = partial(build_feature_encoder, own, stream.adapter, dim, partial(open_model, stream))
    feature_encoder, input_norm = make_features(), build_input_norm(own, spec)
    make_targets = partial(
        build_targets, own, spec, feature_encoder, dim, partial(open_teacher, stream), list_taps,
        partial(stream.adapter.feature_encoder, dim), input_norm,
    )  # fmt: skip
    targets: Targets | None = None
    # Here masking needs the width of the vectors that it masks. Elsewhere it is built first: order matters.
    if own.context == "quantized":
        targets = make_targets()
    width = feature_encoder.dim if targets is None else targets.dim
    width = dim if mask_projection else width
    masking = construct(own.masking, "masking", vars(FrameWiring(width, dim, context_dim=dim)), Masking)
    targets = targets or make_targets()
    encoder = shared or _encoder_of(config)
    sizes = targets.codebook_sizes
    wiring = TargetWiring(
        input_dim=feature_encoder.dim,
        context_dim=dim,
        target_dim=targets.dim,
        num_codebooks=len(sizes),
        codebook_size=max(sizes, default=0),
        codebook_sizes=sizes if len(set(sizes)) > 1 else None,
    )
    objectives = {
        name: construct(slot, "objective", vars(wiring), Objective) for name, slot in own.objectives.items()
    }
    # A task with labels does without, and one frame may be enough.
    if config.task["target"] == "pretrain" and not trained:
        check_frames(own, spec, feature_encoder)
        check_objectives(objectives, own, encoder, partial(frames_apart, make_features, spec))
    try:
        model = PretrainingModel(
            feature_encoder, masking, targets, encoder, objectives, dim,
            build_feature_norm(config.encoder, feature_encoder.dim), input_norm,
            mask_input=mask_input, mask_projection=mask_projection, context=own.context,
            feature_gradient=config.encoder.feature_gradient, input_dropout=config.encoder.input_dropout,
        )  # fmt: skip
    except ValueError as error:  # parts that do not go together
        raise UserError(str(error)) from error
    if mask_input and "observed" not in model.extra_inputs:
        raise UserError(
            f"mask_at={own.mask_at}: {type(feature_encoder).__name__} does not read `observed`, so nothing "
            "can be hidden from it; use mask_at=features, or a feature encoder that does (token, patch)."
        )
    return model


def masks_input(config: StreamConfig, spec: SampleSpec) -> bool:
    """Whether frames are masked before the feature encoder. Ids are, unless `mask_at` is "features".

    A frame of ids shows those around it: hidden after the feature encoder, they would be read off there.
    """
    return config.mask_at == "input" or (config.mask_at != "features" and spec.vocab_size is not None)


def open_model(stream: Stream, run: str) -> PretrainingModel:
    """The model of another run, in evaluation mode; of its stream of this name, where it has several.

    `stage:NAME`, a stage of the recipe that has not run, has initial weights: enough to ask what a step
    costs. UserError where there is no such run, or where it reads other inputs.
    """
    return _opened(stream, run)[0]


def _opened(
    stream: Stream, run: str, update: int | None = None
) -> tuple[PretrainingModel, checkpoint.Checkpoint | None]:
    """The model of another run and the checkpoint that it is of: the newest, or that of an update.

    None where it has no weights yet, or is on "meta", where it needs none.
    """
    folder, waits = Path(run).expanduser(), run.startswith(stages.MARK)
    if waits and stream.waiting is not None:
        found = stream.waiting(run.removeprefix(stages.MARK))
    elif waits:
        raise UserError(f"run = {run} stands for a stage that has not run: `seqssl train` runs it first.")
    elif (folder / "config.yaml").is_file():
        found = resolve(folder, choose_size=_smallest).config
    else:
        raise UserError(f"run = {run}: there is no run in this folder.")
    others = {each.name: each for each in streams_of(found, stream.waiting)}
    other = others.get(stream.name) or others.get("")
    if other is None:
        raise UserError(
            f"run = {run}: it has the streams {', '.join(others)}, and none named {stream.name!r}."
        )
    for name in ("dtype", "channels", "vocab_size", "rate_hz"):
        there, here = getattr(other.spec, name), getattr(stream.spec, name)
        if there != here:
            raise UserError(f"run = {run}: it was made for inputs of {name} {there}, and these have {here}.")
    saved: checkpoint.Checkpoint | None = None
    device = torch.get_default_device()
    model = assemble(found, [*others.values()], device, trained=not waits)
    if not waits and device.type != "meta":
        saved = _saved(folder, update)
        checkpoint.load_weights(model, saved)
    return model.of(other.name).eval(), saved


def _saved(run: Path, update: int | None) -> checkpoint.Checkpoint:
    """A run's newest checkpoint, or that of an update; UserError where there is none."""
    if update is None:
        saved, _ = checkpoint.latest(run / "checkpoints")
        if saved is None:
            raise UserError(f"run = {run}: it holds no checkpoint.")
        return saved
    path = run / "checkpoints" / f"step-{update:08d}"
    if not path.is_dir():
        raise UserError(
            f"targets.run = {run}: its checkpoint {path.name}, to which these clusters were fitted, is gone: "
            "put it back, or begin anew with another out=."
        )
    return checkpoint.read(path)


def _smallest(sizes: Sequence[str], at: Callable[[str], RunConfig]) -> tuple[str, str]:
    """The size of a recipe that says none: a saved run has one."""
    return sizes[-1], ""


def open_teacher(
    stream: Stream,
    run: str,
    tap: str | Sequence[str],
    origin: tuple[int, int] | None = None,
) -> FrozenTeacher:
    """The frozen model of another run: its frames of one of its taps, or of several side by side.

    `origin`: the update and the digest of its weights that are wanted; None: those of its newest checkpoint.
    One that is opened on "meta" has shapes and no weights: enough to ask what it costs.
    """
    teacher, saved = _opened(stream, run, None if origin is None else origin[0])
    found = None if saved is None else (saved.state["update"], checkpoint.digest(saved))
    if origin is not None and found != origin:
        raise UserError(
            f"targets.run = {run}: its weights at update {origin[0]} are not those that these clusters were "
            "fitted to: put those back, or begin anew with another out=."
        )
    wanted = [tap] if isinstance(tap, str) else [*tap]
    if any(wanted):
        teacher.encoder.tap_every_layer()
        taps = teacher.encoder.taps
        if absent := [name for name in wanted if name not in taps]:
            known = ", ".join(sorted(taps, key=taps.__getitem__))
            raise UserError(f"targets.tap = {', '.join(absent)}: {run} has {known}.")
        teacher.encoder.taps = {name: taps[name] for name in wanted}  # what lies above them is not run
    return FrozenTeacher(teacher, wanted, found)


def list_taps(run: str) -> list[str]:
    """The taps of every layer of a run, lowest first."""
    encoder = resolve(Path(run).expanduser(), choose_size=_smallest).config.encoder
    names = {layer: name for name, layer in encoder.taps.items()}
    return [names.get(layer, f"layer{layer}") for layer in range(1, max(names) + 1)]


def build_task(
    config: RunConfig, model: Model, streams: Sequence[OpenStream], facts: Facts | None = None
) -> Task:
    """What the loop is to run, from the slot `task`; `facts`: of its labels; else those of streams."""
    wiring = Lazy(
        facts=lambda: facts or facts_of(streams),
        tuning=lambda: config.finetune,
        model=lambda: model,
        streams=lambda: streams,
        labels=lambda: tuple(sorted({str(label) for s in streams for label in s.corpus.labels} - {""})),
        groups=lambda: groups_of(streams),
        seed=lambda: config.seed,
    )
    with seeded(config.seed):
        task: Task = construct(config.task, "task", wiring, Task)
    return task


def facts_of(streams: Sequence[OpenStream], known: Mapping[str, Value] | None = None) -> Facts:
    """What tasks with labels may learn about the data of a run; UserError for one of several kinds."""
    if len(streams) != 1:
        raise UserError("this task is for one kind of data: a joint run is tuned with stream=NAME.")
    stream = streams[0]
    return Facts(stream.spec, Labelled(stream.corpus, stream.adapter), known)


def groups_of(streams: Sequence[OpenStream]) -> tuple[str, ...]:
    """All groups of the streams, sorted: a group's place is its number in `Batch.groups`."""
    found = set[str]().union(*(stream.corpus.groups.tolist() for stream in streams))
    return tuple(sorted({*map(str, found)} - {""}))


def set_scaling(model: PretrainingModel, statistics: Mapping[str, Sequence[float]] | None) -> None:
    """Set the training data's statistics in a model that scales by them; others are left alone."""
    if isinstance(model.input_norm, ChannelNorm) and statistics is not None:
        model.input_norm.set(statistics["mean"], statistics["std"])
