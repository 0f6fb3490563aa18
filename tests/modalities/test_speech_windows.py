"""Long recordings in pieces: where they are cut, and what each piece has of what is known of the whole."""

import io
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.signal import resample_poly

from modalities.speech import Speech, resampling
from modalities.speech.audio import CANCELLED, LEAST_SOUND_S, Part, mono, sounds
from modalities.speech.resampling import Resampler
from modalities.speech.windows import QUIET, Known, Span, Windowing, cut, texts_of
from seqssl.data.fingerprint import describe
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.testing import adapter_checks

RATE = 1000  # of windows here; no frame is longer than a third of a window


@st.composite
def recordings(draw: st.DrawFn) -> tuple[np.ndarray, int, int, list[Span]]:
    """Samples with silent stretches, the longest piece, the frame, and labels that may overlap."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pcm = rng.integers(-3, 4, draw(st.integers(1, 300))) * draw(st.sampled_from([1, 9000]))
    for _ in range(draw(st.integers(0, 3))):
        start = int(rng.integers(len(pcm)))
        pcm[start : start + int(rng.integers(1, 120))] = int(rng.integers(-2, 3))
    longest = draw(st.integers(9, 80))
    frame = draw(st.integers(1, longest // 3))
    spans, step = [], draw(st.sampled_from([1, 6]))  # ends that are starts of others
    for _ in range(draw(st.integers(0, 40))):
        start = int(rng.integers(len(pcm))) // step * step
        end = min(len(pcm), start + step * int(rng.integers(1, 30 // step)))
        spans.append((start, end, f"label {len(spans)}"))
    return pcm.astype(np.int16), longest, frame, sorted(spans)


def slow_cut(pcm: np.ndarray, longest: int, frame: int, spans: Sequence[Span]) -> list[int]:
    """By the words of the docstring, moment by moment."""
    edges, third = [0], longest // 3
    while len(pcm) - edges[-1] > longest:
        allowed = []
        for place in range(edges[-1] + 1, len(pcm)):
            size, left = place - edges[-1], len(pcm) - place
            latest = min(longest, size + left - third)  # so that a third of a window is left
            if latest - third <= size <= latest:
                allowed.append(place)
        free = [place for place in allowed if not any(start < place < end for start, end, _ in spans)]

        def energy(place: int) -> int:
            around = [int(x) for x in pcm[place - frame // 2 :][:frame]]
            return sum((frame * x - sum(around)) ** 2 for x in around)

        energies = [energy(place) for place in free or allowed]
        least = [place for place, e in zip(free or allowed, energies, strict=True) if e == min(energies)]
        edges.append(least[len(least) // 2])
    return [*edges, len(pcm)]


@given(recordings())
def test_a_cut_is_at_the_quietest_moment_that_divides_no_label(given_: Any) -> None:
    pcm, longest, frame, spans = given_
    edges = cut(pcm, longest, frame, spans)
    assert edges == slow_cut(pcm, longest, frame, spans)
    sizes = [end - start for start, end in pairwise(edges)]
    assert (edges[0], edges[-1]) == (0, len(pcm))
    assert all(size <= longest for size in sizes)
    assert len(sizes) == 1 or min(sizes) >= longest // 3
    assert (len(sizes) == 1) == (len(pcm) <= longest)


def test_a_pause_is_found() -> None:
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, 1000, 100 * RATE).astype(np.int16)
    pcm[25 * RATE : 25 * RATE + 400] //= 100
    pcm += 3000  # a microphone's offset is no sound
    edges = cut(pcm, 30 * RATE, 50)
    assert 25 * RATE < edges[1] < 25 * RATE + 400


@pytest.mark.parametrize("quiet", sorted(QUIET))
def test_a_labelled_pause_may_be_divided_and_is_no_word(quiet: str) -> None:
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, 1000, 2 * RATE).astype(np.int16)
    pcm[1100:1300] //= 100
    spans = [(0, 1100, "ab"), (1100, 1300, quiet.upper()), (1300, 2 * RATE, "cd")]
    found = Windowing(1.5, 1.5).rows(pcm, RATE, "x", Known("x", label="Ab, cd."), spans, [])
    first, second = found.rows
    assert 1100 < first["length"] < 1300
    assert [row["label"] for row in (first, second)] == ["Ab,", "cd."]
    assert json.loads(second["segments"])[0] == [0, 1300 - first["length"], quiet.upper()]
    assert not found.notices


def heard(row: dict[str, Any]) -> np.ndarray:
    samples, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
    return np.asarray(samples)


@given(st.integers(0, 2**32), st.floats(1, 3), st.floats(0, 4), st.integers(200, 9000))
def test_pieces_are_the_recording_and_its_labels(
    seed: int, window_s: float, whole_s: float, size: int
) -> None:
    rng = np.random.default_rng(seed)
    pcm = rng.integers(-900, 900, size).astype(np.int16)
    start = int(rng.integers(size))
    pcm[start : start + int(rng.integers(5000))] = 7
    spans = sorted(
        (int(start), min(size, int(start) + int(rng.integers(1, 900))), f"w{start}")
        for start in rng.integers(size - 1, size=rng.integers(20))
    )
    windowing = Windowing(window_s, whole_s)
    known = Known("a.wav", label="x", label_column="label")
    least = LEAST_SOUND_S * RATE
    if sounds(pcm, RATE).sum() < 8 * least:  # in some piece there is more than the least then
        return
    found = windowing.rows(pcm, RATE, "a.wav", known, spans, ["odd"])
    again = windowing.rows(pcm, RATE, "a.wav", known, spans, ["odd"])
    assert found == again
    rows = [dict(row) for row in found.rows]
    if size <= max(window_s, whole_s) * RATE:
        assert [row["part"] for row in rows] == [""]
        assert set(rows[0]) == {"part", "length", "audio", "segments"}
        assert found.notices == ["odd"] and not found.quality and not found.readings
        return
    kept = np.zeros(size, bool)
    labelled = {label: np.zeros(size, int) for *_, label in spans}
    for row in rows:
        first = round(float(row["part"]) * RATE)
        last = first + row["length"]
        assert not kept[first:last].any()
        kept[first:last] = True
        np.testing.assert_array_equal(heard(row), pcm[first:last])
        assert window_s * RATE // 3 - 1 <= row["length"] <= round(window_s * RATE)
        assert sounds(pcm[first:last], RATE).sum() >= least
        assert row["group"] == "a.wav"
        assert "label" not in row, "a class is that of every piece"
        for start, end, label in json.loads(row["segments"]):
            assert 0 <= start < end <= row["length"]
            labelled[label][first + start : first + end] += 1
    dropped = found.quality["pieces"] - len(rows)
    heard_there = sounds(pcm, RATE)[~kept].sum()
    assert heard_there < least * dropped or not dropped, "what is left out is silence, or nearly"
    for label in labelled:
        wanted = np.zeros(size, int)
        for other_start, other_end, other in spans:
            wanted[other_start:other_end] += other == label
        np.testing.assert_array_equal(labelled[label][kept], wanted[kept])
    assert any("digital silence" in notice for notice in found.notices) == (dropped > 0)
    assert kept.all() == (dropped == 0)


WORDS = st.text("abcDE", min_size=1, max_size=3)


@given(
    st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=8),
    st.lists(st.integers(1, 60), max_size=4),
    st.integers(0, 2**32),
)
def test_words_go_where_they_are_said(said: list[list[str]], cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    spans, text, place = [], [], 0
    for words in said:
        place += int(rng.integers(0, 4))
        spans.append((place, place + int(rng.integers(1, 9)), " ".join(words)))
        place = spans[-1][1]
        text += [str(rng.choice([word, word.upper() + ",", f"-{word}", f"- {word}"])) for word in words]
    edges = sorted({0, *cuts, max(61, place + 2)})
    found = texts_of(" ".join(text), spans, edges)
    if not text:
        assert found is None
        return
    wanted = []
    for first, last in pairwise(edges):
        meets = [n for n, (start, end, _) in enumerate(spans) if start < last and end > first]
        whole = all(spans[n][0] >= first and spans[n][1] <= last for n in meets)
        numbers = [sum(len(words) for words in said[:n]) + k for n in meets for k in range(len(said[n]))]
        wanted.append(" ".join(text[number] for number in numbers) if whole else "")
    assert found == wanted
    assert texts_of(" ".join([*text, "..."]), spans, edges) is not None
    assert texts_of(" ".join([*text, "more"]), spans, edges) is None
    assert texts_of(" ".join(text[1:]), spans, edges) is None


@pytest.mark.parametrize(
    ("window_s", "whole_s"),
    [
        (0.5, 120.0), (0.0, 120.0), (-1.0, 120.0), (float("nan"), 120.0), (float("inf"), 120.0),
        (30.0, -1.0), (30.0, float("nan")),
    ],
)  # fmt: skip
def test_lengths_that_are_none(window_s: float, whole_s: float) -> None:
    with pytest.raises(ValueError, match=r"modality\.(window|whole)_s"):
        Speech(window_s=window_s, whole_s=whole_s)


def test_a_changed_length_makes_another_folder_and_the_usual_one_does_not() -> None:
    usual = describe(Speech())
    assert not {"window_s", "whole_s"} & {*usual}
    assert describe(Speech(window_s=30.0, whole_s=120.0)) == usual
    changed = [(20.0, 120.0), (None, 120.0), (30.0, 60.0), (20.0, 60.0)]
    names = [json.dumps(describe(Speech(window_s=own, whole_s=whole))) for own, whole in changed]
    assert len({*names, json.dumps(usual)}) == 5


# A folder

HZ = 16_000


def write(path: Path, seconds: float, seed: int = 0, *, silent: tuple[float, float] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * HZ))
    if silent:
        samples[round(silent[0] * HZ) : round(silent[1] * HZ)] = 0
    soundfile.write(path, samples, HZ)


def prepared(source: Path, **settings: Any) -> tuple[Corpus, list[dict[str, Any]]]:
    """With windows of a second from three on."""
    out = source.parent / f"out-{source.stem}{len(settings)}"
    prepare(
        Speech(**{"window_s": 1.0, "whole_s": 3.0, **settings}),
        source,
        out,
        modality="speech",
        num_workers=1,
        valid_share=0.4,
    )
    lines = (out / "quality.jsonl").read_text().splitlines() if (out / "quality.jsonl").exists() else []
    return Corpus(out), [json.loads(line) for line in lines]


def recording(key: str) -> str:
    return key.partition("#")[0]


def test_a_folder_of_long_recordings(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    write(source / "short.wav", 2.9)
    for number, name in enumerate(["one.wav", "two.flac", "three #2.wav"]):
        write(source / name, 4 + number, number)
    write(source / "gate.wav", 7, silent=(0.5, 6.5))
    write(source / "dead.wav", 5, silent=(0, 5))
    corpus, quality = prepared(source)
    rows = [corpus.row(number) for number in range(len(corpus))]
    by_file: dict[str, list[Any]] = {}
    for row in rows:
        by_file.setdefault(row["audio"]["path"], []).append(row)
    sizes = {name: sum(row["length"] for row in own) for name, own in by_file.items()}
    assert sizes.pop("gate.wav") < 3 * HZ
    assert sizes == {
        "short.wav": round(2.9 * HZ), "one.wav": 4 * HZ, "two.flac": 5 * HZ, "three #2.wav": 6 * HZ,
    }  # fmt: skip
    assert [row["key"] for row in by_file["short.wav"]] == ["short.wav"]
    assert [row["group"] for row in by_file["short.wav"]] == [""]
    for name, own in by_file.items():
        assert {row["group"] for row in own} == {name if name != "short.wav" else ""}
        assert len({row["split"] for row in own}) == 1, "pieces of one recording are never divided"
        assert all(row["key"].startswith(name) for row in own)
    assert {*corpus.splits} == {"train", "valid"}
    notices = " ".join(corpus.manifest.notices)
    assert "pieces are digital silence, and left out" in notices
    assert "no text" not in notices
    (reading,) = corpus.manifest.readings.items()
    assert reading == (
        "longer than 3 s, so cut at quiet moments into pieces of at most 1 s "
        "(modality.whole_s, modality.window_s)",
        4,
    )
    told = {line["path"]: (line["pieces"], line["kept"]) for line in quality}
    assert {*told} == {"one.wav", "two.flac", "three #2.wav", "gate.wav"}
    assert 2 <= told["gate.wav"][1] == len(by_file["gate.wav"]) < told["gate.wav"][0]
    assert "dead.wav" in (corpus.folder / "rejected.jsonl").read_text()
    whole, _ = prepared(source, window_s=None)
    assert len(whole) == 5 and not whole.manifest.readings


def test_known_speakers_stay_the_groups(tmp_path: Path) -> None:
    for speaker in ("anna", "ben"):
        for number in range(2):
            write(tmp_path / "raw" / speaker / f"{number}.wav", 4, number)
    corpus, _ = prepared(tmp_path / "raw")
    assert {*corpus.groups} == {"anna", "ben"}
    assert len(corpus) > 8


def test_each_file_can_be_a_group(tmp_path: Path) -> None:
    """As the docs say, for recordings of one speaker."""
    for number in range(3):
        write(tmp_path / "raw" / "anna" / f"{number}.wav", 4, number)
    assert {*prepared(tmp_path / "raw")[0].groups} == {"anna"}
    corpus, _ = prepared(tmp_path / "raw", group_pattern="([^/]+)$")
    assert {*corpus.groups} == {"0.wav", "1.wav", "2.wav"}


TEXT = "Hello there, it is me. Is it you? No - nobody is here at all."


def with_texts(source: Path, *, aligned: bool) -> None:
    """One recording of five seconds with a text, and one short one."""
    write(source / "long.wav", 5)
    write(source / "short.wav", 2, 1)
    (source / "long.txt").write_text(TEXT)
    (source / "short.txt").write_text("Good night.")
    if aligned:
        words = TEXT.replace("-", "").split()
        lines = [f"long 1 {0.1 + n * 4.8 / len(words):.3f} {3.6 / len(words):.3f} {w.strip('.,?').upper()}"
                 for n, w in enumerate(words)]  # fmt: skip
        (source / "words.ctm").write_text("\n".join(lines))


def test_a_text_of_all_of_a_recording_is_of_no_piece(tmp_path: Path) -> None:
    with_texts(tmp_path / "raw", aligned=False)
    corpus, _ = prepared(tmp_path / "raw")
    labels = {str(key): str(label) for key, label in zip(corpus.keys, corpus.labels, strict=True)}
    assert labels.pop("short.wav") == "Good night."
    assert len(labels) > 4 and {*labels.values()} == {""}
    (notice,) = [notice for notice in corpus.manifest.notices if "no text" in notice]
    assert "modality.window_s=null" in notice and corpus.manifest.notices[notice] == 1
    kept, _ = prepared(tmp_path / "raw", window_s=None)  # as the notice says
    assert {*kept.labels} == {TEXT, "Good night."}


def test_a_text_is_divided_by_the_times_of_its_words(tmp_path: Path) -> None:
    with_texts(tmp_path / "raw", aligned=True)
    corpus, _ = prepared(tmp_path / "raw")
    pieces = [corpus.row(number) for number in range(len(corpus)) if corpus.keys[number] != "short.wav"]
    assert len(pieces) > 4
    assert " ".join(piece["label"] for piece in pieces) == TEXT
    for piece in pieces:
        words = [label for *_, label in json.loads(piece["segments"])]
        assert [word.strip(".,?").upper() for word in piece["label"].split() if word != "-"] == words
    assert not [notice for notice in corpus.manifest.notices if "no text" in notice]


def test_stretches_and_classes_of_a_table(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    write(source / "a.wav", 9)
    long_text = " ".join(["word"] * 11)
    (source / "metadata.csv").write_text(
        "file_name,start,end,label,speaker\n"
        "a.wav,0,4.5,rain,anna\na.wav,4.5,6,wind,ben\n"
        f"a.wav,1,8,{long_text},carl\na.wav,2,7,snow,\n"
    )
    corpus, _ = prepared(source)
    rows = [corpus.row(number) for number in range(len(corpus))]
    found = {(recording(row["key"]), row["label"], row["group"]) for row in rows}
    assert found == {
        ("a.wav/0-4.5", "rain", "anna"),
        ("a.wav/4.5-6", "wind", "ben"),
        ("a.wav/1-8", "", "carl"),
        ("a.wav/2-7", "snow", "a.wav"),
    }
    samples, _ = soundfile.read(source / "a.wav", dtype="int16")
    cut_ones = [row for row in rows if row["key"].startswith("a.wav/0-4.5")]
    np.testing.assert_array_equal(
        np.concatenate([heard(row) for row in cut_ones]), samples[: round(4.5 * HZ)]
    )


def test_sounds_in_a_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    sounds_ = [np.random.default_rng(n).normal(0, 0.1, HZ * n).astype(np.float32) for n in (2, 5)]
    cells = [{"array": sound.tolist(), "sampling_rate": HZ, "bytes": None, "path": ""} for sound in sounds_]
    pq.write_table(pa.table({"audio": cells, "label": [3, 4]}), tmp_path / "raw" / "train.parquet")
    corpus, _ = prepared(tmp_path / "raw")
    assert {recording(str(key)) for key in corpus.keys} == {"train.parquet/0/0", "train.parquet/0/1"}
    assert corpus.labels.tolist() == ["3"] + ["4"] * (len(corpus) - 1)
    assert corpus.groups.tolist() == [""] + ["train.parquet/0/1"] * (len(corpus) - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("raw")
    write(source / "short.wav", 1)
    write(source / "one.wav", 4, 1, silent=(2, 2.3))
    write(source / "two.wav", 5, 2)
    (source / "one.lab").write_text("0 1.2 a\n1.2 2.5 b\n")
    (source / "two.txt").write_text("What was said.")
    return source


@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name: str, check: Any, folder: Path) -> None:
    check(Speech(window_s=1.5, whole_s=2.0, num_bins=20, conv_channels=4), folder)


# In parts, so that little is held

RATES = st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 44_056, 48_000, 7919])


@given(RATES, RATES, st.lists(st.integers(0, 400), max_size=12), st.integers(1, 300), st.integers(0, 99))
def test_parts_are_resampled_as_the_whole(
    from_hz: int, to_hz: int, sizes: list[int], block: int, seed: int
) -> None:
    parts = [
        np.random.default_rng([seed, n]).normal(size=size).astype(np.float32) for n, size in enumerate(sizes)
    ]
    whole = np.concatenate([np.zeros(0, np.float32), *parts])
    resampler = Resampler(from_hz, to_hz)
    with mock.patch.object(resampling, "BLOCK", block):
        found = [piece for part in parts for piece in resampler.add(part)] + resampler.end()
    wanted = whole
    if resampler.up != resampler.down and len(whole):
        wanted = resample_poly(whole, resampler.up, resampler.down)
    np.testing.assert_array_equal(np.concatenate([np.zeros(0, np.float32), *found]), wanted)


FLAT = st.tuples(st.integers(-(2**15), 2**15 - 1), st.integers(1, 600))


@given(RATES, RATES, st.lists(FLAT, min_size=1, max_size=5), st.integers(1, 300), st.integers(0, 99))
@example(44_056, 8000, [(0, 600), (1, 152)], 1, 1)
def test_a_stretch_of_one_value_stays_one_whatever_the_parts(
    from_hz: int, to_hz: int, flats: list[tuple[int, int]], block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    noises = [rng.integers(-900, 900, rng.integers(2) * rng.integers(50)) for _ in flats]
    stretches = [
        x for (value, size), noise in zip(flats, noises, strict=True) for x in ([value] * size, noise)
    ]
    whole = (np.concatenate(stretches) / 2**15).astype(np.float32)
    resampler = Resampler(from_hz, to_hz)
    cuts = np.sort(rng.integers(0, len(whole) + 1, 4))
    with mock.patch.object(resampling, "BLOCK", block):
        parts = [piece for part in np.split(whole, cuts) for piece in resampler.add(part)]
        found = np.concatenate(parts + resampler.end())
    once = Resampler(from_hz, to_hz)
    np.testing.assert_array_equal(found, np.concatenate(once.add(whole) + once.end()))
    if resampler.up == resampler.down:
        return
    wanted = resample_poly(whole, resampler.up, resampler.down)
    half = 10 * max(resampler.up, resampler.down) / resampler.up  # of the filter, in samples of the input
    for place in rng.integers(0, len(found), 60).tolist():
        middle = place * resampler.down / resampler.up
        wide, narrow = (
            whole[max(0, math.ceil(middle - reach)) : math.floor(middle + reach) + 1]
            for reach in (half + 1, half - 1e-6)
        )
        if (wide == wide[0]).all() and len(wide) > 2 * half:
            assert found[place] == wide[0], place
        if not (narrow == narrow[0]).all():
            assert found[place] == wanted[place], place


def resampled(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """By scipy, at once."""
    by = Resampler(rate_hz, HZ)
    return samples if by.up == by.down else np.asarray(resample_poly(samples, by.up, by.down))


STRETCHES = st.tuples(RATES, st.integers(1, 3), st.lists(st.integers(1, 90), min_size=1, max_size=5))


@given(
    st.lists(STRETCHES, min_size=1, max_size=3),
    st.sampled_from([0.1, 3.0]),
    st.booleans(),
    st.integers(0, 99),
)
def test_parts_are_mixed_as_the_whole(
    stretches: list[tuple[int, int, list[int]]], level: float, cancel: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    parts, wanted = [], []
    for number, (rate_hz, channels, sizes) in enumerate(stretches):
        samples = rng.normal(0, level, (sum(sizes), channels)).astype(np.float32)
        if cancel and channels == 2:
            samples[:, 1] = samples[:, 0] * np.float32(-1.001)
        ends = np.cumsum(sizes)
        parts += [Part(piece, rate_hz, number) for piece in np.split(samples, ends[:-1])]
        mixed = samples.mean(axis=1)
        energy = np.square(samples, dtype=np.float64).mean(axis=0)
        if channels > 1 and np.square(mixed, dtype=np.float64).mean() < CANCELLED * energy.mean():
            mixed = samples[:, energy.argmax()]
        wanted.append(resampled(mixed, rate_hz))
    whole = np.concatenate(wanted)
    whole = whole / max(1.0, float(np.abs(whole).max()))
    sound = mono(lambda: iter(parts), HZ)
    np.testing.assert_array_equal(sound.pcm, np.rint(whole * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2"))
    assert sound.source_hz == stretches[0][0]
    cancels = cancel and any(channels == 2 for _, channels, _ in stretches)
    assert bool(sound.notices) == cancels


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_sound_is_told_whichever_part_it_is_in(bad: float) -> None:
    parts = [Part(np.zeros((9, 2), np.float32), HZ), Part(np.full((9, 2), bad, np.float32), HZ)]
    for order in (parts, parts[::-1]):
        with pytest.raises(ValueError, match="not-a-number"):
            mono(lambda order=order: iter(order), HZ)
    with pytest.raises(ValueError, match="999 Hz"):
        mono(lambda: iter([Part(np.zeros((9, 1), np.float32), 999)]), HZ)
