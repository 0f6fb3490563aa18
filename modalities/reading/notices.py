"""Sentences about a whole source, which its records say."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from seqssl import Record, Rejected, Rows


def noted(record: Record | Rejected, sentence: str) -> Record | Rejected:
    """A record whose rows come with one more notice; as it is where there is nothing to say."""
    if not sentence or isinstance(record, Rejected):
        return record
    return replace(record, read=partial(_with_notice, record, sentence))


def _with_notice(record: Record, sentence: str) -> Mapping[str, Any] | Rows:
    found = record.read()
    return replace(found, notices=[*found.notices, sentence]) if isinstance(found, Rows) else found
