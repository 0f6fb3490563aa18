"""Sentences about a whole source, which its records say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from seqssl import Record, Rejected, Rows


def noted(record: Record | Rejected, *sentences: str) -> Record | Rejected:
    """A record whose rows come with more notices; as it is where all of them are empty."""
    said = [*filter(None, sentences)]
    if not said or isinstance(record, Rejected):
        return record
    return replace(record, read=partial(_with_notices, record, said))


def _with_notices(record: Record, sentences: Sequence[str]) -> Mapping[str, Any] | Rows:
    found = record.read()
    return replace(found, notices=[*found.notices, *sentences]) if isinstance(found, Rows) else found
