"""What figures of speed are made from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import Toy, toy_config

from seqssl.assembly import streams_of
from seqssl.planning import hardware
from seqssl.planning.cost import cost_of
from seqssl.runs.train import measure
from seqssl.training.loop import Units

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Hourly(Toy):
    """The same rows, a step an hour."""

    def __init__(self, *, jitter: float = 0.01) -> None:
        super().__init__(jitter=jitter)
        self.spec = replace(self.spec, rate_hz=1 / 3600)


def units(tmp_path: Path, device: torch.device, precision: torch.dtype) -> Units:
    config = toy_config(tmp_path, tmp_path / "run")
    streams = streams_of(config)
    return measure(cost_of(config, streams), streams, device, precision)[0]


def test_an_input_step_costs_the_same_at_any_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the share of the peak was 3,600 times too small where there is a step an hour."""
    monkeypatch.setattr(hardware, "matmul_speed", lambda *_: 1e9)
    fast = units(tmp_path, CPU, torch.float32)
    monkeypatch.setattr("toy.Toy", Hourly)
    slow = units(tmp_path, CPU, torch.float32)
    assert slow.flops_per_input == pytest.approx(fast.flops_per_input)
    assert (fast.rate_hz, slow.rate_hz) == (10.0, None), "years a second say nothing"


def test_a_gpu_in_float32_is_not_held_against_its_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert units(tmp_path, GPU, torch.bfloat16).peak_flops == 989e12
    assert units(tmp_path, GPU, torch.float32).peak_flops is None
