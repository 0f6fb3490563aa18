"""The fixed sections of a run's configuration. Slots (`{target: ..., keywords}`) stay open: a
component's keyword-only constructor parameters are its schema (see `seqssl.config.compose`)."""

from dataclasses import dataclass, field
from typing import Any, Literal

Slot = dict[str, Any]


@dataclass(kw_only=True)
class DataConfig:
    """Where rows come from and how they become batches.

    Lengths have one unit per modality: seconds where the adapter's spec has a rate, else input steps
    (`*_frames`). Exactly one of each pair is set.
    """

    source: str | None = None  # prepared folder, raw folder, or a Parquet file; None = the demo corpus
    demo: str | None = None  # catalog name used when `source` is None
    batch_seconds: float | None = None  # real input per micro-batch and rank
    batch_frames: int | None = None
    max_seconds: float | None = None  # longer rows are cropped: at random in training, at the middle else
    max_frames: int | None = None
    join_seconds: float | None = (
        None  # rows of one group are joined, in an order drawn anew each epoch, up to this
    )
    join_frames: int | None = None
    valid_share: float = 0.1  # share of groups or records held out when data is prepared on the way
    # Hold out these groups instead of a share; empty = a share, or what the demo corpus itself says.
    valid_groups: list[str] = field(default_factory=list)
    split_by: str | None = None  # group | record; None = the demo corpus's own way, group for your data
    workers: int = 0  # loader processes; the batches do not depend on it


@dataclass(kw_only=True)
class TemperatureConfig:
    """Gumbel temperature: max(end, start * decay ** updates)."""

    start: float = 2.0
    end: float = 0.1
    decay: float = 0.999995  # per optimizer update, for a run of `planned_updates`
    planned_updates: int = 400_000  # a run of another length rescales the decay in proportion


@dataclass(kw_only=True)
class OptimConfig:
    """The optimizer and its schedule."""

    name: str = "adam"  # adam | adamw | adafactor
    lr: float = 2e-3  # the peak
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.0
    clip_norm: float = 20.0
    schedule: str = "noam"  # noam | cosine | constant
    warmup_updates: int = 25_000


@dataclass(kw_only=True)
class TrainConfig:
    """The loop."""

    num_updates: int = 400_000  # optimizer updates
    accumulate: int = 1  # micro-batches per update and rank
    precision: str = "auto"  # auto | float32 | bfloat16
    device: str = "auto"  # auto | cpu | cuda
    compile: bool = False
    checkpoint_activations: bool = False
    log_every: int = 50
    eval_every: int = 1_000
    eval_batches: int | None = None  # held-out batches to evaluate on, spread over all of them; None = all
    save_every: int = 1_000
    keep_last: int = 2


@dataclass(kw_only=True)
class EncoderConfig:
    """The context encoder: a stack of blocks with named taps."""

    block: str = "conformer"  # conformer | transformer
    num_layers: int = 24
    dim: int = 1024
    ffn_dim: int = 4096
    conv_kernel: int = 5
    conv_norm: str = "batch"  # batch | layer
    dropout: float = 0.0
    stochastic_depth: float = 0.0  # drop probability of the last layer; linear from 0
    feature_norm: str = "none"  # none | layer: of the feature encoder's output, before masking and quantizing
    position: str = "conv"  # conv | none
    position_kernel: int = 128
    position_groups: int = 16
    taps: dict[str, int] = field(default_factory=dict)  # name -> number of layers below it


@dataclass(kw_only=True)
class StreamConfig:
    """What is particular to one kind of data: how it is read, hidden, quantized and scored."""

    recipe: str = ""
    modality: Slot = field(default_factory=dict)
    feature_encoder: Slot | None = None  # None = the adapter's own
    input_norm: str = "none"  # none | channel: by the train split's statistics | instance: within each row
    # What is predicted. None = a frame's own ids where inputs are ids, else a quantizer's learned code.
    targets: Slot | None = None
    context: Literal["features", "quantized"] = (
        "features"  # what the context encoder reads; vq-wav2vec: quantized
    )
    # Where frames are hidden. features: after the feature encoder; input: their steps before it. auto: input
    # for ids, features for the rest.
    mask_at: str = "auto"
    masking: Slot = field(default_factory=dict)
    quantizer: Slot = field(default_factory=dict)
    objectives: dict[str, Slot] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(kw_only=True)
class MixedStream(StreamConfig):
    """One of the kinds of data of a joint run."""

    weight: float = 1.0  # share of the micro-batches, relative to the other streams


@dataclass(kw_only=True)
class RunConfig(StreamConfig):
    """A whole run, resolved. One with `streams` learns from all of them; its own modality is then unused."""

    size: str = "auto"
    seed: int = 0
    task: Slot = field(default_factory=lambda: {"target": "pretrain"})
    init: str | None = None  # a run whose weights are where this one starts
    out: str | None = None  # None = runs/<recipe>-<size>
    health: str = "warn"  # off | warn | halt
    streams: dict[str, MixedStream] = field(default_factory=dict)
    mixer: Slot
    encoder: EncoderConfig
    temperature: TemperatureConfig
    optim: OptimConfig
    train: TrainConfig
    eval: dict[str, Slot] = field(default_factory=dict)

    def parts(self) -> dict[str, StreamConfig]:
        """The settings of each kind of data by name; one named "" where there is only one."""
        return dict(self.streams) or {"": self}
