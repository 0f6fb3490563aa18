"""What a task has to know of its labelled data before it can be built."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar, cast

from seqssl.config.text import matches
from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter, Sample, SampleSpec
from seqssl.data.shards import Corpus
from seqssl.errors import UserError

T = TypeVar("T")
MAX_NAMED = 6  # things that a sentence lists
# Behind the ending of a file, adapters write which of its rows it is, and the window: x.csv/P01#2.5
PART_OF_FILE = re.compile(r"(\.[A-Za-z]\w*)(?:/[^/#]*)?#[^/]*$")


@dataclass(frozen=True)
class Labelled:
    """Prepared rows with their labels."""

    corpus: Corpus
    adapter: ModalityAdapter

    def labels(self, split: str = "") -> list[str]:
        """The label of each row of a split, or of all."""
        found = self.corpus.labels if not split else self.corpus.labels[self.corpus.rows(split)]
        return [str(label) for label in found]

    def samples(self) -> Iterator[tuple[str, Sample]]:
        """Every row with its key, as the adapter gives it without augmentation."""
        for number, key in enumerate(self.corpus.keys.tolist()):
            yield key, self.adapter.load(self.corpus.row(number), None)


class Facts:
    """Facts about labelled data, each found when it is first asked for.

    `known` holds those of an earlier time, under their names: a run stores them, so that it can be opened
    again without its data. `data` None: nothing but `known` can be told.
    """

    def __init__(
        self, spec: SampleSpec, data: Labelled | None, known: Mapping[str, Value] | None = None
    ) -> None:
        self.spec, self.data = spec, data
        self.found: dict[str, Value] = dict(known or {})

    def get(self, name: str, find: Callable[[Labelled], T]) -> T:
        """The fact of this name, which `find` takes from the data; it must be plain JSON."""
        if name not in self.found:
            if self.data is None:
                raise UserError(
                    f"the run does not say {name}: its facts.json was written by another version."
                )
            self.found[name] = cast(Value, find(self.data))
        return cast(T, self.found[name])


def path_of(key: str) -> str:
    """The path of a row's file, without what tells its rows apart."""
    return PART_OF_FILE.sub(r"\1", str(key))


def name_in_group(key: str, group: str = "") -> str:
    """The path of a row's file below the folder of its group, without the ending; "" without a folder.

    Where no folder is called as the group, the first one is taken for it.
    """
    parts = PurePosixPath(path_of(key)).parts
    first = parts.index(group) + 1 if group in parts[:-1] else 1
    return PurePosixPath(*parts[first:]).with_suffix("").as_posix() if len(parts) > first else ""


def relabelled(corpus: Corpus, labels_from: str) -> Corpus:
    """The corpus with its labels from where `finetune.labels_from` says; UserError for no such place."""
    if labels_from == "labels":
        return corpus
    if labels_from == "files":
        return corpus.relabelled([*map(name_in_group, corpus.keys, corpus.groups)])
    try:
        pattern = re.compile(labels_from)
    except re.error as error:
        raise UserError(
            f"finetune.labels_from = {labels_from}: no regular expression ({error}); labels, files or one is "
            "wanted."
        ) from error
    if pattern.groups != 1:
        raise UserError(
            f"finetune.labels_from = {labels_from}: labels, files, or a regular expression with one group in "
            f"parentheses, such as '^([a-z]+)_'; this one has {pattern.groups}."
        )
    labels = labels_in_paths(corpus.keys.tolist(), pattern)
    if labels and not any(labels):
        raise UserError(
            f"finetune.labels_from = {labels_from}: it finds a label in none of {len(labels):,} paths, which "
            f"begin below the folder of the data, such as {path_of(corpus.keys[0])}."
        )
    return corpus.relabelled(labels)


def labels_in_paths(keys: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    """What the group of a pattern finds in the path of each row's file; "" where that is nothing."""
    found = (pattern.search(path_of(key)) for key in keys)
    return [(match[1] or "") if match else "" for match in found]


def names_in(labels: Sequence[str], patterns: str, what: str = "labels", *, min_rows: int = 1) -> list[str]:
    """The different labels that the patterns choose, sorted; UserError where they are of several tasks.

    One with fewer rows than `min_rows` is left out.
    """
    counts = Counter(label for label in labels if matches(label, patterns))
    if not counts:
        known = ", ".join(sorted({label for label in labels if label})[:MAX_NAMED])
        raise UserError(
            f"task.labels = {patterns}: no row has such a label; "
            + (
                f"the {what} are {known}, ..."
                if known
                else f"the data has no {what} at all. finetune.labels_from takes them from names of files."
            )
        )
    if patterns == "*":
        refuse_several(counts, what)
    names = sorted(label for label, number in counts.items() if number >= min_rows)
    if not names:
        raise UserError(f"task.min_rows = {min_rows}: no label has so many rows.")
    return names


def refuse_several(counts: Mapping[str, int], what: str, key: str = "task.labels") -> None:
    """UserError where labels are named `task/value`, and there is more than one task."""
    kinds: Counter[str] = Counter()
    for label, number in counts.items():
        kind, slash, _ = label.partition("/")
        kinds[kind if slash and not kind.isdigit() else ""] += number  # 3/4 is a label, and of no kind
    if len(kinds) > 1:
        shown = [
            f"{kind}/* ({number} rows)" if kind else f"without a kind ({number} rows)"
            for kind, number in kinds.most_common(MAX_NAMED)
        ]
        first = next(kind for kind, _ in kinds.most_common() if kind)
        raise UserError(
            f"the {what} belong to several tasks: {', '.join(shown)}. Choose one: {key}='{first}/*'."
        )


def common_prefix(patterns: str) -> str:
    """What one pattern says before its `*`, if it names a kind of labels: "digits/" of "digits/*"."""
    head, star, tail = patterns.partition("*")
    return head if star and not tail and head.endswith("/") and "," not in patterns else ""
