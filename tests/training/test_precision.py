"""bfloat16 is tried on the run's own model and data before it is trusted."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_runs import Killed, die_at
from torch import nn
from toy import toy_config

import seqssl
from seqssl import UserError, build_model
from seqssl.model.convolutions import Conv1d
from seqssl.model.layers import ConvPosition
from seqssl.model.types import Batch, Frames
from seqssl.training.precision import MOST_ERROR, precision_error

CPU = torch.device("cpu")


class WrongInBfloat16(nn.Module):
    """A position that a broken kernel computes: its sums are right in float32 only."""

    def __init__(self, dim: int, factor: float = -4.0) -> None:
        super().__init__()
        self.map, self.factor = nn.Linear(dim, dim), factor

    def forward(self, x, frames):
        y = self.map(x)
        return x + (self.factor * y if y.dtype == torch.bfloat16 else 4 * y)


class TestConvolutions:
    @given(
        st.integers(1, 17), st.integers(1, 4), st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**31)
    )
    def test_are_near_float32_under_autocast(self, channels, groups, kernel, stride, seed):
        torch.manual_seed(seed)
        size = channels * groups
        conv = Conv1d(size, 2 * groups, 2 * kernel, stride, groups=groups, bias=False)
        x = torch.randn(2, size, 2 * kernel + 40)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = conv(x).float()
        exact = nn.functional.conv1d(x, conv.weight, stride=stride, groups=groups)
        assert (found - exact).norm() < 0.03 * exact.norm()

    @pytest.mark.parametrize("dim", [128, 192])
    def test_the_tiny_recipes_position_is_the_same_in_both(self, dim):
        torch.manual_seed(0)
        position = ConvPosition(dim, kernel=32, groups=16)
        x, frames = torch.randn(2, 100, dim), Frames(torch.ones(2, 100, dtype=torch.bool))
        with torch.no_grad():
            exact = position(x, frames) - x
            with torch.autocast("cpu", torch.bfloat16):
                found = position(x, frames) - x
        assert (found - exact).norm() < 0.03 * exact.norm()


class TestPrecisionError:
    def test_of_a_sound_model_is_rounding(self, waves, tmp_path):
        model, batch = build_model(toy_config(waves, tmp_path)), batch_of_waves()
        error, _ = precision_error(model, batch, CPU, torch.bfloat16)
        assert 0 < error < 0.1 and model.training

    def test_names_the_stage_that_is_wrong(self, waves, tmp_path):
        model = build_model(toy_config(waves, tmp_path))
        model.encoder.position = WrongInBfloat16(model.input_projection.out_features)
        error, stage = precision_error(model, batch_of_waves(), CPU, torch.bfloat16)
        assert error > MOST_ERROR and stage in ("contrastive", "output")

    def test_what_overflows_in_it_alone_is_wrong(self, waves, tmp_path):
        model = build_model(toy_config(waves, tmp_path))
        model.encoder.position = WrongInBfloat16(model.input_projection.out_features, factor=torch.inf)
        assert precision_error(model, batch_of_waves(), CPU, torch.bfloat16)[0] == torch.inf

    def test_values_that_are_not_finite_are_no_error_of_precision(self, waves, tmp_path):
        model, batch = build_model(toy_config(waves, tmp_path)), batch_of_waves()
        batch = replace(batch, inputs=batch.inputs * torch.nan)
        assert precision_error(model, batch, CPU, torch.bfloat16) == (0.0, "")


def batch_of_waves() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(3, 64, 2, generator=generator), torch.tensor([64, 40, 33]))


class TestTraining:
    def settings(self, waves, out, *more):
        return toy_config(waves, out, "encoder.position={target: 'test_precision:WrongInBfloat16'}", *more)

    def test_takes_float32_where_bfloat16_is_wrong(self, waves, tmp_path, monkeypatch):
        monkeypatch.setattr("seqssl.planning.hardware.has_fast_bfloat16", lambda: True)
        lines = []
        config = self.settings(waves, tmp_path / "run", "train.precision=auto", "train.num_updates=1")
        run = seqssl.train(config, say=lines.append)
        (told,) = [line for line in lines if "precision" in line]
        assert "wrongly" in told and "training in float32" in told
        exact = self.settings(waves, tmp_path / "exact", "train.precision=float32", "train.num_updates=1")
        assert seqssl.train(exact, say=lines.append).metrics == run.metrics

    def test_goes_on_in_what_it_began_with(self, waves, tmp_path, monkeypatch):
        """Before, a resume tried it on weights that are not the run's, and a run could change midway."""
        config = partial(toy_config, waves)
        with monkeypatch.context() as patch:
            patch.setattr("seqssl.planning.hardware.has_fast_bfloat16", lambda: True)
            whole = seqssl.train(config(tmp_path / "whole", "train.precision=auto"), say=None)
            die_at(7, patch)
            with pytest.raises(Killed):
                seqssl.train(config(tmp_path / "run", "train.precision=auto"), say=None)
        monkeypatch.setattr("seqssl.runs.precision.precision_error", lambda *_: (math.inf, "output"))
        monkeypatch.setattr("seqssl.planning.hardware.has_fast_bfloat16", lambda: False)
        lines = []
        run = seqssl.train(config(tmp_path / "run", "train.precision=auto"), say=lines.append)
        assert any("bfloat16, matrix product" in line for line in lines)
        assert run.metrics == whole.metrics

    def test_refuses_it_where_it_was_asked_for(self, waves, tmp_path):
        config = self.settings(waves, tmp_path / "run", "train.precision=bfloat16", "train.num_updates=1")
        with pytest.raises(UserError, match=r"wrongly.*Set it to float32"):
            seqssl.train(config, say=lambda text: None)
