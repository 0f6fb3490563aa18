"""Which rows are held out: whole groups, by their amount."""

import hashlib
import math
from collections.abc import Callable, Sequence

from seqssl.data.adapters import Record
from seqssl.errors import UserError


def about_groups(records: Sequence[Record]) -> str:
    """What to say of a source in which nothing is kept apart; "" where there are groups, or a split."""
    groups = {record.group for record in records}
    if len(groups - {""}) > 1 or len(records) < 2 or any(record.split == "valid" for record in records):
        return ""
    what = (
        f"all rows are of one group, {groups.pop()!r}"
        if len(groups) == 1 and "" not in groups
        else "no groups"
    )
    return (
        f"{what}: rows are held out one by one, and the same person or place may be on both sides; "
        "folders, a column or group_pattern can tell groups apart"
    )


def assign_splits(
    records: Sequence[Record],
    *,
    split_by: str,
    valid_share: float,
    seed: int,
    valid_groups: Sequence[str] = (),
) -> list[str]:
    """A split for each record: the source's own, else by `valid_groups`, else by a hash of (seed, unit).

    The unit is the group or the key. Units are held out, in the order of their hashes, as long as each brings
    the held-out amount nearer to its share: where some say more than others, a share of persons is no share
    of what they say. Of two or more units at least one is held out and one is not. Where there are no two
    groups to keep apart, records are the units. A source that names rows for training and for testing only
    has its held-out rows drawn from the former; one that names no rows for training has all of them drawn.
    """
    groups = {record.group for record in records if record.group}
    if set(valid_groups) - groups:
        missing = ", ".join(sorted(set(valid_groups) - groups))
        some = ", ".join(sorted(groups)[:12]) or "no group at all"
        raise UserError(f"valid_groups: there is no group {missing}; the data has {some}.")
    given = [record.split for record in records]
    if not {"", "train"} & {*given}:
        given = [""] * len(given)  # dev-clean alone, say: nothing would be left to train on
    if "valid" not in given:
        given = ["" if split == "train" else split for split in given]  # some of it is to be held out
    free = [record for record, split in zip(records, given, strict=True) if not split]
    if valid_groups and all(record.group in valid_groups for record in free):
        raise UserError("valid_groups: with all of these groups held out, nothing is left to train on.")
    if split_by == "group" and len(groups) < 2:
        split_by = "record"

    def unit_of(record: Record) -> str:
        return (record.group or record.key) if split_by == "group" else record.key

    if valid_groups:
        held_out = {unit_of(record) for record in free if record.group in valid_groups}
    elif "valid" in given or valid_share == 0:
        held_out = set()
    else:
        held_out = _held_out(free, unit_of, valid_share, seed)
    return [
        split or ("valid" if unit_of(record) in held_out else "train")
        for record, split in zip(records, given, strict=True)
    ]


def _held_out(
    records: Sequence[Record], unit_of: Callable[[Record], str], valid_share: float, seed: int
) -> set[str]:
    """The units whose amount together comes near a share of that of all records."""
    known = all(record.amount > 0 for record in records)
    amounts: dict[str, float] = dict.fromkeys(map(unit_of, records), 0.0)
    for record in records:
        amounts[unit_of(record)] += record.amount if known else 1
    order = sorted(amounts, key=lambda unit: (_fraction(seed, unit), unit))
    wanted, held, chosen = valid_share * math.fsum(amounts.values()), 0.0, set()
    for unit in order:
        if abs(held + amounts[unit] - wanted) < abs(held - wanted):
            chosen.add(unit)
            held += amounts[unit]
    if len(amounts) < 2:
        return set()
    if not chosen:
        return {min(order, key=lambda unit: amounts[unit])}
    return chosen if len(chosen) < len(amounts) else {*order[:-1]}


def _fraction(seed: int, unit: str) -> float:
    digest = hashlib.sha256(f"{seed}:{unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
