"""What can only be seen on a GPU.

It passed on an NVIDIA H200 (torch 2.11, CUDA 13) on 2026-11-27, when it drew no pictures yet.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_runs import quiet_train

import seqssl

DEVICE = os.environ.get("SEQSSL_TEST_DEVICE", "cuda")  # cpu tries the test itself


@pytest.mark.gpu
def test_a_run_on_a_gpu_learns_as_on_the_cpu_and_is_read_back(waves: Path, tmp_path: Path) -> None:
    own = ("modality=toy:Pictured", "train.num_updates=4")  # the report draws a row by a buffer of the model
    shared = (*own, "objectives.masked_prediction.seen_weight=0.5")
    there = quiet_train(waves, tmp_path / "there", f"train.device={DEVICE}", *shared)
    here = quiet_train(waves, tmp_path / "here", "train.device=cpu", *shared)
    assert there.metrics.keys() == here.metrics.keys()
    assert all(np.isfinite(value) for value in there.metrics.values())
    # Noise is drawn on the device, so the weights differ a little after four updates.
    assert there.metrics["loss"] == pytest.approx(here.metrics["loss"], rel=0.1)
    encoder = seqssl.load(there.out)
    arrays = [np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)]
    on_device = encoder.embed(arrays)
    encoder.model.to("cpu")
    np.testing.assert_allclose(on_device, encoder.embed(arrays), atol=1e-2)
    assert torch.cuda.is_available() or DEVICE == "cpu"
