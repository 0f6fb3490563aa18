"""Linear probes of frozen embeddings: fixed protocols, with baselines beside."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial

import numpy as np
import numpy.typing as npt

from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter
from seqssl.data.files import Progress, silent
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.evaluation.embedding import Rows, pooled_input, pooled_stages
from seqssl.evaluation.frozen import Array, Encoder
from seqssl.finetuning.facts import name_in_group

Names = npt.NDArray[np.str_]
NUM_DRAWS = 1000
NUM_FOLDS = 5  # of held-out takes
TRAINED, RANDOM, NO_WEIGHTS = "trained", "random", "none"


@dataclass(frozen=True)
class Fold:
    """What one probe is trained on and tested on: places in the probed rows, which never overlap."""

    name: str  # what is held out
    train: Rows
    test: Rows


@dataclass(frozen=True)
class Score:
    """The accuracy of one representation under one protocol."""

    labels: str  # the pattern that chose the labels
    protocol: str
    weights: str  # trained | random | none
    stage: str  # a tap, "features", "input", or "majority"
    folds: dict[str, float]
    rows: dict[str, int]  # tested in each fold
    num_classes: int
    low: float = (
        0.0  # 95 % interval of the accuracy, by bootstrap over groups, or rows where there is one group
    )
    high: float = 1.0

    @property
    def accuracy(self) -> float:
        """The accuracy over all tested rows: a fold of three rows must not weigh as one of three hundred."""
        return sum(self.folds[name] * number for name, number in self.rows.items()) / self.num_rows

    @property
    def num_rows(self) -> int:
        """Tested rows of all folds."""
        return sum(self.rows.values())


@dataclass(frozen=True)
class Table:
    """Embedded rows, with what the protocols must know of them."""

    stages: dict[tuple[str, str], Array]  # (weights, stage) -> (n, d)
    labels: Names
    groups: Names
    unheard: npt.NDArray[np.bool_]  # rows of a corpus that the encoder was not trained on
    held_out: npt.NDArray[np.bool_]  # rows of the encoder's own corpus outside its training split


def probe_run(
    encoder: Encoder,
    random: Encoder,
    corpus: Corpus,
    adapter: ModalityAdapter,
    *,
    labels: Sequence[str] = ("*",),
    unheard: Corpus | None = None,
    max_rows: int | None = None,
    pool: str = "mean",
    progress: Progress = silent,
) -> list[Score]:
    """Probe every stage of an encoder beside the same encoder with random weights and no encoder at all.

    `labels` are shell patterns; each is a task of its own. `unheard` is a second corpus, of groups that the
    encoder was not trained on; rows without a label take the name of their file below its group's folder.
    `pool`: what the frames of a row become, see `Encoder.embed`. Raises UserError when no protocol applies.
    """
    embed = partial(
        embed_table, encoder, random, adapter=adapter, patterns=labels, pool=pool, progress=progress
    )
    tables = [embed(corpus, unheard=False, max_rows=max_rows)]
    if unheard is not None:
        tables.append(embed(unheard, unheard=True, max_rows=max_rows))
    table = concatenate(tables)
    scores = []
    for pattern in labels:
        chosen = select(table, matching(table.labels, pattern))
        for protocol, folds_of in PROTOCOLS.items():
            scores += score_all(chosen, pattern, protocol, list(folds_of(chosen)))
    if not scores:
        raise UserError(
            f"nothing to probe in {corpus.folder}: of the labels that match {', '.join(labels)}, no two occur"
            " in two groups each, or twice within a group"
        )
    return scores


def embed_table(
    encoder: Encoder,
    random: Encoder,
    corpus: Corpus,
    adapter: ModalityAdapter,
    patterns: Sequence[str],
    *,
    unheard: bool,
    max_rows: int | None,
    pool: str,
    progress: Progress,
) -> Table:
    """Embed the rows with a label that matches a pattern; of more than `max_rows`, a fixed random part."""
    names = labels_of(corpus)
    matched = np.flatnonzero(np.any([matching(names, pattern) for pattern in patterns], axis=0))
    rows = some_of(matched, max_rows)
    if len(rows) == 0:
        examples = ", ".join(sorted(set(names.tolist()) - {""})[:5]) or "no label at all"
        raise UserError(f"no label in {corpus.folder} matches {', '.join(patterns)}; it has {examples}")
    stages: dict[tuple[str, str], Array] = {}
    for weights, source in ((TRAINED, encoder), (RANDOM, random)):

        def show(done: int, total: int, what: str, weights: str = weights) -> None:
            progress(done, total, f"{what}, {weights} weights")

        pooled = pooled_stages(source, corpus, adapter, rows, show, pool=pool)
        stages |= {(weights, stage): x for stage, x in pooled.items()}
    baselines = pooled_input(encoder, corpus, adapter, rows)
    stages |= {(NO_WEIGHTS, name): x for name, x in baselines.items()}
    held_out = corpus.splits[rows] != "train"
    return Table(stages, names[rows], corpus.groups[rows], np.full(len(rows), unheard), held_out)


def some_of(rows: Rows, max_rows: int | None) -> Rows:
    """The rows, or a fixed random part of them."""
    if max_rows is None or len(rows) <= max_rows:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, max_rows, replace=False))


def labels_of(corpus: Corpus) -> Names:
    """The label of each row; where the data has none, the path below the folder of its group."""
    rows = zip(corpus.labels, corpus.keys, corpus.groups, strict=True)
    return np.array([label or name_in_group(key, group) for label, key, group in rows], dtype=np.str_)


def matching(labels: Names, pattern: str) -> npt.NDArray[np.bool_]:
    """Which labels a shell pattern matches; rows without a label never do."""
    known = {label: bool(label) and fnmatchcase(label, pattern) for label in set(labels.tolist())}
    return np.array([known[label] for label in labels.tolist()], dtype=bool)


def concatenate(tables: Sequence[Table]) -> Table:
    """The rows of all tables in one."""
    stages = {name: np.concatenate([table.stages[name] for table in tables]) for name in tables[0].stages}
    return Table(
        stages,
        labels=np.concatenate([table.labels for table in tables]),
        groups=np.concatenate([table.groups for table in tables]),
        unheard=np.concatenate([table.unheard for table in tables]),
        held_out=np.concatenate([table.held_out for table in tables]),
    )


def select(table: Table, chosen: npt.NDArray[np.bool_]) -> Table:
    """Some rows of a table."""
    stages = {name: x[chosen] for name, x in table.stages.items()}
    return Table(
        stages,
        table.labels[chosen],
        table.groups[chosen],
        table.unheard[chosen],
        table.held_out[chosen],
    )


def held_out_split(table: Table) -> Iterator[Fold]:
    """Train on the rows that the encoder was trained on, test on those held out from it."""
    own = ~table.unheard
    yield from _fold(table, "valid", own & ~table.held_out, own & table.held_out)


def leave_one_group_out(table: Table) -> Iterator[Fold]:
    """Train on all groups of the encoder's own corpus but one, test on that one."""
    for group in np.unique(table.groups[~table.unheard]):
        out = table.groups == group
        yield from _fold(table, str(group), ~table.unheard & ~out, ~table.unheard & out)


def held_out_takes(table: Table) -> Iterator[Fold]:
    """Within each group, labels with several rows: train on some rows, test on the others."""
    from sklearn.model_selection import StratifiedKFold

    for group in np.unique(table.groups):
        rows = np.flatnonzero(table.groups == group)
        names, counts = np.unique(table.labels[rows], return_counts=True)
        rows = rows[np.isin(table.labels[rows], names[counts > 1])]
        if len(names[counts > 1]) < 2:
            continue
        num_folds = min(NUM_FOLDS, int(counts[counts > 1].min()))
        splitter = StratifiedKFold(num_folds, shuffle=True, random_state=0)
        for number, (train, test) in enumerate(splitter.split(rows, table.labels[rows])):
            yield Fold(f"{group}/{number}", rows[train], rows[test])


def unheard_group(table: Table) -> Iterator[Fold]:
    """Train on all groups of both corpora but one that the encoder was not trained on, test on that one."""
    for group in np.unique(table.groups[table.unheard]):
        out = table.groups == group
        yield from _fold(table, str(group), ~out, out)


def unheard_relative(table: Table) -> Iterator[Fold]:
    """As `unheard_group`, within a family: groups fr_a and fr_b are trained on, and fr_c is tested.

    A group's family is its name up to the first `_`.
    """
    families = np.array([group.partition("_")[0] for group in table.groups.tolist()], dtype=np.str_)
    for group in np.unique(table.groups[table.unheard]):
        out = table.groups == group
        yield from _fold(table, str(group), ~out & (families == families[out][0]), out)


HELD_OUT = "held-out split"
PROTOCOLS: Mapping[str, Callable[[Table], Iterator[Fold]]] = {
    HELD_OUT: held_out_split,
    "leave one group out": leave_one_group_out,
    "held-out takes": held_out_takes,
    "unheard group": unheard_group,
    "unheard, same family": unheard_relative,
}


def _fold(
    table: Table, name: str, train: npt.NDArray[np.bool_], test: npt.NDArray[np.bool_]
) -> Iterator[Fold]:
    """One fold of the labels that both sides have; none where these are fewer than two."""
    common = np.intersect1d(table.labels[train], table.labels[test])
    if len(common) >= 2:
        shared = np.isin(table.labels, common)
        yield Fold(name, np.flatnonzero(train & shared), np.flatnonzero(test & shared))


def score_all(table: Table, pattern: str, protocol: str, folds: Sequence[Fold]) -> list[Score]:
    """The score of every representation under one protocol, and of always saying the most frequent label."""
    if not folds:
        return []
    tested = np.concatenate([fold.test for fold in folds])
    rows, num_classes = {fold.name: len(fold.test) for fold in folds}, len(np.unique(table.labels[tested]))
    units = units_of(table, folds)

    def score(weights: str, stage: str, right: Sequence[npt.NDArray[np.bool_]]) -> Score:
        shares = {fold.name: float(each.mean()) for fold, each in zip(folds, right, strict=True)}
        low, high = bootstrap(np.concatenate(right), units)
        return Score(pattern, protocol, weights, stage, shares, rows, num_classes, low, high)

    guesses = [majority(table.labels[fold.train], table.labels[fold.test]) for fold in folds]
    scores = [score(NO_WEIGHTS, "majority", guesses)]
    for (weights, stage), x in table.stages.items():
        if protocol == HELD_OUT:  # a group may have one label only, which its mean would give away
            standard = [scale_by(x, fold.train) for fold in folds]
        else:
            standard = [standardize(x, table.groups)] * len(folds)
        right = [told_right(scaled, table.labels, fold) for fold, scaled in zip(folds, standard, strict=True)]
        scores.append(score(weights, stage, right))
    return scores


def units_of(table: Table, folds: Sequence[Fold]) -> Names:
    """What the interval is over, for each tested row: its group, or itself where there is one group."""
    tested = np.concatenate([fold.test for fold in folds])
    groups = table.groups[tested]
    return groups if len(np.unique(groups)) > 1 else np.arange(len(tested)).astype(np.str_)


def bootstrap(right: npt.NDArray[np.bool_], units: Names) -> tuple[float, float]:
    """The 95 % interval of the share of rows told right, over draws of units with replacement."""
    _, places = np.unique(units, return_inverse=True)
    hits, sizes = np.bincount(places, right), np.bincount(places)
    draws = np.random.default_rng(0).multinomial(
        len(sizes), np.full(len(sizes), 1 / len(sizes)), size=NUM_DRAWS
    )
    low, high = np.quantile((draws @ hits) / (draws @ sizes), [0.025, 0.975])
    return float(low), float(high)


def standardize(x: Array, groups: Names) -> Array:
    """Zero mean and unit variance per dimension and group.

    It needs no label, and removes what is constant in a voice, a subject or a station.
    """
    result = np.empty_like(x)
    for group in np.unique(groups):
        rows = groups == group
        result[rows] = (x[rows] - x[rows].mean(axis=0)) / (x[rows].std(axis=0) + 1e-6)
    return result


def scale_by(x: Array, rows: Rows) -> Array:
    """Zero mean and unit variance per dimension over some rows."""
    return np.asarray((x - x[rows].mean(axis=0)) / (x[rows].std(axis=0) + 1e-6))


def told_right(x: Array, labels: Names, fold: Fold) -> npt.NDArray[np.bool_]:
    """Which test rows a multinomial logistic regression with scikit-learn's default penalty tells right."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

    probe = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings(), threadpool_limits(1):  # small fits: on a busy machine, threads are slower
        warnings.filterwarnings("ignore", message="The number of unique classes")  # few rows each: we know
        probe.fit(x[fold.train], labels[fold.train])
    return np.asarray(probe.predict(x[fold.test]) == labels[fold.test])


def majority(train: Names, test: Names) -> npt.NDArray[np.bool_]:
    """Which rows have the most frequent training label; of several, the first in the alphabet."""
    names, counts = np.unique(train, return_counts=True)
    return np.asarray(test == names[counts.argmax()])


def to_json(scores: Sequence[Score]) -> list[dict[str, Value]]:
    """The scores as plain values."""
    return [{**asdict(score), "accuracy": score.accuracy, "num_rows": score.num_rows} for score in scores]
