"""The seams: everything that can be replaced, and nothing that cannot."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from seqssl.model.types import Batch, Context, Features, LossTerm, MaskedFrames, Quantized


@runtime_checkable
class FeatureEncoder(Protocol):
    """Raw inputs to frames.

    One that wants them takes `observed` or `times` of the batch as further parameters of those names, with
    None as their default: what the signature asks for is handed over.
    """

    dim: int

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Frames made of so many input steps; at least 1 for every length from 1."""
        ...

    def __call__(self, inputs: Shaped[Tensor, "b t *c"], lengths: Int[Tensor, "b"]) -> Features:
        """Encode; the padding of a row never changes its valid frames."""
        ...


@runtime_checkable
class Masking(Protocol):
    """Which frames are hidden, and what stands in their place."""

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
    """Frames to a finite inventory of codes."""

    num_codebooks: int
    codebook_size: int
    dim: int

    def __call__(
        self, x: Float[Tensor, "n d"], *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize frames; `temperature` None takes the argmax, `generator` None adds no noise."""
        ...


@runtime_checkable
class Mixer(Protocol):
    """The sublayer that moves information between frames; position lives inside it."""

    def __call__(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """Mix; frames that are not valid never influence those that are."""
        ...


@runtime_checkable
class Objective(Protocol):
    """One loss term.

    With an attribute `seen_weight` above 0 it is also called for the frames that are not masked, with the
    targets that they have without noise.
    """

    tap: str  # the context encoder's output that it reads
    weight: float

    def __call__(self, context: Context, targets: Quantized, generator: Generator) -> LossTerm:
        """Sum over the frames of the context, with the count to divide by."""
        ...


class Task(Protocol):
    """What the one training loop runs: pre-training, fine-tuning, probing.

    `draws` is the micro-step's `seqssl.training.tasks.Draws`: its seed and its temperature.
    """

    model: Any  # whose parameters are trained
    runner: Any  # the same module with gradients shared over ranks

    def draw(self, batch: Batch, draws: Any) -> MaskedFrames:
        """The frames that losses count, chosen on the CPU before any forward pass."""
        ...

    def step(self, batch: Batch, frames: MaskedFrames, draws: Any) -> Any:
        """Forward pass of one micro-batch: an `Output` with its loss terms."""
        ...

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics on held-out data."""
        ...
