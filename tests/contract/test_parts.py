"""The shipped parts keep the contract, check by check."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import seqssl
from seqssl import testing
from seqssl.data.adapters import SampleSpec
from seqssl.testing.objectives import Sizes

QUANTIZERS = {
    "gumbel": partial(seqssl.GumbelProductQuantizer, num_codebooks=2, codebook_size=11, dim=8),
    "gumbel-one-codebook": partial(seqssl.GumbelProductQuantizer, codebook_size=40, dim=5),
    "gumbel-one-entry": partial(seqssl.GumbelProductQuantizer, num_codebooks=3, codebook_size=1, dim=9),
    "random-projection": partial(seqssl.RandomProjectionQuantizer, num_codebooks=2, codebook_size=9, dim=4),
}
MASKINGS = {
    **{fill: partial(seqssl.SpanMasking, fill=fill) for fill in ("noise", "zero", "learned")},
    "span-1": partial(seqssl.SpanMasking, span=1, start_prob=0.4),
    "span-20": partial(seqssl.SpanMasking, span=20, min_spans=3),
}
MIXERS = {p: partial(seqssl.Attention, num_heads=2, position=p) for p in ("none", "rotary", "relative")}
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
}


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
