"""Whatever belongs to a step moves with it: checked against labels written on every step."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssl import Batch, Record, Sample, SampleSpec, Segment
from seqssl.data.batching import BatchLoader, collate
from seqssl.data.joining import crop, join, shared_label
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus

STRIDE = 4


@st.composite
def samples(draw: st.DrawFn, stride: int = 1, whole: bool = False) -> Sample:
    """Values count the steps; segments may overlap and touch; the code of a frame is its number."""
    length = draw(st.integers(1, 30)) * (stride if whole else 1)
    ends = st.tuples(st.integers(0, length - 1), st.integers(1, length))
    spans = [(min(a, b), max(a + 1, b)) for a, b in draw(st.lists(ends, max_size=4))]
    return Sample(
        np.arange(length, dtype=np.float32),
        label=draw(st.sampled_from(["", "a", "b"])),
        observed=np.arange(length) % 3 > 0,
        times=np.arange(length) * 0.5 + 7,
        codes=np.arange(-(-length // stride))[:, None],
        segments=tuple(Segment(start, end, number) for number, (start, end) in enumerate(spans)),
    )


def painted(sample: Sample) -> list[set[object]]:
    """The labels on every step: the slow, plain meaning of segments."""
    steps: list[set[object]] = [set() for _ in sample.values]
    for segment in sample.segments or ():
        for step in range(segment.start, segment.end):
            steps[step].add(segment.label)
    return steps


@given(sample=samples(), data=st.data())
def test_a_crop_is_the_whole_between_two_steps(sample: Sample, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sample.values) - 1))
    length = data.draw(st.integers(1, len(sample.values) - start))
    part, steps = crop(sample, start, length, 1), slice(start, start + length)
    for name in ("values", "observed", "times", "codes"):
        assert np.array_equal(getattr(part, name), getattr(sample, name)[steps])
    assert painted(part) == painted(sample)[steps]
    assert all(segment.start < segment.end for segment in part.segments or ())
    assert part.label == sample.label


@given(sample=samples(stride=STRIDE), data=st.data())
def test_codes_are_cut_between_frames(sample: Sample, data: st.DataObject) -> None:
    frame = data.draw(st.integers(0, len(sample.codes) - 1))
    start = frame * STRIDE
    length = data.draw(st.integers(1, len(sample.values) - start))
    part = crop(sample, start, length, STRIDE)
    assert part.codes.ravel().tolist() == [int(part.values[i]) // STRIDE for i in range(0, length, STRIDE)]


@given(parts=st.lists(samples(), min_size=1, max_size=4))
def test_joined_parts_follow_one_another(parts: list[Sample]) -> None:
    whole = join(parts, 1)
    for name in ("values", "observed", "codes"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))
    assert painted(whole) == [labels for part in parts for labels in painted(part)]
    labels = [part.label for part in parts]
    assert whole.label == (labels[0] if len(labels) == 1 or not any(labels) else tuple(labels))
    assert shared_label(whole.label) == (labels[0] if len({*labels}) == 1 else "")
    assert (np.diff(whole.times) > 0).all()


@given(parts=st.lists(samples(stride=STRIDE), min_size=1, max_size=4))
def test_the_code_of_a_joined_frame_is_that_of_its_middle_step(parts: list[Sample]) -> None:
    whole, steps = (
        join(parts, STRIDE),
        np.concatenate([np.repeat(p.codes, STRIDE)[: len(p.values)] for p in parts]),
    )
    middles = [min(start + STRIDE // 2, len(steps) - 1) for start in range(0, len(steps), STRIDE)]
    if len(parts) > 1:
        assert whole.codes.ravel().tolist() == steps[middles].tolist()


@given(parts=st.lists(samples(stride=STRIDE, whole=True), min_size=2, max_size=4))
def test_parts_of_whole_frames_keep_all_of_their_codes(parts: list[Sample]) -> None:
    assert np.array_equal(join(parts, STRIDE).codes, np.concatenate([part.codes for part in parts]))


def test_what_nobody_gives_is_none() -> None:
    batch = collate([Sample(np.ones(3, np.float32)), Sample(np.ones(2, np.float32))], ["a", "b"])
    assert (batch.labels, batch.segments, batch.groups, batch.codes) == (None, None, None, None)


def test_padding_has_no_code() -> None:
    rows = [Sample(np.ones(n, np.float32), codes=np.full((n, 2), 5)) for n in (3, 1)]
    assert collate(rows, ["a", "b"]).codes.tolist() == [[[5, 5]] * 3, [[5, 5], [-1, -1], [-1, -1]]]


class Annotated:
    """Rows of numbers whose label, group, segments and codes can be told from the values alone."""

    def __init__(self) -> None:
        self.spec = SampleSpec(
            dtype="float32", units="one", rate_hz=1.0, code_stride=STRIDE, codebook_sizes=(100,)
        )

    def records(self, source: Path, split: str) -> Iterator[Record]:
        for number in range(24):
            yield Record(f"row{number:02}", Read(number), group=f"g{number % 3}", label=f"label{number % 3}")

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        values = row["values"]
        half = len(values) // 2
        segments = (Segment(0, half, int(values[0])), Segment(half, len(values), int(values[0]) + 1))
        codes = np.arange(0, len(values), STRIDE)[:, None] // STRIDE
        return Sample(values, codes=codes, segments=segments)

    def feature_encoder(self, dim: int) -> Any:
        raise NotImplementedError("rows are prepared and joined without one")


class Read:
    """Row n counts 17 + n steps up from 1000 (n + 1)."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> dict[str, object]:
        values = np.arange(17 + self.number, dtype=np.float32) + 1000 * (self.number + 1)
        return {"length": len(values), "values": values}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "raw").mkdir()
    prepare(Annotated(), folder / "raw", folder / "out", modality="x", split_by="record", num_workers=1)
    return Corpus(folder / "out")


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("join_length", [None, 60])
def test_annotations_reach_the_batch_with_their_rows(
    corpus: Corpus, shuffle: bool, join_length: int | None
) -> None:
    adapter = Annotated()
    loader = BatchLoader(
        corpus, adapter, split="train", batch_length=120, max_length=20, join_length=join_length,
        shuffle=shuffle, groups=["g0", "g1", "g2", "unheard"],
    )  # fmt: skip
    for batch in loader.batches():
        assert batch.labels is not None and batch.segments is not None
        assert batch.groups is not None and batch.codes is not None
        check_row_by_row(batch)


def check_row_by_row(batch: Batch) -> None:
    """Every value says which row it is of and which step of it, and so what belongs to it."""
    for row, length in enumerate(batch.lengths.tolist()):
        values = batch.inputs[row, :length].numpy().astype(int)
        numbers, steps = values // 1000 - 1, values % 1000
        assert {number % 3 for number in numbers.tolist()} == {int(batch.groups[row])}
        assert batch.labels[row] == f"label{numbers[0] % 3}", "rows of a group have one label here"
        halves = [int(1000 * (n + 1) + (s >= (17 + n) // 2)) for n, s in zip(numbers, steps, strict=True)]
        sample = Sample(values, segments=batch.segments[row])
        assert painted(sample) == [{label} for label in halves]
        middles = np.minimum(np.arange(0, length, STRIDE) + STRIDE // 2, length - 1)
        codes = batch.codes[row, : len(middles), 0].numpy()
        # A crop begins between two frames; a part of a joined row may begin within one: half a frame at most.
        assert (np.abs(codes - steps[middles] / STRIDE) <= 1).all()
        if len(set(numbers.tolist())) == 1:
            assert (codes == steps[np.arange(0, length, STRIDE)] // STRIDE).all()
        assert (batch.codes[row, len(middles) :] == -1).all()


def test_groups_of_no_run_have_no_number(corpus: Corpus) -> None:
    loader = BatchLoader(corpus, Annotated(), split="train", batch_length=120, groups=["other"])
    assert all((batch.groups == -1).all() for batch in loader.batches())


def test_a_batch_moves_with_all_that_is_in_it() -> None:
    batch = Batch(torch.zeros(1, 2), torch.tensor([2]), groups=torch.tensor([1]), labels=("a",))
    moved = batch.to("meta")
    assert moved.groups is not None and moved.groups.device.type == "meta" and moved.labels == ("a",)
