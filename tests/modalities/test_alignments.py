"""Aligned labels beside audio, in every format that people have."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from modalities.speech import Speech
from modalities.speech.alignments import Interval, is_alignment, read, read_lab, read_textgrid
from seqssl import Segment, UserError
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.5
            text = "say ""x = 1"" twice"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.7
            mark = "tick"
    item [3]:
        class = "IntervalTier"
        name = "A - phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.75
            text = "s"
        intervals [2]:
            xmin = 0.75
            xmax = 1.5
            text = "ei"
"""
SHORT = """File type = "ooTextFile"
"TextGrid"

0
1.5
<exists>
1
"IntervalTier"
"segments"
0
1.5
2
0
0.75
"s"
0.75
1.5
"ei"
"""
PHONES = [Interval(0, 0.75, "s"), Interval(0.75, 1.5, "ei")]


def test_textgrids_long_and_short() -> None:
    assert read_textgrid(LONG, None) == PHONES
    assert read_textgrid(SHORT, None) == PHONES
    assert read_textgrid(LONG, "words") == [Interval(0.5, 1.5, 'say "x = 1" twice')]
    with pytest.raises(ValueError, match="it has words, A - phones"):
        read_textgrid(LONG, "syllables")
    with pytest.raises(ValueError, match="no interval tier"):
        read_textgrid('"TextGrid"', None)


@pytest.mark.parametrize(
    "text",
    [
        "signal x\nnfields 1\n#\n0.75 125 s\n1.5 125 ei\n",
        "0 7500000 s\n7500000 15000000 ei\n",
        "0 7500000 s -31.5\n7500000 15000000 ei -27.25\n",
        "0.0 0.75 s\n0.75 1.5 ei\n",
        "0.000000\t0.750000\ts\n\\\t100.0\t200.0\n0.750000\t1.500000\tei\n",
    ],
    ids=["festival", "htk", "scores of htk", "seconds", "audacity"],
)
def test_lab_files(text: str) -> None:
    assert read_lab(text) == PHONES


def test_a_damaged_lab_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not `end color label`"):
        read_lab("#\nx y z\n")
    (tmp_path / "x.lab").write_text("0 7500000 s\nnothing here\n")
    with pytest.raises(ValueError, match=r"x.lab: a line is not `start end label`: 'nothing here'"):
        read(tmp_path / "x.lab")
    write_voice(tmp_path / "voices", "x")
    write_voice(tmp_path / "voices", "y")
    (tmp_path / "voices" / "x.lab").write_text("0 7500000 s\nnothing here\n")
    assert segments_of(tmp_path / "voices", tmp_path / "out") == {"y.wav": ()}
    assert "a line is not `start end label`" in (tmp_path / "out" / "rejected.jsonl").read_text()


WORD = st.text(st.characters(codec="utf-8", categories=["L"]), min_size=1)


@given(st.lists(st.tuples(st.floats(0.01, 3), WORD), min_size=1, max_size=8))
def test_whatever_is_written_is_read(parts: list[tuple[float, str]]) -> None:
    ends = np.cumsum([size for size, _ in parts]).round(4)
    starts = [0.0, *ends[:-1]]
    wanted = [Interval(float(s), float(e), t) for s, e, (_, t) in zip(starts, ends, parts, strict=True)]
    xwaves = "#\n" + "".join(f"{i.end:.4f} 125 {i.label}\n" for i in wanted)
    assert read_lab(xwaves) == wanted
    grid = ["ooTextFile", "TextGrid", "", "0", str(ends[-1]), "<exists>", "1", '"IntervalTier"', '"phones"']
    grid += ["0", str(ends[-1]), str(len(wanted))]
    grid += [line for i in wanted for line in (repr(i.start), repr(i.end), f'"{i.label}"')]
    assert read_textgrid("\n".join(grid), None) == wanted


def write_voice(folder: Path, name: str, seconds: float = 1.5) -> Path:
    path = folder / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.normal(size=round(seconds * 16_000)), 16_000)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def reasons_in(out: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text("utf-8").splitlines()]
    return {line["path"]: line["reason"] for line in lines}


def segments_of(source: Path, out: Path, **settings: object) -> dict[str, tuple[Segment, ...] | None]:
    adapter = Speech(**settings)  # type: ignore[arg-type]
    prepare(adapter, source, out, modality="speech", valid_share=0.0, num_workers=1)
    corpus = Corpus(out)
    rows = [corpus.row(number) for number in range(len(corpus))]
    found = {row["key"]: adapter.load(row, None).segments for row in rows}
    return {key: None if each is None else tuple(each) for key, each in found.items()}


WANTED = (Segment(0, 12_000, "s"), Segment(12_000, 24_000, "ei"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.TextGrid", LONG),
        ("a.lab", "#\n0.75 125 s\n1.5 125 ei\n"),
        ("a.txt", "0.0\t0.75\ts\n0.75\t1.5\tei\n"),
        ("a.phn", "0 12000 s\n12000 24000 ei\n"),
        ("all.ctm", "a 1 0.0 0.75 s 0.9\na 1 0.75 0.75 ei 0.8\nother 1 0 1 x\n"),
    ],
)
def test_rows_have_their_segments(tmp_path: Path, name: str, text: str) -> None:
    source = tmp_path / "voices"
    write_voice(source, "a")
    write_voice(source, "b")
    (source / name).write_text(text)
    assert segments_of(source, tmp_path / "out") == {"a.wav": WANTED, "b.wav": ()}
    assert segments_of(source, tmp_path / "other", alignments=False) == {"a.wav": None, "b.wav": None}


def test_folders_beside_each_other_as_voices_of_festival_have_them(tmp_path: Path) -> None:
    source = tmp_path / "voice"
    write_voice(source / "wav", "ru_1")
    (source / "lab").mkdir()
    (source / "lab" / "ru_1.lab").write_text("#\n0.75 125 s\n1.5 125 ei\n")
    (source / "etc").mkdir()
    (source / "etc" / "txt.done.data").write_text('( ru_1 "Да, \\"нет\\"." )\n', encoding="utf-8")
    assert segments_of(source, tmp_path / "out") == {"wav/ru_1.wav": WANTED}
    assert Corpus(tmp_path / "out").labels.tolist() == ['Да, "нет".']


def test_an_alignment_that_is_longer_than_its_recording_is_rejected(tmp_path: Path) -> None:
    source = tmp_path / "voices"
    write_voice(source, "a")
    write_voice(source, "b")
    (source / "a.lab").write_text("#\n0.75 125 s\n9.5 125 ei\n")
    assert segments_of(source, tmp_path / "out") == {"b.wav": ()}
    told = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert "its alignment goes to 9.50 s, the recording is 1.50 s long" in told


def test_a_transcript_is_no_track(tmp_path: Path) -> None:
    source = tmp_path / "voices"
    write_voice(source, "a")
    (source / "a.txt").write_text("one 2 three\n")
    assert segments_of(source, tmp_path / "out") == {"a.wav": None}
    assert Corpus(tmp_path / "out").labels.tolist() == ["one 2 three"]


TRACK = "0.0\t0.75\ts\n0.75\t1.5\tei\n"
OTHER = "0.0\t0.5\tother\n"
HTK = "0 7500000 s\n7500000 15000000 ei\n"


@pytest.mark.parametrize(
    "files",
    [
        {"alice/01.wav": "alice/01.txt", "bob/01.wav": None},
        {"wav/s1/01.wav": "lab/s1/01.txt", "wav/s2/01.wav": "lab/s2/01.txt", "wav/s3/01.wav": None},
        {"s1/wav/01.wav": "s1/lab/01.txt", "s2/wav/01.wav": "s2/lab/01.txt", "s3/wav/01.wav": None},
        {"in/audio/train/s1/01.wav": "aligned/s1/01.txt", "in/audio/test/s2/01.wav": "aligned/s2/01.txt"},
        {"wav/01.wav": "lab/01.txt", "wav/02.wav": "02.txt"},
    ],
    ids=["another's", "mirrored", "each speaker's", "mirrored at the end", "the only one"],
)
def test_an_alignment_is_of_the_recording_whose_path_is_like_its_own(
    tmp_path: Path, files: dict[str, str | None]
) -> None:
    source = tmp_path / "corpus"
    for number, (audio, text) in enumerate(files.items()):
        write_voice(source, audio.removesuffix(".wav"))
        if text is not None:
            write_text(source / text, f"0.0\t{0.5 + number / 10}\tof {audio}\n")
    wanted = {
        audio: () if text is None else (Segment(0, 8000 + 1600 * number, f"of {audio}"),)
        for number, (audio, text) in enumerate(files.items())
    }
    assert segments_of(source, tmp_path / "out") == wanted


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (
            {"ctm/words/a.ctm": "a 1 0 1 hi\n", "ctm/tokens/a.ctm": "a 1 0 1 h\n"},
            ["words/a.ctm", "tokens/a.ctm"],
        ),
        ({"words.ctm": "a 1 0 1 hi\n", "tokens.ctm": "a 1 0 1 h\n"}, ["words.ctm", "tokens.ctm"]),
        ({"phones/a.lab": HTK, "words/a.lab": HTK}, ["phones/a.lab", "words/a.lab"]),
    ],
    ids=["folders of ctm", "tables of ctm", "folders of lab"],
)
def test_where_two_alignments_could_be_meant_none_is_taken(
    tmp_path: Path, files: dict[str, str], named: list[str]
) -> None:
    source = tmp_path / "corpus"
    write_voice(source / "wav", "a")
    write_voice(source / "wav", "b")
    for name, text in files.items():
        write_text(source / name, text)
    assert segments_of(source, tmp_path / "out") == {"wav/b.wav": ()}
    reason = reasons_in(tmp_path / "out")["wav/a.wav"]
    assert all(name in reason for name in [*named, "modality.alignments=false"])
    assert len(segments_of(source, tmp_path / "without", alignments=False)) == 2


def test_an_alignment_of_which_two_recordings_could_be_meant_is_of_none(tmp_path: Path) -> None:
    source = tmp_path / "corpus"
    for name in ("s1/01", "s2/01", "s2/02"):
        write_voice(source, name)
    write_text(source / "lab" / "01.txt", TRACK)
    assert segments_of(source, tmp_path / "out") == {"s2/02.wav": ()}
    reasons = reasons_in(tmp_path / "out")
    assert reasons["s1/01.wav"] == reasons["s2/01.wav"]
    assert reasons["s1/01.wav"].startswith("lab/01.txt could be the alignment of s1/01 or of s2/01")


def test_tables_of_many_recordings_are_of_their_folder(tmp_path: Path) -> None:
    source = tmp_path / "corpus"
    for speaker, end in (("s1", 0.5), ("s2", 1.0)):
        write_voice(source / speaker, "01")
        write_text(source / speaker / "all.ctm", f"01 1 0.0 {end} {speaker}\n")
    found = segments_of(source, tmp_path / "out")
    assert found == {"s1/01.wav": (Segment(0, 8000, "s1"),), "s2/01.wav": (Segment(0, 16_000, "s2"),)}


def test_the_tiers_of_several_speakers_are_one() -> None:
    tiers = [("bob - words", 0, "yes"), ("bob - phones", 0.75, "s"), ("alice - phones", 0, "h")]
    parts = [f'"IntervalTier" "{name}" 0 1.5 1 {at} {at + 0.5} "{label}"' for name, at, label in tiers]
    grid = "\n".join(["ooTextFile", "TextGrid", "0 1.5 <exists> 3", *parts])
    both = [Interval(0, 0.5, "h"), Interval(0.75, 1.25, "s")]
    assert read_textgrid(grid, None) == both == read_textgrid(grid, "phones")
    assert read_textgrid(grid, "bob - phones") == both[1:]


@pytest.mark.parametrize(
    ("name", "text", "timed"),
    [
        ("a.txt", "0.5\t0.8\t\n", True),
        ("a.txt", "0.5\t0.8\n0.9\t1.0\thi\n", True),
        ("a.txt", "0.5\t0.8\thi\n\\\t100.0\t200.0\n", True),
        ("a.txt", "1 2 three\n", False),
        ("a.txt", "0.5\t0.8\tx\nand so on\n", False),
        ("a.lab", "hello there\n", False),
        ("a.lab", "1 2 3 4 5\n", False),
        ("a.lab", "7 dwarfs\n", False),
        ("a.lab", "", False),
        ("a.lab", "0.0 1.0 hello\n", True),
        ("a.lab", "0 12000000 hello\n", True),
        ("a.lab", "0 sil\n5000000 a\n", True),
        ("a.lab", "0 5000000 sil\nnothing here\n", True),
    ],
)
def test_what_is_an_alignment_and_what_a_transcript(
    tmp_path: Path, name: str, text: str, timed: bool
) -> None:
    assert is_alignment(write_text(tmp_path / name, text)) == timed


def test_labels_may_be_empty(tmp_path: Path) -> None:
    source = tmp_path / "voices"
    write_voice(source, "a")
    write_text(source / "a.txt", "0.0\t0.75\ts\n0.75\t0.8\t\n0.8\t1.5\tei\n")
    assert segments_of(source, tmp_path / "out") == {
        "a.wav": (Segment(0, 12_000, "s"), Segment(12_800, 24_000, "ei"))
    }
    assert Corpus(tmp_path / "out").labels.tolist() == [""]


def test_a_lab_file_without_times_is_the_transcript(tmp_path: Path) -> None:
    source = tmp_path / "voices"
    for name in ("a", "b"):
        write_voice(source, name)
        write_text(source / f"{name}.lab", f"words of {name}\n")
    write_text(source / "a.TextGrid", SHORT)
    assert segments_of(source, tmp_path / "out") == {"a.wav": WANTED, "b.wav": ()}
    assert sorted(Corpus(tmp_path / "out").labels.tolist()) == ["words of a", "words of b"]


def test_labels_of_htk_without_an_end_go_on_to_the_next_or_to_the_end(tmp_path: Path) -> None:
    source = tmp_path / "voices"
    write_voice(source, "a")
    write_text(source / "a.lab", "0 5000000 sil\n5000000 a\n12000000 sil\n")
    assert segments_of(source, tmp_path / "out") == {
        "a.wav": (Segment(0, 8000, "sil"), Segment(8000, 19_200, "a"), Segment(19_200, 24_000, "sil"))
    }


def test_rows_that_are_stretches_have_those_within_them(tmp_path: Path) -> None:
    source = tmp_path / "voices"
    write_voice(source, "a", 4.0)
    write_text(source / "metadata.csv", "file_name,start,end\na.wav,0,2\na.wav,2,4\n")
    write_text(source / "a.lab", "#\n1.5 125 s\n3.9 125 ei\n")
    assert segments_of(source, tmp_path / "out") == {
        "a.wav/0-2": (Segment(0, 24_000, "s"), Segment(24_000, 32_000, "ei")),
        "a.wav/2-4": (Segment(0, 30_400, "ei"),),
    }
    write_text(source / "a.lab", "#\n1.5 125 s\n4.9 125 ei\n")
    with pytest.raises(UserError, match=r"goes to 4.90 s, the recording is 4.00 s long"):
        segments_of(source, tmp_path / "late")


def test_cells_of_parquet_beside_aligned_files_have_none(tmp_path: Path) -> None:
    source = tmp_path / "voices"
    path = write_voice(source, "a")
    write_text(source / "a.TextGrid", SHORT)
    cells = [
        {"bytes": path.read_bytes(), "path": "z.wav", "array": None, "sampling_rate": None},
        {"bytes": None, "path": None, "array": [0.0, 0.5] * 8000, "sampling_rate": 16_000},
        {"bytes": None, "path": "a.wav", "array": None, "sampling_rate": None},
    ]
    pq.write_table(pa.table({"audio": cells}), source / "z.parquet")
    assert segments_of(source, tmp_path / "out") == {
        "a.wav": WANTED, "z.parquet/0/0": (), "z.parquet/0/1": (), "z.parquet/0/2": (),
    }  # fmt: skip
