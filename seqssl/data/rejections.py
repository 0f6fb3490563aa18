"""What a prepared folder could not use, and why: the lines of rejected.jsonl, counted."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seqssl.data.adapters import Rejected
from seqssl.data.shards import Corpus

REJECTED = "rejected.jsonl"
FEW = 2  # reasons that a line on a terminal has room for


def rejections(folder: Path) -> list[Rejected]:
    """The files and rows that a prepared folder could not use."""
    path = folder / REJECTED
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Rejected(**json.loads(line)) for line in lines]


def most_frequent(rejected: Sequence[Rejected], most: int) -> list[tuple[int, Rejected]]:
    """The first file or row of each reason, and how many have it; the most frequent reasons come first.

    Reasons that differ in a number only are one.
    """
    alike = [re.sub(r"\d+", "0", line.reason) for line in rejected]
    first = dict(zip(reversed(alike), reversed(rejected), strict=True))
    return [(count, first[reason]) for reason, count in Counter(alike).most_common(most)]


def told(corpus: Corpus) -> str:
    """How many files or rows could not be used, and mostly why, in one line; "" for none."""
    count = corpus.manifest.num_rejected
    if not count:
        return ""
    reasons = most_frequent(rejections(corpus.folder), FEW)
    why = "; ".join(f"{times:,} x {line.reason} (as {line.path})" for times, line in reasons)
    more = "; other reasons" if sum(times for times, _ in reasons) < count else ""
    found = f"{count:,} of {count + len(corpus):,} files or rows could not be used"
    return f"{found}: {why}{more}; {corpus.folder / REJECTED} names them"
