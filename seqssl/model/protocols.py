"""The seams: the protocols of all parts that can be replaced.

A part keeps a protocol by having its attributes and methods; nothing is inherited or registered. What a
part's constructor may ask for by position (its wiring) is in the wiring classes below.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn

from seqssl.model.types import (
    Batch,
    Context,
    Draws,
    Features,
    Frames,
    LossTerm,
    MaskedFrames,
    Output,
    Plan,
    Quantized,
)

State = TypeVar("State")
Reads = Literal["masked", "seen", "all"]


@runtime_checkable
class FeatureEncoder(Protocol):
    """Raw inputs to frames.

    An encoder that wants `observed` or `times` of the batch takes them as further parameters of those names,
    with None as their default: it is given what its signature asks for.
    """

    dim: int

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """The number of frames for each number of input steps; at least 1 for every length from 1."""
        ...

    def __call__(self, inputs: Shaped[Tensor, "b t *c"], lengths: Int[Tensor, "b"]) -> Features:
        """Encode; the padding of a row never changes its valid frames."""
        ...


@runtime_checkable
class DrawsInputs(Protocol):
    """What a feature encoder may offer beside `FeatureEncoder`: a picture of its inputs (a spectrogram)."""

    def picture(self, inputs: Float[Tensor, "b t *c"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "b p f"]:
        """The inputs as p columns of f bins, evenly spaced in time."""
        ...


@runtime_checkable
class Masking(Protocol):
    """Which frames are masked, and what replaces them."""

    def sample(self, lengths: Int[Tensor, "b"], generator: Generator) -> Bool[Tensor, "b s"]:
        """Masked frames of rows with these many valid frames; s = max(lengths); padding is never masked."""
        ...

    def apply(
        self, x: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"], generator: Generator
    ) -> Float[Tensor, "b s d"]:
        """`x` with the masked frames replaced."""
        ...


@runtime_checkable
class Quantizer(Protocol):
    """Frames to a finite number of codes."""

    num_codebooks: int
    codebook_size: int
    dim: int

    def __call__(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize frames; `temperature` None takes the argmax, `generator` None adds no noise."""
        ...


@runtime_checkable
class Targets(Protocol):
    """What is predicted at a frame: a vector to recognize, codes to predict, or both.

    Targets own their codebooks. They read features before anything is masked.
    """

    codebook_sizes: tuple[int, ...]  # of each code of a frame; () where there are vectors only
    dim: int  # width of the vectors; 0 where there are codes only

    def usable(self, batch: Batch, valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Which of the valid frames have a target. Called on the CPU, before any forward pass."""
        ...

    def __call__(
        self,
        batch: Batch,
        features: Features,
        frames: MaskedFrames,
        *,
        temperature: float | None,
        generator: Generator | None,
    ) -> Quantized:
        """The targets of some frames; `temperature` and `generator` as for a quantizer."""
        ...

    def everywhere(self, batch: Batch, features: Features) -> Int[Tensor, "b s g"]:
        """The codes of every frame, without noise; -1 where there is none."""
        ...


@runtime_checkable
class FollowsModel(Protocol):
    """What targets may offer beside `Targets`, where they are made of the model that is trained on them."""

    def follow(self, model: nn.Module) -> None:
        """Called once, when the model has all its parts. ValueError for one that cannot be followed."""
        ...


@runtime_checkable
class Fits(Protocol):
    """What targets may offer beside `Targets`, where something is fitted to the data before the first update.

    What is fitted must be saved with the model: parameters or buffers.
    """

    def fit(self, batches: Iterable[Batch], generator: Generator) -> dict[str, int | float | str]:
        """Fit to the training split, in a fixed order; facts about the fit. It may be gone through again.

        Raises ValueError for data that do not allow it.
        """
        ...

    def pretend(self) -> None:
        """Do without a fit from now on, with any codes: the cost of a step is asked for, not its result."""
        ...


@runtime_checkable
class HasWords(Protocol):
    """What targets may offer beside `Targets`, where a code stands for several symbols of the input."""

    ids_per_code: int


@runtime_checkable
class Mixer(Protocol):
    """The sublayer that moves information between frames; position lives inside it.

    A mixer that takes `valid` (b s) in the place of `frames` still works in this release, with a warning.
    """

    def __call__(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """Mix; frames that are not valid never influence those that are."""
        ...


@runtime_checkable
class Block(Protocol):
    """One layer of the context encoder; also the part that adds positions below the first of them."""

    def __call__(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """New vectors for the same frames; those that are not valid never influence those that are."""
        ...


@runtime_checkable
class HasStep(Protocol[State]):
    """What a causal mixer or block may offer: the same function, one frame after the other."""

    def init_state(self, num_rows: int) -> State:
        """The state before the first frame."""
        ...

    def step(self, x: Float[Tensor, "b d"], state: State) -> tuple[Float[Tensor, "b d"], State]:
        """The output of the next frame of each row, equal to that of the whole row at once."""
        ...


@runtime_checkable
class Condition(Protocol):
    """A vector for each row that blocks and mixers may read: of its speaker, its station, its sensor."""

    dim: int

    def __call__(self, batch: Batch) -> Float[Tensor, "b e"]:
        """One vector a row; e = dim."""
        ...


@runtime_checkable
class HasLevels(Protocol):
    """What an input norm may offer: what it takes away from a row, which the model adds to its frames."""

    num_levels: int

    def levels(
        self, inputs: Float[Tensor, "b t *c"], present: Bool[Tensor, "b t *c"]
    ) -> Float[Tensor, "b l"]:
        """A vector for each row; l = num_levels."""
        ...


@runtime_checkable
class Objective(Protocol):
    """One loss term: a sum over frames of one tap of the context encoder.

    Further attributes are read where they exist. `reads` says for which frames it is called: "masked" (the
    default), "seen" (those that could have been masked and are not), "all" (both). `stats` says what it
    reports and what each figure is compared with. With a `seen_weight` above 0 it is called a second time,
    for the seen frames; that sum has `seen_weight` times its weight, and is divided by the number of masked
    frames, too. Frames that are not masked come with the targets that they have without noise. One with
    `compares_views` needs several views of each row (`Features.clips`); one with `compares_rows` is a
    function of all rows of a micro-batch together, and a part of them would not do. One that `foresees` later
    frames is refused where frames read them; with an `offset` it says itself how far ahead its first one is.
    """

    tap: str  # the output of the context encoder that it reads; "" = the highest
    weight: float

    def __call__(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """The sum over the frames of the context; its count is `counted`, or else their number."""
        ...


@runtime_checkable
class CountsOther(Objective, Protocol):
    """What an objective may offer beside `Objective`: a sum over something other than its frames."""

    def counted(self, frames: MaskedFrames, lengths: Int[Tensor, "b"]) -> Int[Tensor, ""]:
        """What the term will be a sum over, known from the frames it reads and each row's valid frames."""
        ...


@runtime_checkable
class Task(Protocol):
    """What the one training loop runs: pre-training, fine-tuning, anything a user writes.

    A task knows nothing of ranks, optimizers or precision. It may also have `summarize`, see `Summarizes`.
    """

    @property
    def model(self) -> nn.Module:
        """The module that is trained and saved."""
        ...

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """What the loss terms of a micro-batch sum over, and what is drawn for it; on the CPU."""
        ...

    def step(self, batch: Batch, plan: Plan, draws: Draws) -> Output:
        """The forward pass of one micro-batch, on the device of the model."""
        ...

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics on held-out data; if "loss" is among them, the weights with the lowest are kept as best."""
        ...


@runtime_checkable
class Summarizes(Protocol):
    """What a task may offer beside `Task`: metrics made of statistics that are not single numbers."""

    def summarize(self, sums: dict[str, Tensor], stream: str) -> dict[str, float]:
        """Metrics of one kind of data, from the sums over some steps."""
        ...


@runtime_checkable
class FollowsUpdates(Protocol):
    """What a task may offer beside `Task`, and any part of its model: something to do after each update."""

    def after_update(self) -> None:
        """The weights have changed; the same on all ranks."""
        ...


@dataclass(frozen=True)
class InputWiring:
    """What a part that reads raw inputs may ask for by position: a feature encoder, an input norm."""

    channels: int | None  # values a step; None: ids without a channel axis
    vocab_size: int | None = None  # ids are below it; None: the inputs are numbers
    num_bins: int | None = None  # the same as channels, by the name that suits spectra
    rate_hz: float | None = None  # input steps a second; None: they have no rate


@dataclass(frozen=True)
class FrameWiring:
    """What a part that reads frames may ask for by position: masking, quantizer, mixer, block and others.

    A block may ask for its `mixer` besides, and for `layer`, the number of blocks below it.
    """

    input_dim: int  # width of the frames that the part reads
    dim: int  # width of the context encoder
    context_dim: int  # the same, by the name that suits parts outside of the context encoder
    condition_dim: int = 0  # width of the condition of a row; 0 where there is none


@dataclass(frozen=True)
class TargetWiring:
    """What an objective may ask for by position: the shapes of its contexts and targets."""

    input_dim: int  # width of the feature encoder's frames
    context_dim: int  # width of a tap of the context encoder
    target_dim: int  # width of the vectors to find
    num_codebooks: int  # codes of a frame
    codebook_size: int  # entries of the largest codebook; 0 where there is none
    codebook_sizes: tuple[int, ...] | None = None  # entries of each; None where all have the same number
