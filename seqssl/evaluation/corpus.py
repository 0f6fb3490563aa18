"""Frozen features of a whole corpus: in a Parquet file, or pooled in memory for a probe."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from seqssl.data.files import Progress, silent
from seqssl.data.shards import Corpus
from seqssl.evaluation.encoder import Array, Encoder
from seqssl.model.protocols import ModalityAdapter

Rows = npt.NDArray[np.integer[Any]]  # row numbers
ROWS_AT_ONCE = 256  # held in memory together, so that rows of like length can share a batch


def write_embeddings(
    encoder: Encoder,
    corpus: Corpus,
    adapter: ModalityAdapter,
    out: Path,
    *,
    pool: str = "mean",
    progress: Progress = silent,
) -> None:
    """Embed all rows into a Parquet file with the columns key, group, label, split, embedding.

    `embedding` is a list of d floats, or with `pool="none"` a list of s frames of d floats. The file
    appears when it is whole. Raises UserError for a row that breaks the input contract.
    """
    partial = out.with_name(out.name + ".tmp")
    writer = None
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        for rows, arrays in _chunks(corpus, adapter, np.arange(len(corpus)), progress):
            index = {
                "key": corpus.keys[rows],
                "group": corpus.groups[rows],
                "label": corpus.labels[rows],
                "split": corpus.splits[rows],
            }
            strings = {name: pa.array(values, pa.string()) for name, values in index.items()}
            table = pa.table({**strings, "embedding": _lists(encoder.embed(arrays, pool))})
            writer = writer or pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
            os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def pooled_stages(
    encoder: Encoder, corpus: Corpus, adapter: ModalityAdapter, rows: Rows, progress: Progress = silent
) -> dict[str, Array]:
    """Mean-pooled embeddings (len(rows), d) of every stage of the encoder."""
    chunks = [encoder.embed_stages(arrays) for _, arrays in _chunks(corpus, adapter, rows, progress)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in encoder.stages}


def pooled_input(encoder: Encoder, corpus: Corpus, adapter: ModalityAdapter, rows: Rows) -> Array | None:
    """Mean and standard deviation over time of the input itself (len(rows), 2 f): no weights at all.

    A feature encoder that has `picture(inputs, lengths) -> (b, t, f)`, a spectrogram say, is read by that,
    another by its input channels. None where there are neither.
    """
    picture = getattr(encoder.model.feature_encoder, "picture", None)
    if picture is None and encoder.spec.channels is None:
        return None

    @torch.inference_mode()
    def view(array: Array) -> Array:
        if picture is None:
            return array
        lengths = torch.tensor([len(array)], device=encoder.device)
        shown: Array = picture(torch.tensor(array)[None].to(encoder.device), lengths)[0].float().cpu().numpy()
        return shown

    views = (view(array) for _, arrays in _chunks(corpus, adapter, rows, silent) for array in arrays)
    return np.stack([np.concatenate([image.mean(axis=0), image.std(axis=0)]) for image in views])


def _chunks(
    corpus: Corpus, adapter: ModalityAdapter, rows: Rows, progress: Progress
) -> Iterator[tuple[Rows, list[Array]]]:
    """Row numbers, and the arrays that they hold."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        progress(start, len(rows), "embedding")
        chunk = rows[start : start + ROWS_AT_ONCE]
        yield chunk, [adapter.load(corpus.row(int(number)), None).values for number in chunk]
    progress(len(rows), len(rows), "embedding")


def _lists(embedded: Array | list[Array]) -> pa.ListArray:
    """(n, d) as lists of d floats; n arrays (s, d) as lists of fixed-size lists of d floats."""
    values = pa.array(np.concatenate([row.reshape(-1) for row in embedded]))
    if isinstance(embedded, list):
        values = pa.FixedSizeListArray.from_arrays(values, embedded[0].shape[1])
    offsets = np.cumsum([0, *(len(row) for row in embedded)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
