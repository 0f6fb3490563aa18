"""What every reader gives, and the reader of device files."""

import contextlib
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from modalities.reading.dialects import TableSettings
from modalities.reading.groups import check_pattern
from modalities.reading.quantities import IN_NAME
from modalities.reading.tables import shown
from modalities.reading.times import check_timezone
from modalities.wearables.units import Size

DEVICE_SUFFIXES = (".cwa", ".gt3x", ".bin")
SUFFIXES = ", ".join(DEVICE_SUFFIXES)
COMPRESSED = (".gz", ".zip")
# What of actipy's report is worth keeping; our own covers the rest.
DEVICE_FACTS = ("Device", "DeviceID", "ReadErrors", "SampleRate", "StartTime", "EndTime")

WHOLE = re.compile(r"-?\d+\.0+")
AXES = ("x", "y", "z")
SENSOR_AXES = (*AXES, "gyro_x", "gyro_y", "gyro_z")  # actipy's names
ACCELEROMETER = ("{}", "{}_axis", "acc_{}", "accel_{}", "acc{}", "a{}", "acceleration_{}", "accelerometer_{}")
NAMELESS = ACCELEROMETER[:2]  # say the axis and not the sensor
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# Words for acceleration, with gravity or without; and for what else a phone records along three axes
ACCELERATION = re.compile(r".*acc|.*accel.*", re.IGNORECASE)
OTHER_SENSOR = re.compile(
    r"gyr(o.*)?|mag|magnet.*|geomag.*|gravity|orientations?|rotations?|attitudes?|quat.*|compass",
    re.IGNORECASE,
)
GYROSCOPE = ("gyro_{}", "gyr_{}", "gyro{}", "g{}", "w{}", "gyroscope_{}", "rotation_{}")


@dataclass(frozen=True)
class FileSettings:
    """The settings that concern how files are read; "auto" stands for the usual names."""

    source_rate_hz: float | None  # of files without times
    time_column: str | None
    time_unit: str
    time_format: str
    timezone: str  # "" = the file's own clock
    gyroscope: bool
    accelerometer_columns: tuple[str, ...] | None
    gyroscope_columns: tuple[str, ...] | None
    label_column: str | None
    group_column: str | None
    csv_columns: tuple[str, ...] | None  # of files without a header line
    skip_lines: int | None
    separator: str | None
    decimal: str | None
    group_pattern: str | None
    label_pattern: str | None

    def __post_init__(self) -> None:
        self._check_columns()
        if self.source_rate_hz is not None and not 1 <= self.source_rate_hz <= 5000:
            raise ValueError(f"modality.source_rate_hz={self.source_rate_hz} must lie in [1, 5000]")
        for name in ("group_pattern", "label_pattern"):
            check_pattern(getattr(self, name), name)
        check_timezone(self.timezone or "UTC")

    @property
    def table(self) -> TableSettings:
        """What the user says of text tables."""
        return TableSettings(self.skip_lines, self.csv_columns, self.separator, self.decimal)

    def _check_columns(self) -> None:
        sensors = {"accelerometer_columns": self.accelerometer_columns}
        sensors["gyroscope_columns"] = self.gyroscope_columns
        for key, names in sensors.items():
            if names is not None and not len({*map(_plain, names)}) == len(names) == len(AXES):
                raise ValueError(f"modality.{key}={[*names]} must name {len(AXES)} different columns")
        both = {_plain(name) for names in sensors.values() for name in names or ()}
        if all(sensors.values()) and len(both) < 2 * len(AXES):
            raise ValueError(
                f"modality.gyroscope_columns={self.gyroscope_columns} must be other columns than "
                f"accelerometer_columns={self.accelerometer_columns}"
            )

    def label_of(self, name: str) -> str:
        """The label that `label_pattern` finds in a file's path; "" for none."""
        match = re.search(self.label_pattern, name) if self.label_pattern else None
        return (match[1] or "") if match else ""

    def check_labels(self, names: Collection[str]) -> None:
        """ValueError where `label_pattern` finds nothing in any of the paths: a pattern that was mistyped."""
        if self.label_pattern and names and not any(map(self.label_of, names)):
            raise ValueError(
                f"modality.label_pattern={self.label_pattern!r} finds a label in none of {len(names):,} "
                f"paths, which begin below the folder of the data, such as {min(names)!r}"
            )

    def sensors(self, names: Sequence[str]) -> list[str]:
        """Which of `names` are the axes: 3 or, with the gyroscope, 6; ValueError where they are not there."""
        found = _axes(names, self.accelerometer_columns, ACCELEROMETER, "accelerometer_columns")
        if self.gyroscope:
            found += _axes(names, self.gyroscope_columns, GYROSCOPE, "gyroscope_columns")
        return found

    def check_place(self, place: Sequence[str], names: Sequence[str]) -> None:
        """ValueError where file or folders are named after another sensor, and the axes just x, y, z.

        Of `place`, the names of the folders and of the file, the last one that names a sensor counts.
        """
        known = {*map(_plain, names)}
        axes = next((axes for axes in _patterned(NAMELESS) if {*axes} <= known), [])
        named = any({*axes} <= known for axes in _patterned(GYROSCOPE))  # so that these are others
        if self.accelerometer_columns is not None or not axes or named:
            return
        for part in reversed(place):
            words = WORD.findall(part)
            if any(ACCELERATION.fullmatch(word) for word in words):
                return
            other = next((word for word in words if OTHER_SENSOR.fullmatch(word)), "")
            if other:
                raise ValueError(
                    f"{part!r} is named after another sensor ({other}) than an accelerometer: if it is one, "
                    f"set modality.accelerometer_columns=[{','.join(axes)}]"
                )


@dataclass(frozen=True)
class Recording:
    """The samples of one sensor set on one person, in the file's own units; NaN where a value is missing."""

    accelerometer: Float[np.ndarray, "t 3"]
    times: Float[np.ndarray, "t"]  # seconds since the first sample, in the file's order
    gyroscope: Float[np.ndarray, "g 3"] | None = None
    labels: Shaped[np.ndarray, "t"] | None = None  # text per sample, "" where there is none
    start: pd.Timestamp | None = None  # of time 0, where it is known
    scale: float | None = None  # to g, where the format fixes it
    units: str = ""  # of the accelerometer, where the file says them
    gyroscope_units: str = ""  # the same
    gyroscope_times: Float[np.ndarray, "g"] | None = None  # its own, where its samples are in other rows
    together: Size | None = None  # of all recordings of the file, where they are surely in one unit
    readings: tuple[str, ...] = ()  # how the file was understood, in sentences
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the quality report

    @classmethod
    def of(
        cls, sensors: Float[np.ndarray, "t c"], times: Float[np.ndarray, "t"], **known: Any
    ) -> "Recording":
        """Of 3 columns, or of 6 with a gyroscope."""
        gyroscope = sensors[:, 3:] if sensors.shape[1] > 3 else None
        return cls(sensors[:, :3], times, gyroscope, **known)


def _axes(names: Sequence[str], wanted: Sequence[str] | None, patterns: Sequence[str], key: str) -> list[str]:
    """The names of a sensor's three axes: those wanted, or by a usual pattern."""
    known = {_plain(name): name for name in reversed(names)}
    for candidates in [wanted] if wanted else _patterned(patterns):
        found = [known[_plain(name)] for name in candidates if _plain(name) in known]
        if len(found) == len(AXES):
            return found
    sensor = key.partition("_")[0]
    looked = ", ".join(wanted) if wanted else f"{', '.join(p.format('x') for p in patterns)} and so on"
    raise ValueError(f"no {sensor} columns ({looked}) among {shown(names)}: set modality.{key}=[X,Y,Z]")


def _patterned(patterns: Sequence[str]) -> list[list[str]]:
    """The three axes by each of some patterns."""
    return [[pattern.format(axis) for axis in AXES] for pattern in patterns]


def usual_name(names: Sequence[str], setting: str | None, usual: Sequence[str], key: str) -> str | None:
    """The column that a setting asks for: "auto" takes a usual name if there is one, None takes none."""
    known = {_plain(name): name for name in reversed(names)}
    if setting is None:
        return None
    for name in usual if setting == "auto" else [setting]:
        if _plain(name) in known:
            return known[_plain(name)]
    if setting == "auto":
        return None
    raise ValueError(f"no column {setting} among {shown(names)}: modality.{key} asks for it")


def usual_names(names: Sequence[str], usual: Sequence[str]) -> list[str]:
    """The columns with usual names, in the order of these."""
    known = {_plain(name): name for name in reversed(names)}
    return [known[name] for name in usual if name in known]


def text(value: Any) -> str:
    """An id or label as text, the same for 7, 7.0, "7" and "7.0"; "" where it is missing."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)
    if isinstance(value, list | np.ndarray | dict):
        raise ValueError(f"a cell of names holds a {type(value).__name__}: name another column")
    plain = "" if pd.isna(value) else str(value).strip()
    return plain.partition(".")[0] if WHOLE.fullmatch(plain) else plain


def is_device(path: Path) -> bool:
    """Whether a file is an accelerometer's own, compressed or not."""
    name = path.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name.endswith(DEVICE_SUFFIXES)


def read_device(path: Path, *, gyroscope: bool) -> Recording:
    """A device's file by actipy, as it was recorded: in g, deg/s, nothing filtered or calibrated."""
    try:
        import actipy
    except ImportError as error:
        raise ValueError(
            f"files of devices ({SUFFIXES}) need the package actipy: pip install 'seqssl[wearables]'"
        ) from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            data, info = actipy.read_device(
                str(path),
                lowpass_hz=None,
                calibrate_gravity=False,
                detect_nonwear=False,
                resample_hz=None,
                verbose=False,
            )
    except Exception as error:  # whatever a parser in another language meets in a damaged file
        if isinstance(error, FileNotFoundError) and error.filename == "java":
            raise ValueError(
                f"files of devices ({SUFFIXES}) need Java 8 or later, and no java is on the PATH: install one"
            ) from error
        raise ValueError(f"actipy cannot read it: {error}") from error
    if not len(data):
        raise ValueError("actipy found no samples in it")
    names = [*SENSOR_AXES] if gyroscope else [*AXES]
    if not {*names} <= {*data.columns}:
        raise ValueError("this device recorded no gyroscope: set modality.gyroscope=false")
    return Recording.of(
        data[names].to_numpy(dtype=np.float32),
        seconds(pd.DatetimeIndex(data.index)),
        start=data.index[0],
        facts={"device": {name: _json(info[name]) for name in DEVICE_FACTS if name in info}},
    )


def seconds(times: pd.DatetimeIndex) -> Float[np.ndarray, "t"]:
    """Seconds since the first one that is a time, NaN where there is none."""
    since = times - times[times.notna()][0]
    return np.asarray(since / pd.Timedelta(seconds=1), dtype=np.float64)


def _plain(name: str) -> str:
    """A column's name without case, blanks, and the unit in brackets behind it."""
    bare = IN_NAME.sub("", str(name)) or str(name)
    return "_".join(bare.lower().replace("-", " ").replace(".", " ").split())


def _json(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else str(value)
