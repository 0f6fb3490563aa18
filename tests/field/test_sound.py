"""D: a sound is what its file holds up to its end; a header's length, rate and channels are claims."""

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from field import Prepared, prepare

RATE = 16_000


def sine(hz: float, seconds: float, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def encoded(sound: np.ndarray, suffix: str, codec: str, rate: int = RATE, **options: str) -> bytes:
    """A mono sound in a container, by FFmpeg's encoders."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=suffix) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.layout = "mono"
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(part):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return buffer.getvalue()


def vorbis(sound: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, RATE, format="OGG", subtype="VORBIS")
    return buffer.getvalue()


def heard(found: Prepared, name: str) -> np.ndarray:
    (row,) = [row for row in found.rows if row["key"].startswith(name)]
    return np.frombuffer(row["audio"]["bytes"], "<i2", offset=44) / 32768


def tones(sound: np.ndarray) -> set[int]:
    pieces = sound[: len(sound) // 8000 * 8000].reshape(-1, 8000) * np.hanning(8000)
    return {int(round(peak, -1)) for peak in np.abs(np.fft.rfft(pieces)).argmax(axis=1) * 2}


def wav(sound: np.ndarray, rate: int = RATE) -> bytearray:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format="WAV", subtype="PCM_16")
    return bytearray(buffer.getvalue())


def test_joined_and_headless_files_are_read_to_their_end(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    two = encoded(sine(400, 2), "mp3", "libmp3lame", b="64000")
    (source / "joined.mp3").write_bytes(two * 3)
    (source / "rates.mp3").write_bytes(two + encoded(sine(400, 3, 24_000), "mp3", "libmp3lame", 24_000))
    (source / "chained.ogg").write_bytes(vorbis(sine(400, 2)) + vorbis(sine(400, 3)))
    (source / "opus.opus").write_bytes(encoded(sine(400, 2, 48_000), "ogg", "libopus", 48_000) * 2)
    (source / "rates.aac").write_bytes(
        encoded(sine(400, 2), "adts", "aac") + encoded(sine(400, 3, 48_000), "adts", "aac", 48_000)
    )
    found = prepare("speech", source)
    for name, seconds in {
        "joined": 6.0,
        "rates.mp3": 5.0,
        "chained": 5.0,
        "rates.aac": 5.0,
        "opus": 4.0,
    }.items():
        told = [reason for path, reason in found.rejected.items() if path.startswith(name)]
        if told:  # a decoder that cannot go on says so
            assert "s can be read" in told[0] or "damaged" in told[0], told
            continue
        sound = heard(found, name)
        assert seconds - 0.1 < len(sound) / RATE < seconds + 0.4, (name, len(sound) / RATE)
        assert tones(sound) <= {390, 400, 410}, name


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 100, 10**6])
def test_a_wav_whose_header_tells_another_length(tmp_path: Path, size: int) -> None:
    source = tmp_path / "in"
    source.mkdir()
    data = wav(sine(400, 2))
    data[40:44] = struct.pack("<I", size)
    (source / "a.wav").write_bytes(data)
    (source / "b.wav").write_bytes(wav(sine(300, 1)))
    found = prepare("speech", source)
    if "a.wav" in found.rejected:
        assert size == 100 and "shorter than" in found.rejected["a.wav"]
        return
    assert len(heard(found, "a.wav")) / RATE == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("rate", [1, 7, 500, 2_000_000])
def test_a_rate_that_no_recording_has(tmp_path: Path, rate: int) -> None:
    source = tmp_path / "in"
    source.mkdir()
    data = wav(sine(400, 1))
    data[24:28] = struct.pack("<I", rate)
    (source / "a.wav").write_bytes(data)
    (source / "b.wav").write_bytes(wav(sine(300, 1)))
    found = prepare("speech", source)
    assert f"its header says {rate} Hz" in found.rejected["a.wav"] and len(found.rows) == 1


@pytest.mark.parametrize("rate", [44_056, 22_254, 11_127, 96_001, 999_983])
def test_odd_rates_keep_pitch_and_length(tmp_path: Path, rate: int) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.wav").write_bytes(wav(sine(400, 2, rate), rate))
    sound = heard(prepare("speech", source), "a.wav")
    assert len(sound) / RATE == pytest.approx(2.0, abs=0.01) and tones(sound) == {400}


def test_channels_that_cancel(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    left = sine(400, 1)
    soundfile.write(source / "a.wav", np.stack([left, -left], axis=1), RATE)
    soundfile.write(source / "b.wav", np.stack([left, -0.99 * left], axis=1), RATE)
    soundfile.write(source / "c.wav", np.stack([left, 0.5 * left], axis=1), RATE)
    found = prepare("speech", source)
    for name, level in {"a": 0.3, "b": 0.3, "c": 0.225}.items():
        assert np.abs(heard(found, name)).max() == pytest.approx(level, abs=0.01), name
    assert "its channels cancel each other" in found.said


def test_content_decides_where_the_name_is_wrong(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "aac.mp3").write_bytes(encoded(sine(400, 2), "adts", "aac"))
    (source / "mp3.wav").write_bytes(encoded(sine(400, 2), "mp3", "libmp3lame"))
    (source / "wav.mp3").write_bytes(wav(sine(400, 2)))
    (source / "flac.ogg").write_bytes(encoded(sine(400, 2), "flac", "flac"))
    found = prepare("speech", source)
    assert len(found.rows) == 4, found.rejected
    assert all(1.9 < row["length"] / RATE < 2.2 for row in found.rows)


def test_a_flac_without_a_length(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    buffer = io.BytesIO()
    soundfile.write(buffer, sine(400, 2), RATE, format="FLAC", subtype="PCM_16")
    data = bytearray(buffer.getvalue())
    data[21] &= 0xF0  # the 36 bits of the number of samples in STREAMINFO
    data[22:26] = bytes(4)
    (source / "a.flac").write_bytes(data)
    assert len(heard(prepare("speech", source), "a.flac")) / RATE == pytest.approx(2.0, abs=0.01)


def test_a_file_cut_in_the_middle_says_how_much_could_be_read(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    buffer = io.BytesIO()
    soundfile.write(
        buffer, 0.1 * np.random.default_rng(0).normal(size=160_000), RATE, format="FLAC", subtype="PCM_16"
    )
    data = buffer.getvalue()
    (source / "cut.flac").write_bytes(data[: len(data) // 2])
    (source / "b.wav").write_bytes(wav(sine(300, 1)))
    found = prepare("speech", source)
    if "cut.flac" in found.rejected:
        assert "can be read" in found.rejected["cut.flac"] or "damaged" in found.rejected["cut.flac"]
    else:
        assert "its header says 10.0 s" in found.said


ALAW_SILENCE = 8 / 32768  # what A-law has instead of 0
SILENCES = {
    "a-law": ([0.0], 8000, "ALAW"),
    "8000": ([0.25], 8000, "PCM_16"),
    "11025": ([0.25], 11_025, "PCM_16"),
    "22050": ([-0.25], 22_050, "PCM_24"),
    "two": ([0.0, ALAW_SILENCE], RATE, "PCM_16"),
    "two at 8000": ([0.0, ALAW_SILENCE, 0.25], 8000, "PCM_16"),
}


@pytest.mark.parametrize("kind", SILENCES)
def test_silence_of_any_value_and_rate_is_refused(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    values, rate, subtype = SILENCES[kind]
    soundfile.write(source / "a.wav", np.repeat(values, 3 * rate), rate, subtype=subtype)
    soundfile.write(source / "b.wav", sine(300, 1), RATE)
    found = prepare("speech", source)
    assert found.rejected == {"a.wav": "digital silence"} and len(found.rows) == 1


def test_a_click_between_silences_is_no_sound_and_a_short_recording_is(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    click = np.zeros(2 * RATE)
    click[RATE : RATE + 50] = sine(3000, 50 / RATE)
    (source / "click.wav").write_bytes(wav(click))
    (source / "short.wav").write_bytes(wav(sine(300, 0.02)))
    (source / "word.wav").write_bytes(wav(np.concatenate([np.zeros(RATE), sine(300, 0.1), np.zeros(RATE)])))
    found = prepare("speech", source, "modality.min_seconds=0.01")
    assert found.rejected == {"click.wav": "digital silence"}
    assert {row["key"] for row in found.rows} == {"short.wav", "word.wav"}


def test_pieces_of_silence_behind_a_voice_are_left_out_at_any_rate(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    voice = 0.1 * np.random.default_rng(0).normal(size=5 * 8000)
    sound = np.concatenate([np.zeros(5 * 8000), voice, np.zeros(20 * 8000)])
    soundfile.write(source / "a.wav", sound, 8000, subtype="ALAW")
    found = prepare("speech", source, "modality.window_s=3", "modality.whole_s=3")
    starts = [float(row["key"].partition("#")[2]) for row in found.rows]
    ends = [start + row["length"] / RATE for start, row in zip(starts, found.rows, strict=True)]
    assert min(ends) > 5 and max(starts) < 10, "each piece has something of the voice"
    assert "pieces are digital silence, and left out" in found.message + str(found.quality)
