"""Blocks: the layers of the context encoder."""

from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor, nn

from seqssl.model.bounds import ODD, POSITIVE, SHARE
from seqssl.model.dropout import Dropout
from seqssl.model.layers import ConvolutionModule, FeedForward
from seqssl.model.mixers import takes_valid
from seqssl.model.protocols import Mixer
from seqssl.model.types import Frames


class MixerBlock(nn.Module):
    """The part that blocks with a mixer share: the residual sublayer around it."""

    mixer_norm: nn.LayerNorm
    mixer: Mixer
    dropout: Dropout
    takes_valid: bool  # whether the mixer takes `valid`, as all did before there was `frames`
    norm_first: bool = True  # whether the norm comes before the mixer, or after the sum

    def mix(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """Norm, mixer, dropout, and the input added; or the norm of all that."""
        read = self.mixer_norm(x) if self.norm_first else x
        mixed = self.mixer(read, frames.valid) if self.takes_valid else self.mixer(read, frames)  # type: ignore[arg-type]
        y: Tensor = x + self.dropout(mixed)
        return y if self.norm_first else self.mixer_norm(y)


class ConformerBlock(MixerBlock):
    """Half feed-forward, mixer, convolution, half feed-forward, norm (Conformer, section 2).

    `ffn_dim` is the inner width of the feed-forward modules; None means 4 times the block's own. `conv_*`:
    see `ConvolutionModule`.
    """

    def __init__(
        self,
        mixer: Mixer,
        dim: int,
        *,
        ffn_dim: Annotated[int, POSITIVE] | None = None,
        conv_kernel: Annotated[int, POSITIVE, ODD] = 5,
        conv_norm: Literal["batch", "layer"] = "batch",
        conv_bias: bool = True,
        conv_causal: bool = False,
        dropout: Annotated[float, SHARE] = 0.0,
    ) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(dim, ffn_dim, dropout)
        self.mixer_norm = nn.LayerNorm(dim)
        self.mixer, self.takes_valid = mixer, takes_valid(mixer)
        self.dropout = Dropout(dropout)
        self.convolution = ConvolutionModule(
            dim, kernel=conv_kernel, norm=conv_norm, dropout=dropout, bias=conv_bias, causal=conv_causal
        )
        self.feed_forward_out = FeedForward(dim, ffn_dim, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """The output of the block."""
        x = x + 0.5 * self.feed_forward_in(x)
        x = self.mix(x, frames)
        x = x + self.convolution(x, frames.valid)
        y: Tensor = self.norm(x + 0.5 * self.feed_forward_out(x))
        return y


class TransformerBlock(MixerBlock):
    """Mixer and feed-forward, each with its norm before it, or after its input was added (1706.03762).

    Norms after the sum are those of BERT, wav2vec 2.0 BASE and HuBERT BASE. `ffn_dim` is the inner width of
    the feed-forward module; None means 4 times the block's own. `inner_dropout`: of its inner activations.
    """

    def __init__(
        self,
        mixer: Mixer,
        dim: int,
        *,
        ffn_dim: Annotated[int, POSITIVE] | None = None,
        norm: Literal["before", "after"] = "before",
        activation: Literal["swish", "gelu"] = "swish",
        dropout: Annotated[float, SHARE] = 0.0,
        inner_dropout: Annotated[float, SHARE] | None = None,
    ) -> None:
        super().__init__()
        self.norm_first = norm == "before"
        self.mixer_norm = nn.LayerNorm(dim)
        self.mixer, self.takes_valid = mixer, takes_valid(mixer)
        self.dropout = Dropout(dropout)
        self.feed_forward = FeedForward(
            dim, ffn_dim, dropout, norm=self.norm_first, activation=activation, inner_dropout=inner_dropout
        )
        self.norm = nn.Identity() if self.norm_first else nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b s d"], frames: Frames) -> Float[Tensor, "b s d"]:
        """The output of the block."""
        x = self.mix(x, frames)
        y: Tensor = self.norm(x + self.feed_forward(x))
        return y
