"""Sequences of one file that share a name or an interval: copies are told, others get keys of their own."""

import hashlib
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from modalities.dna.files import Sequence
from modalities.dna.intervals import Interval, chromosome_of_title, gene_of_title
from modalities.dna.storage import Bases, OtherStrand
from seqssl import Rejected

PIECE_BASES = 2**20  # read at a time
SHARED = 20  # sequences at least, and a twentieth of a file, whose common name is pointed out
Content = tuple[str, ...]


class Keyed(NamedTuple):
    """A sequence with a key that no other one of its file has."""

    key: str
    sequence: Sequence
    interval: Interval | None


@dataclass(frozen=True)
class Keys:
    """The sequences of a file that are kept, in order, and what is said about the others."""

    kept: list[Keyed]
    rejected: list[Rejected]
    notice: str = ""  # how many are kept under a name with a number


def keys_of(
    name: str, prefix: str, found: Iterable[tuple[Sequence, Interval | None]], *, both_strands: bool
) -> Keys:
    """Keys of the sequences of the file `name`: their intervals, else their names.

    A sequence that has the name of an earlier one, and is no copy of it, gets a number behind the name.
    `both_strands` says that the two strands of an interval in a BED file are the same.
    """
    first: dict[str, Keyed] = {}
    contents: dict[str, dict[Content, str]] = {}  # of each name that comes again, with who had it first
    kept: dict[str, Keyed] = {}
    rejected: list[Rejected] = []
    copies: list[str] = []
    repeated: list[str] = []
    for sequence, interval in found:
        own = interval.key if interval else sequence.name
        if not own:
            rejected.append(Rejected(name, "a record without a name: nothing follows its '>'"))
            continue
        shared = replace(interval, reverse=False).key if interval and both_strands else own
        one = Keyed(own, sequence, interval)
        number = 1
        if shared in first:
            if shared not in contents:
                contents[shared] = {_content(first[shared]): first[shared].sequence.name}
            known, content = contents[shared], _content(one)
            if content in known:
                if interval:
                    copies.append(f"{sequence.name} has that of {known[content]}")
                else:
                    rejected.append(Rejected(prefix + own, f"a copy of an earlier sequence in {name}"))
                continue
            known[content] = sequence.name
            number = len(known)
        key = _free(own, number, kept)
        kept[key] = one._replace(key=key)
        if first.setdefault(shared, one) is not one:
            repeated.append(key)
    if copies:
        total = len(kept) + len(copies)
        reason = f"{len(copies)} of {total} have the interval of an earlier one, which is kept: {copies[0]}"
        rejected.append(Rejected(name, reason))
    return Keys([*kept.values()], rejected, _notice(repeated, len(kept)))


def group_of(prefix: str, one: Keyed) -> str:
    """What a sequence shares with others: a group that is given, its chromosome, its gene, else its name."""
    sequence, interval = one.sequence, one.interval
    chromosome = interval.chrom if interval else chromosome_of_title(sequence.title)
    return sequence.group or chromosome or gene_of_title(sequence.title) or _own_name(prefix, one)


def _own_name(prefix: str, one: Keyed) -> str:
    sequence = one.sequence
    return sequence.pair or (prefix + one.key if sequence.numbered else sequence.name)


def shared_name(kept: list[Keyed]) -> str:
    """A notice where so many sequences of a file have one name, as a species, that it may be no group."""
    names = Counter(_own_name("", one) for one in kept if group_of("", one) == _own_name("", one))
    (name, count), *_ = [*names.most_common(1), ("", 0)]
    if count < SHARED or count < len(kept) / SHARED:
        return ""
    return (
        f"{count:,} of {len(kept):,} sequences are one group, as they all have the name {name}: "
        f"modality.group_pattern=REGEX finds another one in FILE/TITLE, as '(.+)' makes each sequence one"
    )


def _free(name: str, number: int, taken: Container[str]) -> str:
    """The name with the first number from `number` on that makes a new key; 1 is not written."""
    key = name if number == 1 else f"{name}#{number}"
    while key in taken:
        number += 1
        key = f"{name}#{number}"
    return key


def _notice(repeated: list[str], total: int) -> str:
    if not repeated:
        return ""
    return (
        f"{len(repeated):,} of {total:,} sequences have the name or interval of an earlier one but are no "
        f"copies of it: they are kept, with a number behind the name ({repeated[0]})"
    )


def _content(one: Keyed) -> Content:
    """What makes a sequence a copy of another one with its name; a line of BED is one by its interval.

    Titles do not tell the strand of an interval, so either strand is the same.
    """
    sequence, interval = one.sequence, one.interval
    if interval and interval.place:
        return ()
    strands: list[Bases] = [sequence.bases, *([OtherStrand(sequence.bases)] if interval else [])]
    return (min(map(_digest, strands)), sequence.label, sequence.group, sequence.split)


def _digest(bases: Bases) -> str:
    """A digest of the letters, whatever their case."""
    digest = hashlib.sha256()
    for start in range(0, len(bases), PIECE_BASES):
        digest.update(bases.narrow(start, min(len(bases), start + PIECE_BASES)).read().upper())
    return digest.hexdigest()
