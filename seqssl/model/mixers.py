"""Sequence mixers: attention with three kinds of position."""

import inspect
import math
import warnings
from typing import Annotated, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl.model.bounds import NOT_NEGATIVE, POSITIVE, SHARE, Divides
from seqssl.model.dropout import attend
from seqssl.model.protocols import Mixer
from seqssl.model.types import Frames

Position = Literal["none", "rotary", "relative", "relative_key"]


class Attention(nn.Module):
    """Multi-head self-attention through the fused kernel, whatever the position.

    `none`: no position (w2v-BERT XL and XXL). `rotary`: RoPE (2104.09864). `relative`: the four terms of
    Transformer-XL (1901.02860, section 3.3), the position terms entering as an additive bias. `relative_key`:
    a learned vector for each distance from `max_left` frames before to `max_right` after, farther ones
    counting as those, which the query reads like a key (1803.02155; w2v-BERT 2.0). `causal`: a
    frame attends to itself and to those before it.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: Annotated[int, POSITIVE, Divides("dim")] = 8,
        position: Position = "none",
        dropout: Annotated[float, SHARE] = 0.0,
        causal: bool = False,
        max_left: Annotated[int, NOT_NEGATIVE] = 64,
        max_right: Annotated[int, NOT_NEGATIVE] = 8,
    ) -> None:
        super().__init__()
        if position not in get_args(Position):
            raise ValueError(f"position must be one of {', '.join(get_args(Position))}; got {position!r}")
        check_heads(dim, num_heads, rotary=position == "rotary")
        self.num_heads, self.position, self.dropout, self.causal = num_heads, position, dropout, causal
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        if position == "relative":
            self.distance = nn.Linear(dim, dim, bias=False)
            self.content_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))  # u of the paper
            self.distance_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))  # v of the paper
        self.max_left, self.max_right = max_left, max_right
        if position == "relative_key":
            self.distances = nn.Embedding(max_left + max_right + 1, dim // num_heads)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """Attend to the valid frames of the same row."""
        qkv = self.query_key_value(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))  # b h s e
        mask: Tensor = frames.valid[:, None, None, :]
        if self.causal:
            mask = mask & torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        if self.position == "rotary":
            q, k = rotate(q), rotate(k)
        elif self.position == "relative":
            bias = self._distance_bias(q).masked_fill(~mask, -torch.inf)
            q, mask = q + self.content_bias[:, None].to(q.dtype), bias.to(q.dtype)
        elif self.position == "relative_key":
            mask = self._key_bias(q).masked_fill(~mask, -torch.inf).to(q.dtype)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q, k, v, mask, dropout)
        y: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return y

    def _distance_bias(self, q: Float[Tensor, "b h s e"]) -> Float[Tensor, "b h s s"]:
        """Terms (b) and (d) of Transformer-XL for every pair of frames, already scaled."""
        _, _, size, width = q.shape
        distances = torch.arange(size - 1, -size, -1, device=q.device)  # query minus key
        r = self.distance(sinusoids(distances, self.distance.in_features).to(q.dtype))
        r = r.unflatten(-1, (self.num_heads, width)).transpose(0, 1)  # h 2s-1 e
        scores = (q + self.distance_bias[:, None].to(q.dtype)) @ r.transpose(-1, -2)  # b h s 2s-1
        return shift(scores) / math.sqrt(width)

    def _key_bias(self, q: Float[Tensor, "b h s e"]) -> Float[Tensor, "b h s s"]:
        """Each query's product with the vector of the distance to each key, already scaled."""
        size, width = q.shape[2:]
        places = torch.arange(size, device=q.device)
        ahead = (places - places[:, None]).clamp(-self.max_left, self.max_right) + self.max_left
        scores = q @ self.distances.weight.to(q.dtype).T / math.sqrt(width)  # b h s r
        return scores.gather(-1, ahead.expand(*q.shape[:2], -1, -1))


def check_heads(dim: int, num_heads: int, *, rotary: bool = False) -> None:
    """ValueError for heads that do not divide the width, or whose dimensions rotary position cannot pair."""
    if dim % num_heads:
        raise ValueError(f"num_heads {num_heads} must divide the width {dim}")
    if rotary and dim // num_heads % 2:
        raise ValueError(f"rotary position pairs dimensions: {dim} / {num_heads} heads must be even")


def takes_valid(mixer: Mixer) -> bool:
    """Whether a mixer takes `valid` (b s), as all did before there was `frames`; warns if it does."""
    forward = mixer.forward if isinstance(mixer, nn.Module) else mixer
    if [*inspect.signature(forward).parameters][1:2] != ["valid"]:
        return False
    warnings.warn(
        f"{type(mixer).__name__} takes `valid`: let its second parameter be `frames` (seqssl.Frames), and "
        "read frames.valid. The next release no longer calls mixers with `valid`.",
        DeprecationWarning,
        stacklevel=4,
    )
    return True


def shift(scores: Float[Tensor, "b h s r"]) -> Float[Tensor, "b h s s"]:
    """Entry (i, j) of the result is the score of query i at distance i - j.

    The scores hold distances s-1 ... -(s-1) from left to right. Reading them with a row stride that is one
    shorter moves each row by one (Transformer-XL, appendix B), without an index table.
    """
    batch, heads, size, num_distances = scores.shape
    flat = F.pad(scores, (0, 1)).flatten(2)[..., size - 1 : size - 1 + size * num_distances]
    return flat.view(batch, heads, size, num_distances)[..., :size]


def sinusoids(positions: Tensor, dim: int) -> Float[Tensor, "p {dim}"]:
    """Sine and cosine features of positions, as Transformer-XL lays them out."""
    frequencies = torch.exp(torch.arange(0, dim, 2, device=positions.device) * (-math.log(10_000) / dim))
    angles = positions[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :dim]


def rotate(x: Float[Tensor, "b h s e"]) -> Float[Tensor, "b h s e"]:
    """Rotary position: pairs of dimensions, turned by an angle proportional to the frame's index."""
    size, width = x.shape[-2:]
    frequencies = 10_000 ** -(torch.arange(0, width, 2, device=x.device) / width)
    angles = torch.arange(size, device=x.device)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    left, right = x.float().chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(x.dtype)
