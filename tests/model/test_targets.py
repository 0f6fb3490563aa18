"""What may be a target, what is hidden, and that nothing hidden or missing leaks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ids import VOCAB, ids_batch, sizes, strides
from torch import Tensor

from seqssl import (
    Attention,
    Batch,
    Both,
    ConformerBlock,
    ContextEncoder,
    ContrastiveLoss,
    DiversityLoss,
    GivenCodes,
    GumbelProductQuantizer,
    LearnedCodes,
    MaskedFrames,
    MaskedPredictionLoss,
    PatchEncoder,
    PretrainingModel,
    Quantized,
    SpanMasking,
    SymbolCodes,
    TokenEncoder,
)
from seqssl.model import alignment
from seqssl.model.losses import Losses
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import seeds

DIM = 16


def model(
    target: str = "symbols", *, stride: int = 2, channels: int | None = None, **settings: Any
) -> PretrainingModel:
    torch.manual_seed(0)
    features = TokenEncoder(VOCAB, channels, dim=12, embedding_dim=8, kernel=3, stride=stride)
    blocks = [
        ConformerBlock(Attention(DIM, num_heads=2), dim=DIM, ffn_dim=24, conv_kernel=3, conv_norm="layer")
        for _ in range(2)
    ]
    encoder = ContextEncoder(blocks, None, taps={"contrastive": 1, "output": 2})
    alphabet = alignment.Alphabet(VOCAB, stride, channels or 1)
    targets: Any
    if target == "symbols":
        targets = SymbolCodes(alphabet, 12, DIM)
    else:
        targets = LearnedCodes(GumbelProductQuantizer(12, num_codebooks=2, codebook_size=7, dim=DIM))
    if target == "both":
        targets = Both(targets, SymbolCodes(alphabet))
    books = targets.codebook_sizes
    objectives = {
        "contrastive": ContrastiveLoss(DIM, DIM, tap="contrastive", num_negatives=8),
        "diversity": DiversityLoss(),
        "masked_prediction": MaskedPredictionLoss(
            DIM, len(books), max(books), books, tap="output", seen_weight=0.5
        ),
    }
    masking = SpanMasking(12, start_prob=0.2, span=3)
    return PretrainingModel(
        features, masking, targets, encoder, objectives, DIM, **{"mask_input": True, **settings}
    )


def targets_of(made: PretrainingModel, batch: Batch, frames: MaskedFrames) -> Quantized:
    """Without noise."""
    features = made.encode_features(batch)
    return made.targets(batch, features, frames, temperature=None, generator=None)


@given(sizes, strides, seeds, st.sampled_from(["learned", "symbols", "both"]))
def test_missing_and_padding_are_never_targets(
    row_lengths: Tensor, stride: int, seed: int, target: str
) -> None:
    made, batch = model(target, stride=stride), ids_batch(row_lengths, seed, gaps=0.4)
    assert batch.observed is not None
    frames = made.draw_mask(batch, seeded(seed))
    for row, frame in zip(frames.rows.tolist(), frames.columns.tolist(), strict=True):
        own = batch.observed[row, frame * stride : min((frame + 1) * stride, int(row_lengths[row]))]
        assert len(own) and float(own.float().mean()) >= 0.5
        if target != "learned":
            assert len(own) == stride and own.all()


def test_a_batch_without_any_target_loses_nothing() -> None:
    made = model("both")
    batch = replace(ids_batch(torch.tensor([9, 4]), 0), observed=torch.zeros(2, 9, dtype=torch.bool))
    frames = made.draw_mask(batch, seeded())
    assert len(frames.rows) == 0
    output = made(batch, frames, temperature=1.0, generator=seeded())
    total = torch.stack([*output.terms.values()]).sum()
    total.backward()
    assert float(total.detach()) == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


@given(sizes, seeds, st.sampled_from(["learned", "symbols", "both"]), st.sampled_from([None, 2]))
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
        hidden = alignment.hide(replace(batch, inputs=inputs), frames.mask, made.stride)
        features = made.encode_features(hidden)
        return made.contexts(hidden, features, features.x)["output"]

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
    made = model("symbols", stride=3)
    batch = ids_batch(torch.tensor([30, 21]), 0, gaps=0.0)
    frames = made.draw_mask(batch, seeded())
    targets = targets_of(made, batch, frames)
    assert made.targets.ids_per_code == 3
    for row, frame, codes in zip(frames.rows, frames.columns, targets.codes, strict=True):
        a, b, c = batch.inputs[row, 3 * frame : 3 * frame + 3].tolist()
        assert codes.tolist() == [25 * a + 5 * b + c]
    assert len(targets.usage) == 0
    assert not made(batch, frames, temperature=1.0, generator=seeded()).terms["diversity"].any()
    assert torch.equal(targets.identity, targets.codes)


def test_both_puts_the_learned_codes_first() -> None:
    made = model("both", stride=2).eval()
    batch = ids_batch(torch.tensor([30, 21]), 0, gaps=0.0)
    frames = made.draw_mask(batch, seeded())
    targets = targets_of(made, batch, frames)
    assert targets.codes.shape[1] == 3
    assert torch.equal(targets.identity, targets.codes[:, :2])
    everywhere = made.codes(batch)
    assert torch.equal(everywhere[frames.rows, frames.columns], targets.codes)
    ragged = made.codes(ids_batch(torch.tensor([5]), 0, gaps=0.0))
    assert ragged[0, -1, -1] == -1  # the last frame lacks a step


def given_codes(*sizes: int, stride: int = 1) -> PretrainingModel:
    """A model whose targets come with the batch."""
    made = model("symbols", stride=stride)
    made.targets = GivenCodes(sizes, 12, DIM)
    return made


def test_codes_from_outside_are_the_targets() -> None:
    made = given_codes(VOCAB)
    codes = torch.arange(12).reshape(1, 12, 1) % VOCAB
    batch = replace(ids_batch(torch.tensor([12]), 0, gaps=0.0), codes=codes)
    frames = made.draw_mask(batch, seeded())
    assert torch.equal(targets_of(made, batch, frames).codes[:, 0], codes[0, frames.columns, 0])
    with pytest.raises(ValueError, match="this batch has none"):
        made.draw_mask(replace(batch, codes=None), seeded())


def test_codes_from_outside_that_the_heads_have_no_room_for() -> None:
    made, batch = given_codes(25, stride=2), ids_batch(torch.tensor([12]), 0, gaps=0.0)
    fitting = torch.full((1, 6, 1), 24)
    frames = made.draw_mask(replace(batch, codes=fitting), seeded())
    assert (targets_of(made, replace(batch, codes=fitting), frames).codes == 24).all()
    for wrong in (fitting + 1, fitting.expand(1, 6, 2)):
        with pytest.raises(ValueError, match=r"batch.codes has \d codes a frame, up to 2\d; .* 1, below 25"):
            made.draw_mask(replace(batch, codes=wrong), seeded())


def test_given_codes_are_looked_at_on_the_cpu_only() -> None:
    """A step on a GPU would wait for them; a tensor on "meta" cannot be read at all."""
    made, batch = given_codes(25, stride=2), ids_batch(torch.tensor([12]), 0, gaps=0.0)
    elsewhere = replace(batch, codes=torch.full((1, 6, 1), 24, device="meta"))
    assert isinstance(made.targets, GivenCodes)
    assert made.targets.codes_of(elsewhere, 8).shape == (1, 8, 1)


@given(sizes, seeds)
def test_a_frame_without_a_given_code_is_no_target(row_lengths: Tensor, seed: int) -> None:
    """Codes may be fewer or more than frames, and -1 where somebody did not know."""
    made, batch = given_codes(7), ids_batch(row_lengths, seed, gaps=0.0)
    most = int(row_lengths.max())
    codes = torch.randint(-1, 7, (len(row_lengths), max(1, most - 2 + seed % 5), 1), generator=seeded(seed))
    frames = made.draw_mask(replace(batch, codes=codes), seeded(seed))
    for row, column in zip(frames.rows.tolist(), frames.columns.tolist(), strict=True):
        assert column < codes.shape[1] and int(codes[row, column]) >= 0


def test_an_id_that_means_unknown_is_no_letter_of_words() -> None:
    ids = torch.tensor([[0, 1, 2, 4, 3, 3, 1, 1]])
    codes = alignment.Alphabet(4, 2)
    assert codes.codebook_size == 16
    assert codes.of(ids, torch.tensor([8]), None)[0, :, 0].tolist() == [1, -1, 15, 5]


@pytest.mark.parametrize("target", ["learned", "symbols", "both"])
def test_every_parameter_is_trained(target: str) -> None:
    made, batch = model(target, channels=2), ids_batch(torch.tensor([60, 33]), 0, (2,), gaps=0.05)
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    torch.stack([*output.terms.values()]).sum().backward()
    idle = [
        name
        for name, p in made.named_parameters()
        if (p.grad is None or not p.grad.any()) and not name.endswith("query_key_value.bias")
    ]
    assert not idle


@given(sizes, seeds, st.sampled_from(["learned", "symbols", "both"]))
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
@pytest.mark.parametrize("target", ["learned", "symbols", "both"])
def test_seen_prediction_is_the_cross_entropy_there(target: str) -> None:
    made, batch = model(target).eval(), ids_batch(torch.tensor([40, 23]), 0)
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=None, generator=seeded())
    name = "masked_prediction_seen"
    hidden = made.encode_features(alignment.hide(batch, frames.mask, made.stride))
    context = made.contexts(batch, hidden, hidden.x)["output"]
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
    assert float(output.terms[name]) == pytest.approx(expected, rel=1e-4)
    count = made.counts(batch, frames)[name]  # a seen frame weighs as a masked one; micro-steps add up
    assert int(count) == int(frames.mask.sum())
    assert int(output.sums[f"{name}/frames"]) == len(seen.rows)


@pytest.mark.parametrize("target", ["learned", "both"])
def test_diversity_is_that_of_the_learned_codebooks(target: str) -> None:
    made, batch = model(target), ids_batch(torch.tensor([60, 33]), 0)
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    usage = output.sums["usage"] / len(frames)
    assert usage.shape == (2, 7)
    entropies = -(usage * usage.log()).sum(1)
    expected = 1 - entropies.exp().sum() / 14
    assert int(made.counts(batch, frames)["diversity"]) == 1
    torch.testing.assert_close(output.terms["diversity"], expected)


def test_masked_prediction_counts_each_codebook() -> None:
    made, batch = model("symbols", stride=1, channels=3), ids_batch(torch.tensor([60]), 0, (3,), gaps=0.0)
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    nats = float(output.sums["masked_prediction/nats"].sum())
    assert nats / 3 == pytest.approx(float(output.terms["masked_prediction"].detach()), rel=1e-5)
    correct = sum(float(output.sums[f"masked_prediction/accuracy_{g}"]) for g in range(3))
    assert correct / 3 == pytest.approx(float(output.sums["masked_prediction/accuracy"]), rel=1e-5)


def test_targets_of_seen_frames_are_made_once_however_many_terms_read_them() -> None:
    made, batch = model("both"), ids_batch(torch.tensor([40, 23]), 0)
    named, books = dict(made.objectives.named), made.targets.codebook_sizes
    named["middle"] = MaskedPredictionLoss(
        DIM, len(books), max(books), books, tap="contrastive", seen_weight=0.5
    )
    made.objectives = Losses(named, made.encoder.taps)
    asked, targets_at = [], made._targets_at

    def counting(*given: Any) -> Quantized:
        asked.append(given[-1])
        return targets_at(*given)

    made._targets_at = counting  # type: ignore[method-assign]
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    assert {"masked_prediction_seen", "middle_seen"} <= {*output.terms}
    assert len(asked) == 1 and asked[0] is frames.seen
