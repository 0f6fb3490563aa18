"""Rows with labels are cropped in training alone: they are tested as predictions are made, whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tuned_toys import tune

from seqssl.assembly import OpenStream, streams_of
from seqssl.config.schema import RunConfig
from seqssl.data.files import silent
from seqssl.runs.finetune import configuration
from seqssl.runs.folder import find_run, load_task
from seqssl.runs.predict import predict
from seqssl.runs.sources import open_source
from seqssl.runs.streams import held_out, loader, opened
from seqssl.training.parallel import Alone

CROP = "data.max_frames=20"  # rows have 36 to 44 steps


def open_stream(config: RunConfig) -> OpenStream:
    (stream,) = streams_of(config)
    return opened(stream, Alone(), torch.device("cpu"), silent)


def lengths_of(config: RunConfig) -> dict[str, list[int]]:
    """The lengths of rows as they are read, and those of the held-out rows as they are."""
    found = open_stream(config)
    lengths = {
        split: sorted(n for batch in loader(found, split, 0).batches() for n in batch.lengths.tolist())
        for split in ("train", "valid")
    }
    return {**lengths, "whole": sorted(found.corpus.lengths[found.corpus.rows("valid")].tolist())}


def test_rows_with_labels_are_cropped_in_training_alone(run: Path) -> None:
    tuning = configuration(run, "classify", CROP, "data.batch_frames=30")  # less than a row
    found = lengths_of(tuning)
    assert {*found["train"]} == {20}
    assert found["valid"] == found["whole"] and min(found["whole"]) > 30
    assert {*lengths_of(replace(tuning, task={"target": "pretrain"}))["valid"]} == {20}


def test_held_out_scores_are_those_of_predictions(run: Path, tmp_path: Path) -> None:
    tuned = tune(run, "classify", tmp_path / "tuned", CROP)
    task = load_task(tuned.out, device="cpu")
    corpus, adapter = open_source(tuned.out, None)
    said = {row["key"]: [*row["scores"].values()] for row in predict(task, corpus, adapter)}
    tested = task.score(held_out([open_stream(find_run(tuned.out)[0])], seed=0))
    assert tested
    for row in tested:
        np.testing.assert_allclose(row.scores, said[row.key], atol=1e-5)
