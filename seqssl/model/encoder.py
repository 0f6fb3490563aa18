"""The context encoder: it stacks blocks and hands out named taps."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqssl.model.dropout import Dropout
from seqssl.model.protocols import Block, Condition
from seqssl.model.types import Frames


class ContextEncoder(nn.Module):
    """A stack of blocks; `taps` names the outputs to return: {name: number of blocks below it}.

    `position` adds positions below the first block. `condition` makes the vector of each row that blocks may
    read; it is here because all streams share it. `norm` is at the "input" of the first block (wav2vec 2.0
    BASE, whose blocks have their norms last), or at the "output" of the last one (LARGE, whose blocks leave
    sums that no norm has seen); `dim` is its width. `dropout` is that of what the first block reads.
    `stochastic_depth` is the drop probability of the last block, linear from 0 (1603.09382): in training each
    row keeps or skips a block, drawn from the step's generator, and what a kept block adds is scaled up.
    """

    position: Block | None
    condition: Condition | None

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        position: Block | None,
        condition: Condition | None = None,
        *,
        taps: Mapping[str, int],
        norm: Literal["none", "input", "output"] = "none",
        dim: int = 0,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.position, self.condition = position, condition
        wrong = {name: layer for name, layer in taps.items() if not 1 <= layer <= len(blocks)}
        if wrong or not taps:
            raise ValueError(f"taps must lie in 1..{len(blocks)} (the number of blocks); got {dict(taps)}")
        if not 0 <= stochastic_depth < 1:
            raise ValueError(f"stochastic_depth must be at least 0 and below 1; got {stochastic_depth}")
        self.taps = dict(taps)
        self.norm = nn.LayerNorm(dim) if norm != "none" else nn.Identity()
        self.norm_at, self.dropout = norm, Dropout(dropout)
        self.drop_probs = [stochastic_depth * layer / len(blocks) for layer in range(1, len(blocks) + 1)]
        self.checkpoint_activations = checkpoint_activations

    def tap_every_layer(self) -> None:
        """Add a tap `layerN` for each layer below the highest tap that has none."""
        named = set(self.taps.values())
        self.taps |= {f"layer{n}": n for n in range(1, max(named) + 1) if n not in named}

    def forward(
        self, x: Float[Tensor, "b s d"], frames: Frames, generator: Generator | None = None
    ) -> dict[str, Float[Tensor, "b s d"]]:
        """Every tap by name; blocks above the highest tap are not run."""
        outputs: dict[str, Tensor] = {}
        if self.position is not None:
            x = self.position(x, frames)
        x = self.dropout(self.norm(x) if self.norm_at == "input" else x)
        for layer in range(1, max(self.taps.values()) + 1):
            x = self._run(layer - 1, x, frames, generator)
            if self.norm_at == "output" and layer == len(self.blocks):
                x = self.norm(x)
            outputs |= {name: x for name, tapped in self.taps.items() if tapped == layer}
        return outputs

    def _run(self, index: int, x: Tensor, frames: Frames, generator: Generator | None) -> Tensor:
        """The output of one block; in training, some rows skip it."""
        block, drop = self.blocks[index], self.drop_probs[index]
        if self.checkpoint_activations and torch.is_grad_enabled():
            y: Tensor = checkpoint(block, x, frames, use_reentrant=False)
        else:
            y = block(x, frames)
        if not (self.training and drop > 0):
            return y
        kept = torch.rand(x.shape[0], 1, 1, device=x.device, generator=generator) >= drop
        return x + (y - x) * (kept / (1 - drop))
