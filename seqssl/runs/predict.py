"""What a fine-tuned run says of data: labels, scores, segments, forecasts or text, in a file."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqssl.data.adapters import ModalityAdapter
from seqssl.data.batching import BatchLoader
from seqssl.data.files import Progress, silent, unlinked, write_atomic
from seqssl.data.shards import Corpus
from seqssl.errors import UserError
from seqssl.finetuning.facts import Labelled
from seqssl.finetuning.supervised import Supervised

BATCH_INPUTS = 2**16
SUFFIXES = (".parquet", ".csv", ".jsonl")


def predict(
    task: Supervised,
    corpus: Corpus,
    adapter: ModalityAdapter,
    *,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """What the task says of each row, in the order of the corpus: key, group, and the task's own columns."""
    rows = task.parts_to_predict(Labelled(corpus.assigned(np.full(len(corpus), "all")), adapter))
    # As much at once as the longest row takes, or a few rows: no setting of the run speaks of these data.
    length = max(BATCH_INPUTS, int(max(rows.corpus.lengths)))
    loader = BatchLoader(rows.corpus, rows.adapter, split="all", batch_length=length, shuffle=False)
    groups = dict(zip(rows.corpus.keys.tolist(), rows.corpus.groups.tolist(), strict=True))
    found: dict[str, dict[str, Any]] = {}
    for batch, outputs, frames in task.predicted(loader.batches()):
        columns = task.columns(batch, task.said(outputs, frames, batch))
        found |= dict(zip(batch.keys, columns, strict=True))
        progress(len(found), len(rows.corpus), "predicting")
    return [
        {"key": key, "group": groups[key], **found[key]} for key in rows.corpus.keys.tolist() if key in found
    ]


def write_predictions(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write predictions as Parquet, CSV (what is nested as JSON) or JSON lines, by the file's ending."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".jsonl":
        write_atomic(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif out.suffix == ".parquet":
        temporary = unlinked(out.with_name(out.name + ".tmp"))
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
        temporary.replace(out)
    else:
        temporary = unlinked(out.with_name(out.name + ".tmp"))
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({name: _plain(value) for name, value in row.items()})
        temporary.replace(out)


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def check_out(out: Path) -> None:
    """UserError for a file of another kind."""
    if out.suffix not in SUFFIXES or out.is_dir():
        raise UserError(f"out = {out}: name a file that ends in {', '.join(SUFFIXES)}")
