"""Probes of the encoder while it is trained: a checkpoint can be chosen by what it is for.

Held-out frames are told apart by their labels (of segments, else of rows), or looked at without any. Each
half of the held-out groups is tested by what the other half teaches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seqssl.config.text import matches
from seqssl.data.joining import shared_label
from seqssl.model import measures
from seqssl.model.alignment import NONE, labels_of_frames, runs
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch

Probe = Literal["accuracy", "nearest", "rank", "pnmi", "purity", "abx_within", "abx_across"]
WITH_LABELS = ("accuracy", "nearest", "pnmi", "purity", "abx_within", "abx_across")
OF_CODES = ("pnmi", "purity")
MAX_FRAMES = 12_000  # of each half, spread evenly: held-out rows come sorted by length


@dataclass
class _Seen:
    """The frames of all held-out rows."""

    taps: dict[str, list[Tensor]] = field(default_factory=dict)  # (s, d) for each row
    codes: list[np.ndarray] = field(default_factory=list)
    wanted: list[np.ndarray] = field(default_factory=list)
    units: list[str] = field(default_factory=list)  # the group of each row, else its key


@torch.no_grad()
def probe(
    model: PretrainingModel, batches: Iterable[Batch], probes: Sequence[Probe], labels: str
) -> dict[str, float]:
    """The probes asked for at every tap, as `probe/<name>_<tap>`; those of codes as `probe/<name>_codes`.

    What cannot be measured (no labels, one group for `abx_across`) is left out.
    """
    batches = list(batches)
    names = sorted({name for batch in batches for name in _labels_of(batch) if matches(name, labels)})
    number = {name: n for n, name in enumerate(names)}
    seen = _Seen()
    model.eval()
    for batch in batches:
        _look(model, batch, number, seen)
    model.train()
    # The loop evaluates under autocast, in which a fit on the CPU would be one in bfloat16.
    with torch.autocast("cpu", enabled=False):
        return _measured(seen, number, probes)


def names_of(model: PretrainingModel, probes: Sequence[Probe]) -> list[str]:
    """What `probe` calls the probes asked for of a model, if all of them can be measured."""
    taps = [*model.encoder.taps]
    codes = ["codes"] if model.targets.codebook_sizes else []
    return [f"probe/{name}_{place}" for name in probes for place in (codes if name in OF_CODES else taps)]


def _measured(seen: _Seen, number: dict[str, int], probes: Sequence[Probe]) -> dict[str, float]:
    """The probes of frames that were seen."""
    found: dict[str, float] = {}
    wanted = np.concatenate(seen.wanted) if seen.wanted else np.empty(0, int)
    has_labels = len(number) > 1 and bool((wanted != NONE).any())
    if "rank" in probes:
        for tap, rows in seen.taps.items():
            x = torch.cat(rows)
            found[f"probe/rank_{tap}"] = measures.effective_rank(x[_spread(np.arange(len(x)))])
    if not has_labels:
        return found
    if {*OF_CODES} & {*probes} and seen.codes:
        table = _table(np.concatenate(seen.codes), wanted, len(number))
        values = {"pnmi": measures.pnmi(table), "purity": measures.purity(table)}
        found |= {f"probe/{name}_codes": value for name, value in values.items() if name in probes}
    halves = _halves(seen.units, [len(row) for row in seen.wanted])
    for tap, rows in seen.taps.items():
        x = torch.cat(rows)
        for name in ("accuracy", "nearest"):
            if name in probes:
                found[f"probe/{name}_{tap}"] = _accuracy(name, x, wanted, halves, len(number))
        for name in ("abx_within", "abx_across"):
            if name in probes:
                found[f"probe/{name}_{tap}"] = _abx(rows, seen, across=name == "abx_across")
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _labels_of(batch: Batch) -> list[str]:
    if batch.segments is not None:
        return [str(segment.label) for row in batch.segments for segment in row]
    found = (shared_label(label) for label in batch.labels or ())
    return [label for label in found if isinstance(label, str) and label]


def _look(model: PretrainingModel, batch: Batch, number: dict[str, int], seen: _Seen) -> None:
    """Add the frames of a batch."""
    device = next(model.parameters()).device
    moved = batch.to(device)
    features = model.encode_features(moved)
    taps = model.contexts(moved, features, model.clear(moved, features))
    codes = model.targets.everywhere(moved, features) if model.targets.codebook_sizes else None
    groups = [-1] * len(batch.lengths) if batch.groups is None else batch.groups.tolist()
    for row, length in enumerate(features.lengths.tolist()):
        for name, x in taps.items():
            seen.taps.setdefault(name, []).append(x[row, :length].float().cpu())
        if codes is not None:
            seen.codes.append(codes[row, :length, 0].cpu().numpy())
        if batch.segments is not None:
            wanted = labels_of_frames(batch.segments[row], length, model.stride, number)
        else:
            label = shared_label(batch.labels[row]) if batch.labels is not None else ""
            wanted = np.full(length, number.get(str(label), NONE))
        seen.wanted.append(wanted)
        seen.units.append(batch.keys[row] if groups[row] < 0 else str(groups[row]))


def _table(codes: np.ndarray, wanted: np.ndarray, size: int) -> np.ndarray:
    known = (codes >= 0) & (wanted != NONE)
    table = np.zeros((size, int(codes.max(initial=0)) + 1))
    np.add.at(table, (wanted[known], codes[known]), 1)
    return table


def _halves(units: Sequence[str], sizes: Sequence[int]) -> np.ndarray:
    """For each frame, whether it is of the second half of the units; of rows, where there is one unit."""
    names = [*units] if len(set(units)) > 1 else [str(n) for n in range(len(units))]
    order = {name: n for n, name in enumerate(sorted(set(names)))}
    return np.repeat([order[name] % 2 == 1 for name in names], sizes)


def _spread(places: np.ndarray) -> np.ndarray:
    """At most MAX_FRAMES of the places, from the first to the last."""
    chosen = np.linspace(0, len(places) - 1, min(len(places), MAX_FRAMES)).astype(int)
    spread: np.ndarray = places[chosen]
    return spread


def _accuracy(name: str, x: Tensor, wanted: np.ndarray, halves: np.ndarray, size: int) -> float:
    """The share of frames that the other half tells right."""
    right = total = 0.0
    for half in (False, True):
        train = _spread(np.flatnonzero((halves == half) & (wanted != NONE)))
        test = _spread(np.flatnonzero((halves != half) & (wanted != NONE)))
        if not len(train) or not len(test):
            continue
        y, y_test = torch.from_numpy(wanted[train]), torch.from_numpy(wanted[test])
        if name == "accuracy":
            said, _ = measures.linear_probe([x[train]], y, [x[test]], size)
            right += float((said == y_test).sum())
        else:
            right += float(measures.nearest_accuracy(x[train], y, x[test], y_test).sum())
        total += len(test)
    return right / total if total else float("nan")


def _abx(rows: Sequence[Tensor], seen: _Seen, *, across: bool) -> float:
    items, labels, groups = [], [], []
    for x, wanted, unit in zip(rows, seen.wanted, seen.units, strict=True):
        for start, end in runs(wanted):
            if wanted[start] != NONE:
                items.append(x[start:end].numpy())
                labels.append(int(wanted[start]))
                groups.append(unit)
    return measures.abx(items, labels, groups, across=across)
