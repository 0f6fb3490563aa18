"""What every modality adapter must do, tried on raw data that it can read."""

import copy
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from seqssl.model.types import Record, Rejected, Rows, Sample
from seqssl.testing.features import feature_encoder_checks
from seqssl.testing.harness import Check, named, require, run_checks

NUM_READ = 8  # records that are read; all are scanned
NUMPY_DTYPES = {"float32": np.float32, "int64": np.int64}


def check_adapter(adapter: Any, source: Path) -> None:
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
            load_gives_what_the_spec_says,
            load_agrees_with_the_length,
            load_without_rng_is_deterministic,
            load_draws_only_from_its_rng,
            load_never_changes_the_row,
            feature_encoder_reads_samples,
        ),
        *encoder_checks,
    ]


def spec_is_complete(adapter: Any, source: Path) -> None:
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


def adapter_is_picklable(adapter: Any, source: Path) -> None:
    """Loader workers hold a copy, with the same spec."""
    require(pickle.loads(pickle.dumps(adapter)).spec == adapter.spec, "the copy has another spec")


def source_has_records(adapter: Any, source: Path) -> None:
    """At least one record is found and can be read."""
    found = _scan(adapter, source)
    require(any(isinstance(item, Record) for item in found), f"no record in {source}")
    for item in found:
        require(isinstance(item, Record | Rejected), f"records yields a {type(item).__name__}")
    require(_rows(adapter, source), f"none of the first {NUM_READ} records can be read")


def records_come_in_one_order(adapter: Any, source: Path) -> None:
    """Two scans give the same records, whatever order the file system lists them in."""

    def names() -> list[str]:
        return [item.key if isinstance(item, Record) else item.path for item in _scan(adapter, source)]

    first = names()
    require(names() == first, "two scans give other records, or another order")
    with reversed_listings():
        require(names() == first, "the order depends on that of the file system: sort what you list")


def keys_are_unique(adapter: Any, source: Path) -> None:
    """A key names one record, and is never empty."""
    keys = [record.key for record in _records(adapter, source)]
    require(all(keys), "a key is empty")
    twice = sorted({key for key in keys if keys.count(key) > 1})
    require(not twice, f"keys come more than once: {', '.join(twice[:3])}")


def records_are_picklable(adapter: Any, source: Path) -> None:
    """`read` runs in another process."""
    for record in _records(adapter, source)[:NUM_READ]:
        pickle.loads(pickle.dumps(record))


def read_gives_a_length_and_storable_columns(adapter: Any, source: Path) -> None:
    """`read` returns a mapping with an int `length` of at least 1, and values that a shard can store."""
    for columns in _rows(adapter, source):
        require(isinstance(columns, Mapping), f"read returns a {type(columns).__name__}, not a mapping")
        length = columns.get("length")
        is_integer = isinstance(length, int | np.integer) and not isinstance(length, bool)
        require(
            is_integer and int(length or 0) >= 1,
            f"`length` is {length!r}; it must be an integer of at least 1",
        )
        for name, value in columns.items():
            try:
                _stored(value)
            except (ValueError, TypeError, NotImplementedError) as error:
                raise AssertionError(f"column {name!r} cannot be stored: {error}") from error


def read_is_deterministic(adapter: Any, source: Path) -> None:
    """Reading twice gives the same columns."""
    for first, second in zip(_rows(adapter, source), _rows(adapter, source), strict=True):
        require(_equal(first, second), "reading a record twice gives different columns")


def load_gives_what_the_spec_says(adapter: Any, source: Path) -> None:
    """The spec's dtype and channels, ids below vocab_size, finite values, observed and times that fit."""
    spec = adapter.spec
    for row in _stored_rows(adapter, source):
        for sample in _loads(adapter, row):
            values = sample.values
            require(
                values.dtype == NUMPY_DTYPES[spec.dtype], f"values are {values.dtype}, spec: {spec.dtype}"
            )
            channels = None if values.ndim == 1 else values.shape[1]
            require(values.ndim <= 2 and channels == spec.channels, f"values have shape {values.shape}")
            require(
                np.isfinite(values).all(), "values hold NaN or infinity; mark what is missing in `observed`"
            )
            if spec.vocab_size is not None:
                require(
                    0 <= values.min() and values.max() < spec.vocab_size, "an id is out of the vocabulary"
                )
            if sample.observed is not None:
                require(sample.observed.shape == values.shape, "observed and values differ in shape")
            if sample.times is not None:
                require(sample.times.shape == values.shape[:1], "times and values differ in length")


def load_agrees_with_the_length(adapter: Any, source: Path) -> None:
    """Without augmentation a sample has the row's `length`: batches are planned by it."""
    for row in _stored_rows(adapter, source):
        size = len(adapter.load(row, None).values)
        require(size == row["length"], f"the row says {row['length']} input steps, load gives {size}")


def load_without_rng_is_deterministic(adapter: Any, source: Path) -> None:
    """rng None means evaluation: nothing is drawn, anywhere."""
    for row in _stored_rows(adapter, source):
        require(_equal(adapter.load(row, None), adapter.load(row, None)), "two loads without rng differ")


def load_draws_only_from_its_rng(adapter: Any, source: Path) -> None:
    """Equal generators give equal samples, whatever numpy's global state is."""
    for row in _stored_rows(adapter, source):
        np.random.seed(0)
        one = adapter.load(row, np.random.default_rng(7))
        np.random.seed(1)
        two = adapter.load(row, np.random.default_rng(7))
        require(_equal(one, two), "two loads with equal generators differ")


def load_never_changes_the_row(adapter: Any, source: Path) -> None:
    """Rows are shared by epochs: augmentation works on a copy."""
    for row in _stored_rows(adapter, source):
        row = copy.deepcopy(row)  # deep copies of arrays may be written to
        original = copy.deepcopy(row)
        for _ in _loads(adapter, row):
            require(_equal(row, original), "load changed the row")


def feature_encoder_reads_samples(adapter: Any, source: Path) -> None:
    """The adapter's own feature encoder reads the adapter's own samples."""
    import torch

    encoder = adapter.feature_encoder(16).eval()
    for row in _stored_rows(adapter, source)[:2]:
        values = torch.from_numpy(adapter.load(row, None).values.copy())[None]
        lengths = torch.tensor([values.shape[1]])
        features = encoder(values, lengths)
        wanted = (1, int(encoder.output_lengths(lengths)), encoder.dim)
        require(features.x.shape == wanted, f"frames have shape {[*features.x.shape]}, not {[*wanted]}")
        require(features.x.isfinite().all(), "frames hold NaN or infinity")


class _Reversed:
    """What `os.scandir` returns, back to front."""

    def __init__(self, entries: Iterator[Any]) -> None:
        self.entries = iter([*entries][::-1])

    def __enter__(self) -> Iterator[Any]:
        return self.entries

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return self.entries

    def __next__(self) -> Any:
        return next(self.entries)

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def reversed_listings() -> Iterator[None]:
    """Folders are listed back to front, as another file system might."""
    scandir, listdir = os.scandir, os.listdir
    with (
        mock.patch("os.scandir", lambda *path: _Reversed(scandir(*path))),
        mock.patch("os.listdir", lambda *path: sorted(listdir(*path), reverse=True)),
    ):
        yield


def _on_encoder(check: Callable[..., None]) -> Callable[[Any, Path], None]:
    def on_encoder(adapter: Any, source: Path) -> None:
        check(adapter.feature_encoder(16), adapter.spec)

    return on_encoder


def _scan(adapter: Any, source: Path) -> list[Any]:
    return [*adapter.records(source, "all")]


def _records(adapter: Any, source: Path) -> list[Record]:
    return [item for item in _scan(adapter, source) if isinstance(item, Record)]


def _rows(adapter: Any, source: Path) -> list[Mapping[str, Any]]:
    """Columns of the first records; one that raises ValueError is bad data, which is allowed."""
    return [columns for _, parts in _read(adapter, source) for columns in parts]


def _read(adapter: Any, source: Path) -> Iterator[tuple[Record, Sequence[Mapping[str, Any]]]]:
    """The first records, each with its rows."""
    for record in _records(adapter, source)[:NUM_READ]:
        with suppress(ValueError):
            found = record.read()
            yield record, found.rows[:NUM_READ] if isinstance(found, Rows) else [found]


def _stored_rows(adapter: Any, source: Path) -> list[dict[str, Any]]:
    """Rows as they come back from a shard."""
    rows = []
    for record, parts in _read(adapter, source):
        own = {"key": record.key, "group": record.group, "label": record.label}
        for columns in parts:
            named = {name: value for name, value in columns.items() if name != "part"}
            rows.append({name: _stored(value) for name, value in (own | named).items()})
    require(rows, f"no readable record in {source}")
    return rows


def _stored(value: Any) -> Any:
    """A value after storage: arrays, of one or two dimensions, are memory maps and not to be written to."""
    import pyarrow as pa

    if not isinstance(value, np.ndarray | list):
        return pa.array([value])[0].as_py()
    array = np.array(value)
    require(array.ndim in (1, 2), f"an array has {array.ndim} dimensions; 1 or 2 can be stored")
    pa.array(array.reshape(-1))
    array.flags.writeable = False
    return array


def _loads(adapter: Any, row: Mapping[str, Any]) -> Iterator[Sample]:
    yield adapter.load(row, None)
    yield adapter.load(row, np.random.default_rng(7))


def _equal(a: Any, b: Any) -> bool:
    """Equality that looks into arrays, mappings and samples."""
    if isinstance(a, Sample) and isinstance(b, Sample):
        return _equal(vars(a), vars(b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == np.asarray(b).dtype.kind == "f")
    return bool(a == b)
