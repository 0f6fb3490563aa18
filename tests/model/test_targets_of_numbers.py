"""Targets where inputs are numbers: continuous ones, codes of the input or a teacher, a quantized context."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from ids import VOCAB, ids_batch
from torch import Tensor

from seqssl import (
    Attention,
    Batch,
    ContextEncoder,
    ContrastiveLoss,
    GumbelProductQuantizer,
    InputCodes,
    LearnedCodes,
    LinearTarget,
    MaskedFrames,
    MaskedPredictionLoss,
    PatchEncoder,
    PretrainingModel,
    RandomProjectionQuantizer,
    SpanMasking,
    Targets,
    TeacherCodes,
    TokenEncoder,
    TransformerBlock,
)
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.targets import Teacher
from seqssl.model.types import Features
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, seeds

DIM = 16
sizes = lengths(max_rows=3, max_length=40)


def waves_model(targets: Targets, context: Literal["features", "quantized"] = "features") -> PretrainingModel:
    """A model over floats of two channels, with frames of two steps, that recognizes and predicts."""
    torch.manual_seed(1)
    encoder = ContextEncoder(
        [TransformerBlock(Attention(DIM, num_heads=2), DIM, ffn_dim=24)], None, taps={"output": 1}
    )
    objectives: dict[str, nn.Module] = {"contrastive": ContrastiveLoss(DIM, targets.dim, tap="", final_dim=8)}
    if targets.codebook_sizes:
        (size,) = targets.codebook_sizes
        objectives["prediction"] = MaskedPredictionLoss(DIM, 1, size, tap="")
    masking = SpanMasking(targets.dim if context == "quantized" else FEATURES, start_prob=0.3, span=2)
    return PretrainingModel(PATCHES, masking, targets, encoder, objectives, DIM, context=context)


FEATURES = 10
torch.manual_seed(0)
PATCHES = PatchEncoder(2, dim=FEATURES, patch=2)


def waves(row_lengths: Tensor, seed: int = 0) -> Batch:
    return Batch(
        torch.randn(len(row_lengths), int(row_lengths.max()), 2, generator=seeded(seed)), row_lengths
    )


def best_rq(entries: int = 9) -> InputCodes:
    torch.manual_seed(3)

    def make(width: int) -> RandomProjectionQuantizer:
        return RandomProjectionQuantizer(width, codebook_size=entries, dim=4)

    return InputCodes(PATCHES, make, 2.0, 2, FEATURES, 7)


def test_vectors_without_codes_can_be_recognized() -> None:
    """Before, no negative counted as one and the loss was exactly 0."""
    made = waves_model(LearnedCodes(LinearTarget(FEATURES, dim=8)))
    batch = waves(torch.tensor([60, 41]))
    frames = made.draw_mask(batch, seeded())
    output = made(batch, frames, temperature=1.0, generator=seeded())
    assert float(output.terms["contrastive"].detach()) / len(frames) > 1
    assert float(output.sums["contrastive/num_negatives"]) / len(frames) > 3
    output.terms["contrastive"].backward()
    assert made.targets.quantizer.project.weight.grad.any()


@pytest.mark.parametrize("pulls", [False, True])
def test_masked_prediction_pulls_on_the_quantizer_only_where_it_may(pulls: bool) -> None:
    """In a training step as it runs: once, the probabilities were lost on the way, and nothing was pulled."""
    torch.manual_seed(2)
    quantizer = GumbelProductQuantizer(FEATURES, codebook_size=6, dim=8)
    made = waves_model(LearnedCodes(quantizer))
    made.objectives.named["prediction"].pulls = pulls
    batch = waves(torch.tensor([60, 41]))
    frames = made.draw_mask(batch, seeded())
    output = made.train()(batch, frames, temperature=1.0, generator=seeded())
    output.terms["prediction"].backward()
    grad = quantizer.logits.weight.grad
    assert (grad is not None and bool(grad.any())) == pulls
    made.objectives.named["prediction"].pulls = False
    again = made(batch, frames, temperature=1.0, generator=seeded())
    torch.testing.assert_close(again.terms["prediction"], output.terms["prediction"])


def test_targets_without_vectors_cannot_be_recognized() -> None:
    with pytest.raises(ValueError, match="compares vectors"):
        ContrastiveLoss(DIM, 0, tap="", final_dim=8)


@given(sizes, seeds)
def test_codes_of_the_input_ignore_padding_and_batch_mates(row_lengths: Tensor, seed: int) -> None:
    targets, batch = best_rq(), waves(row_lengths, seed)
    features = PATCHES(batch.inputs, batch.lengths)
    together = targets.everywhere(batch, features)
    for row, length in enumerate(row_lengths.tolist()):
        alone = Batch(batch.inputs[row : row + 1, :length], batch.lengths[row : row + 1])
        own = targets.everywhere(alone, PATCHES(alone.inputs, alone.lengths))
        assert torch.equal(together[row, : own.shape[1]], own[0])
        assert (together[row, own.shape[1] :] == -1).all()


def test_what_is_missing_has_no_part_in_codes_of_the_input() -> None:
    """Neither in a row's mean nor in its deviation: what is missing is read as 0."""
    targets, batch = best_rq(), waves(torch.tensor([40]))
    known = Batch(batch.inputs + 5, batch.lengths)
    inputs = torch.cat([known.inputs, torch.zeros(1, 30, 2)], dim=1)
    observed = (torch.arange(70) < 40)[None, :, None].expand_as(inputs)
    longer = Batch(inputs, torch.tensor([70]), observed=observed)
    assert torch.equal(targets.codes_of(longer, 35)[:, :20], targets.codes_of(known, 20))


def test_codes_of_the_input_do_not_move_while_the_model_learns() -> None:
    made, batch = waves_model(best_rq()), waves(torch.tensor([60, 41]))
    before, frames = made.codes(batch), made.draw_mask(batch, seeded())
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        output = made(batch, frames, temperature=1.0, generator=seeded())
        torch.stack([*output.terms.values()]).sum().backward()
        optimizer.step()
    assert torch.equal(made.codes(batch), before)
    assert before.unique().numel() > 4


def test_codes_of_a_teacher_are_its_nearest_centroids() -> None:
    batch, centers = waves(torch.tensor([40, 23]), 5), torch.randn(6, FEATURES, generator=seeded(7))
    opened = []

    def open_teacher(run: str, tap: str) -> Teacher:
        opened.append((run, tap))
        return lambda batch: PATCHES(batch.inputs, batch.lengths)

    targets = TeacherCodes(
        PATCHES, open_teacher, lambda path: centers, FEATURES, 7, run="r", tap="t", centroids="c"
    )
    assert not opened  # not before it is needed
    features = PATCHES(batch.inputs, batch.lengths)
    codes = targets.everywhere(batch, features)
    for row, length in enumerate(features.lengths.tolist()):
        for frame in range(length):
            x = features.x[row, frame].detach()
            distances = [float((x - center).square().sum()) for center in centers]
            assert int(codes[row, frame]) == distances.index(min(distances))
    assert opened == [("r", "t")]
    assert not [name for name in targets.state_dict() if "centroids" in name]


def test_codes_of_a_teacher_with_fewer_frames_do_not_depend_on_the_batch() -> None:
    """Before, the ratio was that of the padded batch, and a real frame could get the code of padding."""

    def teach(batch: Batch) -> Features:
        made = ((batch.lengths + 9) // 10 - 1).clamp(min=1)
        return Features(batch.inputs[:, 4::10][:, : int(made.max())], made)

    centers = torch.randn(30, 2, generator=seeded(7))
    targets = TeacherCodes(PATCHES, lambda run, tap: teach, lambda path: centers, run="r", centroids="c")
    row_lengths = torch.tensor([33, 91, 60])
    batch = waves(row_lengths, 5)
    together = targets.everywhere(batch, PATCHES(batch.inputs, batch.lengths))
    for row, length in enumerate(row_lengths.tolist()):
        alone = Batch(batch.inputs[row : row + 1, :length], batch.lengths[row : row + 1])
        own = targets.everywhere(alone, PATCHES(alone.inputs, alone.lengths))
        assert torch.equal(together[row, : own.shape[1]], own[0])
        steps = torch.tensor([4, 10 * ((length + 9) // 10) - 16])  # of the teacher's first and last frame
        expected = torch.cdist(batch.inputs[row, steps], centers).argmin(-1)
        assert torch.equal(own[0, [0, -1], 0], expected)


@given(sizes, seeds)
def test_a_quantized_context_reads_entries_of_the_codebook(row_lengths: Tensor, seed: int) -> None:
    torch.manual_seed(2)
    quantizer = GumbelProductQuantizer(FEATURES, codebook_size=7, dim=8)
    made = waves_model(LearnedCodes(quantizer), "quantized")
    batch = waves(row_lengths, seed)
    features = made.encode_features(batch)
    read = made.clear(batch, features)
    entries = quantizer.codebook[0]
    gaps = (read[features.valid][:, None] - entries).abs().amax(-1)
    assert (gaps.min(1).values < 1e-6).all()
    frames = made.draw_mask(batch, seeded(seed))
    output = made(batch, frames, temperature=1.0, generator=seeded())
    torch.stack([*output.terms.values()]).sum().backward()
    # Where all masked frames have one code, or there is one of them, nothing is to be told apart.
    assert quantizer.codebook.grad.any() or output.terms["contrastive"].item() == 0
    again, targets = made._targets(batch, features, frames, None, None)
    assert torch.equal(frames.take(again), targets.vectors)  # at the masked frames, of one and the same draw


def test_the_norm_before_the_quantizer_is_torchs_over_the_frames_of_a_step() -> None:
    """Batch statistics of masked frames in training, running ones elsewhere; other calls do not move them."""
    torch.manual_seed(0)
    quantizer = GumbelProductQuantizer(6, codebook_size=7, dim=4)
    targets = LearnedCodes(quantizer, MaskedBatchNorm(6, affine=False)).train()
    reference = torch.nn.BatchNorm1d(6, affine=False)
    x = torch.randn(2, 9, 6, generator=seeded(1)) * 3 + 5
    features = Features(x, torch.tensor([9, 9]))
    frames = MaskedFrames.of(torch.rand(2, 9, generator=seeded(2)) < 0.5)
    batch = Batch(torch.zeros(2, 9), torch.tensor([9, 9]))
    found = targets(batch, features, frames, temperature=0.5, generator=seeded(3))
    scaled = reference.train()(frames.take(x))
    torch.testing.assert_close(found.vectors, quantizer(scaled, temperature=0.5, generator=seeded(3)).vectors)
    before = targets.quantizer_norm.running_mean.clone()  # type: ignore[union-attr]
    torch.testing.assert_close(before, reference.running_mean)
    targets.everywhere(batch, features)
    targets(batch, features, frames, temperature=None, generator=None)
    assert torch.equal(targets.quantizer_norm.running_mean, before)  # type: ignore[union-attr]
    codes = quantizer(reference.eval()(x.flatten(0, 1)), temperature=None).codes.view(2, 9, -1)
    assert torch.equal(targets.everywhere(batch, features), codes)
    assert not [*targets.quantizer_norm.parameters()]  # type: ignore[union-attr]


@pytest.mark.parametrize(("channels", "stride"), [(None, 1), (None, 2), (2, 1)])
def test_ids_are_one_hot_vectors_to_a_random_projection(channels: int | None, stride: int) -> None:
    """Before, they were numbers: frames of one id each had all the same code."""
    encoder = TokenEncoder(VOCAB, channels, dim=4, kernel=3, stride=stride)

    def make(width: int) -> RandomProjectionQuantizer:
        torch.manual_seed(3)
        return RandomProjectionQuantizer(width, codebook_size=4096)

    targets = InputCodes(encoder, make, float(stride), channels, vocab_size=VOCAB)
    batch = ids_batch(torch.tensor([240, 100]), 0, () if channels is None else (channels,), gaps=0.0)
    codes = targets.codes_of(batch, 240 // stride)[0, :, 0].tolist()
    words = [tuple(word) for word in batch.inputs[0].reshape(240 // stride, -1).tolist()]
    assert len({*zip(words, codes, strict=True)}) == len({*words}), "a word has one code"
    assert len({*codes}) > 0.9 * len({*words}) > 4, "and hardly any other word has it"


def test_a_frame_of_one_number_has_no_random_projection() -> None:
    with pytest.raises(ValueError, match="a frame of one number is then always 0"):
        InputCodes(PatchEncoder(1, dim=4, patch=1), RandomProjectionQuantizer, 1.0, 1)
    InputCodes(PatchEncoder(1, dim=4, patch=2), RandomProjectionQuantizer, 2.0, 1)
