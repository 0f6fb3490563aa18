"""Linear probes of frozen embeddings: fixed protocols, with baselines beside."""

import warnings
from collections.abc import Sequence
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
from seqssl.evaluation.held_out import UNKNOWN, Seen, held_out_rows
from seqssl.evaluation.protocols import HELD_OUT, PROTOCOLS, Fold, Names, Table
from seqssl.finetuning.facts import name_in_group
from seqssl.finetuning.scoring import Resampling

NUM_DRAWS = 1000
OWN_SPLIT = "split of the source"  # what HELD_OUT is where nothing is known of the encoder and these rows
TRAINED, RANDOM, NO_WEIGHTS = "trained", "random", "none"


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
    low: float = 0.0  # 95 % interval of the accuracy, by bootstrap over groups, or rows where one is alone
    high: float = 1.0
    num_units: int = 0  # groups or rows that the interval is over
    num_poor: int = 0  # groups of one row or label, whose embeddings are scaled by the training rows

    @property
    def accuracy(self) -> float:
        """The accuracy over all tested rows: a fold of three rows must not weigh as one of three hundred."""
        return sum(self.folds[name] * number for name, number in self.rows.items()) / self.num_rows

    @property
    def num_rows(self) -> int:
        """Tested rows of all folds."""
        return sum(self.rows.values())


def probe_run(
    encoder: Encoder,
    random: Encoder,
    corpus: Corpus,
    adapter: ModalityAdapter,
    *,
    labels: Sequence[str] = ("*",),
    unheard: Corpus | None = None,
    seen: Seen = UNKNOWN,
    max_rows: int | None = None,
    pool: str = "mean",
    progress: Progress = silent,
) -> list[Score]:
    """Probe every stage of an encoder beside the same encoder with random weights and no encoder at all.

    `labels` are shell patterns; each is a task of its own. `unheard` is a second corpus, of groups that the
    encoder was not trained on. `seen`: what it was trained on. Where no row of a corpus has a label, labels
    are the names of files below their group's folder.
    `pool`: what the frames of a row become, see `Encoder.embed`. Raises UserError when no protocol applies.
    """
    embed = partial(
        embed_table, encoder, random, adapter=adapter, patterns=labels, pool=pool, progress=progress
    )
    if unheard is not None:
        _refuse_shared_groups(corpus, unheard, seen)
    _refuse_idle_patterns(labels, [corpus] if unheard is None else [corpus, unheard])
    held_out, is_known = held_out_rows(corpus, seen)
    tables = [embed(corpus, held_out, unheard=False, max_rows=max_rows)]
    if unheard is not None:
        tables.append(embed(unheard, np.zeros(len(unheard), bool), unheard=True, max_rows=max_rows))
    table = concatenate(tables)
    scores = []
    for pattern in labels:
        chosen = select(table, matching(table.labels, pattern))
        for protocol, folds_of in PROTOCOLS.items():
            name = OWN_SPLIT if protocol == HELD_OUT and not is_known else protocol
            scores += score_all(chosen, pattern, name, list(folds_of(chosen)))
    if not scores:
        raise UserError(
            f"nothing to probe in {corpus.folder}: of the labels that match {', '.join(labels)}, no two occur"
            " in two groups each, or twice within a group"
        )
    return scores


def _refuse_shared_groups(corpus: Corpus, unheard: Corpus, seen: Seen) -> None:
    """UserError where a group of one corpus has the name of one of the other, or of one of the training.

    If it is the same one, it has been heard; if not, the two would be scaled and held out as one.
    """
    others = {*unheard.groups.tolist()} - {""}
    for known, where in (({*corpus.groups.tolist()}, str(corpus.folder)), (seen.groups, "the training")):
        if not (shared := sorted(known & others)):
            continue
        raise UserError(
            f"unheard = {unheard.folder}: groups {', '.join(shared[:5])} are in {where}, too. Leave "
            "out those that the encoder was trained on; rename the folders of others that share a name."
        )


def _refuse_idle_patterns(patterns: Sequence[str], corpora: Sequence[Corpus]) -> None:
    """UserError where a pattern chooses no label: it may be mistyped, and would be missing in silence."""
    labels = np.unique(np.concatenate([labels_of(corpus) for corpus in corpora]))
    if idle := [pattern for pattern in patterns if not matching(labels, pattern).any()]:
        examples = ", ".join(label for label in labels.tolist()[:6] if label) or "no label at all"
        folders = " or ".join(str(corpus.folder) for corpus in corpora)
        raise UserError(f"no label in {folders} matches {', '.join(idle)}; there is {examples}")


def embed_table(
    encoder: Encoder,
    random: Encoder,
    corpus: Corpus,
    held_out: npt.NDArray[np.bool_],
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
    return Table(stages, names[rows], corpus.groups[rows], np.full(len(rows), unheard), held_out[rows])


def some_of(rows: Rows, max_rows: int | None) -> Rows:
    """The rows, or a fixed random part of them."""
    if max_rows is None or len(rows) <= max_rows:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, max_rows, replace=False))


def labels_of(corpus: Corpus) -> Names:
    """The label of each row; where no row has one, the path below the folder of its group."""
    if corpus.labels.any():
        return corpus.labels.astype(np.str_)
    rows = zip(corpus.keys, corpus.groups, strict=True)
    return np.array([name_in_group(key, group) for key, group in rows], dtype=np.str_)


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


def score_all(table: Table, pattern: str, protocol: str, folds: Sequence[Fold]) -> list[Score]:
    """The score of every representation under one protocol, and of always saying the most frequent label."""
    if not folds:
        return []
    tested = np.concatenate([fold.test for fold in folds])
    rows, num_classes = {fold.name: len(fold.test) for fold in folds}, len(np.unique(table.labels[tested]))
    units, poor = units_of(table, folds), poor_groups(table, folds)
    if protocol in (HELD_OUT, OWN_SPLIT):  # a group may have one label only, which its mean would give away
        poor, alone = [], np.ones((len(table.labels), 1), bool)
    else:
        alone = np.isin(table.groups, poor)[:, None]
    facts = (len(np.unique(units)), len(poor))

    def score(weights: str, stage: str, right: Sequence[npt.NDArray[np.bool_]]) -> Score:
        shares = {fold.name: float(each.mean()) for fold, each in zip(folds, right, strict=True)}
        low, high = bootstrap(np.concatenate(right), units)
        return Score(pattern, protocol, weights, stage, shares, rows, num_classes, low, high, *facts)

    guesses = [majority(table.labels[fold.train], table.labels[fold.test]) for fold in folds]
    scores = [score(NO_WEIGHTS, "majority", guesses)]
    for (weights, stage), x in table.stages.items():
        own = standardize(x, table.groups)
        scaled = (np.where(alone, scale_by(x, fold.train), own) for fold in folds)
        right = [told_right(each, table.labels, fold) for each, fold in zip(scaled, folds, strict=True)]
        scores.append(score(weights, stage, right))
    return scores


def units_of(table: Table, folds: Sequence[Fold]) -> Names:
    """What the interval is over, for each tested row: its group; itself where there is none, or one."""
    tested = np.concatenate([fold.test for fold in folds])
    groups = table.groups[tested]
    alone = (groups == "") | (len(np.unique(groups)) < 2)
    return np.where(alone, [f"\n{number}" for number in range(len(tested))], groups)


def bootstrap(right: npt.NDArray[np.bool_], units: Names) -> tuple[float, float]:
    """The 95 % interval of the share of rows told right, over draws of units with replacement."""
    resampling = Resampling.of(units.tolist(), num_draws=NUM_DRAWS)
    return resampling.interval_of_mean(right, units.tolist())


def standardize(x: Array, groups: Names) -> Array:
    """Zero mean and unit variance per dimension and group.

    It needs no label, and removes what is constant in a voice, a subject or a station.
    """
    result = np.empty_like(x)
    for group in np.unique(groups):
        rows = groups == group
        result[rows] = (x[rows] - x[rows].mean(axis=0)) / (x[rows].std(axis=0) + 1e-6)
    return result


def poor_groups(table: Table, folds: Sequence[Fold]) -> list[str]:
    """The groups of some folds that have fewer than two rows or two labels: their mean tells the label."""
    used = np.unique(np.concatenate([np.append(fold.train, fold.test) for fold in folds]))
    names = np.unique(table.groups[used]).tolist()
    return [name for name in names if len(np.unique(table.labels[table.groups == name])) < 2]


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
