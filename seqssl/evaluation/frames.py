"""Frames judged one by one: at every layer, trained beside random weights and the input itself.

Half of the work of an encoder is invisible in the mean over a row. Here each frame has a label: that of the
segment at its middle, or of its row where rows have no segments.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch

from seqssl.config.text import matches
from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter, Sample
from seqssl.data.batching import collate
from seqssl.data.files import Progress, silent
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.evaluation.frame_inputs import cepstra, frame_inputs, with_context
from seqssl.evaluation.frozen import FEATURES, Array, Encoder
from seqssl.evaluation.probe import NO_WEIGHTS, RANDOM, TRAINED, some_of
from seqssl.finetuning.facts import refuse_several
from seqssl.model import measures
from seqssl.model.alignment import NONE, labels_of_frames, runs

NUM_FOLDS = 3
MAX_TRAINED = 24_000  # frames that a probe is fitted to
MAX_RANKED = 8_000  # frames whose rank is taken
MAX_REFERENCES = 12_000  # frames that neighbors are looked for among
ROWS_AT_ONCE = 32
NUM_DRAWS = 1000
MIX = "mix of layers"


@dataclass(frozen=True)
class FrameScore:
    """What one representation is worth, frame by frame."""

    weights: str  # trained | random | none
    stage: str
    accuracy: float  # of a linear probe
    low: float  # its 95 % interval, by bootstrap over groups, or over rows where there is one group
    high: float
    nearest: float | None = None  # accuracy of the nearest frames
    rank: float | None = None  # effective rank of the frames
    abx_within: float | None = None  # ABX error within groups
    abx_across: float | None = None
    layers: list[float] = field(default_factory=list)  # the share of each layer in the learnt mix


@dataclass(frozen=True)
class FrameScores:
    """All scores, with what they were measured on."""

    scores: list[FrameScore]
    num_frames: int
    num_rows: int
    num_classes: int
    majority: float
    unit: str  # what was held out together: groups or rows
    num_units: int  # of these, over which intervals are
    pnmi: dict[str, float]  # of the codes of the trained and of the random model
    purity: dict[str, float]


@dataclass
class Labelled:
    """Frames with labels, row by row."""

    keys: list[str]
    groups: list[str]
    wanted: list[Array]  # the label of each frame of a row, NONE where it has none
    names: list[str]

    @property
    def units(self) -> list[str]:
        """What is held out together: groups; a row without one, or where there are no two, is by itself."""
        several = len(set(self.groups)) > 1
        pairs = zip(self.groups, self.keys, strict=True)
        return [group if group and several else key for group, key in pairs]

    def folds(self) -> tuple[Array, str]:
        """The fold of each row: groups stay together, where there are several."""
        units = self.units
        order = [unit for unit, _ in sorted(Counter(units).items(), key=lambda entry: (-entry[1], entry[0]))]
        place = {unit: number % min(NUM_FOLDS, len(order)) for number, unit in enumerate(order)}
        return np.array([place[unit] for unit in units]), "rows" if units == self.keys else "groups"


def probe_frames(
    encoder: Encoder,
    random: Encoder,
    corpus: Corpus,
    adapter: ModalityAdapter,
    *,
    labels: str = "*",
    max_rows: int | None = None,
    accuracy_only: bool = False,
    progress: Progress = silent,
) -> FrameScores:
    """Score the frames of every layer; UserError where no frame has a label that matches the patterns.

    `accuracy_only`: the linear probe of each layer, and nothing else: no neighbors, no ABX, no mix of layers.
    """
    for each in (encoder, random):
        each.model.encoder.tap_every_layer()
    rows = some_of(np.arange(len(corpus)), max_rows)
    samples = [adapter.load(corpus.row(int(number)), None) for number in rows]
    labelled = label_frames(encoder, corpus, rows, samples, labels)
    kept = [n for n, wanted in enumerate(labelled.wanted) if (wanted != NONE).any()]
    samples = [samples[n] for n in kept]
    labelled = Labelled(
        [labelled.keys[n] for n in kept],
        [labelled.groups[n] for n in kept],
        [labelled.wanted[n] for n in kept],
        labelled.names,
    )
    if len(kept) < 2:
        raise UserError(
            f"{corpus.folder}: frames of {len(kept)} rows have a label, and two are needed: one is held out."
        )
    judge = _Judge(labelled, progress)
    scores = [judge.score(NO_WEIGHTS, name, [x]) for name, x in inputs(encoder, samples).items()]
    pnmi, purity = {}, {}
    for weights, source in ((TRAINED, encoder), (RANDOM, random)):
        progress(0, len(samples), f"frames, {weights} weights")
        stages = encoded(source, samples)
        for name, x in stages.items():
            scores.append(judge.score(weights, name, [x], deep=not accuracy_only))
        if accuracy_only:
            continue
        layers = [x for name, x in stages.items() if name != FEATURES]
        if len(layers) > 1:
            scores.append(judge.score(weights, MIX, layers))
        if source.model.targets.codebook_sizes:
            table = codes_against_labels(source, samples, labelled)
            pnmi[weights], purity[weights] = measures.pnmi(table), measures.purity(table)
    return judge.result(scores, pnmi, purity)


def label_frames(
    encoder: Encoder, corpus: Corpus, rows: Array, samples: Sequence[Sample], patterns: str
) -> Labelled:
    """The label of every frame; UserError where there is none, or where they are of several tasks."""
    segmented = any(sample.segments for sample in samples)
    if segmented:
        found = [str(segment.label) for sample in samples for segment in sample.segments or ()]
    else:
        found = [str(corpus.labels[number]) for number in rows]
    counts = {label: count for label, count in Counter(found).items() if matches(label, patterns)}
    what = "labels of segments" if segmented else "labels"
    if len(counts) < 2:
        raise UserError(f"labels = {patterns}: frames want two kinds of {what}; there is {sorted(counts)}.")
    if patterns == "*":
        refuse_several(counts, what, key="labels")
    names = sorted(counts)
    number = {name: n for n, name in enumerate(names)}
    lengths = torch.tensor([len(sample.values) for sample in samples])
    sizes = encoder.model.feature_encoder.output_lengths(lengths).tolist()
    wanted = [
        labels_of_frames(sample.segments or (), size, encoder.model.stride, number)
        if segmented
        else np.full(size, number.get(str(corpus.labels[row]), NONE))
        for row, sample, size in zip(rows, samples, sizes, strict=True)
    ]
    return Labelled(
        [str(corpus.keys[row]) for row in rows], [str(corpus.groups[row]) for row in rows], wanted, names
    )


def encoded(encoder: Encoder, samples: Sequence[Sample]) -> dict[str, list[Array]]:
    """The frames of every stage, an array (s, d) for each row."""
    found: dict[str, list[Array]] = {}
    for start in range(0, len(samples), ROWS_AT_ONCE):
        for name, frames in encoder.frames(samples[start : start + ROWS_AT_ONCE]).items():
            found.setdefault(name, []).extend(frames)
    return found


def inputs(encoder: Encoder, samples: Sequence[Sample]) -> dict[str, list[Array]]:
    """What the input holds at each frame: with its surroundings, and as cepstra where there is a spectrum."""
    found: dict[str, list[Array]] = {}
    has_picture = getattr(encoder.model.feature_encoder, "picture", None) is not None
    device, model = encoder.device, encoder.model.cpu()  # pictures are looked at there
    for sample in samples:
        batch = collate([sample], [""])
        size = int(model.feature_encoder.output_lengths(batch.lengths))
        x = frame_inputs(model, batch, size, encoder.spec.vocab_size)
        found.setdefault("input with context", []).append(with_context(x)[0].numpy())
        if has_picture:
            picture = model.feature_encoder.picture(batch.inputs, batch.lengths)  # type: ignore[attr-defined]
            bins = picture.shape[-1]
            spectrum = x[0].reshape(-1, bins).numpy()
            columns = cepstra(spectrum[None])[0].reshape(size, -1)
            found.setdefault("cepstra", []).append(columns)
    model.to(device)
    return found


def codes_against_labels(encoder: Encoder, samples: Sequence[Sample], labelled: Labelled) -> Array:
    """How often each code of the first codebook stands at a frame of each label (labels, codes)."""
    table = np.zeros((len(labelled.names), encoder.model.targets.codebook_sizes[0]))
    for sample, wanted in zip(samples, labelled.wanted, strict=True):
        with torch.inference_mode():
            codes = encoder.model.codes(collate([sample], [""]).to(encoder.device))[0, :, 0].cpu().numpy()
        known = (codes[: len(wanted)] >= 0) & (wanted != NONE)
        np.add.at(table, (wanted[known], codes[: len(wanted)][known]), 1)
    return table


@dataclass
class _Judge:
    """Scores representations of the same frames with the same folds and draws."""

    labelled: Labelled
    progress: Progress

    def __post_init__(self) -> None:
        own = self.labelled
        self.fold, self.unit = own.folds()
        self.owner = np.concatenate([np.full(len(w), n) for n, w in enumerate(own.wanted)])
        self.wanted = np.concatenate(own.wanted)
        self.known = self.wanted != NONE
        names, places = np.unique(np.array(own.units, dtype=np.str_), return_inverse=True)
        self.units, self.unit_of = names.tolist(), places[self.owner]
        rng = np.random.default_rng(0)
        self.draws = rng.multinomial(
            len(self.units), np.full(len(self.units), 1 / len(self.units)), size=NUM_DRAWS
        )
        self.order = rng.permutation(len(self.wanted))  # which frames are taken where there are too many

    def score(
        self, weights: str, stage: str, layers: Sequence[Sequence[Array]], *, deep: bool = False
    ) -> FrameScore:
        """One representation: several layers are mixed; `deep` measures what needs no fit as well."""
        self.progress(0, 0, f"{stage}, {weights} weights")
        tables = [torch.from_numpy(np.concatenate(list(layer)).astype(np.float32)) for layer in layers]
        right, near = np.zeros(len(self.wanted)), np.zeros(len(self.wanted))
        shares: list[Array] = []
        for number in sorted(set(self.fold.tolist())):
            test = self.known & (self.fold[self.owner] == number)
            train = self.known & (self.fold[self.owner] != number)
            some = self._some(train, MAX_TRAINED)
            y, y_test = torch.from_numpy(self.wanted[some]), torch.from_numpy(self.wanted[test])
            said, mix = measures.linear_probe(
                [x[some] for x in tables], y, [x[test] for x in tables], len(self.labelled.names)
            )
            right[test] = (said == y_test).numpy()
            shares.append(mix.numpy())
            if deep:
                few = self._some(train, MAX_REFERENCES)
                near[test] = measures.nearest_accuracy(
                    tables[0][few], torch.from_numpy(self.wanted[few]), tables[0][test], y_test
                ).numpy()
        low, high = self._interval(right)
        score = partial(FrameScore, weights, stage, float(right[self.known].mean()), low, high)
        if len(layers) > 1:
            return score(layers=np.mean(shares, axis=0).round(4).tolist())
        if not deep:
            return score()
        abx = partial(measures.abx, *self._items(layers[0]))
        return score(
            nearest=float(near[self.known].mean()),
            rank=measures.effective_rank(tables[0][self._some(self.known, MAX_RANKED)]),
            abx_within=_number(abx(across=False)),
            abx_across=_number(abx(across=True)),
        )

    def _some(self, chosen: Array, most: int) -> Array:
        """The places of the frames chosen, a fixed part of them where there are more than `most`."""
        picked = self.order[chosen[self.order]][:most]
        return np.sort(picked)

    def _interval(self, right: Array) -> tuple[float, float]:
        hits = np.bincount(self.unit_of[self.known], right[self.known], len(self.units))
        total = np.bincount(self.unit_of[self.known], minlength=len(self.units))
        values = (self.draws @ hits) / np.maximum(self.draws @ total, 1)
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    def _items(self, rows: Sequence[Array]) -> tuple[list[Array], list[int], list[str]]:
        """Stretches of frames with one label, with the label and the group of each."""
        items, labels, groups = [], [], []
        for x, wanted, group in zip(rows, self.labelled.wanted, self.labelled.groups, strict=True):
            for start, end in runs(wanted):
                if wanted[start] != NONE:
                    items.append(x[start:end])
                    labels.append(int(wanted[start]))
                    groups.append(group)
        return items, labels, groups

    def result(
        self, scores: list[FrameScore], pnmi: Mapping[str, float], purity: Mapping[str, float]
    ) -> FrameScores:
        """All of it."""
        counts = np.bincount(self.wanted[self.known])
        return FrameScores(
            scores, int(self.known.sum()), len(self.labelled.keys), len(self.labelled.names),
            float(counts.max() / counts.sum()), self.unit, len(self.units), dict(pnmi), dict(purity),
        )  # fmt: skip


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def to_json(found: FrameScores) -> dict[str, Value]:
    """The scores as plain values."""
    return asdict(found)
