"""Aligned labels beside audio, in every format that people have."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from modalities.speech import Speech
from modalities.speech.alignments import Interval, read, read_lab, read_textgrid
from seqssl import Segment
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
        "0.0 0.75 s\n0.75 1.5 ei\n",
        "0.000000\t0.750000\ts\n\\\t100.0\t200.0\n0.750000\t1.500000\tei\n",
    ],
    ids=["festival", "htk", "seconds", "audacity"],
)
def test_lab_files(text: str) -> None:
    assert read_lab(text) == PHONES


def test_a_damaged_lab_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not `end color label`"):
        read_lab("#\nx y z\n")
    (tmp_path / "x.lab").write_text("nothing here\n")
    with pytest.raises(ValueError, match=r"x.lab holds no labelled interval"):
        read(tmp_path / "x.lab")


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
