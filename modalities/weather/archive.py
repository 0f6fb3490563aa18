"""The `.ts` files of the UEA archive: labelled instances of numbered channels, without time stamps."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from modalities.weather.series import Found, Series

MOST_PADDED = 1000  # cells for each value that is written: shorter channels are filled up


@dataclass(frozen=True, eq=False)
class Archive:
    """A parsed file; instances are (t, c) with NaN for what is missing or never changes in the whole file."""

    instances: list[np.ndarray]
    labels: list[str]
    names: tuple[str, ...]  # dim_0, dim_1, ...
    constant: tuple[str, ...]


def find(path: Path, name: str, columns: tuple[str, ...], step_s: float) -> Iterator[Found]:
    """One series for each instance; a file NAME_TEST.ts is the split `test`."""
    parse.cache_clear()
    archive = parse(path)
    split = "test" if path.stem.upper().endswith("_TEST") else ""
    for number in range(len(archive.instances)):
        key = f"{name}/{number:05d}"
        yield Found(key, archive.names, partial(read, path, columns, step_s, number), split=split)


def read(path: Path, columns: tuple[str, ...], step_s: float, number: int) -> Series:
    """An instance, as if it began in 1970."""
    archive = parse(path)
    instance = archive.instances[number]
    values = np.full((len(instance), len(columns)), np.nan)
    for place, name in enumerate(columns):
        if name in archive.names:
            values[:, place] = instance[:, archive.names.index(name)]
    quality = {"constant": [name for name in columns if name in archive.constant]}
    return Series(
        np.arange(len(instance)) * step_s,
        values,
        label=archive.labels[number],
        undated=True,
        judged=True,
        quality={name: found for name, found in quality.items() if found},
    )


@lru_cache(maxsize=2)
def parse(path: Path) -> Archive:
    """Read a whole file. Raises ValueError with the line that is wrong."""
    lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines()]
    tags = [line.lower().partition(" ")[::2] for line in lines if line.startswith("@")]
    header = {tag: value.split() for tag, value in tags}
    if "@data" not in header:
        raise ValueError("there is no line @data")
    if header.get("@timestamps") == ["true"]:
        raise ValueError("time stamps inside .ts files are not read: convert it to a table")
    labelled = any(header.get(tag, ["false"])[:1] == ["true"] for tag in ("@classlabel", "@targetlabel"))
    start = next(number for number, line in enumerate(lines) if line.lower() == "@data") + 1
    instances: list[np.ndarray] = []
    labels: list[str] = []
    for number, line in enumerate(lines[start:], start=start + 1):
        if not line or line.startswith(("#", "%")):
            continue
        channels = line.split(":")
        labels.append(channels.pop().strip() if labelled else "")
        instances.append(_instance(channels, number))
        if instances[-1].shape[1] != instances[0].shape[1]:
            first = instances[0].shape[1]
            raise ValueError(f"line {number} has {len(channels)} channels, the first one has {first}")
    if not instances:
        raise ValueError("there are no instances after @data")
    values = np.concatenate(instances)
    unknown = np.isnan(values)
    constant = np.where(unknown, np.inf, values).min(axis=0) >= np.where(unknown, -np.inf, values).max(axis=0)
    for instance in instances:
        instance[:, constant] = np.nan
    names = tuple(f"dim_{channel}" for channel in range(values.shape[1]))
    return Archive(instances, labels, names, tuple(np.array(names)[constant].tolist()))


def _instance(channels: list[str], line: int) -> np.ndarray:
    """Channels, of unequal length perhaps, as (t, c)."""
    try:
        values = [[float(cell.replace("?", "nan")) for cell in channel.split(",")] for channel in channels]
    except ValueError as error:
        raise ValueError(f"line {line} is not a row of numbers: {error}") from error
    longest = max(map(len, values), default=0)
    if longest * len(values) > MOST_PADDED * sum(map(len, values)):
        raise ValueError(
            f"line {line} has {len(values):,} channels of very unequal length, the longest of "
            f"{longest:,} values"
        )
    instance = np.full((longest, len(values)), np.nan)
    for place, channel in enumerate(values):
        instance[: len(channel), place] = channel
    return instance
