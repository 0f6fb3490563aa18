"""A task of a user's own: train low-rank additions to queries and values, and nothing else (LoRA)."""

import torch
from torch import Tensor, nn

from seqssl import Attention, PretrainingModel, PretrainTask


class LoraQueryValue(nn.Module):
    """A frozen linear map to queries, keys and values, with a low-rank addition to queries and values."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen, dim = frozen, frozen.in_features
        self.down = nn.Parameter(torch.randn(2, dim, rank) / dim**0.5)
        self.up = nn.Parameter(torch.zeros(2, rank, dim))  # nothing is added at the start

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.frozen(x).chunk(3, dim=-1)
        added = [x @ down @ up for down, up in zip(self.down, self.up, strict=True)]
        return torch.cat([query + added[0], key, value + added[1]], dim=-1)


class Lora(PretrainTask):
    """Everything but the additions is frozen."""

    def __init__(self, model: PretrainingModel, seed: int, *, rank: int = 2) -> None:
        super().__init__(model, seed)
        model.requires_grad_(False)
        for module in list(model.modules()):
            if isinstance(module, Attention):
                module.query_key_value = LoraQueryValue(module.query_key_value, rank)
