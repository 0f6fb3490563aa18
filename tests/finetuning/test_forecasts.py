"""The head of forecasts: what it computes, how fast it learns, and runs from before its shortcut."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tuned_toys import tune

from seqssl.finetuning.heads import ForecastHead
from seqssl.runs.folder import load_task

WINDOW = ("task.lookback=16", "task.horizon=4")


def test_a_forecast_is_a_sum_over_frames_and_over_the_channels_own_past() -> None:
    head = ForecastHead(dim=3, num_frames=2, lookback=5, horizon=4, channels=2)
    assert all(not weight.any() for weight in head.parameters()), "the first forecast is the mean"
    for weight in head.parameters():
        torch.nn.init.normal_(weight)
    frames, past = torch.randn(2, 2, 3), torch.randn(2, 5, 2)
    found = head(frames, past)
    maps = head.linear.weight.view(4, 2, 2, 3)
    for row, step, channel in np.ndindex(2, 4, 2):
        expected = head.linear.bias.view(4, 2)[step, channel] + (maps[step, channel] * frames[row]).sum()
        expected += (head.shortcut.weight[step] * past[row, :, channel]).sum()
        torch.testing.assert_close(found[row, step, channel], expected)


def test_dropout_is_of_the_frames_alone_and_of_training_alone() -> None:
    torch.manual_seed(0)
    head = ForecastHead(dim=50, num_frames=4, lookback=5, horizon=1, channels=1, dropout=0.5)
    torch.nn.init.ones_(head.linear.weight)
    frames, past = torch.ones(200, 4, 50), torch.ones(200, 5, 1)
    dropped = head(frames, past).flatten()
    assert (
        dropped.mean().item() == pytest.approx(200, abs=5) and 8 < dropped.std().item() < 22
    )  # binomial: 14
    assert head.eval()(frames, past).eq(200).all()
    torch.nn.init.zeros_(head.linear.weight)
    torch.nn.init.ones_(head.shortcut.weight)
    assert head.train()(frames, past).eq(5).all()


def test_a_map_of_many_frames_takes_steps_as_large_as_one_of_a_frame(run: Path, tmp_path: Path) -> None:
    task = load_task(tune(run, "forecast", tmp_path / "t", *WINDOW, "finetune.head_rate=60").out)
    names = {id(p): name for name, p in task.model.named_parameters()}
    scales = {names[id(p)]: group["lr_scale"] for group in task.parameter_groups() for p in group["params"]}
    num_frames = task.model.head.linear.in_features // 16
    assert num_frames == 3
    assert scales["head.linear.weight"] == 2
    assert scales["head.linear.bias"] == scales["head.shortcut.weight"] == scales["mix.logits"] == 6


@pytest.mark.parametrize(("lookback", "scale"), [(4, 1.0), (8, 1.0), (32, 0.25)])
def test_one_update_moves_a_forecast_by_no_more_than_a_head_of_one_frame(lookback: int, scale: float) -> None:
    dim, rate = 8, 0.01
    head = ForecastHead(dim, num_frames=5, lookback=lookback, horizon=3, channels=2)
    groups = [
        {"params": [weight], "lr": rate * head.lr_scales.get(name, 1.0)}
        for name, weight in head.named_parameters()
        if name != "linear.bias"
    ]
    optimizer = torch.optim.Adam(groups)
    frames, past = torch.ones(1, 5, dim), torch.ones(1, lookback, 2)  # all pull in one direction
    head(frames, past).sum().backward()
    optimizer.step()
    assert head.lr_scales["shortcut.weight"] == scale
    moved = (head(frames, past) - head.linear.bias.view(3, 2)).abs().max()
    assert moved.item() <= 2 * rate * dim * (1 + 1e-4), "the frames' part and the look-back's"


def test_a_run_from_before_the_shortcut_says_what_it_said(run: Path, tmp_path: Path) -> None:
    tuned = tune(run, "forecast", tmp_path / "t", *WINDOW, "finetune.average=0.9").out
    shutil.copytree(tuned, tmp_path / "old")
    for path in (tmp_path / "old").rglob("model.safetensors"):
        kept = {name: x for name, x in load_file(path).items() if "shortcut" not in name}
        assert len(kept) == len(load_file(path)) - 2
        save_file(kept, path)
    old, new = load_task(tmp_path / "old"), load_task(tuned)
    assert not old.model.head.shortcut.weight.any()
    assert new.model.head.shortcut.weight.any()
    torch.testing.assert_close(old.model.head.linear.weight, new.model.head.linear.weight, rtol=0, atol=0)
