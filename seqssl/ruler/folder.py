"""The folder of an evaluation: what may be written into, and what its finished cells were made of."""

import json
from collections.abc import Sequence
from pathlib import Path

from seqssl.data.files import write_atomic
from seqssl.data.lengths import length_of
from seqssl.data.windows import WindowedCorpus
from seqssl.errors import UserError
from seqssl.ruler.cells import Bench
from seqssl.ruler.folds import Fold

IDENTITY = "identity.json"


def check_folder(folder: Path) -> None:
    """UserError where a folder holds something else than an evaluation: a run, whose report would be lost."""
    if not folder.exists() or (folder / IDENTITY).exists():
        return
    if any(path.name != ".lock" for path in folder.iterdir()):
        raise UserError(f"out={folder} is not empty and holds no evaluation: choose another folder.")


def check_same(folder: Path, identity: str) -> None:
    """Leave the digest of what cells are made of; UserError where that of other settings or data is there."""
    path = folder / IDENTITY
    if path.exists():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            stored = None
        if stored != {"identity": identity}:
            raise UserError(
                f"{folder} holds an evaluation with other settings, data or weights: choose another out=."
            )
        return
    write_atomic(path, json.dumps({"identity": identity}) + "\n")


def changes(bench: Bench, folds: Sequence[Fold]) -> list[str]:
    """What is done otherwise than by earlier versions, whose finished cells cannot stand beside new ones."""
    found, corpus = [], bench.corpus
    longest = length_of(bench.config.data, "max", bench.adapter.spec)
    if longest is not None and (corpus.lengths > longest).any():
        found.append("rows are tested whole")
    if isinstance(corpus, WindowedCorpus):
        if any(len({*corpus.groups[fold.train].tolist()}) < 2 for fold in folds):
            found.append("windows that overlap are on one side of a choice")
    return found
