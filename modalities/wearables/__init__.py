"""Wearables: accelerometers and gyroscopes of any format and rate, as windows in g at one rate."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from modalities.wearables import arrays, tables
from modalities.wearables.recordings import AXES, SENSOR_AXES, FileSettings, is_device, read_device
from modalities.wearables.windows import Windowing
from seqssl import Conv1dStack, Record, Rejected, Rows, Sample, SampleSpec, list_files

SPLIT_NAMES = {"validation": "valid", "dev": "valid"}
MOST_CLIP_G = 1000.0
HALF_TURN = np.pi  # rad/s: the unit of the gyroscope's channels, so that values are of the order of 1


class Wearables:
    """Windows of acceleration in g (and rotation), float32 (t, c), NaN where nothing was measured."""

    def __init__(
        self,
        *,
        rate_hz: float = 30.0,
        window_s: float = 30.0,
        min_window_s: float = 10.0,
        min_observed: float = 0.5,
        units: Literal["g", "m/s2"] = "g",
        gyroscope: bool = False,
        gyroscope_units: Literal["rad/s", "deg/s"] = "rad/s",
        max_g: float = 20.0,
        calibrate: bool = True,
        nonwear_minutes: float = 90.0,
        weight_floor: float = 0.1,
        source_rate_hz: float | None = None,
        time_column: str | None = "auto",
        time_unit: Literal["s", "ms", "us", "ns"] = "s",
        accelerometer_columns: tuple[str, ...] | None = None,
        gyroscope_columns: tuple[str, ...] | None = None,
        label_column: str | None = "auto",
        group_column: str | None = "auto",
        csv_columns: tuple[str, ...] | None = None,
        group_pattern: str | None = None,
        label_pattern: str | None = None,
        clip_g: float = 8.0,
        rotate: bool = False,
    ) -> None:
        if not 0 < clip_g <= MOST_CLIP_G:
            raise ValueError(f"modality.clip_g={clip_g} must lie in (0, {MOST_CLIP_G:g}]")
        self._windowing = Windowing(
            rate_hz=rate_hz,
            window_s=window_s,
            min_window_s=min_window_s,
            min_observed=min_observed,
            units=units,
            gyroscope_units=gyroscope_units,
            max_g=max_g,
            calibrate=calibrate,
            nonwear_minutes=nonwear_minutes,
            weight_floor=weight_floor,
        )
        self._files = FileSettings(
            source_rate_hz=source_rate_hz,
            time_column=time_column,
            time_unit=time_unit,
            gyroscope=gyroscope,
            accelerometer_columns=accelerometer_columns,
            gyroscope_columns=gyroscope_columns,
            label_column=label_column,
            group_column=group_column,
            csv_columns=csv_columns,
            group_pattern=group_pattern,
            label_pattern=label_pattern,
        )
        # Public: all of these change what is stored. Private: the other two, which do not.
        vars(self).update(vars(self._windowing) | vars(self._files))
        self._clip_g, self._rotate = clip_g, rotate
        self.spec = _spec(self._windowing, gyroscope=gyroscope)

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """Recordings: files of a folder (or one file), subjects of a table, entries of an array."""
        tables.forget()
        arrays.forget()
        root = source.parent if source.is_file() else source
        paths = [path for path in list_files(source) if not path.name.startswith(".")]
        found = (row for path in paths for row in self._found(path, path.relative_to(root).as_posix()))
        return (row for row in found if split == "all" or (isinstance(row, Record) and row.split == split))

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """A window in g, clipped, 0 where nothing was measured; times in seconds from its own start."""
        values = row["values"]
        observed = np.isfinite(values)
        values = np.where(observed, values, np.float32(0))
        if rng is not None and self._rotate:
            values = _rotated(values, rng)
        values[:, 3:] /= np.float32(HALF_TURN)
        return Sample(
            values.clip(-self._clip_g, self._clip_g),
            label=row["label"],
            group=row["group"],
            observed=observed,
            times=(np.arange(len(values)) / self._windowing.rate_hz).astype(np.float32),
        )

    def feature_encoder(self, dim: int) -> Conv1dStack:
        """Convolutions over about one second, 5 frames a second, `dim` wide."""
        tenth = max(1, round(self._windowing.rate_hz / 10))
        channels = 6 if self._files.gyroscope else 3
        kernels, strides = (3 * tenth + 1, 3, 3), (tenth, 2, 1)
        return Conv1dStack(channels, dim=dim, kernels=kernels, strides=strides, mark_missing=True)

    def _found(self, path: Path, name: str) -> Iterator[Record | Rejected]:
        """What a file holds, by its header alone where that says it."""
        lowered = path.name.lower()
        try:
            if lowered.endswith(tables.TABLE_SUFFIXES):
                yield from self._in_table(path, name)
            elif lowered.endswith(arrays.ARRAY_SUFFIXES):
                yield from self._in_array(path, name)
            elif is_device(path):
                group, label = self._files.from_path(name)
                yield Record(name, partial(self._read_device, path), group=group, label=label)
        except (ValueError, OSError) as error:
            yield Rejected(name, str(error))

    def _in_table(self, path: Path, name: str) -> Iterator[Record | Rejected]:
        subjects = tables.subjects(path, self._files)
        group, label = self._files.from_path(name)
        if subjects is None:
            yield Record(name, partial(self._read_table, path, None), group=group, label=label)
        for subject in subjects or ():
            if not subject:
                yield Rejected(f"{name}/", "rows without a subject id")
                continue
            read = partial(self._read_table, path, subject)
            yield Record(f"{name}/{subject}", read, group=subject, label=label)

    def _in_array(self, path: Path, name: str) -> Iterator[Record | Rejected]:
        if path.stem in arrays.BESIDE and any(path.with_name(f"{x}.npy").is_file() for x in arrays.VALUES):
            return
        found = arrays.read_collection(path)
        group, label = self._files.from_path(name)
        count = len(found.recordings)
        if found.groups is None and count > 1 and self._files.group_pattern is None:
            raise ValueError(
                f"no subject ids: put an array {arrays.GROUPS[0]} with one entry for each of {count} rows "
                "beside them, or let modality.group_pattern find the subject in the path"
            )
        for index in range(count):
            key = name if found.groups is None and count == 1 else f"{name}/{index}"
            subject = found.groups[index] if found.groups else group
            if not subject:
                yield Rejected(key, "no subject id")
                continue
            split = found.splits[index] if found.splits else ""
            yield Record(
                key,
                partial(self._read_array, path, index),
                group=subject,
                label=found.labels[index] if found.labels else label,
                split=SPLIT_NAMES.get(split, split),
            )

    def _read_table(self, path: Path, subject: str | None) -> Rows:
        return self._windowing.rows(tables.read_table(path, self._files, subject))

    def _read_array(self, path: Path, index: int) -> Rows:
        return self._windowing.rows(arrays.read_item(path, index, self._files))

    def _read_device(self, path: Path) -> Rows:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        known = replace(self._windowing, units="g", gyroscope_units="deg/s")  # what actipy gives, always
        return known.rows(read_device(path, gyroscope=self._files.gyroscope))


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
    axes = values.reshape(len(values), -1, 3)
    turned: np.ndarray = (axes @ turn.T).reshape(values.shape).astype(np.float32)
    return turned
