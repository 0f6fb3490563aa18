"""What an evening finds in data before it plans: labels to judge by, and what else is there, in sentences."""

from collections import Counter

from seqssl.config.schema import DataConfig
from seqssl.config.text import matches
from seqssl.data.adapters import SampleSpec
from seqssl.data.lengths import lengths_of
from seqssl.data.rejections import told
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.finetuning.facts import refuse_several
from seqssl.ruler.folds import learnable, make_folds
from seqssl.ruler.plan import Request
from seqssl.runs.streams import hours as hours_of
from seqssl.studies.pace import JUDGES

FEWEST_OF_CLASS = 4  # rows: to learn from, to choose by, and to be tested


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
    rows = [number for number, label in enumerate(corpus.labels) if str(label) in counts]
    classes = [str(corpus.labels[row]) for row in rows]
    groups, splits = corpus.groups[rows].tolist(), corpus.splits[rows].tolist()
    for seeds in sorted({seeds for _, seeds, _ in JUDGES}):
        if len(learnable(classes, make_folds(groups, splits, Request.folds, seeds))) < 2:
            return (
                "most labels are of one group alone: with groups held out, nothing is left to learn them by. "
                "If groups are something else (people, places), say so, as by modality.group_pattern=REGEX."
            )
    return ""


def scanned(corpus: Corpus, counts: Counter[str], problem: str = "") -> list[str]:
    """What was found in the data, in sentences; `problem`: why labels are not used."""
    rows = sum(split.num_rows for split in corpus.manifest.splits.values())
    known = [split.hours for split in corpus.manifest.splits.values() if split.hours is not None]
    amount = f", {hours_of(sum(known))}" if known else ""
    groups = len({str(group) for group in corpus.groups} - {""})
    found = [
        f"{rows:,} rows{amount}" + (f" of {groups} groups (people, places, pieces)" if groups > 1 else "")
    ]
    found += filter(None, [told(corpus)])
    if counts:
        some = ", ".join(f"{label} ({count})" for label, count in counts.most_common(5))
        found.append(f"{len(counts)} labels on {sum(counts.values()):,} rows: {some}"
                     + (", ..." if len(counts) > 5 else ""))  # fmt: skip
    else:
        found.append(
            f"no labels to tell apart: the encoder is judged without{f' ({problem})' if problem else ''}"
        )
    return found


def batches_of(corpus: Corpus, counts: Counter[str], data: DataConfig, spec: SampleSpec) -> float:
    """How many batches the rows of these labels make, whole, as they are tested."""
    steps = corpus.lengths[[str(label) in counts for label in corpus.labels]]
    return float(steps.sum() / lengths_of(data, spec)["batch_length"])
