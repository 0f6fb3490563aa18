"""The data that a command on a run is about: a path, a demo corpus, or the run's own."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from seqssl.assembly import build_adapter, streams_of
from seqssl.config.addresses import is_remote
from seqssl.config.layers import Layers
from seqssl.config.schema import DataConfig
from seqssl.config.values import Value
from seqssl.data.adapters import ModalityAdapter
from seqssl.data.catalog import list_corpora
from seqssl.data.files import Progress, silent
from seqssl.data.prepare import open_or_prepare
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.evaluation.held_out import Seen
from seqssl.runs.folder import (
    check_contract,
    check_data,
    find_run,
    init_of,
    read_provenance,
    stream_of,
)


def existing(text: str | Path) -> Path:
    """A path, if something is there; else UserError."""
    path = Path(text).expanduser()
    if not path.exists():
        raise UserError(f"there is no file or folder {path}")
    return path


def located(source: str) -> str:
    """A source: the address of one in an object store, or a path where something is; else UserError."""
    return source if is_remote(source) else str(existing(source))


def is_demo(source: str) -> bool:
    """Whether a text names a demo corpus, and no path."""
    return source in {entry.name for entry in list_corpora()} and not Path(source).exists()


def is_own(source: str | Path, data: DataConfig) -> bool:
    """Whether a path or demo corpus is what a run was trained on, whose held-out groups then hold."""
    if is_demo(str(source)):
        return data.source is None and data.demo == source
    if data.source is None or is_remote(str(source)) or is_remote(data.source):
        return data.source == str(source)
    return existing(source).resolve() == Path(data.source).expanduser().resolve()


def open_source(
    run: Path,
    source: str | None,
    *,
    stream: str = "",
    settings: Mapping[str, Value] | None = None,
    progress: Progress = silent,
) -> tuple[Corpus, ModalityAdapter]:
    """A folder, file or demo corpus, else the run's own data; read by the run's adapter.

    `settings` of the modality may differ from the run's as long as a row means the same.
    """
    config, folder = find_run(run)
    part = stream_of(streams_of(config), stream).config
    data = part.data
    if source is not None and not is_own(source, data):
        given = None if is_demo(source) else located(source)
        data = replace(data, source=given, demo=source if given is None else data.demo, valid_groups=[])
    layers = Layers()
    layers.merge({"modality": copy.deepcopy(part.modality)}, "")
    layers.merge({"modality": dict(settings or {})}, "")
    modality = cast(dict[str, Value], layers.values["modality"])
    adapter = build_adapter(modality)
    check_contract(adapter.spec, folder, stream)
    corpus = open_or_prepare(adapter, data, modality=str(modality["target"]), progress=progress)
    if source is None and not settings:
        check_data(corpus, folder, stream)
    return corpus, adapter


def seen_by(run: str | Path, stream: str = "") -> Seen:
    """What the encoder of a run has learned from, in that run and in those that it began from."""
    try:
        config, folder = find_run(run)
    except UserError:
        return Seen()
    before = seen_by(*init_of(config.init)) if config.init else Seen(is_known=True)
    try:
        corpus = Corpus(Path(str(read_provenance(folder, stream)["data"])))
        rows = corpus.rows("train")
        keys, groups = (
            frozenset(str(name) for name in names[rows]) for names in (corpus.keys, corpus.groups)
        )
    except (UserError, KeyError):
        return replace(before, is_known=False)
    if config.task["target"] != "pretrain":
        return replace(before, labelled=before.labelled | keys)
    return replace(before, keys=before.keys | keys, groups=before.groups | groups - {""})
