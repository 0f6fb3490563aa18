"""Targets that users write, and a context encoder that reads them."""

from pathlib import Path

import numpy as np
import torch
from best_rq import BestRq
from helpers import batch_of, config_of, records, train, weights

import seqssl
from seqssl import build_model
from seqssl.runs.starting import starting_weights
from seqssl.testing import check_targets

PREDICT = ("objectives.contrastive=null", "objectives.diversity=null")


def test_hubert_predicts_the_clusters_of_its_teacher(waves: Path, tmp_path: Path) -> None:
    train(waves, tmp_path / "teacher")
    slot = f"targets={{target: hubert:HuBertTargets, run: {tmp_path / 'teacher'}}}"
    told = train(waves, tmp_path / "run", slot, *PREDICT, "optim.lr=0.01", "train.num_updates=30")
    assert told[-1]["loss/masked_prediction"] < told[0]["loss/masked_prediction"]

    config = config_of(waves, tmp_path / "again", slot, *PREDICT)
    model, batch = build_model(config), batch_of(config)
    codes = model.codes(batch)
    arrays = [x[:n].numpy() for x, n in zip(batch.inputs, batch.lengths, strict=True)]
    centers = model.targets.clusters.cluster_centers_
    teacher = seqssl.load(tmp_path / "teacher", tap="output")
    for row, frames in zip(codes, teacher.embed(arrays, pool="none"), strict=True):
        nearest = np.square(frames[:, None] - centers).sum(-1).argmin(1)
        assert row[: len(frames), 0].tolist() == nearest.tolist()
        assert (row[len(frames) :] == -1).all()
    assert len(np.unique(codes[codes >= 0])) > 1


def test_best_rq_passes_the_public_checks(waves: Path, tmp_path: Path) -> None:
    config = config_of(waves, tmp_path / "run")
    batch = batch_of(config)
    features = build_model(config).encode_features(batch)
    check_targets(lambda: BestRq(4.0, 2, features.x.shape[2], 5), batch, features)


def test_targets_of_best_rq_stand_still_while_the_model_learns(waves: Path, tmp_path: Path) -> None:
    slots = ("targets=best_rq:BestRq", *PREDICT, "optim.lr=0.01")
    config = config_of(waves, tmp_path / "run", *slots)
    model, batch = build_model(config), batch_of(config)
    before, frames = model.codes(batch), model.encode(batch).x.detach()
    told = train(waves, tmp_path / "run", *slots)
    assert told[-1]["loss/masked_prediction"] < told[0]["loss/masked_prediction"]
    starting_weights(model, str(tmp_path / "run"))
    assert not torch.allclose(model.encode(batch).x, frames, atol=1e-2)
    assert torch.equal(model.codes(batch), before)
    assert len(before[before >= 0].unique()) > 3


def test_the_context_encoder_reads_entries_of_the_codebook(waves: Path, tmp_path: Path) -> None:
    slots = ("quantizer=vq:KMeansQuantizer", "context=quantized", "objectives.masked_prediction=null")
    config = config_of(waves, tmp_path / "run", *slots)
    told = train(waves, tmp_path / "run", *slots)
    assert "contrastive/accuracy" in told[-1]
    model, batch = build_model(config), batch_of(config)
    fresh = {name: x.clone() for name, x in model.state_dict().items()}
    starting_weights(model, str(tmp_path / "run"))
    features = model.encode_features(batch)
    read = model.clear(batch, features)[features.valid]
    codebook = model.targets.quantizer.codebook
    distances = (read[:, None] - codebook).abs().amax(-1)
    assert distances.amin(1).max() < 1e-5, "every frame is an entry"
    assert (distances.argmin(1) == model.codes(batch)[features.valid][:, 0]).all()
    learned = weights(tmp_path / "run")
    moved = [name for name in fresh if not torch.equal(learned[name], fresh[name])]
    assert any(name.startswith("feature_encoder") for name in moved), "gradients pass through the entries"
    assert records(tmp_path / "run", "valid")
