import gc
import itertools
import pickle
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from numbers_adapter import Numbers, write_numbers

from seqssl.data.batching import BatchLoader
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    write_numbers(folder / "raw", num_groups=4, num_rows=12)
    prepare(Numbers(), folder / "raw", folder / "out", modality="numbers", split_by="record", num_workers=1)
    return Corpus(folder / "out")


def make_loader(corpus, adapter=None, **options) -> BatchLoader:
    return BatchLoader(corpus, adapter or Numbers(), **{"split": "train", "batch_length": 60, **options})


def assert_equal(batch, other):
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(other, name)), name
        else:
            assert value == getattr(other, name), name


def test_an_epoch_holds_every_row_once(corpus):
    loader = make_loader(corpus, join_length=30)
    keys = [key for batch in loader.batches(1) for joined in batch.keys for key in joined.split(" + ")]
    assert sorted(keys) == sorted(corpus.keys[corpus.splits == "train"])
    assert loader.padding_share(1) < 0.05


def test_rows_are_padded_with_zeros(corpus):
    for batch in make_loader(corpus).batches():
        assert batch.inputs.dtype == torch.float32
        assert batch.inputs.shape == (len(batch.keys), int(batch.lengths.max()))
        for row, length in zip(batch.inputs, batch.lengths, strict=True):
            assert (row[:length] != 0).all()
            assert (row[length:] == 0).all()


def test_joined_rows_follow_one_another(corpus):
    by_key = {key: number for number, key in enumerate(corpus.keys)}
    batch = next(make_loader(corpus, join_length=60).endless())
    joined = batch.keys[0].split(" + ")
    assert len(joined) > 1
    expected = np.concatenate([corpus.row(by_key[key])["values"] for key in joined])
    np.testing.assert_array_equal(batch.inputs[0, : len(expected)].numpy(), expected)


def test_channels_observed_and_times(corpus):
    loader = make_loader(corpus, Numbers(wide=True), join_length=40, max_length=40)
    for batch in loader.batches():
        assert batch.inputs.shape[2] == 2
        assert batch.observed.shape == batch.inputs.shape
        assert not batch.observed[..., 1].any()
        for length, times in zip(batch.lengths, batch.times, strict=True):
            np.testing.assert_allclose(np.diff(times[:length]), 0.1, atol=1e-5)
            assert times[0] == 5.0


def test_crops_are_random_in_training_and_from_the_middle_in_evaluation(corpus):
    numbers = {key: corpus.row(number)["values"] for number, key in enumerate(corpus.keys)}
    longest = max(corpus.keys[corpus.splits == "train"], key=lambda key: len(numbers[key]))
    starts = set()
    for epoch in range(20):
        for batch in make_loader(corpus, max_length=3).batches(epoch):
            assert batch.inputs.shape[1] == 3
            if longest in batch.keys:
                starts.add(float(batch.inputs[batch.keys.index(longest), 0] - numbers[longest][0]))
    assert len(starts) > 5
    assert starts <= set(range(len(numbers[longest]) - 2))
    for batch in make_loader(corpus, max_length=3, shuffle=False).batches():
        for key, row in zip(batch.keys, batch.inputs, strict=True):
            assert row[0] == numbers[key][(len(numbers[key]) - 3) // 2]


def test_the_stream_crosses_epochs_and_resumes_anywhere(corpus):
    loader = make_loader(corpus, Numbers(scale=2.0), join_length=30, max_length=9)
    size = len(loader.epoch(0))
    whole = list(itertools.islice(loader.endless(), 3 * size))
    assert loader.epoch_of(0) == (0, 0)
    assert loader.epoch_of(size) == (1, 0)
    assert loader.epoch_of(size - 1) == (0, size - 1)
    for cursor in (1, size - 1, size, 2 * size + 1):
        fresh = make_loader(corpus, Numbers(scale=2.0), join_length=30, max_length=9)
        for batch, other in zip(whole[cursor:], fresh.endless(cursor), strict=False):
            assert_equal(batch, other)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("cursor", [0, 1, 7])
def test_ranks_share_one_sequence(corpus, world_size, cursor):
    loader = make_loader(corpus, join_length=30)
    whole = dict(zip(range(cursor, cursor + 12), loader.endless(cursor), strict=False))
    seen = {}
    for rank in range(world_size):
        numbers = [m for m in whole if m % world_size == rank]
        seen |= dict(zip(numbers, loader.endless(cursor, rank, world_size), strict=False))
    assert seen.keys() == whole.keys()
    for number, batch in whole.items():
        assert_equal(batch, seen[number])


@pytest.mark.parametrize(("world_size", "share"), [(2, 2), (4, 2), (6, 2)])
@pytest.mark.parametrize("cursor", [0, 5])
def test_ranks_divide_the_rows_of_batches(corpus, world_size, share, cursor):
    """Together they have the rows of one process, batch by batch, and each about as many as another."""
    one = make_loader(corpus, batch_length=120)
    assert min(map(len, one.epoch(0))) >= share, "no batch has to take rows of another"
    batches = [one.epoch(epoch)[place] for epoch, place in map(one.epoch_of, range(cursor, cursor + 8))]
    parts = {
        rank: iter(make_loader(corpus, batch_length=120, share=share).endless(cursor, rank, world_size))
        for rank in range(world_size)
    }
    for number, items in enumerate(batches, cursor):
        group = number % (world_size // share)
        found = [next(parts[group * share + part]) for part in range(share)]
        wanted = [corpus.keys[one.rows[row]] for item in items for row in item]
        assert sorted(key for batch in found for key in batch.keys) == sorted(wanted)
        assert max(len(batch.keys) for batch in found) - min(len(batch.keys) for batch in found) <= 1


def test_workers_change_no_bit_and_two_streams_are_independent(corpus):
    options = {"join_length": 30, "max_length": 9}
    adapter = Numbers(scale=2.0)  # draws from its rng
    alone = make_loader(corpus, adapter, **options)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    size = len(alone.epoch(0))
    streams = [make_loader(corpus, adapter, workers=workers, **options).endless(2) for workers in (0, 2)]
    held_out = make_loader(corpus, adapter, split="valid", shuffle=False, workers=1, **options).batches()
    for batch, other in itertools.islice(zip(*streams, strict=True), size + 2):
        assert_equal(batch, other)
        next(held_out, None)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_in_a_worker_has_no_stack_trace(corpus, tmp_path):
    loader = make_loader(pickle.loads(pickle.dumps(corpus)), workers=1)
    loader._builder.corpus.folder = tmp_path  # as if the folder were removed
    with pytest.raises(UserError) as caught:
        next(loader.endless())
    assert "Traceback" not in str(caught.value)


@pytest.fixture
def asked(monkeypatch):
    """What torch's loader is asked for, in its place."""
    found = []
    monkeypatch.setattr("seqssl.data.batching.DataLoader", lambda *_, **options: found.append(options) or [])
    return found


@pytest.mark.parametrize(("at_once", "each"), [(1, 2), (4, 2), (9, 4), (128, 33)])
def test_workers_read_as_far_ahead_as_batches_are_taken_at_once(corpus, asked, at_once, each):
    """Before, they waited while all micro-batches of an update were computed."""
    assert not list(make_loader(corpus, workers=4, at_once=at_once, pinned=True).endless())
    (options,) = asked
    assert options["prefetch_factor"] == each and options["num_workers"] == 4 and options["pin_memory"]


def test_a_short_pass_starts_no_workers(corpus, asked):
    loader = make_loader(corpus, batch_length=10, workers=2)
    assert len(list(loader.batches(0, 3))) == 3 and not asked
    assert not list(loader.batches(0, 8)) and asked[0]["num_workers"] == 2


def test_a_worker_that_died_is_told(corpus, monkeypatch):
    def dying(*_, **options):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ")

    class Dying:
        __init__ = lambda *_, **options: None  # noqa: E731
        __iter__ = dying

    monkeypatch.setattr("seqssl.data.batching.DataLoader", Dying)
    with pytest.raises(UserError, match=r"data\.workers=0"):
        next(make_loader(corpus, workers=1).endless())


def test_an_empty_split_is_told(corpus):
    with pytest.raises(UserError, match="no rows in split 'test'; it has: train, valid"):
        make_loader(corpus, split="test")


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_part_of_an_epoch_is_spread_over_it(corpus, limit):
    loader = make_loader(corpus, batch_length=20, shuffle=False)
    whole = [batch.keys for batch in loader.batches()]
    part = [batch.keys for batch in loader.batches(limit=limit)]
    assert len(part) == min(limit, len(whole)) and len(whole) > 3
    places = [whole.index(keys) for keys in part]
    assert places == sorted(set(places))
    if limit < len(whole):
        assert places[0] < len(whole) / limit and places[-1] >= len(whole) * (limit - 1) / limit


class Shifting(Numbers):
    """Changes samples in two ways that a test can tell from each other."""

    @property
    def augmentations(self):
        return {"raise": raised, "double": doubled}


def raised(sample, rng):
    return replace(sample, values=sample.values + np.float32(rng.integers(1, 100) / 1000))


def doubled(sample, rng):
    return replace(sample, values=np.concatenate([sample.values, sample.values]))


def test_views_of_a_row_come_one_after_the_other(corpus):
    loader = make_loader(corpus, Shifting(), views=2, max_length=6, workers=0)
    plain = make_loader(corpus, Shifting(), batch_length=30, max_length=6)
    for batch, single in zip(loader.batches(1), plain.batches(1), strict=True):
        assert batch.clips.tolist() == [n for n in range(len(single.keys)) for _ in range(2)]
        assert batch.keys == [key for key in single.keys for _ in range(2)]
        assert single.clips is None
        assert batch.inputs.numel() <= 60, "a batch holds as much as without views"
        assert (batch.lengths[0::2] == single.lengths).all(), "a longer sample is cropped to the row's length"
        own = batch.inputs[0::2] != batch.inputs[1::2]
        assert own.any(dim=1).all(), "each view has draws of its own"
    again = make_loader(corpus, Shifting(), views=2, max_length=6, workers=1)
    for batch, other in zip(loader.batches(1), again.batches(1), strict=True):
        assert_equal(batch, other)


def test_the_first_view_is_that_of_one_alone(corpus):
    """So that `data.views` changes nothing about rows that are not compared."""
    one, two = make_loader(corpus, max_length=5), make_loader(corpus, max_length=5, views=2, batch_length=120)
    for batch, single in zip(two.batches(1), one.batches(1), strict=True):
        assert torch.equal(batch.inputs[0::2], single.inputs)


def test_in_evaluation_the_first_view_is_the_row_itself_and_the_others_are_always_the_same(corpus):
    options = {"split": "train", "shuffle": False, "max_length": 5}
    one = make_loader(corpus, Shifting(), **options)
    two, again = (make_loader(corpus, Shifting(), views=2, batch_length=120, **options) for _ in range(2))
    for batch, other, single in zip(two.batches(), again.batches(3), one.batches(), strict=True):
        assert torch.equal(batch.inputs[0::2], single.inputs)
        assert not torch.equal(batch.inputs[1::2], single.inputs)
        assert torch.equal(batch.inputs, other.inputs), "whatever the epoch"


def test_augmentations_are_chosen_by_name(corpus):
    plain, changed = make_loader(corpus), make_loader(corpus, Shifting(), augment=["raise"])
    for batch, single in zip(changed.batches(1), plain.batches(1), strict=True):
        there = torch.arange(batch.inputs.shape[1]) < batch.lengths[:, None]
        assert ((batch.inputs > single.inputs) == there).all()
    for batch, single in zip(make_loader(corpus, Shifting()).batches(1), plain.batches(1), strict=True):
        assert torch.equal(batch.inputs, single.inputs), "a row alone is not changed unless one says so"
    for adapter, known in ((Shifting(), "it has raise, double"), (Numbers(), "it has none")):
        with pytest.raises(UserError, match=rf"{type(adapter).__name__} has no 'turn'; {known}"):
            make_loader(corpus, adapter, augment=["turn"])


@pytest.fixture
def heavy(corpus, monkeypatch) -> str:
    """The key of the longest row of the training split, which is drawn again and again."""
    rows = corpus.rows("train")
    row = rows[corpus.lengths[rows].argmax()]
    weights = np.where(np.arange(len(corpus)) == row, 1, 0.01)
    monkeypatch.setattr(Corpus, "weights", property(lambda self: weights))
    return corpus.keys[row]


def test_a_row_that_comes_again_in_an_epoch_is_cropped_anew(corpus, heavy):
    def crops(loader):
        found = (pair for batch in loader.batches(1) for pair in zip(batch.keys, batch.inputs, strict=True))
        return [row.tolist() for key, row in found if key == heavy]

    again, plain = make_loader(corpus, max_length=3), make_loader(corpus, max_length=3)
    plain._weights = None
    assert len(crops(again)) > 20
    assert len({tuple(crop) for crop in crops(again)}) > 5, "before, all of them began at one place"
    assert crops(plain)[0] in crops(again), "the first time is as without weights"


def test_rows_that_come_again_are_the_same_wherever_one_begins(corpus, heavy):
    options = {"max_length": 3, "batch_length": 12}
    whole = list(itertools.islice(make_loader(corpus, **options).endless(), 30))
    for cursor, rank, world_size, workers in [(0, 0, 1, 1), (7, 0, 1, 0), (3, 1, 2, 0), (4, 0, 2, 1)]:
        found = make_loader(corpus, workers=workers, **options).endless(cursor, rank, world_size)
        numbers = [number for number in range(cursor, 30) if number % world_size == rank]
        for number, batch in zip(numbers, found, strict=False):
            assert_equal(batch, whole[number])
    parts = [make_loader(corpus, share=2, **options).endless(0, rank, 2) for rank in range(2)]
    for batch, *halves in zip(make_loader(corpus, share=2, **options).batches(0), *parts, strict=False):
        assert torch.equal(batch.inputs[0::2], halves[0].inputs)
        assert torch.equal(batch.inputs[1::2], halves[1].inputs)


def test_a_loader_and_its_rows_go_with_the_last_reference(corpus):
    """In a cycle, the rows in memory would wait for the garbage collector, which may be hours."""
    own = corpus.assigned(corpus.splits)
    loader = make_loader(own, join_length=30)
    next(loader.endless())
    loader.padding_share()
    left = [weakref.ref(own), weakref.ref(loader)]
    gc.disable()
    try:
        del own, loader
        assert [each() for each in left] == [None, None]
    finally:
        gc.enable()
