"""Frozen features of a whole corpus: in a Parquet file, or pooled in memory for a probe."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from seqssl.data.adapters import ModalityAdapter, Sample
from seqssl.data.describing import describe_series
from seqssl.data.files import Progress, silent, unlinked
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.evaluation.frozen import Array, ArrayError, Encoder

Rows = npt.NDArray[np.int64]  # row numbers
MAX_NGRAMS = 1024
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

    `embedding` is a list of floats, or with `pool="none"` a list of s frames of d floats. The file appears
    when it is whole. Raises UserError for a row that breaks the input contract.
    """
    partial = unlinked(out.with_name(out.name + ".tmp"))
    writer = None
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        for rows, samples in _chunks(corpus, adapter, np.arange(len(corpus)), progress):
            index = {
                "key": corpus.keys[rows],
                "group": corpus.groups[rows],
                "label": corpus.labels[rows],
                "split": corpus.splits[rows],
            }
            strings = {name: pa.array(values, pa.string()) for name, values in index.items()}
            with named(index["key"]):
                embedded = encoder.embed(samples, pool)
            table = pa.table({**strings, "embedding": _lists(embedded)})
            writer = writer or pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
            os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def pooled_stages(
    encoder: Encoder,
    corpus: Corpus,
    adapter: ModalityAdapter,
    rows: Rows,
    progress: Progress = silent,
    *,
    pool: str = "mean",
) -> dict[str, Array]:
    """Pooled embeddings (len(rows), k d) of every stage of the encoder."""
    chunks = []
    for chunk, samples in _chunks(corpus, adapter, rows, progress):
        with named(corpus.keys[chunk]):
            chunks.append(encoder.embed_stages(samples, pool))
    return {name: np.concatenate([part[name] for part in chunks]) for name in encoder.stages}


def pooled_input(encoder: Encoder, corpus: Corpus, adapter: ModalityAdapter, rows: Rows) -> dict[str, Array]:
    """Representations without any weights, by name: what a cheap classical method would use.

    `n-grams`: frequencies of short runs of ids. `input`: mean and standard deviation over time of the input's
    channels, or of the feature encoder's `picture(inputs, lengths) -> (b, t, f)`, a spectrogram say.
    `summary`: see `describe_series`. Numbers without channels and without a picture have none of them.
    """
    picture = getattr(encoder.model.feature_encoder, "picture", None)
    samples = (sample for _, chunk in _chunks(corpus, adapter, rows, silent) for sample in chunk)
    if encoder.spec.vocab_size is not None:
        vocab = encoder.spec.vocab_size
        return {"n-grams": np.stack([ngrams(encoder.views(sample), vocab) for sample in samples])}
    if picture is None and encoder.spec.channels is None:
        return {}

    @torch.inference_mode()
    def view(sample: Sample) -> Array:
        if picture is None:
            return sample.values
        lengths = torch.tensor([len(sample.values)], device=encoder.device)
        inputs = torch.tensor(sample.values)[None].to(encoder.device)
        shown: Array = picture(inputs, lengths)[0].float().cpu().numpy()
        return shown

    found: dict[str, list[Array]] = {}
    for sample in samples:
        image = view(sample)
        found.setdefault("input", []).append(np.concatenate([image.mean(axis=0), image.std(axis=0)]))
        if picture is None:
            found.setdefault("summary", []).append(describe_series(sample.values, sample.observed))
    return {name: np.stack(vectors) for name, vectors in found.items()}


def ngrams(samples: Sequence[Sample], vocab_size: int) -> Array:
    """Frequencies of runs of ids in every channel; a run is as long as `MAX_NGRAMS` kinds of it allow."""
    size = max(1, int(np.log(MAX_NGRAMS) / np.log(max(2, vocab_size))))
    counts = np.zeros(())
    for sample in samples:
        ids = sample.values if sample.values.ndim > 1 else sample.values[:, None]
        known = np.ones(ids.shape, bool) if sample.observed is None else sample.observed.reshape(ids.shape)
        steps = max(0, len(ids) - size + 1)
        runs = sum(ids[i : i + steps] * vocab_size ** (size - 1 - i) for i in range(size))
        whole = np.all([known[i : i + steps] for i in range(size)], axis=0)
        counts = counts + np.stack(
            [
                np.bincount(np.atleast_2d(runs)[:, c][whole[:, c]], minlength=vocab_size**size)
                for c in range(ids.shape[1])
            ]
        )
    shares = counts / np.maximum(np.sum(counts, axis=1, keepdims=True), 1)
    return np.asarray(shares.reshape(-1), np.float32)


@contextmanager
def named(keys: Sequence[str] | npt.NDArray[np.str_]) -> Iterator[None]:
    """A context in which errors about arrays name the rows that they are, by these keys."""
    try:
        yield
    except ArrayError as error:
        raise UserError(f"row {keys[error.index]}{error.problem}") from error


def _chunks(
    corpus: Corpus, adapter: ModalityAdapter, rows: Rows, progress: Progress
) -> Iterator[tuple[Rows, list[Sample]]]:
    """The samples of some rows, `ROWS_AT_ONCE` at a time, with their row numbers."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        progress(start, len(rows), "embedding")
        chunk = rows[start : start + ROWS_AT_ONCE]
        yield chunk, [adapter.load(corpus.row(int(number)), None) for number in chunk]
    progress(len(rows), len(rows), "embedding")


def _lists(embedded: Array | list[Array]) -> pa.ListArray:
    """(n, d) as lists of d floats; n arrays (s, d) as lists of fixed-size lists of d floats."""
    values = pa.array(np.concatenate([row.reshape(-1) for row in embedded]))
    if isinstance(embedded, list):
        values = pa.FixedSizeListArray.from_arrays(values, embedded[0].shape[1])
    offsets = np.cumsum([0, *(len(row) for row in embedded)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
