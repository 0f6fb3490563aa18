"""The transducer (RNN-T): its loss over all alignments, its networks, and its search."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

NEVER = -1e30  # log-probability of what cannot be; finite, so that no gradient is 0 * inf
State = tuple[Tensor, Tensor]  # of the prediction network: hidden and cell


def transducer_loss(
    logits: Float[Tensor, "b t u v"],
    labels: Int[Tensor, "b w"],
    num_frames: Int[Tensor, "b"],
    num_labels: Int[Tensor, "b"],
    blank: int = 0,
) -> Float[Tensor, "b"]:
    """Minus the log-probability of each row's labels, over all alignments (Graves, 1211.3711).

    `logits[b, t, u]` scores the next symbol at frame t after u labels; u runs to the longest row's number of
    labels, so u = w + 1. Entries beyond a row's own sizes do not matter.

    The forward variables of one anti-diagonal (t + u constant) depend on the one before alone: so there are
    t + u steps over vectors of length u. Memory: a softmax over the logits, b t u v numbers, and its
    gradient; all else is b (t + u) u.
    """
    rows, frames, places, _ = logits.shape
    if places != labels.shape[1] + 1:
        raise ValueError(f"logits for {places} places and {labels.shape[1]} labels: there must be one more")
    total = logits.logsumexp(-1)
    stay = logits[..., blank] - total
    symbols = torch.cat([labels, labels.new_full((rows, 1), blank)], dim=1)[:, None, :, None]
    emit = logits.gather(-1, symbols.expand(rows, frames, places, 1))[..., 0] - total
    stay, emit = _by_diagonals(stay), _by_diagonals(emit)  # n b u
    first = torch.full((rows, places), NEVER, dtype=stay.dtype, device=stay.device)
    first[:, 0] = 0
    forward = [first]
    for diagonal in range(frames + places - 2):
        waited = forward[-1] + stay[diagonal]
        moved = nn.functional.pad((forward[-1] + emit[diagonal])[:, :-1], (1, 0), value=NEVER)
        forward.append(torch.logaddexp(waited, moved).clamp(min=NEVER))
    last, row = num_frames - 1 + num_labels, torch.arange(rows, device=logits.device)
    return -(torch.stack(forward)[last, row, num_labels] + stay[last, row, num_labels])


def _by_diagonals(x: Float[Tensor, "b t u"]) -> Float[Tensor, "n b u"]:
    """`x[b, n - u, u]` as entry [n, b, u]; where there is no such frame, what can never be."""
    _, frames, places = x.shape
    u = torch.arange(places, device=x.device)
    t = torch.arange(frames + places - 1, device=x.device)[:, None] - u
    inside = (t >= 0) & (t < frames)
    return x[:, t.clamp(0, frames - 1), u].masked_fill(~inside, NEVER).transpose(0, 1)


class PredictionNetwork(nn.Module):
    """What was written so far, as a vector: an embedding and an LSTM (w2v-BERT: 2 layers of 640)."""

    def __init__(self, num_symbols: int, dim: int = 640, num_layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_symbols, dim)
        self.lstm = nn.LSTM(dim, dim, num_layers, batch_first=True)

    def forward(
        self, symbols: Int[Tensor, "b u"], state: State | None = None
    ) -> tuple[Float[Tensor, "b u d"], State]:
        """A vector after each symbol, and the state behind the last one."""
        x, state = self.lstm(self.embedding(symbols), state)
        return x, state


class JointNetwork(nn.Module):
    """Scores of the next symbol from a frame and from what was written."""

    def __init__(self, frame_dim: int, text_dim: int, num_symbols: int, dim: int = 640) -> None:
        super().__init__()
        self.frame, self.text = nn.Linear(frame_dim, dim), nn.Linear(text_dim, dim, bias=False)
        self.output = nn.Linear(dim, num_symbols)

    def forward(
        self, frames: Float[Tensor, "b t d"], texts: Float[Tensor, "b u e"]
    ) -> Float[Tensor, "b t u v"]:
        """Every frame with every text."""
        joined = (self.frame(frames)[:, :, None] + self.text(texts)[:, None]).tanh()
        scores: Tensor = self.output(joined)
        return scores


@dataclass(frozen=True)
class Hypothesis:
    """What may have been said so far."""

    symbols: tuple[int, ...]
    score: float  # log-probability
    vector: Tensor  # of the prediction network, after the last symbol
    state: Any  # of the prediction network


@torch.no_grad()
def search(
    frames: Float[Tensor, "t d"],
    prediction: PredictionNetwork,
    joint: JointNetwork,
    *,
    beam: int = 1,
    max_symbols: int = 10,
    blank: int = 0,
) -> list[int]:
    """The most probable symbols of one row, by a search frame by frame.

    At each frame a hypothesis may write up to `max_symbols` symbols before it goes on to the next. Those that
    have written the same are one, with the sum of their probabilities. `beam` 1 is greedy.
    """
    start = _extended(prediction, Hypothesis((), 0.0, frames[0], None), blank, 0.0)
    kept = [Hypothesis((), 0.0, start.vector, start.state)]
    for frame in frames:
        done: dict[tuple[int, ...], Hypothesis] = {}
        writing = kept
        for written in range(max_symbols + 1):
            longer: list[tuple[float, Hypothesis, int]] = []
            for hypothesis in writing:
                scores = joint(frame[None, None], hypothesis.vector[None, None])[0, 0, 0]
                line = scores.float().log_softmax(-1)
                if beam > 1 or int(line.argmax()) == blank:
                    _add(done, hypothesis, hypothesis.score + float(line[blank]))
                if beam > 1 or int(line.argmax()) != blank:
                    line[blank] = NEVER
                    values, symbols = line.topk(min(beam, len(line) - 1))
                    longer += [
                        (hypothesis.score + value, hypothesis, symbol)
                        for value, symbol in zip(values.tolist(), symbols.tolist(), strict=True)
                    ]
            bar = sorted((h.score for h in done.values()), reverse=True)[:beam]
            longer.sort(key=lambda entry: -entry[0])
            worth = [entry for entry in longer[:beam] if len(bar) < beam or entry[0] > bar[-1]]
            if not worth or written == max_symbols:
                break
            writing = [_extended(prediction, old, symbol, score) for score, old, symbol in worth]
        kept = sorted(done.values(), key=lambda h: -h.score)[:beam] or writing
    return list(max(kept, key=lambda h: h.score).symbols)


def _add(done: dict[tuple[int, ...], Hypothesis], hypothesis: Hypothesis, score: float) -> None:
    """Add a hypothesis that goes on to the next frame; equal ones are added up."""
    known = done.get(hypothesis.symbols)
    if known is not None:
        high, low = max(known.score, score), min(known.score, score)
        score = high + math.log1p(math.exp(low - high))
    done[hypothesis.symbols] = Hypothesis(hypothesis.symbols, score, hypothesis.vector, hypothesis.state)


def _extended(prediction: PredictionNetwork, old: Hypothesis, symbol: int, score: float) -> Hypothesis:
    """A hypothesis with one more symbol."""
    device = prediction.embedding.weight.device
    x, state = prediction(torch.tensor([[symbol]], device=device), old.state)
    return Hypothesis((*old.symbols, symbol), score, x[0, 0], state)
