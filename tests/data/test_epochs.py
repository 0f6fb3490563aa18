import numpy as np
import pytest
import slow_epochs
from hypothesis import given
from hypothesis import strategies as st

from seqssl.data import epochs
from seqssl.data.epochs import MAX_PADDING, Batches, Item, epoch_batches, padding_share, repeats

lengths_lists = st.lists(st.integers(1, 400), min_size=1, max_size=60)
DEFAULTS = {"batch_length": 500, "max_length": None, "join_length": None, "seed": 0, "epoch": 0}


def plan(lengths, groups=None, **options) -> list[list[Item]]:
    groups = np.zeros(len(lengths), dtype=int) if groups is None else np.asarray(groups)
    return [*epoch_batches(np.asarray(lengths), groups, **{**DEFAULTS, "shuffle": True, **options})]


@given(st.data())
def test_arrays_give_the_batches_of_the_loops(data):
    """The order of a run's batches is a promise: a faster way must come to the same one."""
    draw = data.draw
    longest = draw(st.sampled_from([3, 40, 10**6]))
    lengths = np.array(draw(st.lists(st.integers(1, longest), min_size=1, max_size=80)), dtype=np.int64)
    size = {"min_size": len(lengths), "max_size": len(lengths)}
    groups = np.array(draw(st.lists(st.integers(0, 4), **size)), dtype=np.int64)
    weights = np.array(draw(st.lists(st.floats(0, 3), **size))) + 1e-9
    limit = st.integers(1, 3 * longest)
    options = {
        "batch_length": draw(st.integers(1, 20 * longest)),
        "max_length": draw(st.none() | limit),
        "join_length": draw(st.none() | limit),
        "seed": draw(st.integers(0, 3)),
        "epoch": draw(st.integers(0, 3)),
        "shuffle": draw(st.booleans()),
        "weights": draw(st.none() | st.just(weights)),
        "at_least": draw(st.integers(1, 4)),
    }
    found = epoch_batches(lengths, groups, **options)
    wanted = slow_epochs.epoch_batches(lengths, groups, **options)
    assert [*found] == wanted
    assert [*repeats(found)] == slow_epochs.repeats(wanted)


def test_long_epochs_are_cut_like_short_ones(monkeypatch):
    lengths = np.random.default_rng(0).integers(1, 100, 200)
    whole = plan(lengths)
    monkeypatch.setattr(epochs, "AT_A_TIME", 7)
    assert plan(lengths) == whole


def test_a_batch_is_asked_for_by_its_number():
    batches = epoch_batches(np.array([7, 7, 7]), np.zeros(3, int), **{**DEFAULTS, "shuffle": False})
    assert len(batches) == 1
    assert batches[0] == [(0,), (1,), (2,)]
    for number in (1, -1):
        with pytest.raises(IndexError, match="no batch"):
            batches[number]


@given(
    lengths_lists,
    st.integers(1, 600),
    st.none() | st.integers(1, 300),
    st.none() | st.integers(1, 600),
    st.booleans(),
    st.integers(0, 5),
    st.data(),
)
def test_every_row_once_within_bounds(lengths, batch_length, max_length, join_length, shuffle, epoch, data):
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    batches = plan(
        lengths,
        groups,
        batch_length=batch_length,
        max_length=max_length,
        join_length=join_length,
        epoch=epoch,
        shuffle=shuffle,
    )
    assert sorted(row for batch in batches for item in batch for row in item) == list(range(len(lengths)))
    cropped = np.minimum(lengths, max_length or max(lengths))
    for batch in batches:
        sizes = [int(cropped[list(item)].sum()) for item in batch]
        assert len(batch) == 1 or len(batch) * max(sizes) <= batch_length
    for item in (item for batch in batches for item in batch if len(item) > 1):
        assert join_length is not None
        assert cropped[list(item)].sum() <= min(join_length, max_length or join_length)
        assert len({groups[row] for row in item}) == 1
    assert padding_share(batches, np.asarray(lengths), max_length) <= MAX_PADDING + 1e-9


@given(lengths_lists, st.integers(0, 3), st.integers(0, 3))
def test_is_a_function_of_seed_and_epoch(lengths, seed, epoch):
    once = plan(lengths, seed=seed, epoch=epoch, join_length=100)
    assert once == plan(lengths, seed=seed, epoch=epoch, join_length=100)


def test_epochs_differ_in_training_and_not_in_evaluation():
    lengths = np.random.default_rng(0).integers(1, 100, 50)
    assert plan(lengths, epoch=0, join_length=200) != plan(lengths, epoch=1, join_length=200)
    assert plan(lengths, epoch=0, shuffle=False) == plan(lengths, epoch=1, shuffle=False)


def test_rows_meet_other_rows_in_other_epochs():
    lengths = np.random.default_rng(0).integers(50, 60, 200)
    mates = [
        {item[0] for item in batch}
        for epoch in range(5)
        for batch in plan(lengths, epoch=epoch)
        if (0,) in batch
    ]
    assert len(set().union(*mates)) > 2 * len(mates[0])


def test_joined_items_are_of_even_length():
    lengths = np.random.default_rng(0).integers(5, 50, 300)
    groups = np.arange(300) % 5
    items = [item for batch in plan(lengths, groups, join_length=160) for item in batch]
    sizes = np.array([lengths[list(item)].sum() for item in items])
    assert sizes.min() > 60
    assert sizes.mean() > 130


def test_a_long_row_is_a_batch_of_its_own():
    batches = plan([1000, 10, 10], batch_length=100)
    assert sorted(map(len, batches)) == [1, 2]


@pytest.mark.parametrize("join_length", [None, 50])
def test_like_lengths_fill_the_batches(join_length):
    batches = plan([10] * 100, batch_length=100, join_length=join_length)
    assert len(batches) == 10


@given(lengths_lists, st.integers(1, 600), st.integers(1, 5), st.booleans())
def test_every_batch_can_be_divided(lengths, batch_length, at_least, shuffle):
    batches = plan(lengths, batch_length=batch_length, at_least=at_least, shuffle=shuffle)
    whole = plan(lengths, batch_length=batch_length, shuffle=shuffle)
    assert min(map(len, batches)) >= at_least
    rows = [row for batch in batches for (row,) in batch]
    assert set(rows) == set(range(len(lengths)))
    if len(lengths) >= at_least:
        assert len(rows) == len(lengths), "a row comes again where there are too few alone"
    if min(map(len, whole)) >= at_least:
        assert batches == whole


@given(st.lists(st.integers(1, 100), min_size=30, max_size=60), st.integers(2, 4))
def test_what_is_divided_is_hardly_another_epoch(lengths, at_least):
    """A batch holds `at_least` rows of any length; so limits hold, and only a few batches differ."""
    limit = 100 * at_least
    batches = plan(lengths, batch_length=limit, at_least=at_least)
    whole = plan(lengths, batch_length=limit)
    largest = max(len(batch) * max(lengths[row] for (row,) in batch) for batch in batches)
    short = sum(len(batch) < at_least for batch in whole)
    assert largest <= limit if not short else largest <= 2 * limit
    assert len(whole) - short <= len(batches) <= len(whole)


def test_repeats_are_counted_in_the_order_of_the_batches():
    batches = Batches(np.array([3, 1, 3, 1, 3, 2]), np.array([0, 2, 3, 6]), np.array([0, 2, 3]))
    assert [*batches] == [[(3, 1), (3,)], [(1, 3, 2)]]
    assert [*repeats(batches)] == [[(0, 0), (1,)], [(1, 2, 0)]]
