import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from modalities.speech import WAV_HEADER_BYTES, LogMelEncoder, Speech, mel_filters
from modalities.speech.audio import sounds
from seqssl import Record, Rejected, UserError
from seqssl.data.prepare import prepare
from seqssl.data.problems import problem_of
from seqssl.data.shards import Corpus
from seqssl.testing import adapter_checks, feature_encoder_checks

RATE = 16_000


def tone(seconds=0.5, rate_hz=RATE, hz=440.0, amplitude=0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def write_audio(path: Path, samples=None, rate_hz=RATE, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(rate_hz=rate_hz) if samples is None else samples, rate_hz, **options)
    return path


def prepared(source: Path, out: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Rows by key, and reasons by path."""
    prepare(Speech(), source, out, modality="speech", split_by="record", num_workers=1)
    corpus = Corpus(out)
    rows = {row["key"]: row for row in map(corpus.row, range(len(corpus)))}
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    return rows, {line["path"]: line["reason"] for line in lines}


def loaded(row) -> np.ndarray:
    return Speech().load(row, None).values


def peak_hz(samples: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * RATE / len(samples)


@pytest.fixture
def folder(tmp_path) -> Path:
    for speaker in ("anna", "ben"):
        for number in range(3):
            write_audio(
                tmp_path / "raw" / speaker / f"{number}.wav", tone(0.3 + number / 10, hz=300 + 50 * number)
            )
    return tmp_path / "raw"


@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, folder):
    check(Speech(num_bins=20, conv_channels=4), folder)


@pytest.mark.parametrize("name, check", feature_encoder_checks())
def test_log_mel_keeps_the_feature_encoder_contract(name, check):
    torch.manual_seed(0)
    check(LogMelEncoder(num_bins=20, conv_channels=4), Speech().spec)


class TestGoodInput:
    @pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
    def test_common_formats(self, folder, tmp_path, suffix):
        write_audio(folder / "anna" / f"other.{suffix}")
        rows, reasons = prepared(folder, tmp_path / "out")
        assert not reasons
        assert peak_hz(loaded(rows[f"anna/other.{suffix}"])) == pytest.approx(440, abs=4)

    @pytest.mark.parametrize(
        "suffix, codec, rate_hz",
        [
            ("m4a", "aac", 44_100),
            ("webm", "libopus", 48_000),
            ("mka", "pcm_u8", 8_000),
            ("mov", "pcm_s16le", 16_000),
        ],
    )
    def test_other_containers(self, folder, tmp_path, suffix, codec, rate_hz):
        encode(folder / f"other.{suffix}", codec, tone(1.0, rate_hz), rate_hz)
        rows, reasons = prepared(folder, tmp_path / "out")
        assert not reasons
        samples = loaded(rows[f"other.{suffix}"])
        assert peak_hz(samples) == pytest.approx(440, abs=4)
        assert len(samples) == pytest.approx(RATE, rel=0.1)

    def test_g722_without_its_delay(self, folder, tmp_path):
        samples = tone(1.0, hz=300)
        encode(folder / "anna" / "digits" / "7.g722", "g722", samples, RATE, container="g722")
        rows, _ = prepared(folder, tmp_path / "out")
        row = rows["anna/digits/7.g722"]
        assert (row["group"], row["label"]) == ("anna", "digits/7")
        decoded = loaded(row)
        shifts = {
            shift: np.dot(decoded[100:8000], samples[100 + shift : 8000 + shift]) for shift in range(-9, 10)
        }
        assert max(shifts, key=shifts.__getitem__) == pytest.approx(0, abs=1)

    def test_16_bit_samples_are_kept_bit_for_bit(self, folder, tmp_path):
        pcm = np.random.default_rng(0).integers(-(2**15), 2**15, 8000).astype(np.int16)
        write_audio(folder / "exact.wav", pcm)
        rows, _ = prepared(folder, tmp_path / "out")
        row = rows["exact.wav"]
        assert row["length"] == 8000
        np.testing.assert_array_equal(loaded(row) * 2**15, pcm)
        stored, rate_hz = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        assert rate_hz == RATE
        np.testing.assert_array_equal(stored, pcm)

    def test_stereo_44100_is_mixed_and_resampled(self, folder, tmp_path):
        stereo = np.stack([tone(1.0, 44_100, 500.0, 0.4), tone(1.0, 44_100, 500.0, 0.2)], axis=1)
        write_audio(folder / "stereo.wav", stereo, 44_100)
        rows, _ = prepared(folder, tmp_path / "out")
        samples = loaded(rows["stereo.wav"])
        assert len(samples) == RATE
        assert peak_hz(samples) == pytest.approx(500, abs=1)
        assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.3, abs=0.01)

    def test_8000_is_resampled(self, folder, tmp_path):
        write_audio(folder / "phone.wav", tone(1.0, 8000, 700.0), 8000)
        rows, _ = prepared(folder, tmp_path / "out")
        samples = loaded(rows["phone.wav"])
        assert len(samples) == RATE
        assert peak_hz(samples) == pytest.approx(700, abs=1)

    def test_float_beyond_full_scale_is_scaled_not_clipped(self, folder, tmp_path):
        write_audio(folder / "loud.wav", tone(0.5, amplitude=3.0), subtype="FLOAT")
        rows, _ = prepared(folder, tmp_path / "out")
        spectrum = np.abs(np.fft.rfft(loaded(rows["loud.wav"])))
        assert spectrum.max() ** 2 / (spectrum**2).sum() > 0.99

    def test_a_truncated_wav_gives_what_is_there(self, folder, tmp_path):
        whole = write_audio(tmp_path / "whole.wav", tone(1.0)).read_bytes()
        (folder / "cut.wav").write_bytes(whole[: 44 + 2 * 4000])
        (folder / "stub.wav").write_bytes(whole[: 44 + 2 * 100])
        (folder / "header.wav").write_bytes(whole[:30])
        rows, reasons = prepared(folder, tmp_path / "out")
        assert rows["cut.wav"]["length"] == 4000
        assert reasons["stub.wav"] == "shorter than 0.1 s"
        assert reasons["header.wav"].startswith("not readable as wav audio")

    def test_settings_of_the_feature_encoder_share_one_prepared_folder(self, folder, tmp_path):
        options = {"modality": "speech", "num_workers": 1}
        manifest = prepare(Speech(), folder, tmp_path / "out", **options)
        assert prepare(Speech(num_bins=40, conv_channels=8), folder, tmp_path / "out", **options) == manifest
        with pytest.raises(UserError, match="another prepared corpus"):
            prepare(Speech(min_seconds=0.2), folder, tmp_path / "out", **options)

    def test_a_single_file(self, folder, tmp_path):
        rows, _ = prepared(folder / "ben" / "2.wav", tmp_path / "out")
        assert list(rows) == ["2.wav"]


class TestBadInput:
    def test_each_gets_its_reason(self, folder, tmp_path):
        (folder / "empty.wav").touch()
        (folder / "text.wav").write_text("This is no audio. " * 50)
        (folder / "text.mp4").write_text("This is no audio. " * 50)
        write_audio(folder / "none.wav", np.zeros(0))
        write_audio(folder / "short.wav", tone(0.05))
        write_audio(folder / "silence.wav", np.zeros(8000))
        holes = tone()
        holes[100] = np.nan
        write_audio(folder / "holes.wav", holes, subtype="FLOAT")
        (folder / "notes.pdf").write_text("not looked at")
        rows, reasons = prepared(folder, tmp_path / "out")
        assert len(rows) == 6
        assert {path: reason.split(":")[0] for path, reason in reasons.items()} == {
            "empty.wav": "the file is empty",
            "text.wav": "not readable as wav audio",
            "text.mp4": "not readable as mp4 audio",
            "none.wav": "not readable as wav audio",
            "short.wav": "shorter than 0.1 s",
            "silence.wav": "digital silence",
            "holes.wav": "not-a-number or infinite samples",
        }

    def test_a_container_without_pyav_names_the_extra(self, folder, tmp_path, monkeypatch):
        (folder / "talk.m4a").write_bytes(b"x")
        monkeypatch.setitem(sys.modules, "av", None)
        _, reasons = prepared(folder, tmp_path / "out")
        assert "pip install 'seqssl[audio]'" in reasons["talk.m4a"]

    def test_prompts_without_speech_are_dropped_by_name(self, tmp_path):
        names = ["beep", "silence/1", "confbridge-leave", "letters/a", "confbridge-leave-in", "tt-weasels"]
        for name in names:
            path = tmp_path / "voice" / f"{name}.g722"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\0" * 8000)
        found = list(Speech().records(tmp_path, "all"))
        dropped = {Path(row.path).stem for row in found if isinstance(row, Rejected)}
        assert dropped == {"beep", "1", "confbridge-leave"}
        assert {row.label for row in found if isinstance(row, Record)} == set(names[3:])

    def test_a_folder_without_audio_is_told(self, tmp_path):
        (tmp_path / "raw").mkdir()
        with pytest.raises(UserError, match="Nothing in"):
            prepared(tmp_path / "raw", tmp_path / "out")
        with pytest.raises(UserError, match="no file or folder"):
            prepared(tmp_path / "nowhere", tmp_path / "out")


class TestDigitalSilence:
    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), min_size=1, max_size=20))
    def test_is_long_stretches_of_one_value(self, stretches):
        values = np.array([value for value, size in stretches for _ in range(size)])
        expected = np.ones(len(values), bool)
        for first in range(len(values)):
            for last in range(first + 11, len(values) + 1):
                if len({*values[first:last].tolist()}) == 1:
                    expected[first:last] = False
        assert sounds(values, 200).tolist() == expected.tolist()

    @given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 400)), min_size=1, max_size=8))
    def test_of_any_value_is_missing_and_0(self, stretches):
        """Telephone codes decode silence to 8, and a sensor's offset stands still at any value."""
        pcm = np.array([1, *(value for value, size in stretches for _ in range(size))], np.int16)
        row = {"audio": {"bytes": bytes(WAV_HEADER_BYTES) + pcm.tobytes()}, "label": "", "group": ""}
        speech = Speech(rate_hz=1000)
        sample = speech.load(row, None)
        assert problem_of(sample, speech.spec, len(pcm)) in ("", "nothing in it is observed")
        np.testing.assert_array_equal(
            sample.values, np.where(sounds(pcm, 1000), pcm / 2.0**15, 0).astype(np.float32)
        )

    def test_is_missing_and_the_sound_beside_it_is_not(self, tmp_path):
        (tmp_path / "raw" / "anna").mkdir(parents=True)
        padded = np.concatenate([np.zeros(8000), tone(0.5), np.zeros(16000)])
        write_audio(tmp_path / "raw" / "anna" / "1.wav", padded)
        record = next(iter(Speech().records(tmp_path / "raw", "all")))
        sample = Speech().load({"label": "", "group": "", **record.read().rows[0]}, None)
        known = np.flatnonzero(sample.observed)
        assert len(sample.values) == len(padded)
        assert known.min() == pytest.approx(8000, abs=2) and known.max() == pytest.approx(15999, abs=2)
        assert len(known) == pytest.approx(8000, abs=4)


class TestLabelsAndGroups:
    def test_folder_is_the_speaker_and_text_beside_is_the_label(self, folder):
        (folder / "anna" / "1.txt").write_text(" good morning\n")
        records = {row.key: row for row in Speech().records(folder, "all")}
        assert records["anna/1.wav"].group == "anna"
        assert records["anna/1.wav"].label == "good morning"
        assert records["ben/1.wav"].label == ""

    def test_librispeech(self, tmp_path):
        for chapter in ("84/121", "84/122", "85/7"):
            name = chapter.replace("/", "-")
            write_audio(tmp_path / "dev-clean" / chapter / f"{name}-0000.flac")
            lines = f"{name}-0000 SOME WORDS OF {name}\n"
            (tmp_path / "dev-clean" / chapter / f"{name}.trans.txt").write_text(lines)
        for root in (tmp_path, tmp_path / "dev-clean"):
            records = list(Speech().records(root, "all"))
            assert [row.group for row in records] == ["84", "84", "85"]
            assert records[2].label == "SOME WORDS OF 85-7"

    @pytest.mark.parametrize(
        "name, separator", [("metadata.csv", ","), ("metadata.tsv", "\t"), ("list.csv", ",")]
    )
    def test_a_table_of_paths(self, folder, name, separator):
        lines = [
            ["path", "sentence", "client_id", "split"],
            ["anna/0.wav", "hello there", "s1", "train"],
            ["ben/1.wav", "hi", "s2", "dev"],
            ["ben/9.wav", "gone", "s2", "train"],
        ]
        (folder / name).write_text("\n".join(separator.join(line) for line in lines))
        source = folder if name.startswith("metadata") else folder / name
        found = list(Speech().records(source, "all"))
        assert [(row.key, row.label, row.group, row.split) for row in found[:2]] == [
            ("anna/0.wav", "hello there", "s1", "train"),
            ("ben/1.wav", "hi", "s2", "valid"),
        ]
        assert found[2] == Rejected("ben/9.wav", f"the file that {name} names is missing")
        assert [row.key for row in Speech().records(source, "valid")] == ["ben/1.wav"]

    def test_a_table_without_paths_is_told(self, tmp_path):
        (tmp_path / "list.csv").write_text("name,text\na,b\n")
        with pytest.raises(UserError, match="no column of file paths"):
            list(Speech().records(tmp_path / "list.csv", "all"))

    def test_a_damaged_parquet_file_is_told(self, tmp_path):
        (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(UserError, match="cannot be read"):
            prepared(tmp_path / "train.parquet", tmp_path / "out")

    def test_parquet_in_the_layout_of_hf_datasets(self, folder, tmp_path):
        cells = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(folder.rglob("*.wav"))]
        cells.append({"bytes": b"junk", "path": None})
        texts = [f"text {number}" for number in range(len(cells))]
        speakers = [number // 4 for number in range(len(cells))]
        table = pa.table({"audio": cells, "text": texts, "speaker_id": speakers})
        pq.write_table(table, tmp_path / "train.parquet", row_group_size=3)
        rows, reasons = prepared(tmp_path / "train.parquet", tmp_path / "out")
        assert len(rows) == 6
        row = rows["train.parquet/1/1"]
        assert (row["label"], row["group"]) == ("text 4", "1")
        assert row["length"] == round(0.4 * RATE)
        assert list(reasons) == ["train.parquet/2/0"]

    def test_what_we_write_can_be_read_as_a_source(self, folder, tmp_path):
        rows, _ = prepared(folder, tmp_path / "out")
        again, _ = prepared(tmp_path / "out" / "shard-00000.parquet", tmp_path / "again")
        assert [row["audio"]["bytes"] for row in again.values()] == [
            row["audio"]["bytes"] for row in rows.values()
        ]


class TestLogMel:
    def test_agrees_with_transformers(self):
        from transformers.audio_utils import mel_filter_bank, spectrogram

        samples = np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.1
        filters = mel_filter_bank(
            257, 80, 20.0, 8000.0, RATE, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
        )
        np.testing.assert_allclose(mel_filters(80, fft_length=512, rate_hz=RATE), filters, atol=1e-5)
        theirs = spectrogram(
            samples,
            np.hanning(400),
            frame_length=400,
            hop_length=160,
            fft_length=512,
            power=2.0,
            center=False,
            mel_filters=filters,
        )
        ours = LogMelEncoder().log_mel(torch.from_numpy(samples)[None], torch.tensor([RATE]))[0]
        np.testing.assert_allclose(ours.numpy(), np.log(theirs.T + 1e-6), atol=1e-3)

    @pytest.mark.parametrize("num_bins, rate_hz", [(80, 16_000), (40, 16_000), (80, 8_000), (128, 24_000)])
    def test_every_band_hears_something(self, num_bins, rate_hz):
        fft_length = 2 ** math.ceil(math.log2(0.025 * rate_hz))
        filters = mel_filters(num_bins, fft_length=fft_length, rate_hz=rate_hz)
        assert (filters.sum(axis=0) > 0).all()

    def test_frames_of_every_length(self):
        encoder = LogMelEncoder(num_bins=8, conv_channels=2)
        lengths = torch.tensor([*range(1, 30), *range(380, 420), *range(540, 580), 1039, 1040, 1041, 2000])
        inputs = torch.randn(len(lengths), 2000)
        whole = encoder(inputs, lengths)
        assert torch.equal(whole.lengths, encoder.output_lengths(lengths))
        for row, length in enumerate(lengths.tolist()):
            alone = encoder(inputs[row : row + 1, :length], lengths[row : row + 1])
            assert alone.x.shape[1] == int(alone.lengths[0]) == int(whole.lengths[row])
            torch.testing.assert_close(whole.x[row, : alone.x.shape[1]], alone.x[0], rtol=1e-4, atol=1e-5)

    def test_is_computed_in_float32_under_autocast(self):
        encoder = LogMelEncoder(num_bins=8, conv_channels=2)
        inputs, lengths = torch.randn(1, 4000), torch.tensor([4000])
        expected = encoder.log_mel(inputs, lengths)
        seen = []
        encoder.subsampling.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
        with torch.autocast("cpu", torch.bfloat16):
            encoder(inputs, lengths)
        torch.testing.assert_close(seen[0], (expected - encoder.mean) / encoder.std)

    def test_constants_are_no_parameters_and_not_stored(self):
        encoder = LogMelEncoder()
        assert all(name.startswith("subsampling") for name in encoder.state_dict())

    def test_speech_like_noise_is_about_normalized(self):
        noise = torch.randn(1, RATE) * 0.02
        encoder = LogMelEncoder()
        mel = (encoder.log_mel(noise, torch.tensor([RATE])) - encoder.mean) / encoder.std
        assert mel.mean().abs() < 2
        assert mel.std() < 2


def encode(path: Path, codec: str, samples: np.ndarray, rate_hz: int, container: str | None = None) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate_hz, layout="mono")
        pcm = np.round(samples * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=stream.format.name, layout="mono", rate=rate_hz, frame_size=stream.frame_size or 320
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
