"""The shipped parts keep the contract, check by check."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import seqssl
from seqssl import testing
from seqssl.data.adapters import SampleSpec
from seqssl.model.alignment import Alphabet
from seqssl.model.codebooks import FiniteScalarQuantizer, NearestQuantizer, ResidualQuantizer
from seqssl.model.layers import ConvPosition
from seqssl.model.linear_mixers import (
    CausalGatedLinear,
    FFTConvolution,
    GatedLinear,
    LocalAttention,
    SummaryMixing,
)
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.starting_codes import StartedCodes
from seqssl.testing.harness import seeded
from seqssl.testing.objectives import Sizes

LENGTHS = torch.tensor([9, 4, 7])
QUANTIZERS = {
    "gumbel": partial(seqssl.GumbelProductQuantizer, num_codebooks=2, codebook_size=11, dim=8),
    "gumbel-revived": partial(
        seqssl.GumbelProductQuantizer, num_codebooks=2, codebook_size=9, dim=8, revive=0.5
    ),
    "gumbel-one-codebook": partial(seqssl.GumbelProductQuantizer, codebook_size=40, dim=5),
    "gumbel-one-entry": partial(seqssl.GumbelProductQuantizer, num_codebooks=3, codebook_size=1, dim=9),
    "nearest": partial(NearestQuantizer, num_codebooks=2, codebook_size=7, dim=8),
    "nearest-means": partial(NearestQuantizer, codebook_size=7, dim=8, decay=0.9, revive=0.1),
    "residual": partial(ResidualQuantizer, num_codebooks=3, codebook_size=5, dim=4),
    "finite-scalar": partial(FiniteScalarQuantizer, levels=(5, 4, 3)),
    "random-projection": partial(seqssl.RandomProjectionQuantizer, num_codebooks=2, codebook_size=9, dim=4),
}
MASKINGS = {
    **{fill: partial(seqssl.SpanMasking, fill=fill) for fill in ("noise", "zero", "learned")},
    "span-1": partial(seqssl.SpanMasking, span=1, start_prob=0.4),
    "span-20": partial(seqssl.SpanMasking, span=20, min_spans=3),
}
MIXERS: dict[str, Any] = {
    p: partial(seqssl.Attention, num_heads=2, position=p)
    for p in ("none", "rotary", "relative", "relative_key")
}
MIXERS["causal"] = partial(seqssl.Attention, num_heads=2, position="rotary", causal=True)
MIXERS |= {
    "local": partial(LocalAttention, num_heads=2, window=3),
    "local-unplaced": partial(LocalAttention, num_heads=2, window=2, position="none"),
    "summary": SummaryMixing,
    "fft": FFTConvolution,
    "fft-causal": partial(FFTConvolution, causal=True),
    "gated": partial(GatedLinear, num_heads=2, chunk=4),
    "gated-causal": partial(CausalGatedLinear, num_heads=2, chunk=4),
}
FEATURE_ENCODERS = {
    "conv2d": (lambda: seqssl.Conv2dSubsampling(6, channels=3), 6),
    "conv1d": (lambda: seqssl.Conv1dStack(1, dim=8), None),
    "patch": (lambda: seqssl.PatchEncoder(3, dim=8, patch=5), 3),
    "conv1d-marks": (
        lambda: seqssl.Conv1dStack(2, dim=8, kernels=(5, 3), strides=(2, 2), mark_missing=True),
        2,
    ),
    "conv1d-channels": (lambda: seqssl.Conv1dStack(3, dim=8, kernels=(5, 3), strides=(2, 2), bias=False), 3),
}
OBJECTIVES = {
    "contrastive": lambda sizes: seqssl.ContrastiveLoss(
        sizes.context_dim, sizes.target_dim, tap="", num_negatives=50
    ),
    "contrastive-projected": lambda sizes: seqssl.ContrastiveLoss(
        sizes.context_dim, sizes.target_dim, tap="middle", final_dim=7
    ),
    "masked-prediction": lambda sizes: seqssl.MaskedPredictionLoss(
        sizes.context_dim, sizes.num_codebooks, sizes.codebook_size, tap="output"
    ),
    "diversity": lambda sizes: seqssl.DiversityLoss(),
    "feature-penalty": lambda sizes: seqssl.FeaturePenalty(),
    "invariance": lambda sizes: seqssl.InvarianceLoss(sizes.context_dim, hidden_dim=8, final_dim=6),
}


def mixer(dim: int) -> seqssl.Attention:
    return seqssl.Attention(dim, num_heads=2)


BLOCKS = {
    "conformer": lambda dim: seqssl.ConformerBlock(mixer(dim), dim, conv_norm="layer"),
    "conformer-causal": lambda dim: seqssl.ConformerBlock(
        mixer(dim), dim, conv_norm="layer", conv_bias=False, conv_causal=True
    ),
    "conformer-batch": lambda dim: seqssl.ConformerBlock(mixer(dim), dim, conv_norm="batch"),
    "transformer": lambda dim: seqssl.TransformerBlock(mixer(dim), dim, ffn_dim=20),
    "position": lambda dim: ConvPosition(dim, kernel=4, groups=2),
}
ENCODER = seqssl.PatchEncoder(2, dim=6, patch=2)
ALPHABET = Alphabet(5, stride=2, channels=1)
NUMBERS = seqssl.Batch(
    torch.randn(3, 9, 2, generator=seeded(0)), LENGTHS, codes=torch.arange(30).view(3, 5, 2) % 4
)
IDS = seqssl.Batch(torch.randint(0, 5, (3, 9), generator=seeded(0)), LENGTHS)


def random_quantizer(width: int) -> seqssl.RandomProjectionQuantizer:
    return seqssl.RandomProjectionQuantizer(width, num_codebooks=2, codebook_size=9, dim=4)


TARGETS = {
    "learned": (
        lambda: seqssl.LearnedCodes(seqssl.GumbelProductQuantizer(6, codebook_size=7, dim=4)),
        NUMBERS,
    ),
    "learned-from-clusters": (
        lambda: StartedCodes(seqssl.GumbelProductQuantizer(6, codebook_size=7, dim=4)),
        NUMBERS,
    ),
    "learned-batch-norm": (
        lambda: seqssl.LearnedCodes(
            seqssl.GumbelProductQuantizer(6, codebook_size=7, dim=4), MaskedBatchNorm(6, affine=False)
        ),
        NUMBERS,
    ),
    "vectors": (lambda: seqssl.LearnedCodes(seqssl.LinearTarget(6, dim=4)), NUMBERS),
    "given": (lambda: seqssl.GivenCodes((4, 4), 6, 5), NUMBERS),
    "input": (lambda: seqssl.InputCodes(ENCODER, random_quantizer, 2.0, 2, 6, 5), NUMBERS),
    "symbols": (lambda: seqssl.SymbolCodes(ALPHABET, 6, 5), IDS),
    "both": (
        lambda: seqssl.Both(
            seqssl.LearnedCodes(seqssl.GumbelProductQuantizer(6, codebook_size=7, dim=4)),
            seqssl.SymbolCodes(ALPHABET),
        ),
        IDS,
    ),
}


@pytest.mark.parametrize("factory", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize(("name", "check"), testing.block_checks())
def test_blocks(name: str, check: Callable[..., None], factory: Any) -> None:
    check(factory)


@pytest.mark.parametrize(("factory", "batch"), TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("name", "check"), testing.targets_checks())
def test_targets(name: str, check: Callable[..., None], factory: Any, batch: seqssl.Batch) -> None:
    frames = (LENGTHS + 1) // 2
    check(factory, batch, seqssl.Features(torch.randn(3, 5, 6, generator=seeded(1)), frames))


@pytest.mark.parametrize("factory", QUANTIZERS.values(), ids=QUANTIZERS)
@pytest.mark.parametrize(("name", "check"), testing.quantizer_checks())
def test_quantizers(name: str, check: Callable[..., None], factory: Any) -> None:
    check(factory)


@pytest.mark.parametrize("factory", MASKINGS.values(), ids=MASKINGS)
@pytest.mark.parametrize(("name", "check"), testing.masking_checks())
def test_maskings(name: str, check: Callable[..., None], factory: Any) -> None:
    check(factory)


@pytest.mark.parametrize("factory", MIXERS.values(), ids=MIXERS)
@pytest.mark.parametrize(("name", "check"), testing.mixer_checks())
def test_mixers(name: str, check: Callable[..., None], factory: Any) -> None:
    check(factory)


@pytest.mark.parametrize(("factory", "channels"), FEATURE_ENCODERS.values(), ids=FEATURE_ENCODERS)
@pytest.mark.parametrize(("name", "check"), testing.feature_encoder_checks())
def test_feature_encoders(name: str, check: Callable[..., None], factory: Any, channels: int | None) -> None:
    check(factory(), SampleSpec(dtype="float32", units="any", channels=channels))


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize(("name", "check"), testing.feature_encoder_checks())
def test_token_encoders(name: str, check: Callable[..., None], stride: int, channels: int | None) -> None:
    spec = SampleSpec(dtype="int64", units="any", channels=channels, vocab_size=6)
    check(seqssl.TokenEncoder(6, channels, dim=8, kernel=3, stride=stride), spec)


@pytest.mark.parametrize("factory", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize(("name", "check"), testing.objective_checks())
def test_objectives(name: str, check: Callable[..., None], factory: Callable[[Sizes], Any]) -> None:
    check(factory)
