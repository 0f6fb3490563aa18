"""Audio files of any kind to amplitudes at one rate: decoded to their end, whatever their header claims."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Bool, Float, Shaped

from modalities.reading.runs import equal_runs

# By the library that reads them; the other one is tried where the first fails, as names may be wrong.
SOUNDFILE_SUFFIXES = {
    ".wav",
    ".wave",
    ".flac",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".snd",
    ".sph",
    ".w64",
    ".caf",
    ".rf64",
}
PYAV_SUFFIXES = {
    ".mp3", ".ogg", ".oga", ".opus", ".gsm", ".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mkv", ".mov",
    ".amr", ".3gp", ".mp2", ".ac3", ".ape", ".wv", ".spx", ".m4b",
}  # fmt: skip
RAW_SUFFIX = ".g722"  # no header
AUDIO_SUFFIXES = {*SOUNDFILE_SUFFIXES, *PYAV_SUFFIXES, RAW_SUFFIX}
G722_DELAY = 22  # samples of codec delay
BLOCK = 2**18  # samples read at once
LEAST_HZ, MOST_HZ = 1000, 1_000_000
MOST_TERMS = 4096  # in the ratio of two rates: beyond it the resampling filter grows without use
MOST_BAD_PACKETS = 0.02
CANCELLED = 1e-3  # of the channels' energy, below which their mean is no mixture
SILENCE_S = 0.05  # equal samples for longer are a gate, a muted line or padding, not a quiet room
CLAIM = 0.02  # a share of the length by which a header may be wrong without a word

AudioFile = Path | io.BytesIO


class Stretch(NamedTuple):
    """Samples of one rate; a joined file, or a stream that changes, has several."""

    samples: Float[np.ndarray, "t c"]  # in [-1, 1]
    rate_hz: int


def decode(file: AudioFile, suffix: str) -> tuple[list[Stretch], list[str]]:
    """All of a file, in stretches of one rate and number of channels, and notices.

    ValueError where it holds no audio, or where only a part of it can be read.
    """
    if isinstance(file, Path) and not str(file).isprintable():  # no decoder opens a name that is no UTF-8
        file = io.BytesIO(file.read_bytes())
    readers = [_with_soundfile, _with_pyav] if suffix in SOUNDFILE_SUFFIXES else [_with_pyav, _with_soundfile]
    reasons: list[str] = []
    for reader in readers[:1] if suffix == RAW_SUFFIX else readers:
        if isinstance(file, io.BytesIO):
            file.seek(0)
        try:
            stretches, notices = reader(file, suffix)
        except _NotInstalled as error:
            reasons.insert(0, str(error))
            continue
        except _Damaged:
            raise
        except Exception as error:  # either library raises what its decoders raise
            reasons.append(_plain(error))
            continue
        if sum(len(stretch.samples) for stretch in stretches):
            if reasons and reasons[0].startswith("its header"):
                notices.append(reasons[0])
            return stretches, notices
        reasons.append("its header says that it holds no samples (a data size of 0, as a stream writes it)")
    if "need the package" in reasons[0]:
        raise ValueError(reasons[0])
    raise ValueError(f"not readable as {suffix[1:]} audio: {reasons[0]}")


def mono(stretches: Sequence[Stretch], rate_hz: int) -> tuple[Float[np.ndarray, "t"], list[str]]:
    """One channel at one rate. Channels are averaged; where they cancel, the loudest one is taken."""
    parts, notices = [], []
    for samples, from_hz in stretches:
        if not LEAST_HZ <= from_hz <= MOST_HZ:
            raise ValueError(f"its header says {from_hz} Hz, which no recording of sound has")
        if not np.isfinite(samples).all():
            raise ValueError("not-a-number or infinite samples")
        mixed = samples.mean(axis=1)
        energy = np.square(samples, dtype=np.float64).mean(axis=0)
        if samples.shape[1] > 1 and np.square(mixed, dtype=np.float64).mean() < CANCELLED * energy.mean():
            mixed = samples[:, int(energy.argmax())]
            notices.append("its channels cancel each other: the louder one is taken")
        parts.append(_resampled(mixed, from_hz, rate_hz))
    whole = np.concatenate(parts)
    return whole / max(1.0, float(np.abs(whole).max(initial=0.0))), list(dict.fromkeys(notices))


class _NotInstalled(Exception):
    """Raised where a package is missing."""


class _Damaged(ValueError):
    """Raised where a part of a file was read, and the rest cannot be."""


def sounds(samples: Shaped[np.ndarray, "t"], rate_hz: int) -> Bool[np.ndarray, "t"]:
    """Which samples are not digital silence: stretches of one value that are longer than `SILENCE_S`."""
    starts, ends = equal_runs(samples)
    return np.repeat(ends - starts <= SILENCE_S * rate_hz, ends - starts)


def _with_soundfile(file: AudioFile, suffix: str) -> tuple[list[Stretch], list[str]]:
    """WAV, FLAC and others, in blocks up to the end: the number of frames in a header is a claim."""
    blocks: list[np.ndarray] = []
    with soundfile.SoundFile(file) as sound:
        rate_hz, claimed = int(sound.samplerate), int(sound.frames)
        try:
            while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block)
        except soundfile.LibsndfileError as error:
            if not blocks:
                raise
            raise _Damaged(_partly(blocks, rate_hz, claimed)) from error
    samples = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    notices = []
    if claimed < 2**40 and abs(len(samples) - claimed) > CLAIM * claimed:
        notices.append(f"its header says {claimed / rate_hz:.1f} s, it holds {len(samples) / rate_hz:.1f} s")
    return [Stretch(samples, rate_hz)], notices


def _with_pyav(file: AudioFile, suffix: str) -> tuple[list[Stretch], list[str]]:
    """MP3, AAC, Opus and others, packet by packet, each frame with the rate and channels that it has."""
    try:
        import av
    except ImportError as error:
        raise _NotInstalled(f"{suffix[1:]} files need the package av: pip install 'seqssl[audio]'") from error
    raw = suffix == RAW_SUFFIX
    frames: list[Any] = []
    packets = bad = 0
    target: Any = str(file) if isinstance(file, Path) else file
    with av.open(target, mode="r", format="g722" if raw else None, metadata_errors="replace") as container:
        if not container.streams.audio:
            raise ValueError("it has no audio stream")
        for packet in container.demux(audio=0):
            packets += 1
            try:
                frames.extend(packet.decode())
            except av.FFmpegError:
                bad += 1
    if bad > MOST_BAD_PACKETS * packets and frames:
        raise _Damaged(f"{bad} of its {packets} packets are damaged")
    if bad and not frames:
        raise ValueError("its packets cannot be decoded")
    return [*_stretches(frames, G722_DELAY if raw else 0)], []


def _stretches(frames: Sequence[Any], delay: int) -> Iterator[Stretch]:
    """Frames of the same rate, channels and format as one stretch each."""

    def kind(frame: Any) -> tuple[int, int, str]:
        return frame.sample_rate, frame.layout.nb_channels, frame.format.name

    for (rate_hz, channels, _), run in groupby(frames, kind):
        same = list(run)
        samples = np.concatenate([frame.to_ndarray() for frame in same], axis=1)
        if not same[0].format.is_planar:  # 1 (t c) where planar samples are c t
            samples = samples.reshape(-1, channels).T
        yield Stretch(_as_float(samples.T[delay:]), int(rate_hz))
        delay = 0


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

    ratio = Fraction(to_hz, from_hz)
    if (
        max(ratio.numerator, ratio.denominator) > MOST_TERMS
    ):  # a rate such as 44,056 Hz: off by less than 1e-7
        ratio = ratio.limit_denominator(MOST_TERMS)
    return np.asarray(resample_poly(samples, ratio.numerator, ratio.denominator))


def _partly(blocks: Sequence[np.ndarray], rate_hz: int, claimed: int) -> str:
    read = sum(map(len, blocks)) / rate_hz
    of = f" of {claimed / rate_hz:.1f} s" if claimed < 2**40 else ""
    return f"damaged: only {read:.1f} s{of} can be read"


def _plain(error: Exception) -> str:
    """A decoder's words, where they say something of the file."""
    words = getattr(error, "error_string", "") or getattr(error, "strerror", "") or str(error)
    told = {"File does not exist or is not a regular file": "its content is of another kind"}
    known = next((plain for start, plain in told.items() if str(words).startswith(start)), "")
    return known or f"damaged, or not what its name says ({str(words).rstrip('.')[:60]})"


def wav_bytes(pcm: np.ndarray, rate_hz: int) -> bytes:
    """Samples of 16 bits as a WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
