"""Blocks: what the context encoder is a stack of."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from seqssl.model.layers import ConvolutionModule, FeedForward


class ConformerBlock(nn.Module):
    """Half feed-forward, mixer, convolution, half feed-forward, norm (Conformer, section 2)."""

    def __init__(
        self,
        mixer: nn.Module,
        *,
        dim: int,
        ffn_dim: int,
        conv_kernel: int = 5,
        conv_norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(dim, ffn_dim, dropout)
        self.mixer_norm = nn.LayerNorm(dim)
        self.mixer = mixer
        self.dropout = nn.Dropout(dropout)
        self.convolution = ConvolutionModule(dim, kernel=conv_kernel, norm=conv_norm, dropout=dropout)
        self.feed_forward_out = FeedForward(dim, ffn_dim, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """One block."""
        x = x + 0.5 * self.feed_forward_in(x)
        x = x + self.dropout(self.mixer(self.mixer_norm(x), valid))
        x = x + self.convolution(x, valid)
        y: Tensor = self.norm(x + 0.5 * self.feed_forward_out(x))
        return y


class TransformerBlock(nn.Module):
    """Pre-norm mixer and feed-forward."""

    def __init__(self, mixer: nn.Module, *, dim: int, ffn_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(dim)
        self.mixer = mixer
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(dim, ffn_dim, dropout)

    def forward(self, x: Float[Tensor, "b s d"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """One block."""
        x = x + self.dropout(self.mixer(self.mixer_norm(x), valid))
        y: Tensor = x + self.feed_forward(x)
        return y
