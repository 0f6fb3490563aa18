"""Audio files of any kind to amplitudes at one rate: decoded to their end, whatever their header claims.

Files come in parts, and each is mixed and resampled before the next is read: of a long recording no more is
held than its one channel at the new rate.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Bool, Float, Int16, Shaped

from modalities.reading.runs import equal_runs
from modalities.speech.resampling import Resampler

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
MOST_BAD_PACKETS = 0.02
CANCELLED = 1e-3  # of the channels' energy, below which their mean is no mixture
SILENCE_S = 0.05  # equal samples for longer are a gate, a muted line or padding, not a quiet room
LEAST_SOUND_S = 0.025  # a window of the features: what is shorter, between silences, is a click or their edge
CLAIM = 0.02  # a share of the length by which a header may be wrong without a word
MOST_CLAIMED = 2**40  # frames, beyond which a header means that it does not know

AudioFile = Path | io.BytesIO


class Part(NamedTuple):
    """Samples that follow on the part before."""

    samples: Float[np.ndarray, "t c"]  # in [-1, 1]
    rate_hz: int
    stretch: int = 0  # a joined file, or a stream that changes, has several of one rate and format


class Sound(NamedTuple):
    """What a file holds, as one channel."""

    pcm: Int16[np.ndarray, "t"]  # at the rate that was asked for; 2**15 is full scale
    source_hz: int  # the rate of its beginning
    notices: list[str]


def decode(file: AudioFile, suffix: str, rate_hz: int) -> Sound:
    """All of a file as one channel at a rate.

    ValueError where it holds no audio, or where only a part of it can be read.
    """
    if isinstance(file, Path) and not str(file).isprintable():  # no decoder opens a name that is no UTF-8
        file = io.BytesIO(file.read_bytes())
    readers = [_with_soundfile, _with_pyav] if suffix in SOUNDFILE_SUFFIXES else [_with_pyav, _with_soundfile]
    reasons: list[str] = []
    for reader in readers[:1] if suffix == RAW_SUFFIX else readers:
        notices: list[str] = []
        try:
            mixture = _mix(partial(reader, file, suffix, notices), rate_hz)
        except _NotInstalled as error:
            reasons.insert(0, str(error))
            continue
        except _Damaged as error:
            raise ValueError(str(error)) from error
        except Exception as error:  # either library raises what its decoders raise
            reasons.append(_plain(error))
            continue
        sound = mixture.sound()
        if len(sound.pcm):
            if reasons and reasons[0].startswith("its header"):
                notices.append(reasons[0])
            return sound._replace(notices=list(dict.fromkeys([*notices, *sound.notices])))
        reasons.append("its header says that it holds no samples (a data size of 0, as a stream writes it)")
    if "need the package" in reasons[0]:
        raise ValueError(reasons[0])
    raise ValueError(f"not readable as {suffix[1:]} audio: {reasons[0]}")


def mono(parts_of: Callable[[], Iterator[Part]], rate_hz: int) -> Sound:
    """One channel at one rate. Channels are averaged; where they cancel, the loudest one is taken.

    `parts_of` gives the parts from the beginning, a second time where channels cancel. ValueError for samples
    that are no sound.
    """
    return _mix(parts_of, rate_hz).sound()


def _mix(parts_of: Callable[[], Iterator[Part]], rate_hz: int) -> "_Mixture":
    """The parts, read a second time where channels cancel: the louder one is known at the end."""
    mixture = _Mixture(rate_hz)
    for part in parts_of():
        mixture.add(part)
    if mixture.cancelled:
        mixture = _Mixture(rate_hz, mixture.cancelled)
        for part in parts_of():
            mixture.add(part)
    return mixture


class _NotInstalled(Exception):
    """Raised where a package is missing."""


class _Damaged(ValueError):
    """Raised where a part of a file was read, and the rest cannot be."""


class _Mixture:
    """One channel at one rate, made of parts as they come.

    `chosen` names the channel to take of a stretch, where the mean of all is nothing.
    """

    def __init__(self, rate_hz: int, chosen: Mapping[int, int] | None = None) -> None:
        self._source_hz, self._problem = 0, ""  # the first thing that is wrong
        self._rate_hz, self._chosen = rate_hz, chosen or {}
        self._blocks: list[np.ndarray] = []
        self._stretch = -1
        self._resampler: Resampler | None = None
        self._energies: dict[int, np.ndarray] = {}  # of a stretch: of each channel, and of their mean

    def add(self, part: Part) -> None:
        """Mix and resample a part."""
        if not len(part.samples):
            return
        self._source_hz = self._source_hz or part.rate_hz
        self._problem = self._problem or _problem_of(part)
        if self._problem:  # which is said when all is read: a file that is damaged, too, is that first
            self._blocks = []
            return
        if part.stretch != self._stretch or self._resampler is None:
            self._flush()
            self._stretch, self._resampler = part.stretch, Resampler(part.rate_hz, self._rate_hz)
        self._blocks += self._resampler.add(self._mixed(part))

    @property
    def cancelled(self) -> dict[int, int]:
        """The loudest channel of each stretch whose channels leave hardly anything of one another."""
        return {
            stretch: int(energy[:-1].argmax())
            for stretch, energy in self._energies.items()
            if energy[-1] < CANCELLED * energy[:-1].mean() and not self._problem
        }

    def sound(self) -> Sound:
        """All of it, scaled down where it exceeds full scale; ValueError where it is no sound."""
        if self._problem:
            raise ValueError(self._problem)
        self._flush()
        most = max((float(np.abs(block).max(initial=0.0)) for block in self._blocks), default=0.0)
        pcm = np.empty(sum(map(len, self._blocks)), "<i2")
        end = len(pcm)
        while self._blocks:  # each is let go as soon as it is in its place
            block = self._blocks.pop() / max(1.0, most)
            pcm[end - len(block) : end] = np.rint(block * 2**15).clip(-(2**15), 2**15 - 1)
            end -= len(block)
        notices = ["its channels cancel each other: the louder one is taken"] if self._chosen else []
        return Sound(pcm, self._source_hz, notices)

    def _mixed(self, part: Part) -> Float[np.ndarray, "t"]:
        if part.stretch in self._chosen:
            return np.ascontiguousarray(part.samples[:, self._chosen[part.stretch]])
        mixed: np.ndarray = part.samples.mean(axis=1)
        if part.samples.shape[1] > 1:
            energy = np.square(part.samples, dtype=np.float64).sum(axis=0)
            energy = np.append(energy, np.square(mixed, dtype=np.float64).sum())
            self._energies[part.stretch] = self._energies.get(part.stretch, np.zeros(1)) + energy
        return mixed

    def _flush(self) -> None:
        """The end of a stretch."""
        self._blocks += self._resampler.end() if self._resampler else []
        self._resampler = None


def sounds(samples: Shaped[np.ndarray, "t"], rate_hz: int) -> Bool[np.ndarray, "t"]:
    """Which samples are not digital silence: stretches of one value that are longer than `SILENCE_S`."""
    starts, ends = equal_runs(samples)
    return np.repeat(ends - starts <= SILENCE_S * rate_hz, ends - starts)


def is_silence(samples: Shaped[np.ndarray, "t"], rate_hz: int) -> bool:
    """Whether less than `LEAST_SOUND_S` of some samples is no digital silence, or all of them are equal."""
    heard = int(np.count_nonzero(sounds(samples, rate_hz)))
    return heard < min(LEAST_SOUND_S * rate_hz, len(samples)) or bool(samples.min() == samples.max())


def _with_soundfile(file: AudioFile, suffix: str, notices: list[str]) -> Iterator[Part]:
    """WAV, FLAC and others, in blocks up to the end: the number of frames in a header is a claim."""
    if isinstance(file, io.BytesIO):
        file.seek(0)
    read = 0
    with soundfile.SoundFile(file) as sound:
        rate_hz, claimed = int(sound.samplerate), int(sound.frames)
        try:
            while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
                read += len(block)
                yield Part(block, rate_hz)
        except soundfile.LibsndfileError as error:
            if not read:
                raise
            raise _Damaged(_partly(read, rate_hz, claimed)) from error
    if claimed < MOST_CLAIMED and abs(read - claimed) > CLAIM * claimed:
        notices.append(f"its header says {claimed / rate_hz:.1f} s, it holds {read / rate_hz:.1f} s")


def _with_pyav(file: AudioFile, suffix: str, notices: list[str]) -> Iterator[Part]:
    """MP3, AAC, Opus and others, packet by packet, each frame with the rate and channels that it has."""
    try:
        import av
    except ImportError as error:
        raise _NotInstalled(f"{suffix[1:]} files need the package av: pip install 'seqssl[audio]'") from error
    raw = suffix == RAW_SUFFIX
    counts: Counter[str] = Counter()
    if isinstance(file, io.BytesIO):
        file.seek(0)

    def frames(container: Any) -> Iterator[Any]:
        for packet in container.demux(audio=0):
            counts["packets"] += 1
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                counts["bad"] += 1
                continue
            counts["frames"] += len(decoded)
            yield from decoded

    target: Any = str(file) if isinstance(file, Path) else file
    with av.open(target, mode="r", format="g722" if raw else None, metadata_errors="replace") as container:
        if not container.streams.audio:
            raise ValueError("it has no audio stream")
        yield from _parts(frames(container), G722_DELAY if raw else 0)
    if counts["bad"] > MOST_BAD_PACKETS * counts["packets"] and counts["frames"]:
        raise _Damaged(f"{counts['bad']} of its {counts['packets']} packets are damaged")
    if counts["bad"] and not counts["frames"]:
        raise ValueError("its packets cannot be decoded")


def _parts(frames: Iterator[Any], delay: int) -> Iterator[Part]:
    """Decoded frames, many at once; those of one rate, channels and format are a stretch.

    The first `delay` samples are left out.
    """
    held: list[Any] = []
    stretch, kind, size = -1, None, 0
    for frame in frames:
        own = frame.sample_rate, frame.layout.nb_channels, frame.format.name
        if held and (own != kind or size >= BLOCK):
            yield _joined(held, stretch, delay)
            held, size, delay = [], 0, 0
        stretch, kind, size = stretch + (own != kind), own, size + frame.samples
        held.append(frame)
    if held:
        yield _joined(held, stretch, delay)


def _joined(frames: list[Any], stretch: int, delay: int) -> Part:
    """Frames of one kind, without their first samples."""
    samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    if not frames[0].format.is_planar:  # 1 (t c) where planar samples are c t
        samples = samples.reshape(-1, frames[0].layout.nb_channels).T
    return Part(_as_float(samples.T[delay:]), int(frames[0].sample_rate), stretch)


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Integers of any width to [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    limits = np.iinfo(samples.dtype)
    middle, scale = (limits.max + limits.min + 1) / 2, (limits.max - limits.min + 1) / 2
    return ((samples - middle) / scale).astype(np.float32)


def _problem_of(part: Part) -> str:
    """Why samples are no sound; "" where they are."""
    if not LEAST_HZ <= part.rate_hz <= MOST_HZ:
        return f"its header says {part.rate_hz} Hz, which no recording of sound has"
    return "" if np.isfinite(part.samples).all() else "not-a-number or infinite samples"


def _partly(read: int, rate_hz: int, claimed: int) -> str:
    of = f" of {claimed / rate_hz:.1f} s" if claimed < MOST_CLAIMED else ""
    return f"damaged: only {read / rate_hz:.1f} s{of} can be read"


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
