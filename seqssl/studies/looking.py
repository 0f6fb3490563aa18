"""What an evening finds in data before it plans: labels to judge by, and what else is there, in sentences."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import PurePosixPath

import numpy as np

from seqssl.config.text import matches
from seqssl.data.adapters import Continues, ModalityAdapter
from seqssl.data.rejections import told
from seqssl.data.shards import Corpus
from seqssl.data.windows import windows_of
from seqssl.errors import UserError
from seqssl.finetuning.facts import labels_in_paths, path_of, refuse_several
from seqssl.ruler.folds import learnable, make_folds
from seqssl.ruler.plan import Request
from seqssl.runs.streams import hours as hours_of
from seqssl.studies.judges import JUDGES

FEWEST_OF_CLASS = 4  # rows: to learn from, to choose by, and to be tested
SEPARATORS = "_- ."  # between the parts of a name
ALIKE = 0.9  # share of names that have as many parts, and of rows whose label counts
MOST_CLASSES = 60  # of a part of names; with more it is rather a number or a person
MOST_HINTS = 2
LONGEST_WINDOW, SHORTEST_WINDOW = 192, 16  # steps of what is told and what it is told from
HORIZON = 8  # of so many steps of a window, one is told


def labels_of(corpus: Corpus, wanted: str) -> tuple[str, Counter[str], str]:
    """The patterns, the rows of each label that they choose, and why labels cannot be told apart, else "".

    A label counts with enough rows. Without patterns, labels that are nearly all different (texts, numbers)
    are none to tell apart. UserError where `wanted` names labels that cannot be told apart.
    """
    patterns = wanted or "*"
    every = Counter(str(label) for label in corpus.labels if label and matches(str(label), patterns))
    counts = Counter({label: count for label, count in every.items() if count >= FEWEST_OF_CLASS})
    if wanted and len(counts) < 2:
        known = ", ".join(f"{label} ({count})" for label, count in every.most_common(6)) or "none"
        raise UserError(
            f"labels = {wanted}: two labels with {FEWEST_OF_CLASS} rows each are needed; they choose {known}."
        )
    if len(counts) < 2 or (not wanted and 2 * sum(counts.values()) < sum(every.values())):
        return patterns, Counter(), ""
    problem = untellable(corpus, patterns, counts)
    if problem and wanted:
        raise UserError(f"labels = {wanted}: {problem}")
    return patterns, Counter() if problem else counts, problem


def untellable(corpus: Corpus, patterns: str, counts: Counter[str]) -> str:
    """Why labels cannot be told apart on groups that are held out; "" where they can."""
    if patterns == "*":
        try:
            refuse_several(Counter(str(label) for label in corpus.labels if label), "labels", "labels")
        except UserError as error:
            return str(error)
    if not _are_learnable(corpus, [str(label) for label in corpus.labels], counts):
        return (
            "most labels are of one group alone: with groups held out, nothing is left to learn them by. "
            "If groups are something else (people, places), say so, as by modality.group_pattern=REGEX."
        )
    return ""


def _are_learnable(corpus: Corpus, labels: Sequence[str], counts: Counter[str]) -> bool:
    """Whether two labels at least have rows to learn from wherever groups are held out."""
    rows = [number for number, label in enumerate(labels) if label in counts]
    classes = [labels[row] for row in rows]
    groups, splits = corpus.groups[rows].tolist(), corpus.splits[rows].tolist()
    return all(
        len(learnable(classes, make_folds(groups, splits, Request.folds, seeds))) > 1
        for seeds in sorted({seeds for _, seeds, _ in JUDGES})
    )


def labels_in_names(corpus: Corpus) -> dict[str, Counter[str]]:
    """What in names of files may be labels: rows of each, by the pattern that finds them.

    Words come before numbers, which may as well count days and takes, and then the fewest. A part of a name,
    or a folder, counts where it takes few values, each on several rows, and where these do not each belong to
    one group. Whether they are labels, or a take or a day, only its owner knows.
    """
    found: dict[str, Counter[str]] = {}
    for pattern in _patterns([PurePosixPath(path_of(key)) for key in corpus.keys]):
        labels = labels_in_paths(corpus.keys.tolist(), re.compile(pattern))
        counts = Counter(filter(None, labels))
        counts = Counter({name: number for name, number in counts.items() if number >= FEWEST_OF_CLASS})
        few = 2 <= len(counts) <= MOST_CLASSES and sum(counts.values()) >= ALIKE * len(labels)
        if few and _are_learnable(corpus, labels, counts):
            found[pattern] = counts
    numbered = {pattern: all(map(str.isdigit, counts)) for pattern, counts in found.items()}
    return dict(sorted(found.items(), key=lambda item: (numbered[item[0]], len(item[1]))))


def _patterns(paths: Sequence[PurePosixPath]) -> list[str]:
    """Regular expressions for the folders of paths, level by level, and for the parts of names."""
    deepest = max((len(path.parts) for path in paths), default=1) - 1
    divided, count = "", 0  # a name may be one part
    for mark in SEPARATORS:
        numbers = Counter(path.stem.count(mark) for path in paths)
        number, times = max(numbers.items(), key=itemgetter(1), default=(0, 0))
        if number and times >= ALIKE * len(paths):
            divided, count = mark, number
            break
    start, part, mark = "(?:^|/)" if deepest else "^", f"[^/{divided}]", re.escape(divided)
    heads = [f"{start}{f'{part}*{mark}' * place}({part}+" for place in range(count + 1)]
    return [
        *(f"^{'[^/]+/' * level}([^/]+)/" for level in range(deepest)),
        *(f"{head}){mark}[^/]*$" for head in heads[:-1]),
        rf"{heads[-1]}?)(?:\.[^./]*)?$",
    ]


def scanned(corpus: Corpus) -> list[str]:
    """What was found in the data, in sentences."""
    rows = sum(split.num_rows for split in corpus.manifest.splits.values())
    known = [split.hours for split in corpus.manifest.splits.values() if split.hours is not None]
    amount = f", {hours_of(sum(known))}" if known else ""
    groups = len({str(group) for group in corpus.groups} - {""})
    found = f"{rows:,} rows{amount}" + (f" of {groups} groups (people, places, pieces)" if groups > 1 else "")
    return [found, *filter(None, [told(corpus)])]


@dataclass(frozen=True)
class Trial:
    """What an encoder is judged by."""

    task: list[str]  # its name, then settings; [] = there is none
    words: list[str]  # about it, in sentences
    num_labels: int = 0  # rows, or windows, that it tells something of
    classes: int = 0  # that it tells apart; 0 = it tells numbers


def trial_of(corpus: Corpus, adapter: ModalityAdapter, wanted: str) -> Trial:
    """The labels that people gave, `wanted` ones above all; else a task that needs none; else nothing.

    UserError where `wanted` names labels that cannot be told apart.
    """
    patterns, counts, problem = labels_of(corpus, wanted)
    own = {*adapter.own_labels} if isinstance(adapter, Continues) else None
    if own is not None and not wanted and {*counts} <= own:
        if (trial := _forecast(corpus)) is not None:
            if counts:
                trial.words.append(f"labels='*' would tell their {', '.join(sorted(counts))} apart instead")
            if problem and {str(label) for label in corpus.labels} - {"", *own}:
                trial.words.append(problem)
            return trial
    if not counts:
        return Trial([], _without_labels(corpus, problem))
    some = ", ".join(f"{label} ({count})" for label, count in counts.most_common(5))
    some += ", ..." if len(counts) > 5 else ""
    chosen = [] if patterns == "*" else [f"task.labels={json.dumps(patterns)}"]
    return Trial(
        ["classify", *chosen, f"task.min_rows={FEWEST_OF_CLASS}"],
        [f"{len(counts)} labels on {sum(counts.values()):,} rows: {some}"],
        sum(counts.values()),
        len(counts),
    )


def _forecast(corpus: Corpus) -> Trial | None:
    """Windows of rows, whose last eighth is told from the rest; None where they are too few or too short.

    At most a week of hours and the day after it, else as much as half of the rows have.
    """
    used = corpus.splits != ""
    length = min(LONGEST_WINDOW, int(np.median(corpus.lengths[used]))) if used.any() else 0
    if length < SHORTEST_WINDOW:
        return None
    horizon = length // HORIZON
    lookback = length - horizon
    windows = windows_of(corpus, length, horizon)
    splits = {str(split) for split in corpus.splits[used]}
    # With windows of one group alone nothing would be held out.
    if any(not len(windows.rows(split)) for split in splits) or len({*windows.groups}) < 2:
        return None
    return Trial(
        ["forecast", f"task.lookback={lookback}", f"task.horizon={horizon}", f"task.every={horizon}"],
        [
            f"nobody labelled these rows: judged by forecasts, the next {horizon} steps from {lookback}, in "
            f"{len(windows):,} windows"
        ],
        len(windows),
    )


def _without_labels(corpus: Corpus, problem: str) -> list[str]:
    """That there are no labels to use, and where some may be; `problem`: why those of rows are not used."""
    found = [f"no labels to tell apart: the encoder is judged without{f' ({problem})' if problem else ''}"]
    hints = [
        f"finetune.labels_from='{pattern}' tells {len(known)} apart ({', '.join([*known][:5])}"
        + (", ...)" if len(known) > 5 else ")")
        for pattern, known in labels_in_names(corpus).items()
    ]
    if hints:
        found.append(f"names of files may hold labels: {'; '.join(hints[:MOST_HINTS])}")
    return found
