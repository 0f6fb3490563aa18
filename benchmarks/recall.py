"""What each mixer remembers: pairs that were seen far back, asked for by their key.

    python benchmarks/recall.py [distances=32,256,2048] [updates=400] [seeds=1] [mixers=attention,local]

A row shows eight frames that each carry a key and a value, then so many frames of noise, then the keys alone,
in another order: say each value, of 16. Two transformer blocks of width 64 learn it from nothing, for each
distance alone; the figure is the share of right values on new rows. What is fast and forgetful shows here.
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from seqssl import Attention, Frames
from seqssl.model.blocks import TransformerBlock
from seqssl.model.linear_mixers import FFTConvolution, GatedLinear, LocalAttention, SummaryMixing

DIM, KEYS, VALUES, PAIRS, BATCH, RATE = 64, 32, 16, 8, 16, 2e-3
MIXERS: dict[str, Callable[[], nn.Module]] = {
    "attention": partial(Attention, DIM, num_heads=4, position="rotary"),
    "local": partial(LocalAttention, DIM, num_heads=4, window=64),
    "summary": partial(SummaryMixing, DIM),
    "fft_convolution": partial(FFTConvolution, DIM),
    "gated_linear": partial(GatedLinear, DIM, num_heads=4),
}


class Recall(nn.Module):
    """Keys and values as vectors that are added, two blocks, and a guess of the value."""

    def __init__(self, mixer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.keys = nn.Embedding(KEYS + 1, DIM)  # the last: no key
        self.values = nn.Embedding(VALUES + 1, DIM)  # the last: no value
        self.blocks = nn.ModuleList(TransformerBlock(mixer(), DIM, ffn_dim=2 * DIM) for _ in range(2))  # type: ignore[arg-type]
        self.guess = nn.Linear(DIM, VALUES)

    def forward(self, keys: Tensor, values: Tensor, noise: Tensor) -> Tensor:
        """Logits of the value at every frame."""
        x = self.keys(keys) + self.values(values) + noise
        frames = Frames(torch.ones(keys.shape, dtype=torch.bool))
        for block in self.blocks:
            x = block(x, frames)
        y: Tensor = self.guess(x)
        return y


def rows(distance: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys and values (b, s), noise (b, s, d), and the values that are asked for at the end (b, pairs)."""
    size = 2 * PAIRS + distance
    keys, values = torch.full((BATCH, size), KEYS), torch.full((BATCH, size), VALUES)
    drawn = torch.rand(BATCH, KEYS, generator=generator).argsort(1)[:, :PAIRS]
    held = torch.randint(VALUES, (BATCH, PAIRS), generator=generator)
    order = torch.rand(BATCH, PAIRS, generator=generator).argsort(1)
    keys[:, :PAIRS], values[:, :PAIRS] = drawn, held
    keys[:, -PAIRS:] = drawn.gather(1, order)
    noise = torch.randn(BATCH, size, DIM, generator=generator)
    noise[:, :PAIRS], noise[:, -PAIRS:] = 0, 0
    return keys, values, noise, held.gather(1, order)


def accuracy(mixer: str, distance: int, updates: int, seed: int) -> float:
    """Train, and the share of right values on new rows."""
    torch.manual_seed(seed)
    model, generator = Recall(MIXERS[mixer]), Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (update + 1) / 40) * min(1, 2 * (1 - update / updates))
        *inputs, wanted = rows(distance, generator)
        loss = F.cross_entropy(model(*inputs)[:, -PAIRS:].flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    right = []
    with torch.no_grad():
        for _ in range(8):
            *inputs, wanted = rows(distance, generator)
            right.append((model(*inputs)[:, -PAIRS:].argmax(-1) == wanted).float().mean())
    return float(torch.stack(right).mean())


def main(arguments: dict[str, str]) -> None:
    """A table: a line for each mixer."""
    distances = [int(text) for text in arguments.get("distances", "32,256,2048").split(",")]
    updates, seeds = int(arguments.get("updates", "400")), int(arguments.get("seeds", "1"))
    print("| mixer | " + " | ".join(f"{each:,} frames back" for each in distances) + " |")
    print("| --- |" + " ---: |" * len(distances))
    for mixer in arguments.get("mixers", ",".join(MIXERS)).split(","):
        found = [[accuracy(mixer, each, updates, seed) for seed in range(seeds)] for each in distances]
        print(
            f"| {mixer} | " + " | ".join(f"{100 * sum(own) / seeds:.0f} %" for own in found) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main(dict(text.split("=", 1) for text in sys.argv[1:]))
