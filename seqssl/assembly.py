"""The one place where parts meet: from a configuration to adapters, a model and a task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from seqssl.config import stages
from seqssl.config.components import Lazy, construct
from seqssl.config.compose import resolve
from seqssl.config.files import list_recipes
from seqssl.config.schema import RunConfig, Slot, StreamConfig
from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter, SampleSpec
from seqssl.data.shards import Corpus
from seqssl.encoders import build_encoder, build_feature_encoder, build_feature_norm, build_input_norm
from seqssl.errors import UserError
from seqssl.finetuning.facts import Facts, Labelled
from seqssl.model.alignment import frames_lie_apart
from seqssl.model.encoder import ContextEncoder
from seqssl.model.joint import JointModel
from seqssl.model.norms import ChannelNorm
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import (
    FeatureEncoder,
    FrameWiring,
    Masking,
    Objective,
    Targets,
    TargetWiring,
    Task,
)
from seqssl.model.targets import Teacher
from seqssl.model.types import Batch, Features
from seqssl.targeting import build_targets
from seqssl.training import checkpoint

Model = PretrainingModel | JointModel


@dataclass(frozen=True)
class Stream:
    """A kind of data: its name ("" where there is only one), its settings, and the adapter that reads it."""

    name: str
    config: StreamConfig
    adapter: ModalityAdapter
    weight: float = 1.0  # share of the micro-batches, relative to other streams

    @property
    def spec(self) -> SampleSpec:
        """What an input is."""
        return self.adapter.spec


@dataclass(frozen=True, kw_only=True)
class OpenStream(Stream):
    """A stream with its prepared rows."""

    corpus: Corpus


def streams_of(config: RunConfig) -> tuple[Stream, ...]:
    """The streams of a run, each with its adapter."""
    weights = {name: stream.weight for name, stream in config.streams.items()}
    return tuple(
        Stream(name, part, build_adapter(part.modality), weights.get(name, 1.0))
        for name, part in config.parts().items()
    )


def build_adapter(modality: Slot) -> ModalityAdapter:
    """The adapter of a modality's slot."""
    adapter: ModalityAdapter = construct(modality, "modality", {}, ModalityAdapter)
    return adapter


def build_model(config: RunConfig, device: torch.device | str = "cpu") -> PretrainingModel:
    """The model of a run of one kind of data, with initial weights drawn from `config.seed`.

    On "meta" it has shapes and no weights. The caller's random state is left as it was.
    """
    model = assemble(config, streams_of(config), device)
    if isinstance(model, JointModel):
        raise UserError("this run has several kinds of data: seqssl.build_joint_model builds their model.")
    return model


def build_joint_model(config: RunConfig, device: torch.device | str = "cpu") -> JointModel:
    """A model for each stream of the configuration, over one context encoder."""
    model = assemble(config, streams_of(config), device)
    return model if isinstance(model, JointModel) else JointModel({"lone": model})


def assemble(config: RunConfig, streams: Sequence[Stream], device: torch.device | str = "cpu") -> Model:
    """The model of a run: its streams over one context encoder; for a lone stream, that stream's model."""
    with seeded(config.seed, device):
        encoder: ContextEncoder | None = None
        models: dict[str, PretrainingModel] = {}
        # Parts draw their weights as they are made: in another order, a seed would give another model.
        if len(streams) > 1 or streams[0].name:
            encoder = _encoder_of(config)
        for stream in streams:
            models[stream.name] = _assemble(stream, config, encoder)
    return models[""] if "" in models else JointModel(models)


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """A context where weights are drawn from the seed alone; the random state outside stays as it was."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        yield


def _encoder_of(config: RunConfig) -> ContextEncoder:
    return build_encoder(config.encoder, config.mixer, config.train.checkpoint_activations)


def _assemble(stream: Stream, config: RunConfig, shared: ContextEncoder | None) -> PretrainingModel:
    """The model of a stream; where `shared` is None it gets a context encoder of its own."""
    own, spec, dim = stream.config, stream.spec, config.encoder.dim
    mask_input = masks_input(own, spec)
    make_features = partial(
        build_feature_encoder, own, stream.adapter, dim, partial(open_model, stream, config)
    )
    feature_encoder = make_features()
    make_targets = partial(
        build_targets, own, spec, feature_encoder, dim, partial(open_teacher, stream, config), list_taps,
        partial(stream.adapter.feature_encoder, dim),
    )  # fmt: skip
    targets: Targets | None = None
    # Here masking needs the width of the vectors that it masks. Elsewhere it is built first: order matters.
    if own.context == "quantized":
        targets = make_targets()
    width = feature_encoder.dim if targets is None else targets.dim
    width = dim if own.mask_at == "projection" else width
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
    if config.task["target"] == "pretrain":  # a task with labels does without objectives
        check_objectives(objectives, own, encoder, partial(_lie_apart, make_features, spec))
    try:
        model = PretrainingModel(
            feature_encoder, masking, targets, encoder, objectives, dim,
            build_feature_norm(config.encoder, feature_encoder.dim), build_input_norm(own, spec),
            mask_input=mask_input, mask_projection=own.mask_at == "projection", context=own.context,
            feature_gradient=config.encoder.feature_gradient, input_dropout=config.encoder.input_dropout,
        )  # fmt: skip
    except ValueError as error:  # parts that do not go together
        raise UserError(str(error)) from error
    if mask_input and "observed" not in model.extra_inputs:
        raise UserError(
            f"mask_at=input: {type(feature_encoder).__name__} does not read `observed`, so nothing can be "
            "hidden from it; use mask_at=features, or a feature encoder that does (token, patch)."
        )
    return model


def check_objectives(
    objectives: Mapping[str, Objective],
    config: StreamConfig,
    encoder: ContextEncoder,
    lie_apart: Callable[[], bool],
) -> None:
    """UserError for an objective that these data or these encoders make meaningless.

    `lie_apart` says whether frames of the feature encoder read nothing but their own steps.
    """
    # A part that does not say whether it is causal is trusted.
    reads_ahead = any(getattr(part, "causal", None) is False for part in encoder.modules())
    for name, objective in objectives.items():
        foresees = getattr(objective, "foresees", False)
        if getattr(objective, "compares_views", False) and config.data.views < 2:
            raise UserError(f"objectives.{name} compares views of a row: set data.views=2 or more.")
        if foresees and reads_ahead:
            raise UserError(
                f"objectives.{name} foresees later frames, and in this encoder frames read them: take a "
                "causal mixer (mixer.causal=true for attention and fft_convolution, or causal_gated_linear), "
                "no block with a convolution that looks ahead (a conformer's conv_causal=true), and no "
                "position by convolutions."
            )
        # One with an offset says itself how far ahead its first frame is.
        if foresees and not hasattr(objective, "offset") and not lie_apart():
            raise UserError(
                f"objectives.{name} foresees the next frame, and frames of this feature encoder read steps "
                "of one another: take feature_encoder=patch, conv1d with kernels equal to its strides and "
                "norm=layer, or token with kernel=1."
            )


def _lie_apart(make_features: Callable[[], FeatureEncoder], spec: SampleSpec) -> bool:
    """Whether frames of a feature encoder read their own steps only; it is made anew, on the CPU."""
    with seeded(0):
        feature_encoder = make_features()
        if isinstance(feature_encoder, nn.Module):
            feature_encoder.eval()
        return frames_lie_apart(feature_encoder, spec.channels, spec.vocab_size)


def masks_input(config: StreamConfig, spec: SampleSpec) -> bool:
    """Whether frames are masked before the feature encoder; `auto` means so for ids."""
    return config.mask_at == "input" if config.mask_at != "auto" else spec.vocab_size is not None


def open_model(stream: Stream, config: RunConfig, run: str) -> PretrainingModel:
    """The model of another run, in evaluation mode; of its stream of this name, where it has several.

    `stage:NAME`, a stage of the recipe of `config` that has not run, has initial weights: enough to ask what
    a step costs. UserError where there is no such run, or where it reads other inputs.
    """
    folder, waits = Path(run).expanduser(), run.startswith(stages.MARK)
    if not waits and not (folder / "config.yaml").is_file():
        raise UserError(f"run = {run}: there is no run in this folder.")
    found = _stage_of(config, run) if waits else resolve(folder, choose_size=_smallest).config
    others = {each.name: each for each in streams_of(found)}
    other = others.get(stream.name) or others.get("")
    if other is None:
        raise UserError(
            f"run = {run}: it has the streams {', '.join(others)}, and none named {stream.name!r}."
        )
    for name in ("dtype", "channels", "vocab_size", "rate_hz"):
        there, here = getattr(other.spec, name), getattr(stream.spec, name)
        if there != here:
            raise UserError(f"run = {run}: it was made for inputs of {name} {there}, and these have {here}.")
    device = torch.get_default_device()
    model = assemble(found, [*others.values()], device)
    if not waits and device.type != "meta":
        saved, _ = checkpoint.latest(folder / "checkpoints")
        if saved is None:
            raise UserError(f"run = {run}: it holds no checkpoint.")
        checkpoint.load_weights(model, saved)
    return model.of(other.name).eval()


def _stage_of(config: RunConfig, run: str) -> RunConfig:
    """The configuration of a stage of a run's recipe, on that run's data."""
    # A configuration knows the last part of its recipe's name.
    names = [name for name in list_recipes() if Path(name).name == config.recipe]
    found = resolve(
        next(iter(names), config.recipe),
        f"size={config.size}",
        f"stage={run.removeprefix(stages.MARK)}",
        f"modality={config.modality.get('target')}",
        *(f"data.{name}={value}" for name, value in vars(config.data).items() if value),
        choose_size=_smallest,
    )
    return replace(found.config, modality=config.modality, data=config.data)


def _smallest(sizes: Sequence[str], at: Callable[[str], RunConfig]) -> tuple[str, str]:
    """The size of a recipe that says none: a saved run has one."""
    return sizes[-1], ""


def open_teacher(stream: Stream, config: RunConfig, run: str, tap: str) -> Teacher:
    """The frozen model of another run, as a function from a batch to the frames of one of its taps."""
    teacher = open_model(stream, config, run)
    if tap:
        teacher.encoder.tap_every_layer()
        taps = teacher.encoder.taps
        if tap not in taps:
            raise UserError(
                f"targets.tap = {tap}: {run} has {', '.join(sorted(taps, key=taps.__getitem__))}."
            )
        teacher.encoder.taps = {tap: taps[tap]}  # what lies above it is not run

    @torch.no_grad()
    def teach(batch: Batch) -> Features:
        return teacher.to(batch.inputs.device).encode(batch, tap)

    return teach


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
    return tuple(sorted({str(group) for stream in streams for group in stream.corpus.groups} - {""}))


def set_scaling(model: PretrainingModel, statistics: Mapping[str, Sequence[float]] | None) -> None:
    """Set the training data's statistics in a model that scales by them; others are left alone."""
    if isinstance(model.input_norm, ChannelNorm) and statistics is not None:
        model.input_norm.set(statistics["mean"], statistics["std"])
