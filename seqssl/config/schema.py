"""The fixed sections of a run's configuration, with each rule at the field that it is about.

`Literal` lists the choices, a marker of `seqssl.model.bounds` says what a number may be, `Kind` makes a slot.
Slots (`{target: ..., keywords}`) stay open: a component's keyword-only constructor parameters are its schema.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Literal, TypeAlias

from seqssl.config.tree import Path
from seqssl.config.values import Hint, Tree, Value
from seqssl.model.bounds import NOT_NEGATIVE, POSITIVE, SHARE, Bound

Slot: TypeAlias = Tree
_CONV: Slot = {"target": "conv", "kernel": 128, "groups": 16}  # the positions of wav2vec 2.0


@dataclass(frozen=True)
class Kind:
    """Makes a field a slot for the components of the entry-point group `seqssl.<name>`."""

    name: str


@dataclass(kw_only=True)
class DataConfig:
    """Where rows come from and how they become batches.

    Lengths have one unit per modality: seconds where the adapter's spec has a rate, else input steps
    (`*_frames`). At most one of each pair is set, and of `batch_*` exactly one.
    """

    # Prepared folder, raw folder, or a Parquet file, here or in an object store; None = the demo corpus.
    source: str | None = None
    demo: str | None = None  # catalog name used when `source` is None
    batch_seconds: Annotated[float, POSITIVE] | None = None  # real input per micro-batch and rank
    batch_frames: Annotated[int, POSITIVE] | None = None
    # Longer rows are cropped: at random in training, around the middle otherwise. Where a task with labels is
    # tested they are whole.
    max_seconds: Annotated[float, POSITIVE] | None = None
    max_frames: Annotated[int, POSITIVE] | None = None
    # Rows of one group are joined, in an order drawn anew each epoch, up to this.
    join_seconds: Annotated[float, POSITIVE] | None = None
    join_frames: Annotated[int, POSITIVE] | None = None
    # Share of groups or records held out when data is prepared on the way.
    valid_share: Annotated[float, SHARE] = 0.1
    # Hold out these groups instead of a share; empty = a share, or what the demo corpus itself says.
    valid_groups: list[str] = field(default_factory=list)
    # None = the demo corpus's own way, group for your data.
    split_by: Literal["group", "record"] | None = None
    # Samples made of each row, each cropped and augmented on its own; objectives may compare them.
    views: Annotated[int, POSITIVE] = 1
    # What the adapter changes at random in training, by its names for it; null = all of it with several
    # views, else nothing.
    augment: list[str] | None = None
    # Loader processes; the batches do not depend on it. auto: for a GPU its share of the cores, up to 8.
    workers: Literal["auto"] | Annotated[int, NOT_NEGATIVE] = "auto"


@dataclass(kw_only=True)
class TemperatureConfig:
    """Gumbel temperature: max(end, start * decay ** updates)."""

    start: Annotated[float, POSITIVE] = 2.0
    end: Annotated[float, POSITIVE] = 0.1
    # Per optimizer update, for a run of `planned_updates`; one of another length rescales it in proportion.
    decay: Annotated[float, Bound(above=0, at_most=1, advice="the temperature must fall")] = 0.999995
    planned_updates: Annotated[int, POSITIVE] = 400_000


@dataclass(kw_only=True)
class OptimConfig:
    """The optimizer and its schedule."""

    name: Literal["adam", "adamw", "adafactor"] = "adam"
    lr: Annotated[float, POSITIVE] = 2e-3  # the peak
    betas: tuple[Annotated[float, SHARE], Annotated[float, SHARE]] = (0.9, 0.98)
    eps: Annotated[float, POSITIVE] = 1e-6
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    clip_norm: Annotated[float, Bound(above=0, infinite=True)] = 20.0  # infinite: no clipping
    schedule: Literal["noam", "cosine", "linear", "constant"] = "noam"
    warmup_updates: Annotated[int, NOT_NEGATIVE] = 25_000


@dataclass(kw_only=True)
class TrainConfig:
    """The training loop: how long it runs, on what, and what it does how often."""

    num_updates: Annotated[int, POSITIVE] = 400_000  # optimizer updates
    accumulate: Annotated[int, POSITIVE] = 1  # micro-batches per update and rank
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # That share the rows of each batch on a CPU. auto: one for each thread, as far as batches can be divided.
    processes: Literal["auto"] | Annotated[int, POSITIVE] = "auto"
    # Among how many ranks each weight is divided (FSDP2), under torchrun; 1: every rank has all of them.
    shards: Annotated[int, POSITIVE] = 1
    compile: bool = False
    checkpoint_activations: bool = False
    log_every: Annotated[int, POSITIVE] = 50
    eval_every: Annotated[int, POSITIVE] = 1_000
    # The held-out metric that decides which weights are kept as best: min:NAME or max:NAME.
    keep_best: str = "min:loss"
    # Held-out batches to evaluate on, spread over all of them; None = all.
    eval_batches: Annotated[int, POSITIVE] | None = None
    save_every: Annotated[int, POSITIVE] = 1_000
    keep_last: Annotated[int, POSITIVE] = 2
    # Where figures go beside metrics.jsonl: tensorboard, wandb, mlflow, or pkg.mod:Class.
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])


@dataclass(kw_only=True)
class FinetuneConfig:
    """How a task with labels changes a pre-trained encoder; pre-training does not read it."""

    # Where labels come from. labels: the data; files: the path of a row's file below the folder of its group,
    # without the ending; else what a regular expression finds in that path, its group in parentheses.
    labels_from: str = "labels"
    # What is not trained. none; features: the feature encoder; encoder: everything but the head; a number:
    # the encoder, for so many first updates.
    freeze: Literal["none", "features", "encoder"] | Annotated[int, NOT_NEGATIVE] = "none"
    # Where the head of a task about rows, frames or forecasts starts. fitted: at a linear fit to what the
    # encoder, as it begins, makes of the rows that are learned from; zeros: at nothing.
    head_start: Literal["fitted", "zeros"] = "fitted"
    # Each block learns by this factor more slowly than the block above it.
    layer_decay: Annotated[float, Bound(above=0, at_most=1, advice="1 means one rate for all")] = 1.0
    # Learning rate of the head, as a multiple of optim.lr; a tenth of that where it starts at a fit.
    head_rate: Annotated[float, POSITIVE] = 10.0
    # Share of the frames hidden in training, in runs of `time_span`; and of the width of each frame.
    time_share: Annotated[float, SHARE] = 0.0
    time_span: Annotated[int, POSITIVE] = 10
    channel_share: Annotated[float, SHARE] = 0.0
    channel_span: Annotated[int, POSITIVE] = 16
    label_smoothing: Annotated[float, SHARE] = 0.0
    # Decay of a running mean of the weights, which is then evaluated instead of them; null = none.
    average: Annotated[float, SHARE] | None = None
    # Rank of low-rank additions to linear maps of the encoder, which itself then stays (LoRA); null = none.
    lora_rank: Annotated[int, POSITIVE] | None = None
    lora_modules: list[str] = field(default_factory=lambda: ["query_key_value", "output"])


@dataclass(kw_only=True)
class EncoderConfig:
    """The context encoder: a stack of blocks with named taps."""

    # One layer, with a mixer in it.
    block: Annotated[Slot, Kind("block")] = field(default_factory=lambda: {"target": "conformer"})
    num_layers: Annotated[int, POSITIVE] = 24
    dim: Annotated[int, POSITIVE] = 1024
    # Drop probability of the last layer; linear from 0.
    stochastic_depth: Annotated[float, SHARE] = 0.0
    # Of the feature encoder's output, before masking and quantizing.
    feature_norm: Annotated[Slot, Kind("feature_norm")] | None = None
    # The gradient that reaches the feature encoder is multiplied by it (wav2vec 2.0 BASE: 0.1).
    feature_gradient: Annotated[float, Bound(at_least=0)] = 1.0
    # Of frames projected to `dim`; and after positions (and the norm below the first layer).
    input_dropout: Annotated[float, SHARE] = 0.0
    position_dropout: Annotated[float, SHARE] = 0.0
    # One more layer norm: below the first layer, or above the last.
    norm: Literal["none", "input", "output"] = "none"
    # Below the first block; mixers may have positions of their own.
    position: Annotated[Slot, Kind("position")] | None = field(default_factory=lambda: _CONV.copy())
    # A vector for each row that blocks may read: of its group, say.
    condition: Annotated[Slot, Kind("condition")] | None = None
    taps: dict[str, int] = field(default_factory=dict)  # name -> number of layers below it


@dataclass(kw_only=True)
class StreamConfig:
    """The settings of one stream (a kind of data): how it is read, masked, quantized and scored."""

    recipe: str = ""
    modality: Annotated[Slot, Kind("modality")] = field(default_factory=dict)
    feature_encoder: Annotated[Slot, Kind("feature_encoder")] | None = None  # None = the adapter's own
    # channel: scaling by the train split's statistics; instance: within each row; None: values as they are.
    input_norm: Annotated[Slot, Kind("input_norm")] | None = None
    # What is predicted. None = a frame's own ids where inputs are ids, else a quantizer's learned code.
    targets: Annotated[Slot, Kind("targets")] | None = None
    # What the context encoder reads. quantized: the vectors of the codes, as in vq-wav2vec.
    context: Literal["features", "quantized"] = "features"
    # Where frames are hidden. features: after the feature encoder; input: their steps before it. auto: input
    # for ids, features for the rest. projection: for ids the same; else after the projection to encoder.dim
    # (wav2vec 2.0).
    mask_at: Literal["auto", "input", "features", "projection"] = "auto"
    masking: Annotated[Slot, Kind("masking")] = field(default_factory=dict)
    quantizer: Annotated[Slot, Kind("quantizer")] = field(default_factory=dict)
    # Scaling of what a learned quantizer reads. batch: each dimension over the batch, nothing learned.
    quantizer_norm: Literal["none", "batch"] = "none"
    objectives: dict[str, Annotated[Slot, Kind("objective")]] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(kw_only=True)
class MixedStream(StreamConfig):
    """One stream of a joint run."""

    # Share of the micro-batches, relative to the other streams.
    weight: Annotated[float, Bound(above=0, advice="null in the stream's place removes it")] = 1.0


@dataclass(kw_only=True)
class RunConfig(StreamConfig):
    """A whole run, resolved. With `streams` it learns from all of them, and its own modality is not used."""

    size: str = "auto"
    seed: Annotated[int, Bound(at_least=0, below=2**63)] = 0
    # What the loop runs.
    task: Annotated[Slot, Kind("task")] = field(default_factory=lambda: {"target": "pretrain"})
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    init: str | None = None  # a run or checkpoint to take the first weights from; RUN#STREAM of a joint run
    out: str | None = None  # None = runs/<recipe>-<size>
    health: Literal["off", "warn", "halt"] = "warn"
    streams: dict[str, MixedStream] = field(default_factory=dict)
    mixer: Annotated[Slot, Kind("mixer")]
    encoder: EncoderConfig
    temperature: TemperatureConfig
    optim: OptimConfig
    train: TrainConfig

    def parts(self) -> dict[str, StreamConfig]:
        """The settings of each kind of data by name; one named "" where there is only one."""
        return dict(self.streams) or {"": self}


STREAM_KEYS = tuple(entry.name for entry in fields(StreamConfig))


def kind_of(hint: Hint) -> str | None:
    """The kind of component that a field takes; None for a field that is no slot."""
    found = [mark.name for option in _options(hint) for mark in _marks(option) if isinstance(mark, Kind)]
    return found[0] if found else None


def is_nullable(hint: Hint) -> bool:
    """Whether a field may be null."""
    return type(None) in _options(hint)


def section_of(hint: Hint) -> type | None:
    """The dataclass of a field that is a section; None for other fields."""
    return hint if isinstance(hint, type) and is_dataclass(hint) else None


def entries_of(hint: Hint) -> Hint:
    """The annotation of each entry of a field that maps names to slots or sections; None for other fields."""
    inner = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else None
    return inner if kind_of(inner) or section_of(inner) else None


def hint_at(path: Path, cls: type = RunConfig) -> Hint:
    """The annotation of the field at a path; None where there is no such field, as inside of a slot."""
    hint: Hint = cls
    for part in path:
        section = section_of(hint)
        hint = hints(section).get(part) if section else entries_of(hint)
    return hint


def hints(cls: type) -> dict[str, Hint]:
    """The annotation of each field of a section."""
    return {entry.name: entry.type for entry in fields(cls)}


def keys(cls: type = RunConfig, path: Path = ()) -> Iterator[Path]:
    """The path of every field that is not a section; `streams` counts as one field."""
    for name, hint in hints(cls).items():
        section = section_of(hint)
        yield from keys(section, (*path, name)) if section else [(*path, name)]


def default_slots() -> dict[Path, Slot]:
    """The slots that hold a component by default, by path."""
    found = {}
    for path in keys():
        owner = hint_at(path[:-1])
        assert isinstance(owner, type)
        entry = next(entry for entry in fields(owner) if entry.name == path[-1])
        if kind_of(entry.type) and entry.default_factory is not dataclasses.MISSING:
            slot: Value = entry.default_factory()
            if isinstance(slot, dict) and slot:
                found[path] = slot
    return found


def _options(hint: Hint) -> tuple[Hint, ...]:
    """The members of a union; for any other annotation, that alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _marks(hint: Hint) -> tuple[Hint, ...]:
    return typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
