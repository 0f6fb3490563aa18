"""Blocks and mixers that users write, and all that they may know of frames."""

from dataclasses import replace
from pathlib import Path

import torch
from causal import CausalBlock
from clock import TimeMixer
from helpers import batch_of, config_of, train, weights

from seqssl import Batch, Frames, HasStep, build_model
from seqssl.testing import check_block, check_mixer


def test_a_causal_block_step_by_step_is_the_same_function(waves: Path, tmp_path: Path) -> None:
    block = CausalBlock(6)
    assert isinstance(block, HasStep)
    x, frames = torch.randn(3, 9, 6), Frames(torch.ones(3, 9, dtype=torch.bool))
    parallel, state, steps = block(x, frames), block.init_state(3), []
    for frame in x.unbind(1):
        y, state = block.step(frame, state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, dim=1), parallel, rtol=1e-4, atol=1e-5)
    later = x.clone()
    later[:, 5:] = 7
    assert torch.equal(block(later, frames)[:, :5], parallel[:, :5]), "the future does not reach the past"
    told = train(waves, tmp_path / "run", "encoder.block={target: causal:CausalBlock}", "optim.lr=0.01")
    assert told[-1]["loss"] < told[0]["loss"]


def test_plug_ins_pass_the_public_checks() -> None:
    check_block(CausalBlock)
    check_mixer(TimeMixer)


def test_times_reach_a_mixer(waves: Path, tmp_path: Path) -> None:
    mixer, valid = TimeMixer(8), torch.ones(2, 6, dtype=torch.bool)
    x, times = torch.randn(2, 6, 8), torch.rand(2, 6).cumsum(1)
    y = mixer(x, Frames(valid, times))
    torch.testing.assert_close(mixer(x, Frames(valid, times + 100)), y, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(mixer(x, Frames(valid, times * 3)), y, atol=1e-2)

    config = config_of(waves, tmp_path / "run", "mixer=clock:TimeMixer")
    model, batch = build_model(config), batch_of(config)
    steps = torch.arange(batch.inputs.shape[1]).expand(batch.inputs.shape[:2]) / 10

    def encoded(times: torch.Tensor) -> torch.Tensor:
        return model.encode(replace(batch, times=times)).x

    torch.testing.assert_close(encoded(steps + 50), encoded(steps), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(encoded(steps * 5), encoded(steps), atol=1e-2)
    assert train(waves, tmp_path / "run", "mixer=clock:TimeMixer")


def test_a_block_is_told_the_group_of_its_row(waves: Path, tmp_path: Path) -> None:
    slots = (
        "encoder.block={target: conditioned:FilmBlock}",
        "encoder.condition={target: conditioned:GroupEmbedding}",
    )
    config = config_of(waves, tmp_path / "run", *slots)
    model, batch = build_model(config), batch_of(config)
    assert batch.groups is not None and set(batch.groups.tolist()) <= {0, 1}
    name = {0: "group0/", 1: "group1/"}
    assert all(key.startswith(name[int(g)]) for key, g in zip(batch.keys, batch.groups, strict=True))

    def encoded(batch: Batch) -> torch.Tensor:
        return model.encode(batch).x

    same, other = encoded(batch), encoded(replace(batch, groups=1 - batch.groups))
    assert not torch.allclose(same, other, atol=1e-3)
    assert train(waves, tmp_path / "run", *slots)
    before = model.encoder.condition.vectors.weight.detach()
    moved = (weights(tmp_path / "run")["encoder.condition.vectors.weight"] - before).abs().amax(1)
    assert (moved[:2] > 0).all() and (moved[2:] == 0).all(), "the two groups that there are"
