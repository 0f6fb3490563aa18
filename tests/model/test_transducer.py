"""The transducer: its loss against enumeration, a slow reference, and its search against both."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqssl.model.transducer import JointNetwork, PredictionNetwork, search, transducer_loss


def alignments(frames: int, labels: int) -> list[tuple[int, ...]]:
    """The frame at which each label is written: never earlier than the one before."""
    return [
        places for places in itertools.product(range(frames), repeat=labels) if list(places) == sorted(places)
    ]


def by_enumeration(logits: Tensor, labels: list[int], blank: int) -> float:
    """Minus the log of the sum over all alignments of the product of their probabilities."""
    chances = logits.double().softmax(-1)
    total = 0.0
    for places in alignments(len(logits), len(labels)):
        product, written = 1.0, 0
        for frame in range(len(logits)):
            while written < len(labels) and places[written] == frame:
                product *= float(chances[frame, written, labels[written]])
                written += 1
            product *= float(chances[frame, written, blank])
        total += product
    return -math.log(total)


def slowly(logits: Tensor, labels: list[int], blank: int) -> Tensor:
    """The forward variables one by one."""
    table = logits.log_softmax(-1)
    forward: dict[tuple[int, int], Tensor] = {}
    for t in range(len(logits)):
        for u in range(len(labels) + 1):
            ways = []
            if t:
                ways.append(forward[t - 1, u] + table[t - 1, u, blank])
            if u:
                ways.append(forward[t, u - 1] + table[t, u - 1, labels[u - 1]])
            forward[t, u] = torch.stack(ways).logsumexp(0) if ways else table.new_zeros(())
    return -(forward[len(logits) - 1, len(labels)] + table[-1, len(labels), blank])


@settings(max_examples=40)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=3),
    vocab=st.integers(2, 5),
    seed=st.integers(0, 2**20),
)
def test_loss_equals_enumeration_in_any_padding(sizes: list[tuple[int, int]], vocab: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames, longest = max(t for t, _ in sizes), max(u for _, u in sizes)
    blank = seed % vocab
    logits = 3 * torch.randn(len(sizes), frames, longest + 1, vocab, generator=generator, dtype=torch.float64)
    symbols = [n for n in range(vocab) if n != blank]
    labels = torch.tensor(symbols)[torch.randint(len(symbols), (len(sizes), longest), generator=generator)]
    lengths = torch.tensor(sizes)
    found = transducer_loss(logits, labels, lengths[:, 0], lengths[:, 1], blank)
    for row, (t, u) in enumerate(sizes):
        own = labels[row, :u].tolist()
        assert float(found[row]) == pytest.approx(
            by_enumeration(logits[row, :t, : u + 1], own, blank), abs=1e-6
        )


def test_gradients_are_those_of_the_slow_reference() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 7, 5, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 2, 2, 5], [3, 1, 0, 0]])
    loss = transducer_loss(logits, labels, torch.tensor([7, 4]), torch.tensor([4, 2]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    reference = slowly(logits[0], [1, 2, 2, 5], 0) + slowly(logits[1, :4, :3], [3, 1], 0)
    (wanted,) = torch.autograd.grad(reference, logits)
    torch.testing.assert_close(loss.sum(), reference, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)
    assert torch.isfinite(gradient).all()


def test_gradients_pass_the_numerical_check() -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    sizes = (torch.tensor([4, 3]), torch.tensor([2, 1]))
    labels = torch.tensor([[1, 3], [2, 2]])
    assert torch.autograd.gradcheck(lambda x: transducer_loss(x, labels, *sizes), logits)


def test_float32_loses_little_over_many_frames() -> None:
    torch.manual_seed(2)
    logits, labels = torch.randn(1, 300, 41, 30), torch.randint(1, 30, (1, 40))
    sizes = (torch.tensor([300]), torch.tensor([40]))
    exact = transducer_loss(logits.double(), labels, *sizes)
    assert float(transducer_loss(logits, labels, *sizes)) == pytest.approx(float(exact), rel=1e-5)


def test_a_wrong_number_of_places_is_refused() -> None:
    with pytest.raises(ValueError, match="one more"):
        transducer_loss(
            torch.randn(1, 3, 3, 4), torch.ones(1, 3).long(), torch.tensor([3]), torch.tensor([3])
        )


def networks(seed: int, vocab: int) -> tuple[Tensor, PredictionNetwork, JointNetwork]:
    torch.manual_seed(seed)
    prediction, joint = PredictionNetwork(vocab, 8, 2), JointNetwork(5, 8, vocab, 8)
    with torch.no_grad():
        joint.output.weight.mul_(6)
    return torch.randn(4, 5), prediction, joint


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_most_probable_text(seed: int) -> None:
    frames, prediction, joint = networks(seed, 3)
    found = search(frames, prediction, joint, beam=200, max_symbols=4)
    losses = {}
    for size in range(4):
        for text in itertools.product((1, 2), repeat=size):
            told = torch.tensor([[0, *text]])
            logits = joint(frames[None], prediction(told)[0]).detach()
            sizes = (torch.tensor([4]), torch.tensor([size]))
            losses[text] = float(
                transducer_loss(logits, torch.tensor([text]).reshape(1, size).long(), *sizes)
            )
    if len(found) <= 3:
        assert tuple(found) == min(losses, key=losses.__getitem__)


def test_greedy_writes_at_most_so_many_symbols_a_frame() -> None:
    frames, prediction, joint = networks(0, 3)
    with torch.no_grad():
        joint.output.bias[0] = -100  # never blank
    assert len(search(frames, prediction, joint, max_symbols=2)) <= 3 * len(frames)
    with torch.no_grad():
        joint.output.bias[0] = 100
    assert search(frames, prediction, joint) == []
