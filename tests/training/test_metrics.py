"""Sums that become metrics."""

from typing import Any

import torch
from torch import Tensor

from seqssl.model.pretraining import Output
from seqssl.model.types import Batch, LossTerm, MaskedFrames, Quantized
from seqssl.training.tally import Window


def step(codes: Tensor, size: int = 5) -> tuple[Output, Batch, MaskedFrames]:
    frames = MaskedFrames.of(torch.ones(1, len(codes), dtype=torch.bool))
    number = torch.tensor(len(codes))
    terms = {
        "masked_prediction": LossTerm(torch.tensor(6.0), number, {"accuracy": torch.tensor(2.0)}),
        "masked_prediction_seen": LossTerm(torch.tensor(10.0), number, num_frames=torch.tensor(20)),
    }
    weights = {"masked_prediction": 1.0, "masked_prediction_seen": 0.5}
    targets = Quantized(torch.zeros(len(codes), 2), codes, torch.full((codes.shape[1], 4), 0.25))
    batch = Batch(torch.zeros(1, len(codes), 1), torch.tensor([len(codes)]))
    return Output(terms, weights, targets, size, 1, number, {}), batch, frames


def test_codes_are_counted_in_their_own_codebook() -> None:
    codes = torch.tensor([[0, 3], [0, 2], [1, 3]])
    window = Window()
    window.add(*step(codes))
    window.add(*step(codes[:0]))
    for g, column in enumerate(codes.T):
        assert torch.equal(window.sums["|codes"][g], torch.bincount(column, minlength=5).double())
    metrics = window.close()
    assert metrics["perplexity/size"] == 4  # that of the learned ones; heads may have more
    assert metrics["codes/dead_0"] == 0.5


def test_seen_frames_show_their_mean_and_weigh_as_masked_ones() -> None:
    window = Window()
    window.add(*step(torch.tensor([[0], [1], [1]])))
    metrics = window.close()
    assert metrics["loss/masked_prediction"] == 2 and metrics["loss/masked_prediction_seen"] == 0.5
    assert abs(metrics["loss"] - (6 / 3 + 0.5 * 10 / 3)) < 1e-9


def test_ranks_add_up_on_their_device() -> None:
    class Ranks:
        def sum(self, value: Tensor) -> Tensor:
            assert value.device.type == "meta"
            return value

    window = Window()
    window.add(*step(torch.tensor([[0], [1]])))
    ranks: Any = Ranks()
    window.merge(ranks, torch.device("meta"))
    assert {value.device.type for value in window.sums.values()} == {"meta"}


def test_a_window_of_an_older_version_goes_on() -> None:
    window = Window()
    window.add(*step(torch.tensor([[0], [1]])))
    state = {name: value for name, value in window.state().items() if not name.endswith("|word")}
    assert Window.restore(state, torch.device("cpu")).close()["loss/masked_prediction"] == 3
    restored = Window.restore(state, torch.device("cpu"))
    restored.add(*step(torch.tensor([[0], [1]])))
    assert restored.close()["loss/masked_prediction"] == 3
