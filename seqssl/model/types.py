"""What flows through the core.

Letters, everywhere in this package: b batch, t input time, c channels, s frames, d width, n masked frames
(flat over rows), m masked frames of a row, g codebooks, v entries per codebook, q code width, k negatives, h
attention heads, e width of a head or of a condition, l learned codebooks, i codes that tell a negative from
the positive, f bins of a picture, r distances between frames, p positions or columns of a picture, x width of
what the context encoder reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

# Whether an export follows one row to write down what is computed. The first is there since torch 2.7.
is_traced = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


@dataclass(frozen=True)
class Segment:
    """A labelled stretch of a row: a word, a note, a gene, an activity."""

    start: int  # its first input step
    end: int  # the step after its last
    label: object  # as the adapter gives it; the task knows what it is


@dataclass(frozen=True)
class Batch:
    """Padded inputs; `lengths` says how much of each row is real.

    The other fields were cropped and joined with the inputs, and are None where the adapter gives none.
    """

    inputs: Shaped[Tensor, "b t *c"]
    lengths: Int[Tensor, "b"]
    observed: Bool[Tensor, "b t *c"] | None = None  # False = missing, never a target; of the inputs' shape
    times: Float[Tensor, "b t"] | None = None  # seconds; None = regular
    codes: Int[Tensor, "b s g"] | None = None  # targets given from outside (HuBERT, DiscreteBERT); -1 = none
    # As the adapter gives them; "" and None = no label, a tuple = those of the rows that were joined.
    labels: tuple[object, ...] | None = None
    segments: tuple[tuple[Segment, ...], ...] | None = None
    groups: Int[Tensor, "b"] | None = None  # number of the group among all of the run; -1 = no group
    clips: Int[Tensor, "b"] | None = None  # which clip a row is a view of; None = each is its own
    keys: list[str] = field(default_factory=list)
    stream: str = ""  # the name of its kind of data; "" where there is only one

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on `device`."""
        return replace(self, **tensors_on(self, device))

    def pin_memory(self) -> "Batch":
        """The same batch where a GPU can fetch it from by itself; torch's loader asks for it by this name."""
        pinned: dict[str, Any] = {n: x.pin_memory() for n, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **pinned)


@dataclass(frozen=True)
class Features:
    """Frames of the feature encoder; beyond `lengths` they are padding."""

    x: Float[Tensor, "b s d"]
    lengths: Int[Tensor, "b"]
    times: Float[Tensor, "b s"] | None = None  # seconds; None = as the batch's, at each frame's middle
    raw: Float[Tensor, "b s x"] | None = None  # as they were before the feature norm; None = the same
    codes: Int[Tensor, "b s g"] | None = None  # from which frames were looked up; None where they were not
    clips: Int[Tensor, "b"] | None = None  # as the batch's

    @property
    def valid(self) -> Bool[Tensor, "b s"]:
        """True on real frames, False on padding."""
        return length_mask(self.lengths, self.x.shape[1])


@dataclass(frozen=True)
class Frames:
    """All that a mixer or a block may know of frames apart from their vectors."""

    valid: Bool[Tensor, "b s"]  # False on padding
    times: Float[Tensor, "b s"] | None = None  # seconds; None = regular
    condition: Float[Tensor, "b e"] | None = None  # a vector for each row, made by `encoder.condition`


@dataclass(frozen=True)
class Quantized:
    """The targets of some frames: vectors, codes, or both."""

    vectors: Float[Tensor, "n q"]  # q = 0 where there are codes only
    codes: Int[Tensor, "n g"]  # g = 0 where there are vectors only
    usage: Float[Tensor, "l v"]  # of the learned codebooks: mean softmax of the clean logits
    identity_codes: Int[Tensor, "n i"] | None = None  # they tell a negative from the positive; None = codes
    probs: Float[Tensor, "n l v"] | None = None  # from which learned codes were drawn, with their gradient
    costs: Float[Tensor, "n"] | None = (
        None  # how far frames are from their entries; the objective `commitment`
    )

    @property
    def identity(self) -> Int[Tensor, "n i"]:
        """The codes that tell a negative from the positive; i = 0 where there are no such codes."""
        return self.codes if self.identity_codes is None else self.identity_codes

    def at(self, places: Int[Tensor, "m"]) -> "Quantized":
        """The targets of some of the frames; `usage` stays that of all."""
        own = None if self.identity_codes is None else self.identity_codes[places]
        probs = None if self.probs is None else self.probs[places]
        costs = None if self.costs is None else self.costs[places]
        return Quantized(self.vectors[places], self.codes[places], self.usage, own, probs, costs)


@dataclass(frozen=True)
class MaskedFrames:
    """The places of some frames, most often of the masked ones.

    They are made on the CPU, so that the step never waits for the device. `sets` holds other choices of
    frames of the same batch, if something reads them: "seen" (not masked, but could have been), "all" (masked
    and seen), "valid" (all that are not padding).
    """

    mask: Bool[Tensor, "b s"]
    rows: Int[Tensor, "n"]  # the row of each frame, ascending
    columns: Int[Tensor, "n"]  # its place in the row
    slots: Int[Tensor, "n"]  # its place among the chosen frames of the row
    max_per_row: int
    sets: Mapping[str, "MaskedFrames"] = field(default_factory=dict)

    @classmethod
    def of(cls, mask: Bool[Tensor, "b s"], **others: Bool[Tensor, "b s"]) -> "MaskedFrames":
        """Index the true entries of `mask`; `others` become `sets`."""
        rows, columns = mask.nonzero(as_tuple=True)
        slots = mask.cumsum(dim=1)[rows, columns] - 1
        sets = {name: cls.of(other) for name, other in others.items()}
        return cls(mask, rows, columns, slots, int(mask.sum(dim=1).max()), sets)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.rows)

    @property
    def seen(self) -> "MaskedFrames | None":
        """The frames that are not masked and could have been; None where nothing reads them."""
        return self.sets.get("seen")

    def to(self, device: torch.device | str) -> "MaskedFrames":
        """The same frames on `device`."""
        sets = {name: frames.to(device) for name, frames in self.sets.items()}
        return replace(self, sets=sets, **tensors_on(self, device))

    def take(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "n d"]:
        """These frames of `x`."""
        return x[self.rows, self.columns]

    def put(self, x: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "b s d"]:
        """The reverse of `take`: other frames are zero."""
        return x.new_zeros(*self.mask.shape, x.shape[1]).index_put((self.rows, self.columns), x)

    def pack(self, x: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "b m d"]:
        """Flat frames to one zero-padded line per row; m = max_per_row."""
        packed = x.new_zeros(self.mask.shape[0], self.max_per_row, x.shape[1])
        return packed.index_put((self.rows, self.slots), x)


@dataclass(frozen=True)
class Context:
    """One tap of the context encoder, read at the frames that an objective asks for."""

    x: Float[Tensor, "n d"]
    frames: MaskedFrames
    features: Features  # the feature encoder's output, before masking


@dataclass(frozen=True)
class LossTerm:
    """What an objective gives: sums, never means.

    The loop adds terms over micro-batches and ranks and divides each once, by the sum of its planned counts.
    `count` is that number for this micro-batch. `stats` are sums too; those that are single numbers are shown
    divided by the same count.
    """

    total: Float[Tensor, ""]
    count: Shaped[Tensor, ""]
    stats: dict[str, Float[Tensor, "..."]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is decided about a micro-batch on the CPU, before any forward pass.

    `counts` says what each loss term will be a sum over in this micro-batch: a number of frames, tokens or
    rows. A term with counts of 0 in all micro-batches of an update, on all ranks, is left out of the loss.
    """

    counts: dict[str, Tensor]  # a single number each
    frames: MaskedFrames | None = None

    def to(self, device: torch.device | str) -> "Plan":
        """The plan with its frames on `device`; counts stay where the loop reads them."""
        return replace(self, frames=None if self.frames is None else self.frames.to(device))


@dataclass(frozen=True)
class Output:
    """What a step gives back: sums only.

    Each of `terms` is divided by its global count, multiplied by its weight and added to the loss. `sums` are
    statistics for people. One called `<term>/<name>` is shown divided by the count of its term, any other as
    its mean over micro-batches; and where there is a `<term>/frames`, the loss of the term is shown divided
    by that instead. Statistics that are not single numbers are left to the task's `summarize`.
    """

    terms: dict[str, Float[Tensor, ""]]
    weights: dict[str, float]
    sums: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Draws:
    """The only source of randomness of a micro-batch: its seed, and the Gumbel temperature."""

    seed: tuple[int, ...]  # run seed, update, index of the micro-batch in the update over all ranks
    temperature: float | None = None  # None: a quantizer adds no noise (evaluation)

    def generator(self, device: torch.device | str = "cpu") -> Generator:
        """A fresh generator with this seed."""
        state = np.random.SeedSequence(self.seed).generate_state(2, np.uint32)
        return Generator(device).manual_seed(int(state[0]) << 32 | int(state[1]))


@dataclass(frozen=True)
class Stat:
    """What one statistic of an objective means to people; a class lists its own in the attribute `stats`.

    The metric is called `<objective>/<name>`; the name "loss" stands for the loss itself. `against` names the
    statistic of the same objective that says what no learning would give. `rule` names the health rule that
    reads the metric: "discrimination" takes an accuracy beside the chance of guessing, "prediction" an
    accuracy of codes beside the share of the most frequent code (`trivial`, which pre-training adds),
    "evenness" the loss of the term that keeps all codes in use, "variance" a standard deviation over frames,
    "regression" a squared distance beside the variance, which is that of always predicting the mean.
    """

    name: str
    words: str = ""  # "" = the name
    unit: Literal["share", "nats", "bits", "number"] = "number"
    against: str = ""  # "" = nothing
    against_words: str = ""  # "" = the name
    rule: Literal["", "discrimination", "prediction", "evenness", "variance", "regression"] = ""
    short: str = ""  # in a line of progress, without the objective's name; "" = that name and the words
    is_key: bool = True  # whether it is shown beside the losses, with curves of its own; else only recorded


def tensors_on(owner: "Batch | MaskedFrames", device: torch.device | str) -> dict[str, Any]:
    """The fields of a dataclass that are tensors, by name, on `device`."""
    return {name: sent(x, device) for name, x in vars(owner).items() if isinstance(x, Tensor)}


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """`x` on `device`; nothing waits for a GPU, which fetches by itself what it can: pinned memory."""
    if x.device.type == "cpu" and torch.device(device).type == "cuda":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def length_mask(lengths: Int[Tensor, "b"], size: int) -> Bool[Tensor, "b size"]:
    """True where the position is below the row's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
