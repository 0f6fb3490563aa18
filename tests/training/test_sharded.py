"""The loop, checkpoints and evaluation hold where no rank has the whole model.

How often ranks exchange something, and how much, is in `tests/planning/test_sharding.py`.
"""

import json
import os
import subprocess
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from launching import launch
from safetensors.torch import load_file
from test_runs import comparable, quiet_train
from toy import toy_arguments, toy_config, write_waves

from seqssl.assembly import build_model
from seqssl.errors import UserError
from seqssl.model.blocks import ConformerBlock, TransformerBlock
from seqssl.model.future import CausalConvBlock
from seqssl.model.linear_mixers import FFTConvolution, GatedLinear, LocalAttention, SummaryMixing
from seqssl.model.mixers import Attention, Position
from seqssl.model.types import Frames
from seqssl.runs.train import check_shards
from seqssl.training.precision import maps_of

SEVERAL = Path(__file__).with_name("several.py")
SHARDS = "train.shards=2"
SETTINGS = (
    "train.accumulate=2",
    "train.num_updates=4",
    "train.eval_every=2",
    "train.save_every=2",
    "train.keep_last=4",
)
# Diversity is a function of the whole batch, not a sum over micro-batches: one process has another.
ROUNDED = ("train.precision=bfloat16", "objectives.diversity=null")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    waves = write_waves(folder / "waves")
    os.environ["SEQSSL_CACHE"] = str(folder / "cache")

    def train(runs: dict[str, tuple[str, ...]]) -> None:
        commands = [
            ["train", *toy_arguments(waves, folder / run, *SETTINGS, *more)] for run, more in runs.items()
        ]
        launch(folder, str(SEVERAL), json.dumps(commands))

    train({"replicated": (), "sharded": (SHARDS,), "rounded": (SHARDS, *ROUNDED)})
    # Once more from the middle: the state that was gathered is what another run goes on from.
    for run in ("resumed", "resumed-whole"):
        (folder / run / "checkpoints").mkdir(parents=True)
        for name in ("checkpoints/step-00000002", "config.yaml"):
            subprocess.run(["cp", "-r", folder / "sharded" / name, folder / run / name], check=True)
    train({"resumed": (SHARDS,), "resumed-whole": ()})
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints/step-00000004/model.safetensors")


@pytest.mark.parametrize("name", ["sharded", "resumed", "resumed-whole"])
def test_a_sharded_run_has_the_weights_of_a_replicated_one(folder: Path, name: str) -> None:
    expected, found = weights(folder / "replicated"), weights(folder / name)
    assert expected.keys() == found.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)


def test_a_sharded_run_reports_what_a_replicated_one_does(folder: Path) -> None:
    replicated, sharded = comparable(folder / "replicated"), comparable(folder / "sharded")
    assert len(replicated) == len(sharded) >= 4
    for one, two in zip(replicated, sharded, strict=True):
        assert one.pop("kind") == two.pop("kind")
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5)


def test_the_best_weights_are_gathered_too(folder: Path) -> None:
    ours, theirs = (
        load_file(folder / run / "checkpoints/best/model.safetensors") for run in ("sharded", "replicated")
    )
    for key in theirs:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-5)


def test_rounded_weights_learn_as_autocast_does(folder: Path) -> None:
    """One process, whose weights are in float32, and rounded by autocast."""
    quiet_train(folder / "waves", folder / "autocast", *SETTINGS, *ROUNDED, "train.accumulate=4")
    one, two = comparable(folder / "autocast"), comparable(folder / "rounded")
    assert len(one) == len(two) >= 4
    for first, second in zip(one, two, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-3)
    assert all(x.dtype == torch.float32 for x in weights(folder / "rounded").values())


MIXERS = {
    **{position: partial(Attention, num_heads=2, position=position) for position in get_args(Position)},
    **{mixer.__name__: mixer for mixer in (LocalAttention, SummaryMixing, FFTConvolution, GatedLinear)},
}
BLOCKS: list[tuple[Any, str]] = [
    *product((ConformerBlock, TransformerBlock), MIXERS),
    (partial(CausalConvBlock, layer=1), ""),
]


@pytest.mark.parametrize(("kind", "mixer"), BLOCKS)
def test_a_block_with_rounded_weights_gives_what_autocast_gives(kind: Any, mixer: str) -> None:
    torch.manual_seed(0)
    block = kind(MIXERS[mixer](32), 32) if mixer else kind(32)
    for p in block.parameters():
        p.data += 0.1 * torch.randn_like(p)
    rounded = deepcopy(block)
    for part in maps_of(rounded):
        part.bfloat16()
    assert any(p.dtype == torch.bfloat16 for p in rounded.parameters())
    x = torch.randn(2, 300, 32)
    frames = Frames(torch.arange(300) < torch.tensor([300, 170])[:, None])
    with torch.autocast("cpu", torch.bfloat16):
        one, two = (each(x, frames)[frames.valid] for each in (block, rounded))
    assert two.dtype == one.dtype == torch.float32, "what goes from block to block is not rounded"
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("optim.name=adafactor",), "Adafactor's moments are rows and columns"),
        (("quantizer.revive=0.1",), "GumbelProductQuantizer changes weights without a gradient"),
        ((), "the number of processes, 1, must be a multiple"),
    ],
)
def test_what_cannot_be_divided_is_refused(settings: tuple[str, ...], words: str, tmp_path: Path) -> None:
    waves = write_waves(tmp_path / "waves")
    if settings:  # what is wrong with a model is found by any rank
        config = toy_config(waves, tmp_path / "run", *settings, SHARDS)
        with pytest.raises(UserError, match=words):
            check_shards(config, build_model(config))
    else:
        with pytest.raises(UserError, match=words):
            quiet_train(waves, tmp_path / "run", SHARDS)
