"""NPY and NPZ: stacked windows, or lists of recordings, with the subject of each."""

import contextlib
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from modalities.wearables import pickles
from modalities.wearables.recordings import SENSOR_AXES, FileSettings, Recording, text
from modalities.wearables.units import Size

ARRAY_SUFFIXES = (".npy", ".npz")
VALUES = ("X", "x", "data", "samples")
GROUPS = ("pid", "subject", "subjects", "subject_id", "participant", "group", "groups", "P")
LABELS = ("y", "Y", "label", "labels")
SPLITS = ("split", "splits")
LABEL_NAMES = ("y_labels", "label_names", "class_names")
CHANNEL_NAMES = ("X_labels", "channel_names", "channels")
LOOKED_AT = 200  # recordings of an array, of which the unit of all is judged
BESIDE = {*GROUPS, *LABELS, *SPLITS, *LABEL_NAMES, *CHANNEL_NAMES}  # files that belong to an X.npy


@dataclass(frozen=True)
class Collection:
    """The recordings of one file, each t c, with what is known of them."""

    recordings: Sequence[np.ndarray] | np.ndarray  # a list, or an array n t c
    groups: list[str] | None
    labels: list[str] | None
    splits: list[str] | None
    channel_names: list[str] | None


@lru_cache(maxsize=1)  # one file holds many recordings, each read by itself
def read_collection(path: Path) -> Collection:
    """The recordings of a file; an array t c is a single one. ValueError where it holds something else."""
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    members = _members(path)
    name = _first(members, VALUES)
    if name is None:
        raise ValueError(f"no samples ({', '.join(VALUES)}) in it, only {', '.join(members) or 'nothing'}")
    for used in (name, *GROUPS, *LABELS, *SPLITS, *LABEL_NAMES, *CHANNEL_NAMES):
        pickles.check_size(members.get(used), path.stat().st_size)
    recordings = _recordings(members[name], name)
    groups, labels, splits = (_texts(members, names, len(recordings)) for names in (GROUPS, LABELS, SPLITS))
    label_names = _texts(members, LABEL_NAMES)
    if labels and label_names:
        numbered = {str(number): name for number, name in enumerate(label_names)}
        labels = [numbered.get(label, label) for label in labels]
    return Collection(recordings, groups, labels, splits, _texts(members, CHANNEL_NAMES))


def forget() -> None:
    """Drop the file that was read last: it may have changed since."""
    read_collection.cache_clear()
    _together.cache_clear()


def read_item(path: Path, index: int, settings: FileSettings) -> Recording:
    """One recording of a file."""
    if settings.source_rate_hz is None:
        raise ValueError("arrays have no times: set modality.source_rate_hz")
    collection = read_collection(path)
    sensors = _sensors(collection, index, settings)
    times = np.arange(len(sensors)) / settings.source_rate_hz
    together = _together(path, settings) if len(collection.recordings) > 1 else None
    return Recording.of(sensors, times, together=together)


@lru_cache(maxsize=1)
def _together(path: Path, settings: FileSettings) -> Size | None:
    """How large the samples of all recordings of a file are: a window of 10 s alone tells its unit badly."""
    collection = read_collection(path)
    count = len(collection.recordings)
    readable = []
    for index in np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int)):
        with contextlib.suppress(ValueError):  # told where this recording is read
            readable.append(_sensors(collection, int(index), settings)[:, :3])
    return Size.together(readable)


def _sensors(collection: Collection, index: int, settings: FileSettings) -> Float[np.ndarray, "t c"]:
    """The axes of one recording, 3 or with the gyroscope 6."""
    values = np.asarray(collection.recordings[index])
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise ValueError(
            f"an array of {values.dtype} of shape {[*values.shape]} where numbers (t, c) are wanted"
        )
    names = collection.channel_names
    if names is None and values.shape[1] not in (3, 6):
        raise ValueError(
            f"{values.shape[1]} channels without names: only 3 (accelerometer) and 6 (with gyroscope) need "
            "no array channel_names beside them"
        )
    names = names or [*SENSOR_AXES][: values.shape[1]]
    if len(names) != values.shape[1]:
        raise ValueError(f"{values.shape[1]} channels and {len(names)} names for them")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and rejected as such
        sensors: np.ndarray = values[:, [names.index(name) for name in settings.sensors(names)]]
        return sensors.astype(np.float32)


def files_beside(path: Path) -> list[Path]:
    """The files that may say more of the recordings in X.npy."""
    is_values = path.suffix.lower() == ".npy" and path.stem in VALUES
    return [path.with_name(f"{name}.npy") for name in sorted(BESIDE)] if is_values else []


def _members(path: Path) -> Mapping[str, Any]:
    """The arrays of a file by name: of an archive, of a pickled dict, or of the files beside an X.npy."""
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                return {
                    name.removesuffix(".npy"): _read_npy(BytesIO(archive.read(name)))
                    for name in archive.namelist()
                    if name.endswith(".npy")
                }
        with path.open("rb") as file:
            value = _read_npy(file, path)
        if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 0:
            value = value.item()
        if isinstance(value, dict):
            return {str(name): member for name, member in value.items()}
        beside = {}
        for other in files_beside(path):
            if other.is_file():
                with other.open("rb") as file:
                    beside[other.stem] = _read_npy(file)
        return {"X": value, **beside}
    except MemoryError as error:
        raise ValueError("it does not fit into memory") from error
    except Exception as error:  # damaged headers fail in the tokenizer, damaged data in any unpacker
        kind = path.suffix.lower()[1:]
        raise ValueError(f"not readable as {kind}: damaged, or not what its name says ({error})") from error


def _read_npy(file: BufferedIOBase, path: Path | None = None) -> Any:
    """One array; pickled objects by our own reader, plain numbers of a file on disk by a memory map."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"version {version} of the NPY format")
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        return pickles.load(file)
    if dtype.itemsize == 0 and math.prod(shape) > 0:
        raise ValueError(f"its header says {math.prod(shape):,} texts without a letter")
    data, claimed = file.tell(), math.prod(shape) * dtype.itemsize
    held = file.seek(0, os.SEEK_END) - data
    if claimed > held:
        raise ValueError(f"its header says {claimed:,} bytes of shape {[*shape]}, and it holds {held:,}")
    if path is not None:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _recordings(values: Any, name: str) -> Sequence[np.ndarray] | np.ndarray:
    """The recordings that an array, or a list of arrays, holds."""
    if isinstance(values, np.ndarray) and not values.dtype.hasobject:
        shape = [*values.shape]
        if values.ndim == 2:
            return [values]
        if values.ndim != 3:
            raise ValueError(f"{name} has shape {shape}; (n, t, c) is wanted, or (t, c) for one recording")
        if shape[1] in (3, 6) and shape[2] > 9:
            raise ValueError(f"{name} has shape {shape}, which looks like (n, c, t): (n, t, c) is wanted")
    if not isinstance(values, np.ndarray | list) or not len(values):
        raise ValueError(f"{name} holds no recordings")
    return values


def _first(members: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in members), None)


def _texts(members: Mapping[str, Any], names: Sequence[str], count: int | None = None) -> list[str] | None:
    """The first of the arrays so named, as text; ValueError where it has not `count` entries."""
    name = _first(members, names)
    if name is None:
        return None
    values = np.asarray(members[name])
    if values.ndim != 1 or (count is not None and len(values) != count):
        raise ValueError(
            f"{name} has shape {[*values.shape]}; one entry for each of {count} recordings is wanted"
        )
    return [text(value) for value in values.tolist()]
