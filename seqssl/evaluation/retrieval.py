"""Without labels: is one half of a row found by the other?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqssl.data.adapters import ModalityAdapter, Sample
from seqssl.data.joining import crop
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.evaluation.frozen import Encoder
from seqssl.evaluation.probe import some_of
from seqssl.finetuning.scoring import Resampling
from seqssl.model.measures import effective_rank

Array = npt.NDArray[Any]
MOST_ROWS, FEWEST_ROWS = 200, 8
POOL = "statistics"


@dataclass(frozen=True)
class Halves:
    """What an encoder knows of rows, without a label."""

    found: float  # how often the nearest second half is that of the same row
    rank: float  # effective rank of frames


@dataclass(frozen=True)
class Comparison:
    """An encoder beside random weights, on the same rows."""

    trained: Halves
    random: Halves
    rows: int
    held_out: bool  # whether training did without them
    low: float  # how much more often the trained encoder finds a row: a 95 % interval
    high: float  # by bootstrap over groups, or over rows where there is one group
    num_units: int  # of these
    units: str  # groups or rows


def compare_halves(encoder: Encoder, random: Encoder, corpus: Corpus, adapter: ModalityAdapter) -> Comparison:
    """The measures of an encoder and of random weights.

    Rows are those held out; all, where these are few. UserError where all rows together are few.
    """
    rows = corpus.rows("valid") if "valid" in corpus.manifest.splits else np.empty(0, np.int64)
    held_out = len(rows) >= FEWEST_ROWS
    rows = rows if held_out else np.arange(len(corpus))
    rows = some_of(rows, MOST_ROWS)
    samples = [adapter.load(corpus.row(int(number)), None) for number in rows]
    long_enough = [n for n, sample in enumerate(samples) if len(sample.values) >= 2]
    rows, samples = rows[long_enough], [samples[n] for n in long_enough]
    if len(samples) < FEWEST_ROWS:
        raise UserError(f"{len(samples)} rows are too few to tell apart; {FEWEST_ROWS} are needed.")
    stride = adapter.spec.code_stride or 1
    cuts = [max(1, len(sample.values) // 2 // stride * stride) for sample in samples]
    pairs = list(zip(samples, cuts, strict=True))
    firsts = [crop(sample, 0, cut, stride) for sample, cut in pairs]
    seconds = [crop(sample, cut, len(sample.values) - cut, stride) for sample, cut in pairs]
    usable = [n for n, pair in enumerate(zip(firsts, seconds, strict=True)) if all(map(_has_values, pair))]
    firsts, seconds = [firsts[n] for n in usable], [seconds[n] for n in usable]
    (ours, hits), (theirs, others) = (_measured(each, firsts, seconds) for each in (encoder, random))
    groups = [str(group) for group in corpus.groups[rows[usable]]]
    several = len({*groups}) > 1
    own = zip(groups, usable, strict=True)
    names = [group if group and several else f"\n{number}" for group, number in own]
    low, high = Resampling.of(names).interval_of_mean(hits.astype(float) - others, names)
    found = (len({*names}), "groups" if several else "rows")
    return Comparison(ours, theirs, len(usable), held_out, low, high, *found)


def _has_values(sample: Sample) -> bool:
    return sample.observed is None or bool(sample.observed.any())


def _measured(encoder: Encoder, firsts: list[Sample], seconds: list[Sample]) -> tuple[Halves, Array]:
    one, two = (np.asarray(encoder.embed(samples, POOL)) for samples in (firsts, seconds))
    frames = np.concatenate([np.asarray(each) for each in encoder.embed(firsts, "none")])
    hits = found_again(one, two)
    return Halves(float(hits.mean()), effective_rank(torch.from_numpy(frames))), hits


def found_again(one: Array, two: Array) -> Array:
    """Whether row n of `two` is nearest to row n of `one`, by cosine after scaling each dimension.

    Scaling is over all rows: without it, what they have in common would decide.
    """
    both = np.concatenate([one, two]).astype(np.float64)
    mean, deviation = both.mean(axis=0), both.std(axis=0) + 1e-9
    one, two = ((x - mean) / deviation for x in (one, two))
    one, two = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-12) for x in (one, two))
    return np.asarray((one @ two.T).argmax(axis=1) == np.arange(len(one)))
