"""Strides of frames and columns, and what targets, masks and codebooks must not depend on."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from modalities.music.views import RollEncoder
from modalities.speech.mel import LogMelEncoder
from seqssl import Conv1dStack, Conv2dSubsampling, PatchEncoder, TokenEncoder
from seqssl.assembly import assemble, build_model, streams_of
from seqssl.errors import UserError
from seqssl.model.alignment import first_apart, steps_per_frame
from seqssl.model.clusters import InputClusters
from seqssl.model.codebooks import Codebook
from seqssl.model.description import InputDescription, columns_per_step
from seqssl.model.masking import SpanMasking
from seqssl.model.quantizers import RandomProjectionQuantizer
from seqssl.model.targets import InputCodes
from seqssl.model.types import Batch
from seqssl.planning.plan import load_recipe
from seqssl.testing.harness import seeded

RATE = 16_000


def sound(seconds: float, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(1, round(seconds * RATE), generator=seeded(seed))


def batch_of(*rows: Tensor) -> Batch:
    lengths = torch.tensor([row.shape[1] for row in rows])
    inputs = torch.zeros(len(rows), int(lengths.max()))
    for place, row in enumerate(rows):
        inputs[place, : row.shape[1]] = row[0]
    return Batch(inputs, lengths)


def test_strides_of_windows_are_whole() -> None:
    assert steps_per_frame(LogMelEncoder()) == 640
    assert steps_per_frame(Conv1dStack(1, dim=4)) == 320
    assert columns_per_step(LogMelEncoder(), None) == 1 / 160
    assert columns_per_step(RollEncoder(8, dim=4), 8) == 1


def test_a_roll_is_described_by_its_own_columns() -> None:
    reader = RollEncoder(8, dim=4, patch=3)
    describe = InputDescription(reader, steps_per_frame(reader), channels=8)
    rolls = (torch.rand(2, 30, 8, generator=seeded(1)) > 0.7).float()
    changed = rolls.clone()
    changed[:, 27:] = 1 - changed[:, 27:]  # the last of ten frames
    lengths = torch.tensor([30, 30])
    before, after = describe(Batch(rolls, lengths), 10), describe(Batch(changed, lengths), 10)
    assert torch.equal(before[:, :7], after[:, :7])  # differences look two columns ahead
    assert not torch.equal(before[:, 9], after[:, 9])


@pytest.mark.parametrize("frame", [3, 130, 290])
def test_a_frame_is_described_where_it_lies(frame: int) -> None:
    reader = LogMelEncoder()
    row = 1e-4 * sound(12)
    row[0, frame * 640 + 520] = 1.0  # a click in the middle of the window that begins at the frame's middle
    batch, describe = batch_of(row), InputDescription(reader, steps_per_frame(reader))
    loud = describe(batch, 300)[0, :, 0]
    assert int(loud.argmax()) == frame
    parts = describe.in_parts(4)(batch, 1200)[0, :, 0]
    assert int(parts.argmax()) == 4 * frame + 2


def test_parts_of_a_frame_have_codes_of_their_own() -> None:
    reader = LogMelEncoder()
    batch = batch_of(sound(3), sound(2, seed=1))
    describe = InputDescription(reader, steps_per_frame(reader))
    made = InputClusters(reader, describe, num_clusters=5, standardize=True, codes_per_frame=4)
    made.fit([batch], seeded())
    assert made.codebook_sizes == (5,) * 4
    codes, features = made.codes_of(batch, 75), reader(batch.inputs, batch.lengths)
    assert codes.shape == (2, 75, 4) and (codes[:, :, 0] != codes[:, :, 3]).any()
    (part,) = [InputClusters(reader, describe, num_clusters=5, standardize=True)]
    part.describe, part._stride, part._output_lengths = describe.in_parts(4), 160.0, lambda n: n // 160
    part.centroids = made.centroids
    # The one that begins in the middle comes first.
    assert torch.equal(codes[0][:, [1, 2, 0, 3]].flatten(), part.codes_of(batch, 300)[0, :, 0])
    everywhere = made.everywhere(batch, features)
    assert (everywhere[1, 50:] == -1).all() and (everywhere[1, :50] >= 0).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made.codes_of(batch, 75), codes)


def test_neighbors_codes_are_those_that_they_have_themselves() -> None:
    reader = PatchEncoder(2, dim=4, patch=8)
    describe = InputDescription(reader, 8.0, channels=2)
    batch = Batch(torch.randn(2, 80, 2, generator=seeded()), torch.tensor([80, 41]))
    lone = InputClusters(reader, describe, num_clusters=7, codes_per_frame=2)
    lone.fit([batch], seeded())
    wide = InputClusters(reader, describe, num_clusters=7, codes_per_frame=2, neighbors=1)
    wide.centroids = lone.centroids
    own, codes = lone.codes_of(batch, 10)[..., [1, 0]], wide.codes_of(batch, 10)  # in the order of time
    assert wide.codebook_sizes == (7,) * 6 and codes.shape == (2, 10, 6)
    assert torch.equal(codes[..., [3, 0]], own)
    for row, last in ((0, 9), (1, 5)):
        assert torch.equal(codes[row, 1 : last + 1, 1:3], own[row, :last])
        assert torch.equal(codes[row, :last, 4:], own[row, 1 : last + 1])
        assert (codes[row, 0, 1:3] == own[row, 0, 0]).all() and (
            codes[row, last, 4:] == own[row, last, 1]
        ).all()


def test_steps_are_shared_by_whole_parts_only() -> None:
    reader = PatchEncoder(2, dim=4, patch=8)
    describe = InputDescription(reader, 8.0, channels=2)
    x = torch.randn(1, 24, 2, generator=seeded())
    halves = describe.in_parts(2)(Batch(x, torch.tensor([24])), 6)
    assert describe.in_parts(2).dim == 8
    assert torch.equal(halves.reshape(1, 3, 16), describe(Batch(x, torch.tensor([24])), 3))
    with pytest.raises(ValueError, match="a frame of 8 steps has no 3 equal parts"):
        InputClusters(reader, describe, codes_per_frame=3)


def projections(dim: int) -> RandomProjectionQuantizer:
    torch.manual_seed(0)
    return RandomProjectionQuantizer(dim, codebook_size=4096)


def test_codes_of_the_input_do_not_depend_on_the_batch() -> None:
    targets = InputCodes(LogMelEncoder(), projections, 640.0, None)
    short = torch.cat([sound(5.0), 3 * sound(1.25, seed=1)], dim=1)  # what comes last is unlike the rest
    alone = targets.codes_of(batch_of(short), 155)[0]
    beside = targets.codes_of(batch_of(short, sound(12.0, seed=2)), 300)[0, :155]
    assert torch.equal(alone, beside)


def test_silence_that_is_missing_has_no_part_in_codes_of_the_input() -> None:
    targets = InputCodes(LogMelEncoder(), projections, 640.0, None)
    row = sound(5.0)
    longer = torch.cat([row, torch.zeros(1, 20 * 640)], dim=1)
    observed = torch.arange(longer.shape[1])[None] < row.shape[1]
    beside = targets.codes_of(replace(batch_of(longer), observed=observed), 145)
    assert torch.equal(beside[:, :125], targets.codes_of(batch_of(row), 125))


def test_what_a_run_computes_in_changes_no_code_of_a_random_projection() -> None:
    torch.manual_seed(0)
    quantizer = RandomProjectionQuantizer(80, codebook_size=8192)
    x = torch.randn(200, 80, generator=seeded(3))
    whole = quantizer(x, temperature=None).codes
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer(x, temperature=None).codes, whole)


def test_starts_of_spans_are_kept_no_more_often_than_the_rest() -> None:
    """A plan and a step draw from generators of one seed."""
    masking = SpanMasking(4, start_prob=0.05, span=10, fill="zero", kept=0.1, exchanged=0.1)
    x, lengths = torch.randn(20, 400, 4, generator=seeded(5)), torch.full((20,), 400)
    mask = masking.sample(lengths, seeded(9))
    starts = mask & ~torch.nn.functional.pad(mask, (1, 0))[:, :-1]
    kept = (masking.apply(x, mask, seeded(9)) == x).all(-1)
    assert 0.03 < kept[starts].float().mean() < 0.2
    assert 0.07 < kept[mask].float().mean() < 0.13


def test_a_codebook_does_not_forget_on_the_updates_of_others() -> None:
    torch.manual_seed(0)
    codebook = Codebook(4, 3, decay=0.9, revive=0.5).train()
    codebook(torch.randn(50, 3, generator=seeded(6)), seeded(7))
    codebook.after_update()
    counts, sums = codebook.counts.clone(), codebook.sums.clone()
    for _ in range(5):
        codebook.after_update()
    assert torch.equal(codebook.counts, counts) and torch.equal(codebook.sums, sums)


@pytest.mark.parametrize(
    "setting",
    [
        "encoder.block={target: conformer, ffn_dim: 32, conv_kernel: 5, conv_norm: layer}",
        "encoder.position={target: conv, kernel: 8, groups: 4}",
        "mixer.causal=false",
    ],
)
def test_an_encoder_that_looks_ahead_foresees_nothing(setting: str) -> None:
    with pytest.raises(UserError, match="foresees later frames"):
        build_model(load_recipe("wearables_next_latent", "size=tiny", setting), "meta")
    build_model(load_recipe("wearables_next_latent", "size=tiny"), "meta")


@pytest.mark.parametrize(
    ("encoder", "channels", "vocab_size", "first"),
    [
        (PatchEncoder(3, dim=4, patch=5), 3, None, 1),
        (RollEncoder(8, dim=4, patch=3), 8, None, 1),
        (Conv1dStack(1, dim=4, kernels=(4, 2), strides=(4, 2)), None, None, 1),
        (TokenEncoder(5, dim=4, kernel=1, stride=3), None, 5, 1),
        (TokenEncoder(2, 2, dim=4, kernel=1), 2, 2, 1),
        (Conv1dStack(1, dim=4, kernels=(4, 3), strides=(4, 2)), None, None, 2),
        (Conv2dSubsampling(8, channels=16), 8, None, 2),  # reads back only, and so what was seen already
        (LogMelEncoder(), None, None, 3),
        (Conv1dStack(1, dim=4, kernels=(10, 8, 4, 4, 4), strides=(5, 4, 2, 2, 2)), None, None, 3),
        (TokenEncoder(2, dim=4, kernel=3), None, 2, 3),
        (TokenEncoder(5, dim=4, kernel=9), None, 5, 9),
    ],
)
def test_frames_lie_apart_or_read_steps_of_one_another(
    encoder: Any, channels: int | None, vocab_size: int | None, first: int
) -> None:
    assert first_apart(encoder, channels, vocab_size) == first


def test_frames_that_share_steps_foresee_nothing_of_the_next_one() -> None:
    toy = ["base/next_latent", "size=tiny", "data=.", "data.batch_frames=160", "modality=toy:Toy"]
    state = torch.get_rng_state()
    for device in ("cpu", "meta"):
        with pytest.raises(UserError, match=r"foresees the next frame, .* feature_encoder=patch"):
            build_model(load_recipe(*toy), device)
        build_model(load_recipe(*toy, "feature_encoder={target: patch, patch: 4}"), device)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(UserError, match="foresees the next frame"):
        build_model(load_recipe(*toy[:4], "modality=speech", "data.batch_frames=16000"), "meta")
    for recipe in ("wearables_next_latent", "weather_next_latent", "speech_wav2vec"):
        build_model(load_recipe(recipe, "size=tiny"), "meta")


def test_what_is_foreseen_begins_where_frames_share_no_step() -> None:
    """In wav2vec the third frame ahead is the first; with other windows it is another."""
    toy = ["base/wav2vec", "size=tiny", "data=.", "data.batch_frames=4000"]
    key, waves, letters = "objectives.future_prediction.offset", "modality=toy:Toy", "modality=toy:Letters"
    build_model(load_recipe(*toy, waves), "meta")
    build_model(load_recipe(*toy, letters), "meta")
    with pytest.raises(UserError, match=r"future_prediction.offset = 1: .* say 2 or more"):
        build_model(load_recipe(*toy, waves, f"{key}=1"), "meta")
    wide = "feature_encoder={target: token, dim: 12, kernel: 9}"
    with pytest.raises(UserError, match=r"future_prediction.offset = 3: .* say 9 or more"):
        build_model(load_recipe(*toy, letters, wide), "meta")
    build_model(load_recipe(*toy, letters, wide, f"{key}=9"), "meta")
    papers = ("feature_encoder={target: conv1d, dim: 16, norm: row, activation: relu, "
              "kernels: [10, 8, 4, 4, 4], strides: [5, 4, 2, 2, 2]}")  # fmt: skip
    build_model(load_recipe(*toy, waves, papers), "meta")  # its norms know of the whole row, as in the paper
    with pytest.raises(UserError, match=r"future_prediction.offset = 2: .* say 3 or more"):
        build_model(load_recipe(*toy, waves, papers, f"{key}=2"), "meta")


@pytest.mark.parametrize("recipe", ["wav2vec2", "hubert", "data2vec", "dinosr"])
def test_hidden_ids_are_not_shown_by_the_frames_around_them(recipe: str) -> None:
    """Before, `mask_at=projection` hid them after a token encoder, which reads the ids around each frame."""
    own = [f"base/{recipe}", "size=tiny", "data=.", "data.batch_frames=160", "modality=toy:Letters"]
    model = build_model(load_recipe(*own), "meta")
    assert model.mask_input and not model.mask_projection
    asked = build_model(load_recipe(*own, "mask_at=features"), "meta")
    assert not asked.mask_input and not asked.mask_projection
    numbers = build_model(load_recipe(*own, "modality=toy:Toy"), "meta")
    assert not numbers.mask_input and numbers.mask_projection


def test_a_row_of_one_frame_is_refused_before_it_teaches_nothing() -> None:
    """16 s at 30 Hz, read with windows for sound: before, the loss was 0."""
    with pytest.raises(UserError, match=r"feature_encoder: Conv1dStack makes 1 frame of 480 input steps"):
        build_model(load_recipe("speech_wav2vec2", "size=small", "modality=wearables"), "meta")
    build_model(
        load_recipe("speech_wav2vec2", "size=small", "modality=wearables", "feature_encoder=null"), "meta"
    )


def test_a_row_longer_than_a_batch_is_one_of_its_own_and_no_reason_to_refuse() -> None:
    """A batch of one step holds each row alone."""
    build_model(
        load_recipe("base/wav2vec2", "size=tiny", "data=.", "data.batch_frames=1", "modality=toy:Toy")
    )
    config = load_recipe("speech_wav2vec2", "size=small", "modality=wearables")
    assemble(config, streams_of(config), "meta", trained=True)  # what was trained is read all the same
