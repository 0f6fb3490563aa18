"""What every modality adapter must do, tried on raw data that it can read."""

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from seqssl.data.adapters import (
    Augments,
    HasDescriptors,
    HasViews,
    ModalityAdapter,
    Record,
    Rejected,
    Row,
    Rows,
    Sample,
    SampleSpec,
)
from seqssl.data.problems import segments_problem
from seqssl.model.pretraining import EXTRA_INPUTS
from seqssl.testing.annotations import (
    codes_and_segments_are_given_always_or_never,
    codes_fit_the_spec,
    segments_lie_in_the_row,
)
from seqssl.testing.features import feature_encoder_checks, reads
from seqssl.testing.harness import Check, named, require, run_checks
from seqssl.testing.raw import (
    NUM_READ,
    equal,
    found_in,
    loads,
    records_of,
    reversed_listings,
    rows_of,
    scan,
    stored,
    stored_rows,
)

NUMPY_DTYPES = {"float32": np.float32, "int64": np.int64}


def check_adapter(adapter: ModalityAdapter, source: Path) -> None:
    """Run every check on the raw data at `source`; raises `ChecksFailed` naming all that failed."""
    run_checks("the adapter", adapter_checks(), adapter, source)


def adapter_checks() -> list[Check]:
    """The checks by name; each takes the adapter and the source."""
    encoder_checks = [
        (f"feature_encoder_{name}", _on_encoder(check)) for name, check in feature_encoder_checks()
    ]
    return [
        *named(
            spec_is_complete,
            adapter_is_picklable,
            source_has_records,
            records_come_in_one_order,
            keys_are_unique,
            records_are_picklable,
            read_gives_a_length_and_storable_columns,
            read_is_deterministic,
            rows_have_the_same_columns,
            parts_and_quality_can_be_stored,
            load_gives_what_the_spec_says,
            load_agrees_with_the_length,
            load_without_rng_is_deterministic,
            load_draws_only_from_its_rng,
            load_never_changes_the_row,
            observed_and_times_are_given_always_or_never,
            codes_fit_the_spec,
            segments_lie_in_the_row,
            codes_and_segments_are_given_always_or_never,
            views_are_samples_too,
            augmentations_keep_the_contract,
            descriptors_are_vectors_of_one_length,
            feature_encoder_reads_samples,
        ),
        *encoder_checks,
    ]


def spec_is_complete(adapter: ModalityAdapter, source: Path) -> None:
    """dtype and units are given; vocab_size goes with int64; sizes and rates are positive."""
    spec = adapter.spec
    require(spec.dtype in NUMPY_DTYPES, f"spec.dtype is {spec.dtype!r}, not one of {[*NUMPY_DTYPES]}")
    require(spec.units, "spec.units is empty: say what one value means")
    require(
        (spec.vocab_size is not None) == (spec.dtype == "int64"),
        "vocab_size is for int64 samples, and they need it",
    )
    for name in ("channels", "vocab_size", "rate_hz", "max_len"):
        value = getattr(spec, name)
        require(value is None or value > 0, f"spec.{name} is {value}; it must be positive, or None")


def adapter_is_picklable(adapter: ModalityAdapter, source: Path) -> None:
    """Loader workers hold a copy, with the same spec."""
    require(pickle.loads(pickle.dumps(adapter)).spec == adapter.spec, "the copy has another spec")


def source_has_records(adapter: ModalityAdapter, source: Path) -> None:
    """At least one record is found and can be read."""
    found = scan(adapter, source)
    require(any(isinstance(item, Record) for item in found), f"no record in {source}")
    for item in found:
        require(isinstance(item, Record | Rejected), f"records yields a {type(item).__name__}")
    require(rows_of(adapter, source), f"none of the first {NUM_READ} records can be read")


def records_come_in_one_order(adapter: ModalityAdapter, source: Path) -> None:
    """Two scans give the same records, whatever order the file system lists them in."""

    def names() -> list[str]:
        return [item.key if isinstance(item, Record) else item.path for item in scan(adapter, source)]

    first = names()
    require(names() == first, "two scans give other records, or another order")
    with reversed_listings():
        require(names() == first, "the order depends on that of the file system: sort what you list")


def keys_are_unique(adapter: ModalityAdapter, source: Path) -> None:
    """A key names one record, and is never empty."""
    keys = [record.key for record in records_of(adapter, source)]
    require(all(keys), "a key is empty")
    twice = sorted({key for key in keys if keys.count(key) > 1})
    require(not twice, f"keys come more than once: {', '.join(twice[:3])}")


def records_are_picklable(adapter: ModalityAdapter, source: Path) -> None:
    """`read` runs in another process."""
    for record in records_of(adapter, source)[:NUM_READ]:
        pickle.loads(pickle.dumps(record))


def read_gives_a_length_and_storable_columns(adapter: ModalityAdapter, source: Path) -> None:
    """`read` returns a mapping with an int `length` of at least 1, and values that a shard can store."""
    for columns in rows_of(adapter, source):
        require(isinstance(columns, Mapping), f"read returns a {type(columns).__name__}, not a mapping")
        length = columns.get("length")
        is_number = isinstance(length, int | np.integer) and not isinstance(length, bool)
        require(
            is_number and int(length or 0) >= 1,
            f"`length` is {length!r}; it must be an integer of at least 1",
        )
        for name, value in columns.items():
            try:
                stored(value)
            except (ValueError, TypeError, NotImplementedError) as error:
                raise AssertionError(f"column {name!r} cannot be stored: {error}") from error


def read_is_deterministic(adapter: ModalityAdapter, source: Path) -> None:
    """Reading twice gives the same columns."""
    for first, second in zip(rows_of(adapter, source), rows_of(adapter, source), strict=True):
        require(equal(first, second), "reading a record twice gives different columns")


def rows_have_the_same_columns(adapter: ModalityAdapter, source: Path) -> None:
    """A shard is a table: every row has every column (but for what its record says), and none is None."""
    rows = rows_of(adapter, source)
    for columns in rows:
        gap = (set(rows[0]) ^ set(columns)) - {"part", "label", "group"}
        require(not gap, f"some rows have {', '.join(sorted(gap))}, others do not")
        empty = sorted(name for name, value in columns.items() if value is None)
        require(not empty, f"{', '.join(empty)} is None; use an empty text, or another value that says so")


def parts_and_quality_can_be_stored(adapter: ModalityAdapter, source: Path) -> None:
    """Where a record gives `Rows`: parts tell its rows apart, weights are sane, and quality is plain JSON."""
    for record, found in [*found_in(adapter, source)]:
        require(isinstance(record.split, str), f"{record.key}: split is {record.split!r}, not a text")
        if not isinstance(found, Rows):
            continue
        parts = [str(row.get("part", number)) for number, row in enumerate(found.rows)]
        twice = sorted({part for part in parts if parts.count(part) > 1})
        require(not twice, f"{record.key} gives the part {', '.join(twice[:3])} more than once")
        for weight in (row.get("weight", 1.0) for row in found.rows):
            sane = isinstance(weight, int | float | np.number) and 0 <= weight < float("inf")
            require(sane, f"{record.key} has the weight {weight!r}; it must be a finite number, at least 0")
        require(isinstance(found.quality, Mapping), f"the quality of {record.key} is no mapping")
        _check_json(found.quality, record.key)


def _check_json(quality: Row, key: str) -> None:
    try:
        json.dumps(quality, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the quality of {key} is no plain JSON: {error}") from error


def load_gives_what_the_spec_says(adapter: ModalityAdapter, source: Path) -> None:
    """The spec's dtype and channels, ids below vocab_size, finite values, observed and times that fit."""
    for row in stored_rows(adapter, source):
        for sample in loads(adapter, row):
            _check_sample(sample, adapter.spec)


def _check_sample(sample: Sample, spec: SampleSpec) -> None:
    values = sample.values
    require(values.dtype == NUMPY_DTYPES[spec.dtype], f"values are {values.dtype}, spec: {spec.dtype}")
    channels = None if values.ndim == 1 else values.shape[1]
    require(values.ndim <= 2 and channels == spec.channels, f"values have shape {values.shape}")
    require(np.isfinite(values).all(), "values hold NaN or infinity; mark what is missing in `observed`")
    if spec.vocab_size is not None:
        require(0 <= values.min() and values.max() < spec.vocab_size, "an id is out of the vocabulary")
    if sample.observed is not None:
        require(sample.observed.shape == values.shape, "observed and values differ in shape")
    if sample.times is not None:
        require(sample.times.shape == values.shape[:1], "times and values differ in length")


def load_agrees_with_the_length(adapter: ModalityAdapter, source: Path) -> None:
    """Without augmentation a sample has the row's `length`: batches are planned by it."""
    for row in stored_rows(adapter, source):
        size = len(adapter.load(row, None).values)
        require(size == row["length"], f"the row says {row['length']} input steps, load gives {size}")


def load_without_rng_is_deterministic(adapter: ModalityAdapter, source: Path) -> None:
    """rng None means evaluation: nothing is drawn, anywhere."""
    for row in stored_rows(adapter, source):
        require(equal(adapter.load(row, None), adapter.load(row, None)), "two loads without rng differ")


def load_draws_only_from_its_rng(adapter: ModalityAdapter, source: Path) -> None:
    """Equal generators give equal samples, whatever numpy's global state is."""
    for row in stored_rows(adapter, source):
        np.random.seed(0)
        one = adapter.load(row, np.random.default_rng(7))
        np.random.seed(1)
        two = adapter.load(row, np.random.default_rng(7))
        require(equal(one, two), "two loads with equal generators differ")


def load_never_changes_the_row(adapter: ModalityAdapter, source: Path) -> None:
    """Rows are shared by epochs: augmentation works on a copy."""
    for row in stored_rows(adapter, source):
        row = copy.deepcopy(row)  # deep copies of arrays may be written to
        original = copy.deepcopy(row)
        for _ in loads(adapter, row):
            require(equal(row, original), "load changed the row")


def observed_and_times_are_given_always_or_never(adapter: ModalityAdapter, source: Path) -> None:
    """A batch is made of rows alike: what one sample has, all have; and something in each is observed."""
    samples = [adapter.load(row, None) for row in stored_rows(adapter, source)]
    for name in ("observed", "times"):
        given = {getattr(sample, name) is not None for sample in samples}
        require(len(given) == 1, f"some samples have `{name}`, others do not")
    for sample in samples:
        if sample.observed is not None:
            require(sample.observed.dtype == bool, f"observed is {sample.observed.dtype}, not bool")
            require(sample.observed.any(), "a sample has no observed value at all: reject such rows")
            hidden = sample.values[~sample.observed]
            require(
                sample.values.dtype.kind != "f" or not hidden.any(),
                "a missing value is not 0 in `values`: whatever stands there would be learned from",
            )


def views_are_samples_too(adapter: ModalityAdapter, source: Path) -> None:
    """Where there are `views`: the sample is among them, and all are as long and as the spec says."""
    views_of = adapter.views if isinstance(adapter, HasViews) else None
    if views_of is None:
        return
    for row in stored_rows(adapter, source):
        sample = adapter.load(row, None)
        views = views_of(sample)
        require(
            any(np.array_equal(view.values, sample.values) for view in views),
            "the sample is no view of itself",
        )
        for view in views:
            require(
                view.values.shape == sample.values.shape and view.values.dtype == sample.values.dtype,
                f"a view is {view.values.dtype}{[*view.values.shape]}, the sample "
                f"{sample.values.dtype}{[*sample.values.shape]}",
            )


def augmentations_keep_the_contract(adapter: ModalityAdapter, source: Path) -> None:
    """Where there are `augmentations`: each gives another sample that fits the spec, drawn from its rng."""
    ways = adapter.augmentations if isinstance(adapter, Augments) else {}
    for row in stored_rows(adapter, source) if ways else ():
        sample = adapter.load(row, None)
        original = copy.deepcopy(sample)
        for name, change in ways.items():
            for seed in range(3):
                np.random.seed(seed)
                changed = change(sample, np.random.default_rng(seed))
                require(equal(sample, original), f"{name} changes the sample that it is given")
                _check_sample(changed, adapter.spec)
                require(len(changed.values) > 0, f"{name} leaves nothing of a sample")
                for part in ("observed", "times", "segments", "codes"):
                    kept = (getattr(changed, part) is None) == (getattr(sample, part) is None)
                    require(kept, f"{name} gives or takes away `{part}`")
                if changed.observed is not None:
                    hidden = changed.values[~changed.observed]
                    require(not hidden.any(), f"{name} puts something where a value is missing")
                require(not segments_problem(changed), f"{name}: {segments_problem(changed)}")
                np.random.seed(seed + 1)
                again = change(sample, np.random.default_rng(seed))
                require(equal(again, changed), f"{name}: two draws with equal generators differ")


def descriptors_are_vectors_of_one_length(adapter: ModalityAdapter, source: Path) -> None:
    """Where there are `descriptors`: finite vectors of the same names and lengths for all samples."""
    describe = adapter.descriptors if isinstance(adapter, HasDescriptors) else None
    shapes = set()
    for row in stored_rows(adapter, source) if describe else ():
        assert describe is not None
        found = describe(adapter.load(row, None))
        for name, vector in found.items():
            require(np.isfinite(vector).all(), f"the description {name} holds NaN or infinity")
            require(np.ndim(vector) == 1, f"the description {name} has shape {np.shape(vector)}, not (d,)")
        shapes.add(tuple((name, len(vector)) for name, vector in found.items()))
    require(len(shapes) < 2, f"samples have other descriptions: {sorted(shapes)[:2]}")


def feature_encoder_reads_samples(adapter: ModalityAdapter, source: Path) -> None:
    """The adapter's own feature encoder reads the adapter's own samples."""
    import torch

    encoder = adapter.feature_encoder(16)
    if isinstance(encoder, torch.nn.Module):
        encoder.eval()
    for row in stored_rows(adapter, source)[:2]:
        sample = adapter.load(row, None)
        values = torch.from_numpy(sample.values.copy())[None]
        lengths = torch.tensor([values.shape[1]])
        given = {name: getattr(sample, name) for name in EXTRA_INPUTS if reads(encoder, name)}
        extra = {name: torch.from_numpy(x.copy())[None] for name, x in given.items() if x is not None}
        features = encoder(values, lengths, **extra)
        wanted = (1, int(encoder.output_lengths(lengths)), encoder.dim)
        require(features.x.shape == wanted, f"frames have shape {[*features.x.shape]}, not {[*wanted]}")
        require(features.x.isfinite().all(), "frames hold NaN or infinity")


def _on_encoder(check: Callable[..., None]) -> Callable[[ModalityAdapter, Path], None]:
    def on_encoder(adapter: ModalityAdapter, source: Path) -> None:
        check(adapter.feature_encoder(16), adapter.spec)

    return on_encoder
