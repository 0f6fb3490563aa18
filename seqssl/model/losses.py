"""The objectives of a model together: which frames each reads, what each counts, and the terms of a step."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from seqssl.model.protocols import CountsOther, Objective
from seqssl.model.types import Context, Features, MaskedFrames, Output, Quantized

TargetsAt = Callable[[MaskedFrames], Quantized]  # the targets of some frames, without noise


class Losses(nn.ModuleDict):
    """Named objectives over the taps of a context encoder; one with an empty tap reads the highest.

    Most read masked frames. One with `reads` may ask for others, and one with a `seen_weight` is asked twice.
    """

    def __init__(self, objectives: Mapping[str, Objective], taps: Mapping[str, int]) -> None:
        # What has weights is registered; what has none may be any callable.
        super().__init__({name: o for name, o in objectives.items() if isinstance(o, nn.Module)})
        self.named = dict(objectives)
        self.last_tap = max(taps, key=lambda name: taps[name])
        self.reads = {name: getattr(objective, "reads", "masked") for name, objective in objectives.items()}
        shares = {name: float(getattr(o, "seen_weight", 0.0)) for name, o in objectives.items()}
        self.seen_weights = {name: share for name, share in shares.items() if share}
        unknown = {objective.tap for objective in objectives.values()} - {*taps, ""}
        if unknown:
            raise ValueError(f"objectives read unknown taps {sorted(unknown)}; there are {[*taps]}")
        wrong = {*self.reads.values()} - {"masked", "seen", "all"}
        if wrong:
            raise ValueError(f"an objective reads {', '.join(sorted(wrong))}; it may be masked, seen or all")

    @property
    def sets(self) -> set[str]:
        """Which choices of frames are read, "masked" among them."""
        return {"masked", *self.reads.values(), *(["seen"] if self.seen_weights else [])}

    def at(self, name: str, frames: MaskedFrames) -> MaskedFrames:
        """The frames that an objective reads."""
        return frames if self.reads[name] == "masked" else frames.sets[self.reads[name]]

    def counts(self, frames: MaskedFrames, lengths: Int[Tensor, "b"]) -> dict[str, Int[Tensor, ""]]:
        """The number that each term is a sum over; `lengths` are the valid frames of each row."""
        counts = {}
        for name, objective in self.named.items():
            own = self.at(name, frames)
            if isinstance(objective, CountsOther):
                counts[name] = objective.counted(own, lengths)
            else:
                counts[name] = torch.tensor(len(own))
        # A seen frame counts `seen_weight` times a masked one: both sums have one divisor.
        return counts | {f"{name}_seen": torch.tensor(len(frames)) for name in self.seen_weights}

    def forward(
        self,
        taps: Mapping[str, Float[Tensor, "b s d"]],
        features: Features,
        frames: MaskedFrames,
        targets: Quantized,
        targets_at: TargetsAt,
        generator: Generator,
    ) -> Output:
        """Every term, its weight, and what it reports. `targets` are those of the masked frames."""
        known = {"masked": targets}  # of each choice of frames once, however many terms read it

        def targets_of(reads: str, own: MaskedFrames) -> Quantized:
            if reads not in known:
                known[reads] = targets_at(own)
            return known[reads]

        terms = {}
        for name, objective in self.named.items():
            own, tap = self.at(name, frames), taps[objective.tap or self.last_tap]
            found = targets_of(self.reads[name], own)
            terms[name] = objective(Context(own.take(tap), own, features), found, generator)
        weights = {name: float(objective.weight) for name, objective in self.named.items()}
        sums = {f"{name}/{stat}": value for name, term in terms.items() for stat, value in term.stats.items()}
        for name, share in self.seen_weights.items():
            seen, tap = frames.sets["seen"], taps[self.named[name].tap or self.last_tap]
            found = targets_of("seen", seen)
            term = self.named[name](Context(seen.take(tap), seen, features), found, generator)
            terms[f"{name}_seen"], weights[f"{name}_seen"] = term, weights[name] * share
            sums[f"{name}_seen/frames"] = term.count  # people read a mean over the frames themselves
        return Output({name: term.total for name, term in terms.items()}, weights, sums)
