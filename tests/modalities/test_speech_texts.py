"""Texts beside recordings and lists of them: what was said, and what is no transcript."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from modalities.speech import Speech
from modalities.speech.transcripts import NO_WORDS
from seqssl import Record

RATE = 16_000
VOXCELEB = "\n".join(
    ["Identity  : \tid10001", "Reference : \t1zcIwhmdeo4", "Offset    : \t1", "FV Conf   : \t19.465\t(1)", "",
     "FRAME \tX \tY \tW \tH ", *(f"{n:06} \t0.417 \t0.2{n} \t0.1 \t0.3 " for n in range(9))]
)  # fmt: skip
LRS3 = (
    "Text:  THAT'S AMAZING\nConf:  5\nRef: abc\n\n"
    "WORD START END ASDSCORE\nTHAT'S 0.11 0.34 6.2\nAMAZING 0.4 0.9 5\n"
)


def corpus(folder: Path, *names: str) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.normal(size=RATE // 2), RATE)
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def labels_of(source: Path) -> tuple[dict[str, str], set[str]]:
    """Labels by key, and all notices."""
    rows = [row for row in Speech().records(source, "all") if isinstance(row, Record)]
    return {row.key: row.label for row in rows}, {text for row in rows for text in row.read().notices}


class TestTextsBeside:
    @pytest.mark.parametrize("place", ["wav/id10001/x/00001", "aac/id10001/x/00001"])
    def test_a_track_of_a_face_is_no_transcript(self, tmp_path, place):
        corpus(tmp_path, f"{place}.wav")
        beside = place if place.startswith("aac") else place.replace("wav", "txt", 1)
        write(tmp_path / f"{beside}.txt", VOXCELEB)
        labels, notices = labels_of(tmp_path)
        assert labels == {f"{place}.wav": ""} and notices == {NO_WORDS}

    def test_the_text_among_several_keys_is_taken(self, tmp_path):
        write(corpus(tmp_path, "a.wav") / "a.txt", LRS3)
        assert labels_of(tmp_path) == ({"a.wav": "THAT'S AMAZING"}, set())

    def test_a_table_of_numbers_is_no_transcript(self, tmp_path):
        write(corpus(tmp_path, "a.wav") / "a.txt", "\n".join(f"{n} 0.{n} 3.5" for n in range(9)))
        assert labels_of(tmp_path) == ({"a.wav": ""}, {NO_WORDS})

    @pytest.mark.parametrize(
        "text",
        ["Anna: hello there\nBen: hi, Anna\nAnna: bye", "1 2 3 4 5", "7 4 2\n9 9 1", "At 10 I have 3 apples",
         "Note: it is late", "first line\nsecond line", "Anna: how old are you?\nBen: 42",
         "7 4 2\n9 9 1\n3 0 5", "7 4 2 8\n9 9 1\n3 0\n5 5 5 5 5"],
    )  # fmt: skip
    def test_what_may_have_been_said_is_kept(self, tmp_path, text):
        write(corpus(tmp_path, "a.wav") / "a.txt", text)
        assert labels_of(tmp_path) == ({"a.wav": text}, set())


WORDS = {
    "S0002W0122": "而 对 楼市",
    "S0002W0123": "as for the market",
    "S0003W0124": "as for 12 of them: none",
}
LISTS = {
    "AISHELL": ("transcript/aishell_transcript_v0.8.txt", "{} {}"),
    "MLS": ("train/transcripts.txt", "{}\t{}"),
    "JSUT": ("basic5000/transcript_utf8.txt", "{}:{}"),
    "VIVOS": ("prompts.txt", "{}  {}"),
    "Kaldi": ("text", "{} {}"),
    "names of files": ("content.txt", "{}.wav\t{}"),
    "paths": ("list.txt", "wav/{}.wav {}"),
}


class TestLists:
    @pytest.mark.parametrize("name", LISTS)
    def test_a_text_of_names_and_words_is_a_list(self, tmp_path, name):
        place, line = LISTS[name]
        corpus(tmp_path, *(f"wav/{key[:5]}/{key}.wav" for key in WORDS))
        write(tmp_path / place, "\n".join(line.format(*pair) for pair in WORDS.items()) + "\n")
        write(tmp_path / "README.txt", "Speech of S0002W0122 and others.\n")
        assert labels_of(tmp_path) == (
            {f"wav/{key[:5]}/{key}.wav": text for key, text in WORDS.items()},
            set(),
        )

    def test_a_text_of_its_own_and_a_table_come_first(self, tmp_path):
        corpus(tmp_path, "a.wav", "b.wav", "c.wav")
        write(tmp_path / "a.txt", "its own")
        write(tmp_path / "text", "a one\nb two\nc three\n")
        assert labels_of(tmp_path)[0] == {"a.wav": "its own", "b.wav": "two", "c.wav": "three"}
        write(tmp_path / "metadata.csv", "file,text\na.wav,x\nb.wav,y\nc.wav,\n")
        assert labels_of(tmp_path)[0] == {"a.wav": "x", "b.wav": "y", "c.wav": "three"}

    @pytest.mark.parametrize(
        "lines",
        [
            "{0} http://x.org/{0}.mp3 401.76 417.57", "{0} wav/{0}.wav", "{0} {1}", "{0} f", "{0} 12 3.5",
            "{0}|words of {0}", "{0} 0.0 1.5 hello\n{0} 1.5 2.5 there",
        ],
        ids=["segments", "paths", "speakers", "sexes", "numbers", "cells", "several lines"],
    )  # fmt: skip
    def test_lists_of_something_else_are_not_read(self, tmp_path, lines):
        corpus(tmp_path, *(f"anna/a{n}.wav" for n in range(6)))
        write(tmp_path / "list.txt", "\n".join(lines.format(f"a{n}", "anna") for n in range(6)) + "\n")
        labels, notices = labels_of(tmp_path)
        assert {*labels.values()} == {""} and not notices

    def test_names_that_several_recordings_have_tell_nothing(self, tmp_path):
        corpus(tmp_path, "x/1.wav", "y/1.wav", "y/2.wav")
        write(tmp_path / "text", "1 hello\n2 there\n")
        assert {*labels_of(tmp_path)[0].values()} == {""}

    def test_two_that_say_different_words_are_said(self, tmp_path):
        corpus(tmp_path, *(f"{name}.wav" for name in "abc"))
        for number in (1, 2):
            lines = [f"{name} words {number} of {name}" for name in "abc"]
            write(tmp_path / f"list{number}.txt", "\n".join(lines))
        labels, notices = labels_of(tmp_path)
        assert {*labels.values()} == {""}
        assert notices == {
            "list1.txt and list2.txt say different words of the same recordings and are not read: keep one"
        }
