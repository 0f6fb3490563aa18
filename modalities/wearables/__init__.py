"""Wearables: accelerometers and gyroscopes of any format and rate, as windows in g at one rate."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from modalities.reading.groups import Grouping, known_split, split_of
from modalities.reading.looking import counted, problem_of
from modalities.reading.notices import noted
from modalities.reading.tables import TABLE_SUFFIXES, TEXT_SUFFIXES, is_table
from modalities.reading.texts import left_alone, readable
from modalities.wearables import arrays, tables
from modalities.wearables.parts import Part
from modalities.wearables.recordings import (
    AXES,
    DEVICE_SUFFIXES,
    SENSOR_AXES,
    FileSettings,
    is_device,
    read_device,
)
from modalities.wearables.windows import Windowing
from seqssl import (
    PatchEncoder,
    Record,
    Rejected,
    Rows,
    Sample,
    SampleSpec,
    Segment,
    Suggestion,
    add_noise,
    change_gain,
    describe_series,
    list_files,
    stretch_time,
)

MOST_CLIP_G = 1000.0
MOST_TURN = 0.5  # rad: how differently the same place of wear may be worn, in augmentation
HALF_TURN = np.pi  # rad/s: the unit of the gyroscope's channels, so that values are of the order of 1


class Wearables:
    """Windows of acceleration in g (and rotation), float32 (t, c), NaN where nothing was measured."""

    endings = (*arrays.ARRAY_SUFFIXES, *DEVICE_SUFFIXES, *TABLE_SUFFIXES, *TEXT_SUFFIXES)

    def __init__(
        self,
        *,
        rate_hz: float = 30.0,
        window_s: float = 30.0,
        min_window_s: float = 10.0,
        min_observed: float = 0.5,
        units: Literal["auto", "g", "m/s2", "mg"] = "auto",
        scale: float | None = None,
        gyroscope: bool = False,
        gyroscope_units: Literal["rad/s", "deg/s"] = "rad/s",
        max_g: float = 20.0,
        calibrate: bool = True,
        nonwear_minutes: float = 90.0,
        weight_floor: float = 0.1,
        source_rate_hz: float | None = None,
        time_column: str | None = "auto",
        time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto",
        time_format: str = "",
        timezone: str = "",
        accelerometer_columns: tuple[str, ...] | None = None,
        gyroscope_columns: tuple[str, ...] | None = None,
        label_column: str | None = "auto",
        group_column: str | None = "auto",
        csv_columns: tuple[str, ...] | None = None,
        skip_lines: int | None = None,
        separator: str | None = None,
        decimal: Literal[".", ","] | None = None,
        group_pattern: str | None = None,
        label_pattern: str | None = None,
        clip_g: float = 8.0,
        rotate: bool = False,
        segments: bool = False,
    ) -> None:
        if not 0 < clip_g <= MOST_CLIP_G:
            raise ValueError(f"modality.clip_g={clip_g} must lie in (0, {MOST_CLIP_G:g}]")
        given = locals()
        self._windowing = Windowing(**{field.name: given[field.name] for field in fields(Windowing)})
        self._files = FileSettings(**{field.name: given[field.name] for field in fields(FileSettings)})
        # Public: all of these change what is stored. Private: the other two, which do not.
        vars(self).update(vars(self._windowing) | vars(self._files))
        if not segments:  # older prepared folders know no such setting
            vars(self).pop("segments")
        self.clip_g, self._rotate = clip_g, rotate
        self.spec = _spec(self._windowing, gyroscope=gyroscope)

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """Recordings: files of a folder (or one file), subjects of a table, entries of an array."""
        tables.forget()
        arrays.forget()
        root = source.parent if source.is_file() else source
        read, left = readable(list_files(source), _is_named, asked=source.is_file())
        names = {path.relative_to(root).as_posix(): path for path in read}
        self._files.check_labels(names)
        grouping = Grouping.of(names, self._files.group_pattern, own=True)
        found = (row for name, path in names.items() for row in self._found(path, name, grouping))
        said = _with_left_alone(found, left.relative_to(root).as_posix(), left_alone(left)) if left else found
        return (row for row in said if split == "all" or (isinstance(row, Record) and row.split == split))

    def beside(self, source: Path) -> list[Path]:
        """The labels and subjects that lie beside an array; a folder holds its own."""
        return arrays.files_beside(source) if source.is_file() else []

    @classmethod
    def suggest(cls, source: Path) -> Suggestion | None:
        """Recordings with three axes; of their gyroscope, if one has any, nothing is read."""
        found, _ = readable(list_files(source), _is_named)
        if not found:
            return None
        problem = problem_of(cls().records(source, "all"))
        return Suggestion(counted("acceleration", found), problem=problem)

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """A window in g, clipped, 0 where nothing was measured; times in seconds from its own start."""
        values = row["values"]
        observed = np.isfinite(values)
        values = np.where(observed, values, np.float32(0))
        if rng is not None and self._rotate:
            values = _rotated(values, rng)
        values[:, 3:] /= np.float32(HALF_TURN)
        return Sample(
            values.clip(-self.clip_g, self.clip_g),
            label=row["label"],
            group=row["group"],
            observed=observed,
            times=(np.arange(len(values)) / self._windowing.rate_hz).astype(np.float32),
            segments=tuple(Segment(*part) for part in json.loads(row["segments"]))
            if self._windowing.segments
            else None,
        )

    @property
    def augmentations(self) -> dict[str, Callable[[Sample, np.random.Generator], Sample]]:
        """Worn a little differently, moved more or less, faster or slower, measured with more noise."""
        return {
            "turn": _turned,
            "gain": partial(change_gain, low=0.8, high=1.25),
            "stretch": partial(stretch_time, low=0.8, high=1.25),
            "noise": partial(add_noise, most=0.1),
        }

    def descriptors(self, sample: Sample) -> dict[str, Float[np.ndarray, "d"]]:
        """Statistics of the axes and of the length of each sensor's vector."""
        assert sample.observed is not None
        axes = sample.values.reshape(len(sample.values), -1, 3)
        lengths = np.linalg.norm(axes, axis=-1)
        whole = sample.observed.reshape(axes.shape).all(axis=-1)
        values = np.concatenate([sample.values, lengths], axis=1)
        return {"movement": describe_series(values, np.concatenate([sample.observed, whole], axis=1))}

    def feature_encoder(self, dim: int) -> PatchEncoder:
        """Patches of 0.2 s of all sensors, `dim` wide: a frame shares no input with its neighbors."""
        channels = 6 if self._files.gyroscope else 3
        return PatchEncoder(channels, dim=dim, patch=max(1, round(self._windowing.rate_hz / 5)))

    def _found(self, path: Path, name: str, grouping: Grouping) -> Iterator[Record | Rejected]:
        """What a file holds, by its header alone where that says it."""
        try:
            place = _Place(
                name, grouping.group(name) or path.name.partition(".")[0], float(path.stat().st_size)
            )
            rows = [*self._records_in(path, place)]
            doubtful = [getattr(row, "group", "") == place.group for row in rows]  # no column names it
            found = [noted(row, grouping.doubt * own) for row, own in zip(rows, doubtful, strict=True)]
        except Exception as error:  # whatever a library raises for a damaged file
            found = [Rejected.of(name, error)]
        yield from found

    def _records_in(self, path: Path, place: "_Place") -> Iterator[Record | Rejected]:
        if path.name.lower().endswith(arrays.ARRAY_SUFFIXES):
            yield from self._in_array(path, place)
        elif is_device(path):
            yield self._record(place, place.name, partial(self._read_device, path))
        else:
            yield from self._in_table(path, place)

    def _record(self, place: "_Place", key: str, read: Callable[[], Rows], **known: Any) -> Record:
        """A record of a file; `known` is what the file itself says."""
        split = known.pop("split", "") or split_of(place.name)
        label = known.pop("label", self._files.label_of(place.name))
        return Record(
            key, read, group=known.pop("group", place.group), label=label, split=split, amount=place.size
        )

    def _in_table(self, path: Path, place: "_Place") -> Iterator[Record | Rejected]:
        parts = tables.parts(path, self._files, _names_of(path, place))
        for part in parts:
            key = "/".join([place.name, *([] if part.subject is None else [part.subject])])
            if part.subject == "" or "" in part.names:
                yield Rejected(key, f"rows without a {' and '.join(part.columns) or 'subject id'}")
                continue
            key = "/".join([key, *filter(None, [",".join(part.names)])])
            known = {} if part.subject is None else {"group": part.subject}
            rest = replace(place, size=place.size / len(parts))
            yield self._record(rest, key, partial(self._read_table, path, part), **known)

    def _in_array(self, path: Path, place: "_Place") -> Iterator[Record | Rejected]:
        if path.stem in arrays.BESIDE and any(path.with_name(f"{x}.npy").is_file() for x in arrays.VALUES):
            return
        found = arrays.read_collection(path)
        self._files.check_place(_names_of(path, place), found.channel_names or AXES)
        count = len(found.recordings)
        if found.groups is None and count > 1 and self._files.group_pattern is None:
            raise ValueError(
                f"no subject ids: put an array {arrays.GROUPS[0]} with one entry for each of {count} rows "
                "beside them, or let modality.group_pattern find the subject in the path"
            )
        for index in range(count):
            key = place.name if found.groups is None and count == 1 else f"{place.name}/{index}"
            subject = found.groups[index] if found.groups else place.group
            if not subject:
                yield Rejected(key, "no subject id")
                continue
            known = {"label": found.labels[index]} if found.labels else {}
            split = known_split(found.splits[index]) if found.splits else ""
            part = replace(place, size=place.size / count)
            yield self._record(
                part, key, partial(self._read_array, path, index), group=subject, split=split, **known
            )

    def _read_table(self, path: Path, part: Part) -> Rows:
        return self._windowing.rows(tables.read_table(path, self._files, part))

    def _read_array(self, path: Path, index: int) -> Rows:
        return self._windowing.rows(arrays.read_item(path, index, self._files))

    def _read_device(self, path: Path) -> Rows:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        known = replace(
            self._windowing, units="g", scale=None, gyroscope_units="deg/s"
        )  # what actipy gives, always
        return known.rows(read_device(path, gyroscope=self._files.gyroscope))


@dataclass(frozen=True)
class _Place:
    """A file: its name in the source, whose it is by that name, and its size in bytes."""

    name: str
    group: str
    size: float


def _names_of(path: Path, place: _Place) -> tuple[str, ...]:
    """The names of the source's folder, of those below it and of the file, which may say what it holds."""
    return path.absolute().parts[-2 - place.name.count("/") :]


def _with_left_alone(
    rows: Iterator[Record | Rejected], name: str, notice: str
) -> Iterator[Record | Rejected]:
    """Records that say which texts were left alone; where there is no record, a rejection says it."""
    useful = False
    for row in rows:
        useful = useful or isinstance(row, Record)
        yield noted(row, notice)
    if not useful:
        yield Rejected(name, notice)


def _is_named(path: Path) -> bool:
    """Whether a file is of a kind that is read here, by its name."""
    return path.name.lower().endswith(arrays.ARRAY_SUFFIXES) or is_device(path) or is_table(path)


def _spec(windowing: Windowing, *, gyroscope: bool) -> SampleSpec:
    return SampleSpec(
        dtype="float32",
        units="g, gyroscope in half turns per second (180 deg/s)" if gyroscope else "g",
        channels=6 if gyroscope else 3,
        rate_hz=windowing.rate_hz,
        max_len=windowing.steps(windowing.window_s),
        channel_names=SENSOR_AXES if gyroscope else AXES,
    )


def _rotated(values: Float[np.ndarray, "t c"], rng: np.random.Generator) -> Float[np.ndarray, "t c"]:
    """All sensors turned together to a random orientation, as if the device had been worn differently."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()  # four normals: uniform over orientations
    return _turn(values, turn)


def _turned(sample: Sample, rng: np.random.Generator) -> Sample:
    """All sensors turned together by a small angle about a random axis."""
    from scipy.spatial.transform import Rotation

    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * rng.uniform(0, MOST_TURN)).as_matrix()
    values = _turn(sample.values, turn)
    return replace(sample, values=values if sample.observed is None else values * sample.observed)


def _turn(values: Float[np.ndarray, "t c"], turn: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "t c"]:
    axes = values.reshape(len(values), -1, 3)
    turned: np.ndarray = (axes @ turn.T).reshape(values.shape).astype(np.float32)
    return turned
