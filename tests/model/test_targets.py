"""What may be a target, what is hidden, and that nothing hidden or missing leaks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from seqssl import (
    Attention,
    Batch,
    ConformerBlock,
    ContextEncoder,
    ContrastiveLoss,
    Conv1dStack,
    Conv2dSubsampling,
    DiversityLoss,
    GumbelProductQuantizer,
    MaskedPredictionLoss,
    PatchEncoder,
    PretrainingModel,
    SpanMasking,
    TokenEncoder,
)
from seqssl.model import alignment
from seqssl.model.norms import ChannelNorm, InstanceNorm
from seqssl.model.quantizers import LinearTarget
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, seeds

DIM, VOCAB = 16, 5
sizes = lengths(max_rows=3, max_length=40)
strides = st.integers(1, 5)


def ids_batch(row_lengths: Tensor, seed: int, channels: tuple[int, ...] = (), gaps: float = 0.2) -> Batch:
    shape = (len(row_lengths), int(row_lengths.max()), *channels)
    inputs = torch.randint(VOCAB, shape, generator=seeded(seed))
    observed = torch.rand(shape, generator=seeded(seed + 1)) >= gaps
    return Batch(inputs, row_lengths, observed=observed)


def model(
    target: str = "identity", *, stride: int = 2, channels: int | None = None, **settings: Any
) -> PretrainingModel:
    torch.manual_seed(0)
    features = TokenEncoder(VOCAB, channels, dim=12, embedding_dim=8, kernel=3, stride=stride)
    blocks = [
        ConformerBlock(Attention(DIM, num_heads=2), dim=DIM, ffn_dim=24, conv_kernel=3, conv_norm="layer")
        for _ in range(2)
    ]
    encoder = ContextEncoder(blocks, None, taps={"contrastive": 1, "output": 2})
    symbols = None if target == "latent" else alignment.SymbolCodes(VOCAB, stride, channels or 1)
    quantizer: nn.Module = LinearTarget(12, dim=DIM)
    if target != "identity":
        quantizer = GumbelProductQuantizer(12, num_codebooks=2, codebook_size=7, dim=DIM)
    books = (7,) * (0 if target == "identity" else 2)
    books += () if symbols is None else (symbols.codebook_size,) * symbols.num_codebooks
    size = max(books)
    objectives = {
        "contrastive": ContrastiveLoss(DIM, DIM, tap="contrastive", num_negatives=8),
        "diversity": DiversityLoss(),
        "masked_prediction": MaskedPredictionLoss(
            DIM, len(books), size, books, tap="output", seen_weight=0.5
        ),
    }
    masking = SpanMasking(12, start_prob=0.2, span=3)
    options = {"symbols": symbols, "mask_input": True, "codebook_size": size, **settings}
    return PretrainingModel(features, masking, quantizer, encoder, objectives, DIM, **options)


# Steps and frames


@pytest.mark.parametrize(
    ("encoder", "stride", "tile"),
    [
        (TokenEncoder(5, stride=4), 4.0, 4),
        (PatchEncoder(3, patch=7), 7.0, 7),
        (Conv1dStack(2, dim=4, kernels=(5, 4), strides=(3, 2)), 6.0, None),
        (Conv1dStack(2, dim=4, kernels=(3,), strides=(3,)), 3.0, None),  # its last steps make no frame
        (Conv2dSubsampling(8), 4.0, 4),
    ],
)
def test_strides(encoder: Any, stride: float, tile: int | None) -> None:
    assert alignment.steps_per_frame(encoder) == pytest.approx(stride, rel=1e-5)
    assert alignment.tiles(encoder) == tile


@given(sizes, strides, seeds, st.sampled_from([(), (1,), (3,)]))
def test_observed_share_counts_a_frames_own_steps(
    row_lengths: Tensor, stride: int, seed: int, channels: tuple[int, ...]
) -> None:
    batch = ids_batch(row_lengths, seed, channels, gaps=0.5)
    assert batch.observed is not None
    frames = -(-int(row_lengths.max()) // stride)
    share = alignment.observed_share(batch.observed, row_lengths, frames, float(stride))
    for row, length in enumerate(row_lengths.tolist()):
        for frame in range(-(-length // stride)):
            own = batch.observed[row, frame * stride : min((frame + 1) * stride, length)]
            if channels:
                own = own[:, batch.observed[row, :length].any(0)]  # channels that the row has
            expected = float(own.float().mean()) if own.numel() else 0.0
            assert float(share[row, frame]) == pytest.approx(expected, abs=1e-6)


@given(sizes, strides, seeds)
def test_spread_is_the_inverse_of_gathering(row_lengths: Tensor, stride: int, seed: int) -> None:
    steps = int(row_lengths.max())
    mask = torch.rand(len(row_lengths), -(-steps // stride), generator=seeded(seed)) < 0.5
    spread = alignment.spread(mask, steps, float(stride))
    for step in range(steps):
        assert torch.equal(spread[:, step], mask[:, step // stride])


@given(sizes, strides, seeds, st.sampled_from([(), (2,)]))
def test_frame_symbols(row_lengths: Tensor, stride: int, seed: int, channels: tuple[int, ...]) -> None:
    batch = ids_batch(row_lengths, seed, channels)
    assert batch.observed is not None
    symbols = alignment.frame_symbols(batch.inputs, batch.lengths, batch.observed, stride)
    for row, length in enumerate(row_lengths.tolist()):
        for frame in range(symbols.shape[1]):
            expected = []
            for step in range(frame * stride, (frame + 1) * stride):
                known = step < length and bool(batch.observed[row, step].all())
                values = (
                    batch.inputs[row, step].reshape(-1).tolist() if known else [-1] * (channels or (1,))[0]
                )
                expected += values
            assert symbols[row, frame].tolist() == expected


@given(sizes, strides, seeds, st.sampled_from([(), (2,)]), st.sampled_from([4, 5, 40]))
def test_a_frames_ids_are_one_code_while_there_are_few_words(
    row_lengths: Tensor, stride: int, seed: int, channels: tuple[int, ...], vocab: int
) -> None:
    batch = ids_batch(row_lengths, seed, channels)
    codes = alignment.SymbolCodes(vocab, stride, *channels)
    alone = alignment.frame_symbols(batch.inputs, batch.lengths, batch.observed, stride)
    alone = alone.masked_fill(alone >= vocab, -1)  # where the last id means unknown
    found = codes.of(batch.inputs, batch.lengths, batch.observed)
    assert found.shape[-1] == codes.num_codebooks
    if vocab**stride > 1024:
        assert (codes.word, codes.codebook_size) == (1, vocab)
        assert torch.equal(found, alone)
        return
    assert (codes.word, codes.codebook_size, codes.num_codebooks) == (
        stride,
        vocab**stride,
        (*channels, 1)[0],
    )
    for channel in range(codes.num_codebooks):
        own = alone[..., channel :: codes.num_codebooks]
        for ids, code in zip(own.reshape(-1, stride).tolist(), found[..., channel].flatten(), strict=True):
            word = sum(i * vocab**place for place, i in enumerate(reversed(ids)))
            assert int(code) == (-1 if -1 in ids else word)


# What is a target


@given(sizes, strides, seeds, st.sampled_from(["latent", "identity", "both"]))
def test_missing_and_padding_are_never_targets(
    row_lengths: Tensor, stride: int, seed: int, target: str
) -> None:
    made, batch = model(target, stride=stride), ids_batch(row_lengths, seed, gaps=0.4)
    assert batch.observed is not None
    frames = made.draw_mask(batch, seeded(seed))
    for row, frame in zip(frames.rows.tolist(), frames.columns.tolist(), strict=True):
        own = batch.observed[row, frame * stride : min((frame + 1) * stride, int(row_lengths[row]))]
        assert len(own) and float(own.float().mean()) >= 0.5
        if target != "latent":
            assert len(own) == stride and own.all()


def test_a_batch_without_any_target_loses_nothing() -> None:
    made = model("both")
    batch = replace(ids_batch(torch.tensor([9, 4]), 0), observed=torch.zeros(2, 9, dtype=torch.bool))
    frames = made.draw_mask(batch, seeded())
    assert len(frames.rows) == 0
    output = made(batch, frames, temperature=1.0, generator=seeded())
    total = torch.stack([term.total for term in output.terms.values()]).sum()
    total.backward()
    assert float(total.detach()) == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


@given(sizes, seeds, st.sampled_from(["latent", "identity", "both"]), st.sampled_from([None, 2]))
def test_nothing_leaks_from_what_is_hidden(
    row_lengths: Tensor, seed: int, target: str, channels: int | None
) -> None:
    """Other ids under the mask, at missing steps and in the padding: the encoder sees no difference."""
    made = model(target, channels=channels).eval()
    batch = ids_batch(row_lengths, seed, (channels,) if channels else ())
    frames = made.draw_mask(batch, seeded(seed))
    valid = torch.arange(batch.inputs.shape[1]) < row_lengths[:, None]
    steps = alignment.spread(frames.mask, batch.inputs.shape[1], made.stride) | ~valid
    shape = (*steps.shape, *[1] * (batch.inputs.dim() - 2))
    assert batch.observed is not None
    secret = steps.reshape(shape) | ~batch.observed
    other = torch.where(secret, (batch.inputs + 1 + seed % 4) % VOCAB, batch.inputs)

    def context(inputs: Tensor) -> Tensor:
        hidden = made._hide(replace(batch, inputs=inputs), frames.mask)
        features = made.encode_features(hidden)
        return made.encoder(made.input_projection(features.x), features.valid)["output"]

    torch.testing.assert_close(context(batch.inputs), context(other), rtol=0, atol=0)


@given(sizes, seeds)
def test_patches_ignore_missing_values(row_lengths: Tensor, seed: int) -> None:
    torch.manual_seed(0)
    encoder, shape = PatchEncoder(2, dim=6, patch=3), (len(row_lengths), int(row_lengths.max()), 2)
    observed = torch.rand(shape, generator=seeded(seed)) < 0.7
    x = torch.randn(shape, generator=seeded(seed))
    garbage = torch.where(observed, x, torch.full_like(x, 1e3))
    one, two = (encoder(values, row_lengths, observed) for values in (x, garbage))
    torch.testing.assert_close(one.x, two.x, rtol=0, atol=0)
    everything = encoder(x, row_lengths, torch.ones_like(observed))
    torch.testing.assert_close(encoder(x, row_lengths).x, everything.x)


# Which codes


def test_identity_predicts_the_ids_themselves() -> None:
    made = model("identity", stride=3)
    batch = ids_batch(torch.tensor([30, 21]), 0, gaps=0.0)
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    assert output.word == 3
    for row, frame, codes in zip(frames.rows, frames.columns, output.targets.codes, strict=True):
        a, b, c = batch.inputs[row, 3 * frame : 3 * frame + 3].tolist()
        assert codes.tolist() == [25 * a + 5 * b + c]
    assert len(output.targets.usage) == 0
    assert float(output.terms["diversity"].total) == 0
    assert torch.equal(output.targets.own, output.targets.codes)


def test_both_puts_the_learned_codes_first() -> None:
    made = model("both", stride=2).eval()
    batch = ids_batch(torch.tensor([30, 21]), 0, gaps=0.0)
    frames = made.draw_mask(batch, seeded())
    targets = made(batch, frames, temperature=None, generator=seeded()).targets
    assert targets.codes.shape[1] == 3
    assert torch.equal(targets.own, targets.codes[:, :2])
    everywhere = made.codes(batch)
    assert torch.equal(everywhere[frames.rows, frames.columns], targets.codes)
    ragged = made.codes(ids_batch(torch.tensor([5]), 0, gaps=0.0))
    assert ragged[0, -1, -1] == -1  # the last frame lacks a step


def test_codes_from_outside_take_the_place_of_the_ids() -> None:
    made = model("identity", stride=1)
    batch = ids_batch(torch.tensor([12]), 0, gaps=0.0)
    given_codes = torch.arange(12).reshape(1, 12, 1) % VOCAB
    batch = replace(batch, codes=given_codes)
    frames = made.draw_mask(batch, seeded())
    targets = made(batch, frames, temperature=1.0, generator=seeded()).targets
    assert torch.equal(targets.codes[:, 0], given_codes[0, frames.columns, 0])


def test_codes_from_outside_that_the_heads_have_no_room_for() -> None:
    made, batch = model("identity", stride=2), ids_batch(torch.tensor([12]), 0, gaps=0.0)
    fitting = torch.full((1, 6, 1), 24)  # 25 words of two ids
    frames = made.draw_mask(replace(batch, codes=fitting), seeded())
    output = made(replace(batch, codes=fitting), frames, temperature=None, generator=seeded())
    assert (output.targets.codes == 24).all() and output.word == 1
    for wrong in (fitting + 1, fitting.expand(1, 6, 2)):
        with pytest.raises(ValueError, match=r"batch.codes has \d codes a frame, up to 2\d; .* 1, below 25"):
            made.draw_mask(replace(batch, codes=wrong), seeded())


def test_an_id_that_means_unknown_is_no_letter_of_words() -> None:
    ids = torch.tensor([[0, 1, 2, 4, 3, 3, 1, 1]])
    codes = alignment.SymbolCodes(4, 2)
    assert codes.codebook_size == 16
    assert codes.of(ids, torch.tensor([8]), None)[0, :, 0].tolist() == [1, -1, 15, 5]


@pytest.mark.parametrize("target", ["latent", "identity", "both"])
def test_every_parameter_is_trained(target: str) -> None:
    made, batch = model(target, channels=2), ids_batch(torch.tensor([60, 33]), 0, (2,), gaps=0.05)
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    torch.stack([term.total for term in output.terms.values()]).sum().backward()
    idle = [
        name
        for name, p in made.named_parameters()
        if (p.grad is None or not p.grad.any()) and not name.endswith("query_key_value.bias")
    ]
    assert not idle


@given(sizes, seeds, st.sampled_from(["latent", "identity", "both"]))
def test_seen_frames_are_all_that_could_have_been_masked(row_lengths: Tensor, seed: int, target: str) -> None:
    made, batch = model(target), ids_batch(row_lengths, seed, gaps=0.4)
    frames = made.draw_mask(batch, seeded(seed))
    assert frames.seen is not None
    assert not (frames.mask & frames.seen.mask).any()
    made.masking = SpanMasking(12, start_prob=1.0)
    everything = made.draw_mask(batch, seeded(seed))
    assert everything.seen is not None and not len(everything.seen.rows)
    assert torch.equal(frames.mask | frames.seen.mask, everything.mask)


@torch.no_grad()
@pytest.mark.parametrize("target", ["latent", "identity", "both"])
def test_seen_prediction_is_the_cross_entropy_there(target: str) -> None:
    made, batch = model(target).eval(), ids_batch(torch.tensor([40, 23]), 0)
    frames = made.draw_mask(batch, seeded())
    term = made(batch, frames, temperature=None, generator=seeded()).terms["masked_prediction_seen"]
    hidden = made.encode_features(made._hide(batch, frames.mask))
    context = made.encoder(made.input_projection(hidden.x), hidden.valid)["output"]
    head: Any = made.objectives["masked_prediction"]
    seen, codes = frames.seen, made.codes(batch)
    assert seen is not None
    expected = 0.0
    for row, column in seen.mask.nonzero().tolist():
        logits = head.head(context[row, column]).view(codes.shape[-1], -1)
        if head.absent is not None:
            logits = logits.masked_fill(head.absent, -torch.inf)
        chosen = codes[row, column]
        expected += float(-logits.log_softmax(-1)[torch.arange(len(chosen)), chosen].mean())
    assert float(term.total) == pytest.approx(expected, rel=1e-4)
    assert int(term.count) == int(
        frames.mask.sum()
    )  # a seen frame weighs as a masked one; micro-steps add up
    assert term.num_frames is not None and int(term.num_frames) == len(seen.rows)


@pytest.mark.parametrize("target", ["latent", "both"])
def test_diversity_is_that_of_the_learned_codebooks(target: str) -> None:
    made, batch = model(target), ids_batch(torch.tensor([60, 33]), 0)
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    usage = output.targets.usage
    assert usage.shape == (2, 7)
    entropies = -(usage * usage.log()).sum(1)
    expected = 1 - entropies.exp().sum() / 14
    term = output.terms["diversity"]
    torch.testing.assert_close(term.total / term.count, expected)


def test_masked_prediction_counts_each_codebook() -> None:
    made, batch = model("identity", stride=1, channels=3), ids_batch(torch.tensor([60]), 0, (3,), gaps=0.0)
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    term = output.terms["masked_prediction"]
    nats = sum(float(term.stats[f"nats_{g}"]) for g in range(3))
    assert nats / 3 == pytest.approx(float(term.total.detach()), rel=1e-5)
    correct = sum(float(term.stats[f"accuracy_{g}"]) for g in range(3))
    assert correct / 3 == pytest.approx(float(term.stats["accuracy"]), rel=1e-5)


# Scaling


@given(sizes, seeds)
def test_instance_norm_knows_observed_values_only(row_lengths: Tensor, seed: int) -> None:
    shape = (len(row_lengths), int(row_lengths.max()), 2)
    seen = (torch.rand(shape, generator=seeded(seed)) < 0.6) & (
        torch.arange(shape[1])[:, None] < row_lengths[:, None, None]
    )
    x = torch.randn(shape, generator=seeded(seed)) * 7 + 100
    y = InstanceNorm()(torch.where(seen, x, torch.full_like(x, -1e4)), seen)
    torch.testing.assert_close(y, InstanceNorm()(x, seen))
    for row in range(shape[0]):
        for channel in range(2):
            values = y[row, :, channel][seen[row, :, channel]]
            if len(values) > 1:
                assert abs(float(values.mean())) < 1e-3
                assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-2)
    assert not y[~seen].any()


def test_channel_norm_keeps_a_constant_channel() -> None:
    norm = ChannelNorm(2)
    norm.set([10.0, 5.0], [2.0, 0.0])
    y = norm(torch.tensor([[[14.0, 5.0], [0.0, 6.0]]]), torch.tensor([[[True, True], [False, True]]]))
    assert y.tolist() == [[[2.0, 0.0], [0.0, 1.0]]]
