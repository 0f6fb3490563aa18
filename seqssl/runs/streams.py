"""The streams of a run: their corpora, their loaders, and lines about them."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from seqssl.assembly import OpenStream, Stream, groups_of
from seqssl.config.schema import DataConfig, FinetuneConfig, RunConfig
from seqssl.data.batching import BatchLoader
from seqssl.data.files import Progress
from seqssl.data.lengths import lengths_of
from seqssl.data.mixing import MixedLoader
from seqssl.data.prepare import open_or_prepare
from seqssl.data.rejections import REJECTED, told
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.evaluation.markov import markov_bits
from seqssl.finetuning.facts import Labelled, relabelled
from seqssl.finetuning.supervised import Supervised
from seqssl.model.types import Batch
from seqssl.planning import hardware
from seqssl.training.parallel import Parallel

MOST_WORKERS = 8  # of a rank, where nobody says how many
SHARED = Path("/dev/shm")  # through which workers hand over batches, on Linux
LEAST_SHARED = 2**30  # bytes; a container may have next to nothing


def opened(stream: Stream, parallel: Parallel, device: torch.device, progress: Progress) -> OpenStream:
    """The stream with its corpus, which the first rank prepares while the others wait."""
    config, adapter = stream.config, stream.adapter
    opening = partial(open_or_prepare, adapter, config.data, modality=str(config.modality["target"]))
    corpus = parallel.first(partial(opening, progress=progress), device)
    if corpus is None:
        with parallel.working():  # another node may have to prepare or download it once more
            corpus = opening()
    for split in ("train", "valid"):
        if not len(corpus.rows(split)):
            raise UserError(
                f"{config.data.source or corpus.folder} has no rows for the split {split!r} "
                f"({len(corpus)} in all): it takes usable rows on both sides. See data.valid_share and "
                "data.valid_groups, what the source itself names as splits, and "
                f"{corpus.folder / REJECTED}."
            )
    return OpenStream(stream.name, config, adapter, stream.weight, corpus=corpus)


def labelled(stream: OpenStream, tuning: FinetuneConfig) -> OpenStream:
    """The stream with its labels taken from where the settings say."""
    return replace(stream, corpus=relabelled(stream.corpus, tuning.labels_from))


def chosen_rows(task: Supervised, stream: OpenStream) -> OpenStream:
    """The stream with those rows, or parts of rows, that a task has labels for; UserError for none."""
    corpus = stream.corpus
    chosen = task.choose(Labelled(corpus, stream.adapter))
    before = {"train", "valid"} & {str(split) for split in corpus.splits}  # a test split need have no labels
    corpus = corpus.assigned(np.where(chosen, corpus.splits, ""))
    for split in sorted(before):
        if not len(corpus.rows(split)):
            raise UserError(
                f"none of the rows of the split {split!r} has a label of the task: see task.labels, "
                "data.valid_share and data.valid_groups."
            )
    parts = task.parts(Labelled(corpus, stream.adapter))
    return replace(stream, corpus=parts.corpus, adapter=parts.adapter)


def has_labels(stream: Stream) -> bool:
    """Whether the stream is that of a task with labels."""
    return isinstance(stream.config, RunConfig) and stream.config.task["target"] != "pretrain"


def loader(
    stream: OpenStream,
    split: str,
    seed: int,
    groups: Sequence[str] | None = None,
    *,
    shuffle: bool | None = None,
    share: int = 1,
    device: torch.device | None = None,
    at_once: int = 1,
    beside: int = 1,
) -> BatchLoader:
    """Batches of a split: for "train" shuffled, for any other in order.

    `groups` are those of all streams, in the order of their numbers. `shuffle` False reads the training split
    in order, too. `share`: among how many ranks a batch is divided. `device`: where batches go; None: no
    workers read them. `at_once`: how many are taken in a row. `beside`: among how many loaders that read at
    the same time the processes of "auto" are divided. Rows with labels are cropped in training alone:
    a part of a row has not all that its label is about, and predictions are made from whole rows.
    """
    training, data = split == "train" and shuffle is not False, stream.config.data
    lengths = lengths_of(data, stream.spec)
    if split != "train" and has_labels(stream):
        if lengths["join_length"] and lengths["max_length"]:  # rows are joined as in training
            lengths["join_length"] = min(lengths["join_length"], lengths["max_length"])
        lengths["max_length"] = None
    return BatchLoader(
        stream.corpus,
        stream.adapter,
        split=split,
        **lengths,
        seed=seed,
        workers=0 if device is None else workers_of(data, device, beside),
        shuffle=training,
        groups=groups,
        views=data.views,
        augment=data.augment,
        share=share,
        at_once=at_once,
        pinned=device is not None and device.type == "cuda",
    )


def workers_of(data: DataConfig, device: torch.device, beside: int = 1) -> int:
    """Loader processes: `data.workers`; "auto" is one for each core that a rank has beside a GPU, up to 8.

    On a CPU, whose cores have other work, it is none; nor where workers cannot hand over batches.
    """
    if data.workers != "auto":
        return data.workers
    has_room = not SHARED.is_dir() or shutil.disk_usage(SHARED).free >= LEAST_SHARED
    if device.type != "cuda" or not has_room:
        return 0
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun says it
    return max(1, min(MOST_WORKERS, hardware.num_cores() // ranks) // beside)


def training_batches(
    streams: Sequence[OpenStream],
    *,
    seed: int,
    group: int,
    device: torch.device | None = None,
    share: int = 1,
    at_once: int = 1,
) -> MixedLoader:
    """The one sequence of batches that a run learns from; `group` in a row are of one stream.

    `device`, `share` and `at_once`: see `loader`.
    """
    groups = groups_of(streams)
    make = partial(loader, share=share, device=device, at_once=at_once, beside=len(streams))
    loaders = {stream.name: make(stream, "train", seed, groups) for stream in streams}
    return MixedLoader(loaders, [stream.weight for stream in streams], seed=seed, group=group)


def held_out(
    streams: Sequence[OpenStream],
    *,
    seed: int,
    limit: int | None = None,
    groups: Sequence[str] | None = None,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """Every held-out batch once (or `limit` of each stream), the same in the same order each time.

    `groups` are those of the whole run; None = those of these streams. `device`: see `loader`.
    """
    groups = groups_of(streams) if groups is None else groups
    for stream in streams:
        for batch in loader(stream, "valid", seed, groups, device=device).batches(0, limit):
            yield replace(batch, stream=stream.name)


def references(streams: Iterable[OpenStream]) -> dict[str, float]:
    """Figures of the data alone, which held-out metrics are compared with."""
    return {
        f"{stream.name}/{key}" if stream.name else key: value
        for stream in streams
        for key, value in markov_bits(stream.corpus, stream.adapter).items()
    }


def describe(stream: OpenStream) -> str:
    """A line about a stream's data, and one about what could not be used."""
    name = f" {stream.name}" if stream.name else ""
    lines = [f"data{name}: {stream.corpus.folder} | {describe_corpus(stream.corpus)}", told(stream.corpus)]
    return "\n".join(filter(None, lines))


def describe_rows(stream: OpenStream) -> str:
    """How many rows, or parts of rows, of each split a task has labels for."""
    splits = [str(split) for split in stream.corpus.splits if split]
    names = sorted(set(splits), key=lambda name: (name != "train", name))
    return (
        str(stream.config.task["target"] if isinstance(stream.config, RunConfig) else "")
        + " | "
        + ", ".join(f"{name}: {splits.count(name):,} rows" for name in names)
    )


def describe_corpus(corpus: Corpus) -> str:
    """Rows and amounts by split."""
    return ", ".join(
        f"{name}: {split.num_rows} rows" + (f", {hours(split.hours)}" if split.hours is not None else "")
        for name, split in corpus.manifest.splits.items()
    )


def hours(number: float) -> str:
    """Hours as people write them: 1.89 h, 17,520 h."""
    return f"{number:,.0f} h" if number >= 100 else f"{number:.3g} h"
