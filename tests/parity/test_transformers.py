"""The same numbers as HF transformers' wav2vec 2.0 and Wav2Vec2-Conformer, weights copied."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from seqssl import (
    Attention,
    ConformerBlock,
    Context,
    ContrastiveLoss,
    Conv1dStack,
    DiversityLoss,
    Frames,
    GumbelProductQuantizer,
    Quantized,
)
from seqssl.model.layers import ConvPosition
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.objectives import perplexity
from seqssl.testing.harness import seeded
from seqssl.testing.objectives import Sizes, random_case
from seqssl.testing.strategies import seeds

pytest.importorskip("transformers", reason="parity needs the extra hf")
from transformers import Wav2Vec2Config, Wav2Vec2ConformerConfig
from transformers.models.wav2vec2 import modeling_wav2vec2 as wav2vec2
from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as conformer

DIM, HEADS, FFN, KERNEL = 16, 4, 24, 5
INPUT_DIM, GROUPS, ENTRIES, CODE_DIM = 6, 2, 7, 8


def copy(ours: nn.Module, theirs: nn.Module) -> None:
    """Weight and bias; HF's pointwise convolutions are linear layers of kernel 1, and some have no bias."""
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.view_as(ours.weight))  # type: ignore[operator, union-attr]
        if ours.bias is not None:
            bias = theirs.bias
            ours.bias.copy_(torch.zeros_like(ours.bias) if bias is None else bias)  # type: ignore[arg-type, operator, union-attr]


def quantizers() -> tuple[GumbelProductQuantizer, nn.Module]:
    """Ours and HF's with one set of weights."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        conv_dim=(INPUT_DIM,) * 7,
        num_codevector_groups=GROUPS,
        num_codevectors_per_group=ENTRIES,
        codevector_dim=CODE_DIM,
    )
    ours = GumbelProductQuantizer(INPUT_DIM, num_codebooks=GROUPS, codebook_size=ENTRIES, dim=CODE_DIM)
    theirs = wav2vec2.Wav2Vec2GumbelVectorQuantizer(config)
    with torch.no_grad():
        theirs.weight_proj.weight.copy_(ours.logits.weight)
        theirs.weight_proj.bias.copy_(ours.logits.bias)
        theirs.codevectors.copy_(ours.codebook.flatten(0, 1)[None])
    return ours, theirs


@given(st.integers(1, 4), st.integers(1, 9), seeds)
def test_quantizer_in_evaluation(num_rows: int, size: int, seed: int) -> None:
    """Vectors of the argmax, and the perplexity of hard use over masked frames."""
    ours, theirs = quantizers()
    x = torch.randn(num_rows, size, INPUT_DIM, generator=seeded(seed))
    mask = torch.rand(num_rows, size, generator=seeded(seed)) < 0.7
    mask[0, 0] = True
    vectors, expected = theirs.eval()(x, mask_time_indices=mask)
    out = ours(x[mask], temperature=None)
    torch.testing.assert_close(out.vectors, vectors[mask])
    hard = nn.functional.one_hot(out.codes, ENTRIES).float().mean(0)
    torch.testing.assert_close(perplexity(hard).sum(), expected)


def test_quantizer_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """With HF's noise replaced by ours: vectors, gradients and the perplexity of soft use."""
    ours, theirs = quantizers()
    x = torch.randn(3, 5, INPUT_DIM, generator=seeded(1))
    mask = torch.ones(3, 5, dtype=torch.bool)
    noise = torch.empty(15, GROUPS, ENTRIES).exponential_(generator=seeded(2))

    def exponential(tensor: Tensor) -> Tensor:
        return tensor.copy_(noise.view_as(tensor))

    monkeypatch.setattr(Tensor, "exponential_", exponential)
    theirs.temperature = 0.7
    vectors, expected = theirs.train()(x, mask_time_indices=mask)
    monkeypatch.undo()
    out = ours(x[mask], temperature=0.7, generator=seeded(2))
    torch.testing.assert_close(out.vectors, vectors[mask])
    torch.testing.assert_close(perplexity(out.usage).sum(), expected)
    upstream = torch.randn(15, CODE_DIM, generator=seeded(3))
    out.vectors.backward(upstream)
    vectors[mask].backward(upstream)
    torch.testing.assert_close(ours.logits.weight.grad, theirs.weight_proj.weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        ours.codebook.grad.flatten(0, 1)[None], theirs.codevectors.grad, rtol=1e-4, atol=1e-5
    )


@given(st.integers(2, 8), st.integers(1, 12), seeds)
def test_contrastive_loss(num_masked: int, num_negatives: int, seed: int) -> None:
    """Given equal negatives: HF's logits, its rule for equal vectors, and its cross-entropy."""
    context, targets = random_case((num_masked, num_masked + 3), Sizes(codebook_size=3), seed)
    objective = ContrastiveLoss(12, 12, tap="", num_negatives=num_negatives)
    term = objective(context, targets, seeded(seed))

    frames = context.frames
    slots = objective._draw(frames, seeded(seed))
    starts = torch.tensor([0, num_masked])[frames.rows]
    negatives = targets.vectors[starts[:, None] + slots].transpose(0, 1)[:, None]  # k 1 n d
    positives = targets.vectors[None, None]  # 1 1 n d
    logits = wav2vec2.Wav2Vec2ForPreTraining.compute_contrastive_logits(
        positives, negatives, context.x[None], 0.1
    )
    logits[1:][(positives == negatives).all(-1)] = -torch.inf
    logits = logits.transpose(0, 2).reshape(-1, len(logits))
    expected = nn.functional.cross_entropy(
        logits, torch.zeros(len(logits), dtype=torch.long), reduction="sum"
    )
    torch.testing.assert_close(term.total, expected, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 4), st.integers(1, 9), seeds)
def test_diversity_loss(num_codebooks: int, codebook_size: int, seed: int) -> None:
    """HF: (GV - perplexity) / GV, which it multiplies by the number of masked frames and divides again."""
    sizes = Sizes(target_dim=num_codebooks, num_codebooks=num_codebooks, codebook_size=codebook_size)
    context, targets = random_case((4, 3), sizes, seed)
    term = DiversityLoss()(context, targets, seeded())
    used = wav2vec2.Wav2Vec2GumbelVectorQuantizer._compute_perplexity(targets.usage[None])
    total = num_codebooks * codebook_size
    torch.testing.assert_close(term.total, (total - used) / total, rtol=1e-4, atol=1e-4)
    assert int(term.count) == 1


def layers(position: str | None) -> tuple[ConformerBlock, nn.Module, Wav2Vec2ConformerConfig]:
    """A conformer block and HF's layer with one set of weights and running statistics."""
    torch.manual_seed(0)
    config = Wav2Vec2ConformerConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        conv_depthwise_kernel_size=KERNEL,
        position_embeddings_type=position,
        hidden_act="swish",
        hidden_dropout=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
        conformer_conv_dropout=0.0,
        max_source_positions=50,
    )
    config._attn_implementation = "eager"
    theirs = conformer.Wav2Vec2ConformerEncoderLayer(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    mixer = Attention(DIM, num_heads=HEADS, position=position or "none")
    ours = ConformerBlock(mixer, dim=DIM, ffn_dim=FFN, conv_kernel=KERNEL).eval()
    for ffn, norm, mine in (
        (theirs.ffn1, theirs.ffn1_layer_norm, ours.feed_forward_in),
        (theirs.ffn2, theirs.ffn2_layer_norm, ours.feed_forward_out),
    ):
        copy(mine[0], norm)
        copy(mine[1], ffn.intermediate_dense)
        copy(mine[4], ffn.output_dense)
    copy(ours.mixer_norm, theirs.self_attn_layer_norm)
    copy_attention(mixer, theirs.self_attn)
    module, mine = theirs.conv_module, ours.convolution
    copy(mine.norm_in, module.layer_norm)
    copy(mine.expand, module.pointwise_conv1)
    copy(mine.depthwise, module.depthwise_conv)
    copy_batch_norm(mine.norm, module.batch_norm)
    copy(mine.contract, module.pointwise_conv2)
    copy(ours.norm, theirs.final_layer_norm)
    return ours, theirs, config


def copy_attention(ours: Attention, theirs: nn.Module) -> None:
    with torch.no_grad():
        parts = (theirs.linear_q, theirs.linear_k, theirs.linear_v)
        ours.query_key_value.weight.copy_(torch.cat([part.weight for part in parts]))
        ours.query_key_value.bias.copy_(torch.cat([part.bias for part in parts]))
        if ours.position == "relative":
            # HF interleaves sines and cosines, Transformer-XL (and this project) lays them end to end.
            ours.distance.weight.copy_(
                torch.cat([theirs.linear_pos.weight[:, 0::2], theirs.linear_pos.weight[:, 1::2]], 1)
            )
            ours.content_bias.copy_(theirs.pos_bias_u)
            ours.distance_bias.copy_(theirs.pos_bias_v)
    copy(ours.output, theirs.linear_out)


def copy_batch_norm(ours: nn.Module, theirs: nn.Module) -> None:
    assert isinstance(ours, MaskedBatchNorm)
    nn.init.normal_(theirs.running_mean)
    nn.init.uniform_(theirs.running_var, 0.5, 2.0)
    copy(ours, theirs)
    ours.running_mean.copy_(theirs.running_mean)
    ours.running_var.copy_(theirs.running_var)


@pytest.mark.parametrize("position", [None, "relative"])
@pytest.mark.parametrize("size", [1, 2, 9])
def test_conformer_layer(position: str | None, size: int) -> None:
    """In evaluation, value and gradients; running statistics stand for batch norm."""
    ours, theirs, config = layers(position)
    x = torch.randn(3, size, DIM, generator=seeded(size))
    relative = conformer.Wav2Vec2ConformerRelPositionalEmbedding(config)(x) if position else None
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    actual = ours(inputs[0], Frames(torch.ones(3, size, dtype=torch.bool)))
    expected = theirs(inputs[1], relative_position_embeddings=relative)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    upstream = torch.randn(expected.shape, generator=seeded())
    grads = [
        torch.autograd.grad(out, x, upstream)[0] for out, x in zip((actual, expected), inputs, strict=True)
    ]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-3)


def test_conformer_layer_in_training() -> None:
    """Batch statistics of full rows, and the running ones after it."""
    ours, theirs, _ = layers(None)
    x = torch.randn(3, 9, DIM, generator=seeded())
    actual, expected = ours.train()(x, Frames(torch.ones(3, 9, dtype=torch.bool))), theirs.train()(x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    norm, reference = ours.convolution.norm, theirs.conv_module.batch_norm
    torch.testing.assert_close(norm.running_mean, reference.running_mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, reference.running_var, rtol=1e-4, atol=1e-4)


def test_rotary_turns_as_theirs() -> None:
    """HF turns frames before the query and key layers, RoPE after: equal where these are the identity."""
    ours, theirs, config = layers("rotary")
    for part in (theirs.self_attn.linear_q, theirs.self_attn.linear_k):
        nn.init.eye_(part.weight)
        nn.init.zeros_(part.bias)
    copy_attention(ours.mixer, theirs.self_attn)
    x = torch.randn(2, 7, DIM, generator=seeded())
    angles = conformer.Wav2Vec2ConformerRotaryPositionalEmbedding(config)(x)
    expected = theirs(x, relative_position_embeddings=angles)
    torch.testing.assert_close(
        ours(x, Frames(torch.ones(2, 7, dtype=torch.bool))), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kernel", [4, 5])
def test_convolution_position(kernel: int) -> None:
    """wav2vec 2.0's weight-normed grouped convolution."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(hidden_size=DIM, num_conv_pos_embeddings=kernel, num_conv_pos_embedding_groups=2)
    theirs = wav2vec2.Wav2Vec2PositionalConvEmbedding(config)
    ours = ConvPosition(DIM, kernel=kernel, groups=2)
    ours.conv.load_state_dict(theirs.conv.state_dict())
    x = torch.randn(2, 9, DIM, generator=seeded())
    actual = ours(x, Frames(torch.ones(2, 9, dtype=torch.bool)))
    torch.testing.assert_close(actual, x + theirs(x), rtol=1e-5, atol=1e-5)


def test_feature_encoder() -> None:
    """Seven convolutions with layer norm and biases, as in wav2vec 2.0 LARGE."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(conv_dim=(8,) * 7, feat_extract_norm="layer", conv_bias=True)
    theirs = wav2vec2.Wav2Vec2FeatureEncoder(config)
    ours = Conv1dStack(1, dim=8)
    for conv, norm, layer in zip(ours.convs, ours.norms, theirs.conv_layers, strict=True):
        copy(conv, layer.conv)
        copy(norm, layer.layer_norm)
    x = torch.randn(2, 1_000, generator=seeded())
    features = ours(x, torch.tensor([1_000, 1_000]))
    torch.testing.assert_close(features.x, theirs(x).transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_a_case_of_collapse_agrees() -> None:
    """One code for all: HF's loss is 0 as well."""
    context, targets = random_case((5, 5))
    vectors = targets.vectors[:1].expand_as(targets.vectors)
    collapsed = Quantized(vectors, torch.zeros_like(targets.codes), targets.usage)
    term = ContrastiveLoss(12, 12, tap="")(
        Context(context.x, context.frames, context.features), collapsed, seeded()
    )
    assert float(term.total) == 0
