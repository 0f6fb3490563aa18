"""Weights under two names: how the parameters of one library become those of another, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seqssl.errors import UserError

Weights = Mapping[str, Tensor]
MAX_NAMED = 6  # weights that a sentence lists


@dataclass(frozen=True)
class Pair:
    """One parameter of ours, and those of theirs that hold the same numbers, laid end to end along axis 0.

    `squeeze` is the axis of theirs that has one entry and that ours lacks: of a convolution of kernel 1 for a
    linear map, say. `interleaved`: their columns take turns between the first and the second half of ours.
    """

    ours: str
    theirs: tuple[str, ...]
    squeeze: int | None = None
    interleaved: bool = False

    def export(self, weights: Weights) -> dict[str, Tensor]:
        """Theirs, from ours."""
        x = weights[self.ours]
        parts = x.chunk(len(self.theirs)) if len(self.theirs) > 1 else (x,)
        if self.squeeze is not None:
            parts = tuple(part.unsqueeze(self.squeeze) for part in parts)
        if self.interleaved:
            parts = tuple(part.unflatten(1, (2, -1)).transpose(1, 2).flatten(1) for part in parts)
        return {name: part.contiguous() for name, part in zip(self.theirs, parts, strict=True)}

    def take(self, weights: Weights) -> dict[str, Tensor]:
        """Ours, from theirs."""
        parts = [weights[name] for name in self.theirs]
        if self.squeeze is not None:
            parts = [part.squeeze(self.squeeze) for part in parts]
        if self.interleaved:
            parts = [part.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1) for part in parts]
        return {self.ours: torch.cat(parts) if len(parts) > 1 else parts[0]}


def exported(pairs: Sequence[Pair], ours: Weights, *, ignore: Callable[[str], bool]) -> dict[str, Tensor]:
    """Their weights, from ours; UserError for one without a place that `ignore` does not name."""
    _check({pair.ours for pair in pairs}, ours, ignore, "this run")
    return {name: x for pair in pairs for name, x in pair.export(ours).items()}


def taken(pairs: Sequence[Pair], theirs: Weights, *, ignore: Callable[[str], bool]) -> dict[str, Tensor]:
    """Our weights, from theirs; UserError for one without a place here that `ignore` does not name."""
    names = {name for pair in pairs for name in pair.theirs}
    _check(names, theirs, ignore, "the other model")
    return {name: x for pair in pairs for name, x in pair.take(theirs).items()}


def _check(wanted: set[str], there: Weights, ignore: Callable[[str], bool], where: str) -> None:
    missing = sorted(wanted - there.keys())
    unknown = sorted(name for name in there.keys() - wanted if not ignore(name))
    if missing or unknown:
        found = [
            f"{what} {', '.join(names[:MAX_NAMED])}{', ...' if len(names) > MAX_NAMED else ''}"
            for what, names in (("lacks", missing), ("has besides", unknown))
            if names
        ]
        raise UserError(f"the weights of {where} do not fit: it {' and '.join(found)}.")
