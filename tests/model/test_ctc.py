"""CTC: search against torch's loss over all texts."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from seqssl.model.ctc import beam_search, fewest_frames, greedy


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_most_probable_text(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    chances = (2 * torch.randn(5, 3, generator=generator)).log_softmax(-1)
    losses = {
        text: float(
            F.ctc_loss(
                chances[:, None], torch.tensor([text]).long(), torch.tensor([5]), torch.tensor([size]),
                reduction="sum",
            )
        )
        for size in range(6)
        for text in itertools.product((1, 2), repeat=size)
    }  # fmt: skip
    assert tuple(beam_search(chances.numpy(), 500)) == min(losses, key=losses.__getitem__)


@given(st.lists(st.integers(0, 3), max_size=12))
def test_greedy_and_the_fewest_frames(path: list[int]) -> None:
    chances = np.full((len(path), 4), -9.0)
    chances[np.arange(len(path)), path] = 0.0
    text = greedy(chances)
    assert 0 not in text
    assert fewest_frames(text) <= len(path)
    assert beam_search(chances, 1 if not path else 16) == text
