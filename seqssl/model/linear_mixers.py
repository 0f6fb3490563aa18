"""Mixers whose cost grows with the length of a row, not with its square.

Each is held against a reference that goes through frames one by one (tests/property/test_linear_mixers.py).
docs/long.md says what a frame reads through each.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl.model.bounds import POSITIVE, SHARE, Bound, Divides
from seqssl.model.dropout import attend
from seqssl.model.mixers import check_heads, rotate
from seqssl.model.types import Frames, is_traced

GATE_BIAS = 4.0  # of a gate's logit at the start: a state then loses 1.8 % a frame, half of it in 38
MIN_HALF_LIFE, MAX_HALF_LIFE = 4.0, 4096.0  # frames, of the long filters at the start


def full(x: Tensor) -> Tensor:
    """At least float32: long sums, transforms and products of gates want it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class LocalAttention(nn.Module):
    """Multi-head attention to the frames at most `window` away (Longformer, 2004.05150, no global frames).

    The row is cut into blocks of `window` frames; each attends to itself and its two neighbors, from which
    what is too far is masked. `rotary` position turns queries and keys (2104.09864).
    """

    causal = False

    def __init__(
        self,
        dim: int,
        *,
        num_heads: Annotated[int, POSITIVE, Divides("dim")] = 8,
        window: Annotated[int, POSITIVE] = 64,
        position: Literal["none", "rotary"] = "rotary",
        dropout: Annotated[float, SHARE] = 0.0,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads, rotary=position == "rotary")
        self.num_heads, self.window, self.position, self.dropout = num_heads, window, position, dropout
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """Attend to the valid frames near by."""
        rows, size, dim = x.shape
        qkv = self.query_key_value(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))  # b h s e
        if self.position == "rotary":
            q, k = rotate(q), rotate(k)
        # The window of a short row is cut to it; in a trace, to the row that happens to be traced.
        block = self.window if is_traced() else min(self.window, size)
        q = F.pad(q, (0, 0, 0, -size % block)).unflatten(2, (-1, block))
        blocks = q.shape[2]
        k, v = (self._with_neighbors(t, block) for t in (k, v))  # b h n 3w e
        mask = self._near(frames.valid, block)  # b n w 3w
        q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (q, k, v))  # b*n h _ e
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q, k, v, mask.flatten(0, 1)[:, None], dropout)
        mixed = mixed.unflatten(0, (rows, blocks)).transpose(2, 3).reshape(rows, -1, dim)[:, :size]
        y: Tensor = self.output(mixed)
        return y

    @staticmethod
    def _with_neighbors(x: Float[Tensor, "b h s e"], block: int) -> Float[Tensor, "b h n w3 e"]:
        """For every block its own frames, with those of the block before it and of the block after it."""
        padded = F.pad(x, (0, 0, block, block + -x.shape[2] % block))
        return padded.unfold(2, 3 * block, block).transpose(-1, -2)

    def _near(self, valid: Bool[Tensor, "b s"], block: int) -> Bool[Tensor, "b n w w3"]:
        """Which keys each query may attend to; itself always, so that a frame of padding has something."""
        there = F.pad(valid, (block, block + -valid.shape[1] % block)).unfold(1, 3 * block, block)
        query = torch.arange(block, device=valid.device)[:, None] + block
        away = torch.arange(3 * block, device=valid.device) - query
        return (away.abs() <= self.window) & there[:, :, None] | (away == 0)


class SummaryMixing(nn.Module):
    """Each frame, and the mean of all frames of its row, each through a layer of its own (2307.07421).

    y_t = c([f(x_t), mean over u of s(x_u)]), where f, s and c are linear layers with GELU, c without. It sees
    no order: position and neighbors are for the rest of the block (its convolution).
    """

    causal = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.local = nn.Linear(dim, dim)
        self.summary = nn.Linear(dim, dim)
        self.combine = nn.Linear(2 * dim, dim)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """Mix in the mean over the valid frames."""
        valid = frames.valid[..., None]
        summary = (full(F.gelu(self.summary(x))) * valid).sum(1) / valid.sum(1)
        summary = summary.to(x.dtype)[:, None].expand_as(x)
        y: Tensor = self.combine(torch.cat([F.gelu(self.local(x)), summary], dim=-1))
        return y


class FFTConvolution(nn.Module):
    """A gated convolution with a filter as long as the row, by fast Fourier transforms (Hyena, 2302.10866).

    y = out(q * (h conv (k * v))), with q, k and v linear in the frames, each through a short convolution. The
    filter h has a value for every channel and distance, backward and forward: a small network with sine
    activations of the distance, times an exponential decay that each channel learns, scaled so that slow
    decays do not add up more. Distances are counted in frames, so a row has the same filter whatever it is
    padded to. `causal`: a frame reads itself and those before it.
    """

    keeps_float32 = True  # the filter's network, whatever a step computes in: its weights must not be rounded

    def __init__(
        self,
        dim: int,
        *,
        filter_dim: Annotated[int, POSITIVE] = 64,
        frequencies: Annotated[int, POSITIVE] = 16,
        kernel: Annotated[int, Bound(at_least=1)] = 3,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that it has a middle; got {kernel}")
        self.causal, self.kernel = causal, kernel
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.short = nn.Conv1d(3 * dim, 3 * dim, kernel, groups=3 * dim)
        sides = 1 if causal else 2  # which side a distance is on is an input of the filter's network
        wavelengths = torch.logspace(0.5, 4, frequencies)  # frames, from 3 to 10,000
        self.register_buffer("wavelengths", wavelengths, persistent=False)
        self.filter_in = nn.Linear(2 * frequencies, filter_dim)
        self.filter_hidden = nn.Linear(filter_dim, filter_dim)
        self.filter_out = nn.Linear(filter_dim, sides * dim)
        half_lives = torch.logspace(math.log10(MIN_HALF_LIFE), math.log10(MAX_HALF_LIFE), dim)
        self.log_decay = nn.Parameter((math.log(2) / half_lives).log().repeat(sides))
        self.skip = nn.Parameter(torch.ones(dim))
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """Convolve the valid frames."""
        size, valid = x.shape[1], frames.valid[..., None]
        qkv = self.query_key_value(x) * valid
        sides = (self.kernel - 1, 0) if self.causal else (self.kernel // 2, self.kernel // 2)
        qkv = self.short(F.pad(qkv.transpose(1, 2), sides))
        q, k, v = (qkv.transpose(1, 2) * valid).chunk(3, dim=-1)
        signal = full(k) * full(v)
        mixed = self._convolved(signal, self.filter(size)) + self.skip * signal
        y: Tensor = self.output((full(q) * mixed).to(x.dtype))
        return y

    def filter(self, size: int) -> Float[Tensor, "r d"]:
        """The filter at distances 0 ... size-1 to the past, then at 1 ... size-1 to the future."""
        with torch.autocast(self.log_decay.device.type, enabled=False):
            distances = torch.arange(size, device=self.log_decay.device, dtype=self.log_decay.dtype)
            angles = 2 * math.pi * distances[:, None] / self.get_buffer("wavelengths")
            hidden = torch.sin(self.filter_in(torch.cat([angles.sin(), angles.cos()], dim=-1)))
            values: Tensor = self.filter_out(torch.sin(self.filter_hidden(hidden)))
            rate = self.log_decay.exp()
            # The squares of a decay add up to 1 / (1 - exp(-2 rate)).
            decay = torch.exp(-rate * distances[:, None]) * (-torch.expm1(-2 * rate)).sqrt()
            values = values * decay
        if not self.causal:
            past, future = values.chunk(2, dim=-1)
            values = torch.cat([past, future[1:]])
        return values

    def _convolved(self, x: Float[Tensor, "b s d"], values: Float[Tensor, "r d"]) -> Float[Tensor, "b s d"]:
        size = x.shape[1]
        # What wraps around stays beyond the row. A trace cannot choose a length by the size of a row.
        length = 2 * size if is_traced() else _smooth(2 * size - 1)
        # Distances to the future are negative times: in a circular transform they stand at its end.
        kernel = values.new_zeros(length, values.shape[1])
        kernel = torch.cat([values[:size], kernel[: length - values.shape[0]], values[size:].flip(0)])
        if is_traced():  # runtimes of ONNX do not turn back half a spectrum
            whole = torch.fft.fft(x, n=length, dim=1) * torch.fft.fft(kernel, dim=0)
            found: Tensor = torch.fft.ifft(whole, dim=1).real[:, :size]
            return found
        spectrum = torch.fft.rfft(x, n=length, dim=1) * torch.fft.rfft(kernel, dim=0)
        y: Tensor = torch.fft.irfft(spectrum, n=length, dim=1)[:, :size]
        return y


def _smooth(least: int) -> int:
    """A length of at least this many that a fast Fourier transform likes: 2^a times 1, 3 or 5."""
    return min(odd << max(0, math.ceil(math.log2(least / odd))) for odd in (1, 3, 5))


class GatedLinear(nn.Module):
    """Linear attention with a state that gates let decay (GLA, 2312.06635; one gate a head: 2405.21060).

    S_t = a_t S_(t-1) + k_t v_t', o_t = q_t S_t / sqrt(e); heads are normalized, gated and mixed. Chunks of
    `chunk` frames are computed at once, the state goes from one to the next. A second state, with gates of
    its own, comes from the end of the row and holds what lies after a frame.
    """

    directions, causal = 2, False

    def __init__(
        self,
        dim: int,
        *,
        num_heads: Annotated[int, POSITIVE, Divides("dim")] = 4,
        chunk: Annotated[int, POSITIVE] = 64,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.chunk = num_heads, chunk
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.decay = nn.Linear(dim, num_heads * self.directions)
        nn.init.zeros_(self.decay.weight)
        nn.init.constant_(self.decay.bias, GATE_BIAS)
        self.gate = nn.Linear(dim, dim)
        self.norm = nn.RMSNorm(dim // num_heads)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """Mix the valid frames."""
        valid = frames.valid[:, None, :, None]
        q, k, v, decays = self._parts(x)
        k, v = k * valid, v * valid
        # Padding neither adds to a state nor lets it decay.
        decays = [decay * valid[..., 0] for decay in decays]
        mixed = self._scan(q, k, v, decays[0])
        for decay in decays[1:]:
            # What comes after a frame: the state before it of the row read backward.
            later, values, gates = (self._before(t.flip(2)) for t in (k, v, decay[..., None]))
            mixed = mixed + self._scan(q.flip(2), later, values, gates[..., 0]).flip(2)
        return self._finished(mixed, x)

    def _parts(self, x: Float[Tensor, "b s d"]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Queries, keys and values (b h s e), and the log of each direction's gate (b h s); float32."""
        qkv = full(self.query_key_value(x)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))
        decays = F.logsigmoid(full(self.decay(x))).transpose(1, 2)
        return q / math.sqrt(q.shape[-1]), k, v, [*decays.split(self.num_heads, dim=1)]

    def _finished(self, mixed: Float[Tensor, "b h s e"], x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        mixed = self.norm(mixed).transpose(1, 2).flatten(2).to(x.dtype)
        y: Tensor = self.output(mixed * F.silu(self.gate(x)))
        return y

    @staticmethod
    def _before(x: Float[Tensor, "b h s e"]) -> Float[Tensor, "b h s e"]:
        """At each frame what the one before it has; nothing at the first."""
        return F.pad(x, (0, 0, 1, 0))[:, :, :-1]

    def _scan(
        self,
        q: Float[Tensor, "b h s e"],
        k: Float[Tensor, "b h s e"],
        v: Float[Tensor, "b h s e"],
        decay: Float[Tensor, "b h s"],
    ) -> Float[Tensor, "b h s e"]:
        """q_t S_t of every frame, chunk by chunk; in full precision, as a state adds up many frames."""
        with torch.autocast(q.device.type, enabled=False):
            size = q.shape[2]
            beyond = -size % self.chunk
            q, k, v = (F.pad(t, (0, 0, 0, beyond)).unflatten(2, (-1, self.chunk)) for t in (q, k, v))
            # From here on q, k and v are b h n c e: n chunks of c frames.
            total = F.pad(decay, (0, beyond)).unflatten(2, (-1, self.chunk)).cumsum(-1)  # b h n c
            # Within a chunk: what frame j left at frame i has decayed by all gates after j up to i.
            left = total[..., :, None] - total[..., None, :]
            before = torch.ones(self.chunk, self.chunk, dtype=torch.bool, device=q.device).tril()
            within = ((q @ k.transpose(-1, -2)) * left.masked_fill(~before, -torch.inf).exp()) @ v
            # Between chunks: what each leaves at its end, and the state that each begins with.
            leaves = (k * (total[..., -1:] - total).exp()[..., None]).transpose(-1, -2) @ v  # b h n e e
            across = (q * total.exp()[..., None]) @ self._states(leaves, total[..., -1])
            y: Tensor = (within + across).flatten(2, 3)[:, :, :size]
            return y

    @staticmethod
    def _states(
        leaves: Float[Tensor, "b h n e e"], kept: Float[Tensor, "b h n"]
    ) -> Float[Tensor, "b h n e e"]:
        """The state that each chunk begins with; `kept`: the log of what a state keeps through a chunk."""
        if is_traced():  # a trace unrolls a loop, for as many chunks as its own row has
            ends = kept.cumsum(-1)
            # What chunk j leaves has decayed, at the beginning of chunk i, by all chunks between them.
            between = F.pad(ends, (1, 0))[..., :-1, None] - ends[..., None, :]
            place = torch.arange(kept.shape[-1], device=kept.device)
            share = between.masked_fill(place[:, None] <= place, -torch.inf).exp()
            begun: Tensor = (share @ leaves.flatten(3)).unflatten(3, leaves.shape[3:])
            return begun
        gates = kept.exp()[..., None, None]
        state, states = torch.zeros_like(leaves[:, :, 0]), []
        for number in range(leaves.shape[2]):
            states.append(state)
            state = gates[:, :, number] * state + leaves[:, :, number]
        return torch.stack(states, 2)


class CausalGatedLinear(GatedLinear):
    """`GatedLinear` without the second state: frames read what lies before them."""

    directions, causal = 1, True

    def init_state(self, rows: int) -> Float[Tensor, "b h e e"]:
        """The state before the first frame."""
        width = self.output.in_features // self.num_heads
        return self.output.weight.new_zeros(rows, self.num_heads, width, width)

    def step(
        self, x: Float[Tensor, "b d"], state: Float[Tensor, "b h e e"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b h e e"]]:
        """The output of one more frame, and the state after it."""
        q, k, v, (decay,) = self._parts(x[:, None])
        state = decay.exp()[..., None] * state + k.transpose(-1, -2) @ v
        return self._finished(q @ state, x[:, None])[:, 0], state
