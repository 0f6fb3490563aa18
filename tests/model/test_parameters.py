"""Parameter counts of the paper's sizes, part by part, on the meta device: no weight is made."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from seqssl import (
    Attention,
    ConformerBlock,
    ContextEncoder,
    ContrastiveLoss,
    Conv1dStack,
    Conv2dSubsampling,
    DiversityLoss,
    GumbelProductQuantizer,
    LearnedCodes,
    MaskedPredictionLoss,
    PretrainingModel,
    RandomProjectionQuantizer,
    SpanMasking,
    TransformerBlock,
)
from seqssl.model.layers import ConvPosition

DIM, FFN, KERNEL, HEADS = 1024, 4096, 5, 8
BLOCK = 24_153_088  # feed-forwards 16,791,552 + attention 4,200,448 + convolution 3,159,040 + norm 2,048


@pytest.fixture(autouse=True)
def meta_device() -> Iterator[None]:
    with torch.device("meta"):
        yield


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def conformer_block(position: str = "none", conv_norm: str = "batch") -> ConformerBlock:
    mixer = Attention(DIM, num_heads=HEADS, position=position)
    return ConformerBlock(mixer, dim=DIM, ffn_dim=FFN, conv_kernel=KERNEL, conv_norm=conv_norm)


def w2v_bert(num_layers: int, position: ConvPosition | None = None) -> PretrainingModel:
    features = Conv2dSubsampling(80, channels=32)
    encoder = ContextEncoder(
        [conformer_block() for _ in range(num_layers)],
        position,
        taps={"contrastive": 12, "output": num_layers},
    )
    objectives: dict[str, nn.Module] = {
        "contrastive": ContrastiveLoss(DIM, DIM, tap="contrastive"),
        "diversity": DiversityLoss(),
        "masked_prediction": MaskedPredictionLoss(DIM, 1, 1024, tap="output"),
    }
    quantizer = GumbelProductQuantizer(features.dim)
    return PretrainingModel(
        features, SpanMasking(features.dim), LearnedCodes(quantizer), encoder, objectives, DIM
    )


def test_conformer_block_part_by_part() -> None:
    block = conformer_block()
    feed_forward = 2 * DIM + (DIM + 1) * FFN + (FFN + 1) * DIM  # norm, out, back
    assert num_parameters(block.feed_forward_in) == num_parameters(block.feed_forward_out) == feed_forward
    assert 2 * feed_forward == 16_791_552
    assert num_parameters(block.mixer) + num_parameters(block.mixer_norm) == 4_200_448
    assert num_parameters(block.convolution) == 3_159_040
    assert num_parameters(block.norm) == 2_048
    assert num_parameters(block) == BLOCK


def test_the_norm_of_the_convolution_changes_no_count() -> None:
    assert num_parameters(conformer_block(conv_norm="layer")) == BLOCK


@pytest.mark.parametrize(("position", "more"), [("rotary", 0), ("relative", DIM * DIM + 2 * DIM)])
def test_positions_in_attention(position: str, more: int) -> None:
    """Transformer-XL's terms: a projection of distances and two biases per head."""
    assert num_parameters(conformer_block(position)) == BLOCK + more


def test_relative_attention_makes_the_stack_of_xl_604_9_million() -> None:
    assert round(24 * num_parameters(conformer_block("relative")) / 1e6, 1) == 604.9


@pytest.mark.parametrize(("num_layers", "millions"), [(24, 579.67), (42, 1_014.43)])
def test_stacks(num_layers: int, millions: float) -> None:
    model = w2v_bert(num_layers)
    assert num_parameters(model.encoder) == num_layers * BLOCK
    assert round(num_parameters(model.encoder) / 1e6, 2) == millions


def test_parts_around_the_stack() -> None:
    model = w2v_bert(24)
    convolutions = (9 + 1) * 32 + (9 * 32 + 1) * 32
    assert num_parameters(model.feature_encoder) == convolutions
    assert num_parameters(model.input_projection) == 640 * DIM + DIM
    assert round((convolutions + 640 * DIM + DIM) / 1e6, 2) == 0.67
    assert num_parameters(model.targets) == 640 * 1024 + 1024 + 1024 * 1024 == 1_704_960
    assert num_parameters(model.objectives["masked_prediction"]) == 1024 * 1024 + 1024 == 1_049_600
    assert (
        num_parameters(model.objectives["contrastive"]) == num_parameters(model.objectives["diversity"]) == 0
    )
    assert num_parameters(model.masking) == 0


@pytest.mark.parametrize(("num_layers", "millions", "billions"), [(24, 583.1, 0.6), (42, 1_017.9, 1.0)])
def test_totals_round_to_the_papers(num_layers: int, millions: float, billions: float) -> None:
    """Without projections before the cosine, 2.10M less than the sheet's; with or without a position."""
    position = ConvPosition(DIM, kernel=128, groups=16)
    for model in (w2v_bert(num_layers), w2v_bert(num_layers, position)):
        assert round(num_parameters(model) / 1e9, 1) == billions
    assert round(num_parameters(w2v_bert(num_layers)) / 1e6, 1) == millions
    assert round(num_parameters(position) / 1e6, 1) == 8.4


def test_projections_before_the_cosine() -> None:
    """1024 to 1024 on both sides: the sheet's 2.10M."""
    assert num_parameters(ContrastiveLoss(DIM, DIM, tap="", final_dim=1024)) == 2 * 1025 * 1024


def test_transformer_block() -> None:
    """wav2vec 2.0 BASE: 12 blocks of 768 / 3072, 7.09M each."""
    block = TransformerBlock(Attention(768, num_heads=12), dim=768, ffn_dim=3072)
    assert num_parameters(block) == 12 * 768**2 + 13 * 768


def test_wav2vec_feature_encoder() -> None:
    """Seven convolutions of 512 channels: 4.2M without biases and norms."""
    stack = Conv1dStack(1, dim=512, bias=False)
    assert sum(p.numel() for p in stack.convs.parameters()) == 512 * (10 + 512 * (3 * 4 + 2 * 2))


def test_frozen_quantizer_has_no_parameters() -> None:
    assert num_parameters(RandomProjectionQuantizer(640)) == 0
