"""Clusters as targets: against scikit-learn, and what is fitted, saved and read again."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct
from sklearn.cluster import KMeans
from torch import nn

from seqssl import load_recipe
from seqssl.assembly import build_model
from seqssl.model.clusters import InputClusters, TeacherClusters
from seqssl.model.description import InputDescription, cepstra, with_differences
from seqssl.model.features import PatchEncoder
from seqssl.model.kmeans import k_means, nearest, sample, spread_out, step
from seqssl.model.norms import ChannelNorm
from seqssl.model.types import Batch, Features, MaskedFrames, Segment
from seqssl.testing import check_targets
from seqssl.testing.harness import seeded

CHANNELS, STRIDE = 2, 3


def clouds(num_clouds: int, seed: int, size: int = 40, spread: float = 0.05) -> torch.Tensor:
    centers = torch.randn(num_clouds, 3, generator=seeded(seed)) * 4
    return (centers[:, None] + spread * torch.randn(num_clouds, size, 3, generator=seeded(seed + 1))).flatten(
        0, 1
    )


@given(num_frames=st.integers(5, 60), k=st.integers(1, 5), seed=st.integers(0, 50))
def test_the_steps_are_those_of_scikit_learn(num_frames: int, k: int, seed: int) -> None:
    x = torch.randn(num_frames, 3, generator=seeded(seed), dtype=torch.double)
    first = spread_out(x, k, seeded(seed + 1))
    moved = first
    for _ in range(200):
        moved = step(x, moved)
    theirs = KMeans(k, init=first.numpy(), n_init=1, max_iter=200, tol=0, algorithm="lloyd").fit(x.numpy())
    places, distances = nearest(x, moved)
    assert distances.sum() == pytest.approx(theirs.inertia_, rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(moved.numpy(), theirs.cluster_centers_, atol=1e-6)
    assert places.tolist() == theirs.labels_.tolist()


def test_separate_clouds_are_found_and_the_same_seed_finds_the_same() -> None:
    x = clouds(6, seed=3)
    centers = k_means(x, 6, seeded(1))
    places, _ = nearest(x, centers)
    assert all(len(part.unique()) == 1 for part in places.view(6, -1))
    assert len(places.unique()) == 6
    assert torch.equal(centers, k_means(x, 6, seeded(1)))


def test_a_center_without_frames_moves_to_the_farthest_frame() -> None:
    x = torch.tensor([[0.0], [1.0], [9.0]])
    moved = step(x, torch.tensor([[0.4], [100.0]]))
    assert moved[1].item() == 9.0


def test_equal_frames_and_too_few_frames() -> None:
    assert k_means(torch.ones(8, 2), 3, seeded()).isfinite().all()
    with pytest.raises(ValueError, match="5 clusters need as many frames, and there are 4"):
        k_means(torch.randn(4, 2), 5, seeded())


def test_every_frame_of_a_stream_is_as_likely_to_be_kept() -> None:
    stream = [torch.arange(start, start + 10.0)[:, None] for start in range(0, 100, 10)]
    counts = torch.zeros(100)
    for seed in range(400):
        kept, total = sample(iter(stream), 20, seeded(seed))
        assert total == 100 and len(kept) == 20 and len(kept.unique()) == 20
        counts[kept[:, 0].long()] += 1
    assert abs(counts[:50].sum() / counts.sum() - 0.5) < 0.02
    assert counts.min() > 40 and counts.max() < 130  # 80 expected, deviation 8


def test_cepstra_are_scipys_and_differences_end_with_the_row() -> None:
    picture = torch.randn(2, 9, 20, generator=seeded())
    lifter = 1 + 22 / 2 * np.sin(np.pi * np.arange(13) / 22)  # kaldi's
    expected = (dct(picture.numpy(), axis=-1, norm="ortho")[..., :13] * lifter).astype(np.float32)
    torch.testing.assert_close(cepstra(picture), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)
    x = torch.randn(1, 9, 4, generator=seeded(1))
    short = with_differences(x[:, :6], torch.tensor([5]))
    assert torch.equal(with_differences(x, torch.tensor([5]))[:, :6], short)
    inner = np.gradient(x[0, :6].numpy(), axis=0)[1:-1]
    torch.testing.assert_close(short[0, 1:-1, 4:8], torch.from_numpy(inner))


class Spectrum(nn.Module):
    """A feature encoder that draws its inputs: 16 magnitudes of every 8 steps."""

    dim = 4

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        return (lengths / 16).ceil().long()

    def picture(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        inside = torch.arange(inputs.shape[1]) < lengths[:, None]
        windows = nn.functional.pad(inputs * inside, (0, -inputs.shape[1] % 8)).unfold(1, 8, 8)
        return (torch.fft.rfft(windows, n=30).abs() + 1e-3).log()


def batches() -> list[Batch]:
    inputs = torch.randn(3, 90, CHANNELS, generator=seeded(5)).cumsum(1)
    return [Batch(inputs, torch.tensor([90, 41, 7])), Batch(inputs.flip(0), torch.tensor([12, 90, 60]))]


def fitted(*, standardize: bool = False) -> InputClusters:
    encoder = PatchEncoder(CHANNELS, dim=4, patch=STRIDE)
    made = InputClusters(
        encoder,
        InputDescription(encoder, float(STRIDE), channels=CHANNELS),
        num_clusters=7,
        standardize=standardize,
    )
    facts = made.fit(batches(), seeded(2))
    assert facts["frames"] == sum(int((batch.lengths / STRIDE).ceil().sum()) for batch in batches())
    return made


@pytest.mark.parametrize("standardize", [False, True])
def test_clusters_of_the_input_keep_the_contract(standardize: bool) -> None:
    batch = batches()[0]
    features = PatchEncoder(CHANNELS, dim=4, patch=STRIDE)(batch.inputs, batch.lengths)
    check_targets(lambda: fitted(standardize=standardize), batch, features)


def test_a_row_has_the_same_clusters_in_any_batch() -> None:
    encoder = Spectrum()
    made = InputClusters(encoder, InputDescription(encoder, 16.0), num_clusters=5)
    inputs = torch.randn(2, 400, generator=seeded(7)) * torch.linspace(0, 2, 400)
    made.fit([Batch(inputs, torch.tensor([400, 400]))], seeded())
    for length in (1, 15, 100, 399):
        alone = made.codes_of(Batch(inputs[:1, :length], torch.tensor([length])), -(-length // 16))
        beside = made.codes_of(Batch(inputs, torch.tensor([length, 400])), 25)
        assert alone[0].tolist() == beside[0, : alone.shape[1]].tolist()
    assert len(beside.unique()) > 2


@pytest.mark.parametrize("standardize", [False, True])
def test_what_is_missing_has_no_part_in_the_clusters(standardize: bool) -> None:
    """Long gaps are read as 0 and would take clusters, and a row's scale, from what is there."""
    encoder = PatchEncoder(CHANNELS, dim=4, patch=STRIDE)
    (whole, _), gap = batches(), 20 * STRIDE
    inputs = torch.cat([whole.inputs[:1], torch.zeros(1, gap, CHANNELS)], dim=1)
    observed = (torch.arange(inputs.shape[1]) < 90)[None, :, None].expand_as(inputs)
    first = Batch(whole.inputs[:1], whole.lengths[:1])
    padded = Batch(inputs, torch.tensor([90 + gap]), observed=observed)
    made = []
    for batch in (first, padded):
        describe = InputDescription(encoder, float(STRIDE), channels=CHANNELS)
        one = InputClusters(encoder, describe, num_clusters=3, standardize=standardize)
        one.fit([batch], seeded(2))
        made.append(one)
    assert torch.equal(made[0].centroids, made[1].centroids)
    size = -(-90 // STRIDE)
    assert torch.equal(made[0].codes_of(first, size), made[1].codes_of(padded, size + 20)[:, :size])


def test_standardizing_takes_out_what_a_row_has_all_along() -> None:
    made, (batch, _) = fitted(standardize=True), batches()
    louder = Batch(batch.inputs * 3 + 11, batch.lengths)
    # The first row alone: it ends with a whole frame, and no zero stands in for a step.
    assert torch.equal(made.codes_of(louder, 30)[0], made.codes_of(batch, 30)[0])
    plain = fitted()
    assert not torch.equal(plain.codes_of(louder, 30)[0], plain.codes_of(batch, 30)[0])


def test_clusters_are_saved_with_the_model_and_never_guessed() -> None:
    made, batch = fitted(), batches()[0]
    other = InputClusters(
        PatchEncoder(CHANNELS, dim=4, patch=STRIDE),
        InputDescription(PatchEncoder(CHANNELS, dim=4, patch=STRIDE), float(STRIDE), channels=CHANNELS),
        num_clusters=7,
    )
    with pytest.raises(ValueError, match="have not been fitted"):
        other.codes_of(batch, 30)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.codes_of(batch, 30), made.codes_of(batch, 30))
    other.pretend()
    assert not other.codes_of(batch, 30).any()


def test_a_teacher_of_another_frame_rate_is_refused() -> None:
    def open_teacher(run: str, tap: str) -> object:
        assert (run, tap) == ("there", "layer2")
        return lambda batch: Features(batch.inputs[:, ::6], batch.lengths)

    encoder = PatchEncoder(CHANNELS, dim=4, patch=STRIDE)
    made = TeacherClusters(encoder, open_teacher, list, run="there", tap="layer2", num_clusters=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"there: this teacher has 15 frames where the model has 30"):
        made.fit(batches(), seeded())


def test_a_frame_may_be_asked_for_its_neighbors_in_the_teacher() -> None:
    def open_teacher(run: str, tap: str, origin: object = None) -> object:
        return lambda batch: Features(batch.inputs[:, ::STRIDE], -(-batch.lengths // STRIDE))

    def made(neighbors: int) -> TeacherClusters:
        encoder = PatchEncoder(CHANNELS, dim=4, patch=STRIDE)
        clusters = TeacherClusters(
            encoder, open_teacher, list, run="there", tap="layer2", num_clusters=5, neighbors=neighbors
        )  # type: ignore[arg-type]
        clusters.fit(batches(), seeded())
        return clusters

    batch = batches()[0]
    alone, around = made(0).codes_of(batch, 30)[..., 0], made(1).codes_of(batch, 30)
    for row, length in enumerate((-(-batch.lengths // STRIDE)).tolist()):
        for frame in range(length):
            places = [frame, max(frame - 1, 0), min(frame + 1, length - 1)]
            assert around[row, frame].tolist() == alone[row, places].tolist()


def test_a_frame_gets_its_code_from_the_nearest_center() -> None:
    made, batch = fitted(), batches()[0]
    frames = MaskedFrames.of(torch.ones(3, 30, dtype=torch.bool))
    features = PatchEncoder(CHANNELS, dim=4, patch=STRIDE)(batch.inputs, batch.lengths)
    codes = made(batch, features, frames, temperature=None, generator=None).codes.view(3, 30)
    described = made.describe(batch, 30)
    for row, length in enumerate([30, 14, 3]):
        distances = (described[row, :length, None] - made.centroids).square().sum(-1)
        assert codes[row, :length].tolist() == distances.argmin(-1).tolist()


def layered(labelled: bool) -> tuple[TeacherClusters, list[Batch]]:
    """A teacher of three layers: a line, noise in all directions, and what the labels are of."""
    generator = seeded(4)
    rows = []
    for seed in range(3):
        labels = torch.randint(0, 4, (60,), generator=seeded(seed))
        segments = tuple(Segment(n * STRIDE, (n + 1) * STRIDE, f"u{label}") for n, label in enumerate(labels))
        inputs = torch.randn(1, 60 * STRIDE, CHANNELS, generator=generator)
        inputs[0, ::STRIDE, 0] = labels.float()
        rows.append(Batch(inputs, torch.tensor([60 * STRIDE]), segments=(segments,) if labelled else None))

    def open_teacher(run: str, taps: str | list[str]) -> object:
        def teach(batch: Batch) -> Features:
            first = batch.inputs[:, ::STRIDE, :1]
            noise = torch.randn(1, 60, 6, generator=seeded(int(first.sum())))
            line = batch.inputs[:, ::STRIDE, 1:] * torch.ones(6)
            units = torch.cat([10 * first, 0.1 * noise[..., 1:]], -1)
            layers = {"layer1": line, "middle": noise, "output": units}
            wanted = [taps] if isinstance(taps, str) else taps
            return Features(torch.cat([layers[tap] for tap in wanted], -1), batch.lengths // STRIDE)

        return teach

    encoder = PatchEncoder(CHANNELS, dim=4, patch=STRIDE)
    names = ["layer1", "middle", "output"]
    made = TeacherClusters(encoder, open_teacher, lambda run: names, run="there", tap="auto", num_clusters=4)  # type: ignore[arg-type]
    return made, rows


@pytest.mark.parametrize(("labelled", "expected"), [(True, "output"), (False, "middle")])
def test_the_layer_is_chosen_by_labels_or_else_by_rank(labelled: bool, expected: str) -> None:
    made, rows = layered(labelled)
    facts = made.fit(rows, seeded(1))
    assert facts["layer"] == expected and facts["frames"] == 180
    assert str(facts["pnmi" if labelled else "effective_rank"]).count("layer1") == 1
    again, _ = layered(labelled)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.codes_of(rows[0], 60), made.codes_of(rows[0], 60))
    assert again.layer == ["layer1", "middle", "output"].index(expected)


def test_frames_that_are_missing_leave_labels_and_codes_side_by_side() -> None:
    """Before, all labels behind them were compared with the codes of other frames."""
    made, (first, *rest) = layered(True)
    steps = torch.arange(60 * STRIDE)
    observed = ((steps < 5 * STRIDE) | (steps >= 16 * STRIDE))[None, :, None].expand_as(first.inputs)
    facts = made.fit([replace(first, observed=observed), *rest], seeded(1))
    told = dict(text.rsplit(" ", 1) for text in str(facts["pnmi"]).split(", "))
    assert facts["layer"] == "output" and float(told["output"]) > 0.95, told
    assert facts["frames"] == 180 - 11


def test_the_chosen_layer_is_loaded_as_a_number() -> None:
    """What lies on a GPU would have to be waited for in every step; "meta" refuses to be read."""
    made, rows = layered(True)
    made.fit(rows, seeded(1))
    again, _ = layered(True)
    again.load_state_dict(made.state_dict())
    again.layer = again.layer.to("meta")
    assert torch.equal(again.codes_of(rows[0], 60), made.codes_of(rows[0], 60))


def test_the_layer_is_chosen_by_frames_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, by those of the first rows, which are the shortest."""
    monkeypatch.setattr("seqssl.model.clusters.CHOICE_FRAMES", 50)
    made, (first, *rest) = layered(True)
    facts = made.fit([replace(first, segments=None), *rest], seeded(1))
    assert facts["layer"] == "output" and "pnmi" in facts, facts


def test_clusters_stay_with_the_teacher_that_they_were_fitted_to() -> None:
    class Teacher(nn.Module):
        origin = (7, 11)

        def forward(self, batch: Batch) -> Features:
            return Features(batch.inputs[:, ::STRIDE], -(-batch.lengths // STRIDE))

    asked: list[object] = []

    def open_teacher(run: str, tap: str, origin: object = None) -> nn.Module:
        asked.append(origin)
        return Teacher()

    def clusters() -> TeacherClusters:
        encoder = PatchEncoder(CHANNELS, dim=4, patch=STRIDE)
        return TeacherClusters(encoder, open_teacher, list, run="there", tap="layer2", num_clusters=3)

    made, again, other = clusters(), clusters(), clusters()
    made.fit(batches(), seeded())
    made.codes_of(batches()[0], 30)
    assert made.origin.tolist() == [7, 11] and asked == [None], "the newest, to fit"
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.codes_of(batches()[0], 30), made.codes_of(batches()[0], 30))
    assert asked == [None, (7, 11)], "and from then on that one"
    other.load_state_dict({"origin": made.origin}, strict=False)
    assert other.origin.tolist() == [-1, -1], "not without the centers"


def test_a_sample_is_that_of_the_smallest_numbers() -> None:
    sizes = [0, 3, 17, 0, 40, 1, 25]
    stream = [torch.randn(size, 2, generator=seeded(size)) for size in sizes]
    generator = seeded(5)
    keys = torch.cat([torch.rand(size, generator=generator) for size in sizes])
    for size in (1, 15, 16, 60):
        kept, total = sample(iter(stream), size, seeded(5))
        assert total == sum(sizes) and torch.equal(kept, torch.cat(stream)[keys.argsort()[:size]])
    everything, _ = sample(iter(stream), 1000, seeded(5))
    assert torch.equal(everything, torch.cat(stream))


def test_a_channel_of_large_numbers_is_not_all_of_the_clusters() -> None:
    """Where a frame is its own steps: raw values with the input's scale are as scaled ones without it."""
    encoder, norm = PatchEncoder(CHANNELS, dim=4, patch=STRIDE), ChannelNorm(CHANNELS)
    norm.set([5.0, -300.0], [0.1, 4000.0])
    raw = [replace(batch, inputs=batch.inputs * norm.std + norm.mean) for batch in batches()]
    made = []
    for rows, input_norm in ((raw, norm), (batches(), None)):
        describe = InputDescription(encoder, float(STRIDE), channels=CHANNELS, input_norm=input_norm)
        made.append(InputClusters(encoder, describe, num_clusters=4))
        made[-1].fit(rows, seeded(2))
    torch.testing.assert_close(made[0].centroids, made[1].centroids, rtol=1e-3, atol=1e-3)
    whole = torch.arange(30) < torch.tensor([30, 13, 2])[:, None]  # the last frames of others have padding
    codes = [one.codes_of(rows[0], 30)[whole] for one, rows in zip(made, (raw, batches()), strict=True)]
    assert torch.equal(*codes)
    config = load_recipe("base/hubert", "stage=first", "size=tiny", "modality=toy:Toy", "data=.",
                         "data.batch_frames=160", "input_norm=channel")  # fmt: skip
    model: Any = build_model(config)
    assert model.targets.describe.input_norm is model.input_norm
