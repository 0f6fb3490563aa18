"""Speech: audio in any common format to 16 kHz mono, and log-mel features computed inside the model."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqssl import Conv2dSubsampling, Features, Record, Rejected, Sample, SampleSpec, UserError, list_files

SOUNDFILE_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".au", ".sph", ".w64", ".caf"}
PYAV_SUFFIXES = {
    ".gsm",
    ".m4a",
    ".mp4",
    ".aac",
    ".wma",
    ".webm",
    ".mka",
    ".mkv",
    ".mov",
    ".amr",
    ".3gp",
    ".opus",
}
RAW_SUFFIX = ".g722"  # no header
TABLE_SUFFIXES = {".csv", ".tsv", ".parquet"}
TABLE_NAMES = ("metadata.csv", "metadata.tsv", "metadata.parquet")
PATH_COLUMNS = ("path", "file_name", "filename", "file", "audio")
TEXT_COLUMNS = ("text", "transcription", "sentence", "transcript")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
SPLIT_NAMES = {"validation": "valid", "dev": "valid"}
G722_DELAY = 22  # samples of codec delay
WAV_HEADER_BYTES = 44
# Telephone prompts (.g722) that hold no speech; neither do those in the folder `silence`.
TONES = {"beep", "beeperr", "ascending-2tone", "descending-2tone", "confbridge-join", "confbridge-leave"}
NO_SPEECH = {*TONES, "tt-monkeys"}

WINDOW_S, HOP_S = 0.025, 0.010
LOWEST_HZ = 20.0
FLOOR = 1e-6  # added to the mel power: about that of 16-bit rounding noise
# Mean and standard deviation of each of 80 bands over the training split of the demo corpus (1.89 h).
# fmt: off
LOG_MEL_MEAN = (
    -4.41, -4.02, -2.94, -1.53, -0.23, 0.64, 1.0, 0.75, 0.2, -0.46, -0.74, -0.92, -0.86, -0.86,
    -1.1, -1.41, -1.74, -2.04, -2.13, -2.53, -2.83, -2.66, -2.92, -2.87, -3.07, -3.15, -3.33, -3.37,
    -3.59, -3.79, -3.94, -4.1, -4.18, -4.18, -4.18, -4.17, -4.14, -4.08, -4.02, -4.08, -3.99, -4.1,
    -4.12, -4.22, -4.25, -4.28, -4.33, -4.34, -4.31, -4.28, -4.26, -4.19, -4.15, -4.22, -4.4, -4.6,
    -4.76, -4.85, -4.95, -5.05, -5.04, -5.1, -5.18, -5.11, -5.02, -5.03, -5.13, -5.23, -5.38, -5.51,
    -5.55, -5.56, -5.55, -5.53, -5.41, -5.32, -5.31, -5.3, -5.36, -6.0,
)
LOG_MEL_STD = (
    2.58, 2.93, 3.59, 4.06, 4.38, 4.55, 4.69, 4.8, 4.71, 4.53, 4.5, 4.54, 4.63, 4.65,
    4.59, 4.51, 4.4, 4.33, 4.33, 4.32, 4.31, 4.33, 4.3, 4.25, 4.18, 4.16, 4.14, 4.11,
    4.06, 4.04, 4.01, 3.96, 3.94, 3.94, 3.95, 3.96, 3.97, 3.97, 3.98, 3.98, 3.98, 3.95,
    3.91, 3.88, 3.86, 3.87, 3.91, 3.96, 4.0, 4.01, 3.97, 3.95, 3.94, 3.89, 3.82, 3.72,
    3.62, 3.57, 3.54, 3.52, 3.52, 3.47, 3.44, 3.47, 3.51, 3.51, 3.47, 3.45, 3.42, 3.39,
    3.39, 3.4, 3.4, 3.4, 3.42, 3.44, 3.43, 3.43, 3.39, 3.1,
)
# fmt: on


class Speech:
    """Mono speech at one rate, stored as 16-bit WAV bytes (the audio layout of HF `datasets`)."""

    def __init__(
        self, *, rate_hz: int = 16_000, num_bins: int = 80, conv_channels: int = 32, min_seconds: float = 0.1
    ) -> None:
        self.rate_hz = rate_hz
        self._num_bins = num_bins  # private: these do not change what is stored
        self._conv_channels = conv_channels
        self.min_seconds = min_seconds
        self.spec = SampleSpec(dtype="float32", units="amplitude in [-1, 1]", rate_hz=float(rate_hz))

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        """Audio files of a folder (or one file), or the rows of a metadata table or HF Parquet file."""
        _transcripts.cache_clear()
        tables = [source / name for name in TABLE_NAMES if (source / name).is_file()]
        if source.suffix.lower() in TABLE_SUFFIXES:
            tables = [source]
        if tables:
            found = self._from_table(tables[0], tables[0].name)
        else:
            found = self._from_files(source.parent if source.is_file() else source, list_files(source))
        return (row for row in found if split == "all" or (isinstance(row, Record) and row.split == split))

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        """Amplitudes of a stored row; there is no augmentation."""
        pcm = np.frombuffer(row["audio"]["bytes"], dtype="<i2", offset=WAV_HEADER_BYTES)
        return Sample(pcm * np.float32(2**-15), label=row["label"], group=row["group"])

    def feature_encoder(self, dim: int) -> "LogMelEncoder":
        """Log-mel bands and convolutional subsampling; its width does not depend on `dim`."""
        return LogMelEncoder(rate_hz=self.rate_hz, num_bins=self._num_bins, conv_channels=self._conv_channels)

    def _from_files(self, root: Path, paths: Iterable[Path]) -> Iterator[Record | Rejected]:
        for path in paths:
            name = PurePosixPath(path.relative_to(root).as_posix())
            suffix = path.suffix.lower()
            if suffix == ".parquet":
                yield from self._from_table(path, str(name))
            if suffix not in {*SOUNDFILE_SUFFIXES, *PYAV_SUFFIXES, RAW_SUFFIX}:
                continue
            group = name.parts[0] if len(name.parts) > 1 else ""
            label = _transcript(path)
            if path.stem in _transcripts(path.parent):  # LibriSpeech: speaker-chapter-number
                group = path.stem.partition("-")[0]
            if suffix == RAW_SUFFIX:
                prompt = PurePosixPath(*name.parts[1:]).with_suffix("").as_posix()
                label = label or prompt
                if prompt in NO_SPEECH or prompt.startswith("silence/"):
                    yield Rejected(str(name), "a prompt without speech, by its name")
                    continue
            yield Record(str(name), partial(self._read_file, path), group=group, label=label)

    def _from_table(self, table: Path, name: str) -> Iterator[Record | Rejected]:
        if table.suffix.lower() == ".parquet":
            schema = pq.read_schema(table)
            if "audio" in schema.names and pa.types.is_struct(schema.field("audio").type):
                yield from self._from_audio_column(table, name)
                return
        rows = list(_table_rows(table))
        path_column = _first(PATH_COLUMNS, rows[0] if rows else {})
        if not path_column:
            raise UserError(f"{table} has no column of file paths (one of {', '.join(PATH_COLUMNS)}).")
        for row in rows:
            key = str(row[path_column])
            folders = (table.parent, table.parent / "clips")  # the latter is Common Voice's
            path = next((folder / key for folder in folders if (folder / key).is_file()), None)
            if path is None:
                yield Rejected(key, "the file is missing")
            else:
                yield Record(key, partial(self._read_file, path), **_described(row))

    def _from_audio_column(self, table: Path, name: str) -> Iterator[Record]:
        file = pq.ParquetFile(table)
        known = {*TEXT_COLUMNS, *SPEAKER_COLUMNS, "split"}
        columns = [name for name in file.schema_arrow.names if name in known]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=columns).to_pylist()
            for index in range(file.metadata.row_group(group).num_rows):
                row = rows[index] if columns else {}
                key = f"{name}/{group}/{index}"
                yield Record(key, partial(self._read_cell, table, group, index), **_described(row))

    def _read_file(self, path: Path) -> dict[str, Any]:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        return self._columns(*_decode(path, path.suffix.lower()), path.name)

    def _read_cell(self, table: Path, group: int, index: int) -> dict[str, Any]:
        cell = _audio_column(table, group)[index].as_py()
        name = cell["path"] or ""
        if cell["bytes"] is None:
            return self._read_file(table.parent / name)
        return self._columns(*_decode(io.BytesIO(cell["bytes"]), Path(name).suffix.lower() or ".wav"), name)

    def _columns(self, samples: np.ndarray, rate_hz: int, name: str) -> dict[str, Any]:
        """Check, mix to mono, resample; `samples` is t c."""
        if not np.isfinite(samples).all():
            raise ValueError("not-a-number or infinite samples")
        if len(samples) < self.min_seconds * rate_hz:
            raise ValueError(f"shorter than {self.min_seconds} s")
        mono = samples.mean(axis=1)
        mono /= max(1.0, np.abs(mono).max())  # float files may exceed full scale
        pcm = np.rint(_resampled(mono, rate_hz, self.rate_hz) * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2")
        if np.ptp(pcm.astype(np.int32)) == 0:
            raise ValueError("digital silence")
        return {"length": len(pcm), "audio": {"bytes": _wav_bytes(pcm, self.rate_hz), "path": name}}


class LogMelEncoder(nn.Module):
    """Log-mel power in 25 ms windows every 10 ms, fixed normalization, then 4-fold convolutional subsampling.

    Input (b, t) amplitudes, output (b, s, dim). A window never reaches beyond the row; a row
    shorter than one window is followed by zeros.
    """

    window: Tensor
    filters: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, *, rate_hz: int = 16_000, num_bins: int = 80, conv_channels: int = 32) -> None:
        super().__init__()
        self.window_length, self.hop_length = round(WINDOW_S * rate_hz), round(HOP_S * rate_hz)
        self.fft_length = 2 ** math.ceil(math.log2(self.window_length))
        self.register_buffer(
            "window", torch.hann_window(self.window_length, periodic=False), persistent=False
        )
        filters = mel_filters(num_bins, fft_length=self.fft_length, rate_hz=rate_hz)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        bands = np.linspace(0, len(LOG_MEL_MEAN) - 1, num_bins)
        for name, constants in (("mean", LOG_MEL_MEAN), ("std", LOG_MEL_STD)):
            values = np.interp(bands, np.arange(len(constants)), constants)
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.subsampling = Conv2dSubsampling(num_bins, channels=conv_channels)
        self.dim = self.subsampling.dim

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Frames made of so many samples."""
        return self.subsampling.output_lengths(self.num_windows(lengths))

    def num_windows(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Mel frames made of so many samples."""
        return (lengths - self.window_length).clamp(min=0) // self.hop_length + 1

    def forward(self, inputs: Float[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Features:
        """Encode amplitudes."""
        with torch.autocast(inputs.device.type, enabled=False):
            mel = self.picture(inputs, lengths)
        features: Features = self.subsampling(mel, self.num_windows(lengths))
        return features

    def picture(self, inputs: Float[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "b s f"]:
        """What reports show and probes compare with: the input of the subsampling."""
        return (self.log_mel(inputs.float(), lengths) - self.mean) / self.std

    def log_mel(self, inputs: Float[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "b s f"]:
        """Log of mel power, before normalization."""
        size = inputs.shape[1]
        inputs = inputs * (torch.arange(size, device=inputs.device) < lengths[:, None])
        inputs = F.pad(inputs, (0, max(0, self.window_length - size)))
        windows = inputs.unfold(1, self.window_length, self.hop_length) * self.window
        spectrum = torch.fft.rfft(windows, n=self.fft_length)
        power: Tensor = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters + FLOOR).log()


def mel_filters(num_bins: int, *, fft_length: int, rate_hz: int) -> Float[np.ndarray, "frequency f"]:
    """Triangles that are even on the mel scale (HTK's formula, as in Kaldi), from 20 Hz to half the rate."""

    def mel(hz: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    edges = np.linspace(mel(LOWEST_HZ), mel(rate_hz / 2), num_bins + 2)
    frequencies = mel(np.arange(fft_length // 2 + 1) * rate_hz / fft_length)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    filters: np.ndarray = np.minimum(rising, falling).clip(min=0).astype(np.float32)
    return filters


def _decode(file: Path | io.BytesIO, suffix: str) -> tuple[np.ndarray, int]:
    """Samples (t, c) in [-1, 1] and their rate."""
    if suffix not in SOUNDFILE_SUFFIXES:
        return _decode_pyav(file, suffix)
    try:
        samples, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"not readable as {suffix[1:]} audio: {error.error_string}") from error
    return samples, rate_hz


def _decode_pyav(file: Path | io.BytesIO, suffix: str) -> tuple[np.ndarray, int]:
    try:
        import av
    except ImportError as error:
        raise ValueError(f"{suffix[1:]} files need the package av: pip install 'seqssl[audio]'") from error
    raw = suffix == RAW_SUFFIX
    try:
        with av.open(file, mode="r", format="g722" if raw else None) as container:
            frames = list(container.decode(audio=0))
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"not readable as {suffix[1:]} audio") from error
    if not frames:
        raise ValueError("no samples")
    samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    if not frames[0].format.is_planar:  # 1 (t c) where planar samples are c t
        samples = samples.reshape(-1, frames[0].layout.nb_channels).T
    return _as_float(samples.T[G722_DELAY if raw else 0 :]), frames[0].sample_rate


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Integers of any width to [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    limits = np.iinfo(samples.dtype)
    middle, scale = (limits.max + limits.min + 1) / 2, (limits.max - limits.min + 1) / 2
    return ((samples - middle) / scale).astype(np.float32)


def _resampled(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    if from_hz == to_hz:
        return samples
    from scipy.signal import resample_poly  # slow to import, and most corpora do not need it

    common = math.gcd(from_hz, to_hz)
    return np.asarray(resample_poly(samples, to_hz // common, from_hz // common))


def _wav_bytes(pcm: np.ndarray, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@lru_cache(maxsize=4)
def _transcripts(folder: Path) -> dict[str, str]:
    """The lines `name text` of LibriSpeech's .trans.txt files in a folder."""
    tables = [path.read_text("utf-8", "replace").splitlines() for path in sorted(folder.glob("*.trans.txt"))]
    return {name: text for table in tables for name, _, text in (line.partition(" ") for line in table)}


def _transcript(path: Path) -> str:
    beside = path.with_suffix(".txt")
    if path.stem in _transcripts(path.parent):
        return _transcripts(path.parent)[path.stem]
    return beside.read_text("utf-8", "replace").strip() if beside.is_file() else ""


def _table_rows(table: Path) -> Iterator[dict[str, Any]]:
    if table.suffix.lower() == ".parquet":
        yield from pq.read_table(table).to_pylist()
        return
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        yield from csv.DictReader(file, delimiter="," if table.suffix.lower() == ".csv" else "\t")


def _described(row: Mapping[str, Any]) -> dict[str, str]:
    """Label, group and split of a table's row."""
    columns = {"label": _first(TEXT_COLUMNS, row), "group": _first(SPEAKER_COLUMNS, row), "split": "split"}
    found = {name: str(row[column]) for name, column in columns.items() if row.get(column) is not None}
    split = found.get("split", "")
    return {**found, "split": SPLIT_NAMES.get(split, split)}


def _first(candidates: Iterable[str], row: Mapping[str, Any]) -> str:
    return next((name for name in candidates if name in row), "")


@lru_cache(maxsize=2)
def _audio_column(table: Path, group: int) -> pa.ChunkedArray:
    return pq.ParquetFile(table).read_row_group(group, columns=["audio"]).column("audio")
