"""Tables of speech as people write them: stretches, lists without a header, and texts beside the audio."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from modalities.speech import Speech
from seqssl import Record, Rejected, UserError
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus

RATE = 16_000


def corpus(folder: Path, *names: str) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.normal(size=4 * RATE), RATE)
    return folder


def found_in(source: Path, **settings: object) -> list[Record | Rejected]:
    return [*Speech(**settings).records(source, "all")]  # type: ignore[arg-type]


def labels_of(source: Path, **settings: object) -> dict[str, str]:
    rows = found_in(source, **settings)
    assert not [row for row in rows if isinstance(row, Rejected)], rows
    return {row.key: row.label for row in rows if isinstance(row, Record)}


def seconds_of(rows: list[Record | Rejected]) -> dict[str, float]:
    return {row.label: row.read().rows[0]["length"] / RATE for row in rows if isinstance(row, Record)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("strong.tsv", "filename\tonset\toffset\tevent_label\na.wav\t1.0\t2.5\tdog\na.wav\t2.5\t3.0\tcat\n"),
        ("strong.csv", "offset,onset,duration,file,label\n2.5,1.0,9,a.wav,dog\n3,2.5,9,a.wav,cat\n"),
        ("nemo.jsonl", '{"audio_filepath": "a.wav", "offset": 1.0, "duration": 1.5, "text": "dog"}\n'
         '{"audio_filepath": "a.wav", "offset": 2.5, "duration": 0.5, "text": "cat"}\n'),
        ("clock.csv", "file,start,end,text\na.wav,0:01,0:02.5,dog\na.wav,0:00:02.5,00:03,cat\n"),
        ("subtitles.csv", 'file,start,end,text\na.wav,"00:00:01,000","00:00:02,500",dog\na.wav,2.5,3,cat\n'),
    ],
)  # fmt: skip
def test_stretches(tmp_path: Path, name: str, text: str) -> None:
    (corpus(tmp_path, "a.wav") / name).write_text(text)
    assert seconds_of(found_in(tmp_path / name)) == {"dog": 1.5, "cat": 0.5}


def test_times_of_words_are_no_stretch(tmp_path: Path) -> None:
    row = {"audio_filepath": "a.wav", "text": "a dog", "start": [0.0, 1.0], "end": [1.0, 2.5]}
    (corpus(tmp_path, "a.wav") / "words.jsonl").write_text(json.dumps(row) + "\n")
    assert seconds_of(found_in(tmp_path / "words.jsonl")) == {"a dog": 4.0}


@pytest.mark.parametrize(
    ("times", "wanted"),
    [("1.0,", 3.0), (",3.0", 3.0), ("0,", 4.0), (",", 4.0)],
    ids=["to the end", "from the beginning", "from 0", "all"],
)
def test_a_missing_time_is_the_beginning_or_the_end(tmp_path: Path, times: str, wanted: float) -> None:
    (corpus(tmp_path, "a.wav") / "list.csv").write_text(f"file,start,end,text\na.wav,{times},hi\n")
    assert seconds_of(found_in(tmp_path / "list.csv")) == {"hi": wanted}


@pytest.mark.parametrize("start", ["soon", "0:75", "1:75:00", "0.5.1", "inf"])
def test_a_time_that_cannot_be_read_rejects_its_row_alone(tmp_path: Path, start: str) -> None:
    lines = ["file,start,end,text", f"b.wav,{start},3,x", "a.wav,2,3,good"]
    (corpus(tmp_path, "a.wav", "b.wav") / "metadata.csv").write_text("\n".join(lines) + "\n")
    found = found_in(tmp_path)
    assert seconds_of(found) == {"good": 1.0}
    (rejected,) = [row for row in found if isinstance(row, Rejected)]
    assert rejected.path == "b.wav" and "row 1 of metadata.csv: its start is" in rejected.reason
    assert "write seconds (83.5) or h:m:s (0:01:23.5)" in rejected.reason


def test_a_time_before_the_file_is_no_whole_file(tmp_path: Path) -> None:
    line = json.dumps({"path": "a.wav", "start": -1, "text": "hi"})
    (corpus(tmp_path, "a.wav") / "all.jsonl").write_text(line)
    (record,) = found_in(tmp_path / "all.jsonl")
    assert isinstance(record, Record)
    with pytest.raises(ValueError, match=r"is not within its 4.00 s"):
        record.read()


LJSPEECH = {
    "LJ001-0001": "Printing, in the only sense with which we are at present concerned, differs from most",
    "LJ001-0002": '"in being, comparatively modern.',
    "LJ001-0003": 'He said "no, 12 men',
    "LJ001-0004": '"Yes, I will."',
}


def test_ljspeech(tmp_path: Path) -> None:
    corpus(tmp_path, *(f"wavs/{name}.wav" for name in LJSPEECH))
    said = {name: text.replace("12", "twelve") for name, text in LJSPEECH.items()}
    lines = [f"{name}|{text}|{said[name]}" for name, text in LJSPEECH.items()]
    lines[1] = lines[1].rpartition("|")[0]  # some have no third cell
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    assert labels_of(tmp_path) == said


TEXTS = ["Hello, you there", "the cat sat on the mat", "Hello, you there", "seven of nine"]
LISTS = {
    "path and text": [f"{n}.wav|{text}" for n, text in enumerate(TEXTS)],
    "number of a speaker": [f"{n}.wav|{n % 2}|{text}" for n, text in enumerate(TEXTS)],
    "name of a speaker last": [f"{n}.wav|{text}|p22{n}" for n, text in enumerate(TEXTS)],
    "speaker first": [f"anna {n % 2}|{n}.wav|{text}" for n, text in enumerate(TEXTS)],
    "name and language": [f"{n}.wav|anna|EN|{text}" for n, text in enumerate(TEXTS)],
    "tabs": [f"{n}.wav\tanna\t{text}" for n, text in enumerate(TEXTS)],
    "quotation marks": [f'{n}.wav,"{text}"' for n, text in enumerate(TEXTS)],
    "semicolons": [f'{n}.wav;{n};"{text}"' for n, text in enumerate(TEXTS)],
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_without_a_header(tmp_path: Path, kind: str) -> None:
    corpus(tmp_path, *(f"{n}.wav" for n in range(len(TEXTS))))
    (tmp_path / "metadata.csv").write_text("\n".join(LISTS[kind]) + "\n")
    assert labels_of(tmp_path) == {f"{n}.wav": text for n, text in enumerate(TEXTS)}


def test_a_list_of_paths_alone_loses_none(tmp_path: Path) -> None:
    (corpus(tmp_path, "a.wav", "b.wav") / "metadata.csv").write_text("a.wav\nb.wav\n")
    assert labels_of(tmp_path) == {"a.wav": "", "b.wav": ""}


def test_a_line_ends_where_its_file_says(tmp_path: Path) -> None:
    (corpus(tmp_path, "a.wav", "b.wav") / "metadata.csv").write_bytes(
        "a.wav|one\u2028two\r\nb.wav|three\r\n".encode()
    )
    assert labels_of(tmp_path) == {"a.wav": "one\u2028two", "b.wav": "three"}


def test_two_columns_that_may_be_the_text_are_told_and_can_be_named(tmp_path: Path) -> None:
    lines = ["a.wav|good morning|guten Morgen", "b.wav|thank you|danke sehr"]
    (corpus(tmp_path, "a.wav", "b.wav") / "metadata.csv").write_text("\n".join(lines) + "\n")
    setting = r"modality.csv_columns=\[path,text,column3\]"
    with pytest.raises(UserError, match=f"'good morning' or 'guten Morgen' might be the text.*{setting}"):
        found_in(tmp_path)
    named = labels_of(tmp_path, csv_columns=("path", "text", "column3"))
    assert named == {"a.wav": "good morning", "b.wav": "thank you"}
    with pytest.raises(UserError, match=r"has 3 cells in .* modality.csv_columns names 2"):
        found_in(tmp_path, csv_columns=("path", "text"))


def test_commas_in_a_text_without_quotation_marks_are_told_and_can_be_read(tmp_path: Path) -> None:
    lines = ["a.wav,good morning", "b.wav,thank you, my dear"]
    (corpus(tmp_path, "a.wav", "b.wav") / "metadata.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"put texts with commas into .*modality.csv_columns=\[path,text\]"):
        found_in(tmp_path)
    named = labels_of(tmp_path, csv_columns=("path", "text"))
    assert named == {"a.wav": "good morning", "b.wav": "thank you, my dear"}


def test_columns_that_are_named_may_be_stretches(tmp_path: Path) -> None:
    (corpus(tmp_path, "a.wav") / "list.csv").write_text("a.wav|0|1.5|dog\na.wav|1.5|2|cat\n")
    found = found_in(tmp_path / "list.csv", csv_columns=("path", "start", "end", "text"))
    assert seconds_of(found) == {"dog": 1.5, "cat": 0.5}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("0 46797 She had your dark suit\n", "She had your dark suit"),
        ("1 2 3 4 5\n", "1 2 3 4 5"),
        ("7 9 oh\n", "7 9 oh"),
        ("0 123 456 7\n", "0 123 456 7"),
    ],
)
def test_only_samples_of_timit_are_no_words(tmp_path: Path, text: str, label: str) -> None:
    (corpus(tmp_path, "a.wav") / "a.txt").write_text(text)
    assert labels_of(tmp_path) == {"a.wav": label}


def test_sounds_beside_the_folder_of_a_table(tmp_path: Path) -> None:
    corpus(tmp_path / "esc", "audio/1-100-A-0.wav", "audio/2-5-A-3.wav")
    corpus(tmp_path / "fsd", "FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.wav")
    corpus(tmp_path / "fluent", "wavs/speakers/x/a.wav", "wavs/speakers/y/a.wav")
    tables = {
        "esc/meta/esc50.csv": "filename,label\n1-100-A-0.wav,dog\n2-5-A-3.wav,cat\n",
        "fsd/FSD50K.ground_truth/dev.csv": "fname,label\n64760,dog\n16399,cat\n",
        "fluent/data/train_data.csv": ",path,text\n0,wavs/speakers/x/a.wav,dog\n"
        "1,wavs/speakers/y/a.wav,cat\n",
    }
    for name, text in tables.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
        assert [*labels_of(tmp_path / name).values()] == ["dog", "cat"]
    assert [*labels_of(tmp_path / "esc").values()] == ["dog", "cat"], "the only table of a folder"


def test_a_sound_of_another_folder_does_not_stand_in_for_one_that_is_missing(tmp_path: Path) -> None:
    corpus(tmp_path, "b.wav", "in/a.wav")
    (tmp_path / "in" / "list.csv").write_text("file,text\na.wav,yes\nb.wav,no\n")
    found = found_in(tmp_path / "in" / "list.csv")
    assert found[1] == Rejected("b.wav", "the file that list.csv names is missing")
    (tmp_path / "in" / "list.csv").rename(tmp_path / "in" / "metadata.csv")
    assert isinstance(found_in(tmp_path / "in")[1], Rejected)


def notices(rows: list[Record | Rejected]) -> set[str]:
    """What is noticed in each of some records, which are all alike in that."""
    (said,) = {tuple(row.read().notices) for row in rows if isinstance(row, Record)}
    return {*said}


def test_the_only_table_that_names_nearly_all_sounds_is_read(tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(10)]
    corpus(tmp_path, *(f"clips/{name}" for name in names))
    (tmp_path / "other.csv").write_text("word,count\nhello,3\n")
    rows = [f"{name},text {name},s{number % 3}" for number, name in enumerate(names[:9])]
    (tmp_path / "all.csv").write_text("\n".join(["path,sentence,client_id", *rows]) + "\n")
    found = found_in(tmp_path)
    first = found[0]
    assert isinstance(first, Record)
    assert (first.key, first.label, first.group) == ("clips/0.wav", "text 0.wav", "s0")
    assert found[9:] == [Rejected("clips/9.wav", "all.csv does not name it")]
    assert not notices(found)


@pytest.mark.parametrize("asked", [False, True])
def test_a_list_made_on_windows_has_groups_and_splits(tmp_path: Path, asked: bool) -> None:
    names = [f"{split}/{who}/{n}.wav" for split, who in (("train", "anna"), ("test", "ben")) for n in (1, 2)]
    corpus(tmp_path, *names)
    lines = ["file,text", *("{},hello".format(name.replace("/", "\\")) for name in names)]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    found = found_in(tmp_path / "list.csv" if asked else tmp_path)
    told = [(row.key, row.split, row.group) for row in found if isinstance(row, Record)]
    assert told == [(name, *name.split("/")[:2]) for name in names]


def test_a_table_in_a_folder_of_a_split_that_is_read_unasked_leaves_the_split(tmp_path: Path) -> None:
    corpus(tmp_path, "test/anna/1.wav", "test/ben/2.wav")
    (tmp_path / "test" / "list.csv").write_text("file,text\nanna/1.wav,yes\nben/2.wav,no\n")
    told = [(row.key, row.split, row.group) for row in found_in(tmp_path) if isinstance(row, Record)]
    assert told == [("test/anna/1.wav", "test", "anna"), ("test/ben/2.wav", "test", "ben")]


def test_a_table_that_is_read_unasked_replaces_no_transcript(tmp_path: Path) -> None:
    corpus(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.txt").write_text("good morning")
    (tmp_path / "labels.csv").write_text("file,label\na.wav,happy\nb.wav,sad\n")
    assert labels_of(tmp_path) == {"a.wav": "good morning", "b.wav": "sad"}
    assert labels_of(tmp_path / "labels.csv") == {"a.wav": "happy", "b.wav": "sad"}


def test_a_damaged_table_is_none_that_is_read_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError

    corpus(tmp_path, "a.wav")
    (tmp_path / "list.csv").write_text("file,text\na.wav,yes\n")
    monkeypatch.setattr("modalities.speech.corpora.rows_of", fail)
    assert labels_of(tmp_path) == {"a.wav": ""}


@pytest.mark.parametrize(
    "tables",
    [
        {"validated.tsv": 4, "train.tsv": 2},
        {"few.csv": 1},
        {"stretches.csv": 4},
    ],
)
def test_tables_that_are_not_read_are_said(tmp_path: Path, tables: dict[str, int]) -> None:
    names = [f"{number}.wav" for number in range(4)]
    corpus(tmp_path, *(f"clips/{name}" for name in names))
    for table, count in tables.items():
        times = ["start", "end"] if "stretches" in table else []
        rows = [[name, f"text {name}", *("12" if times else "")] for name in names[:count]]
        mark = "\t" if table.endswith("tsv") else ","
        lines = [mark.join(row) for row in [["path", "sentence", *times], *rows]]
        (tmp_path / table).write_text("\n".join(lines) + "\n")
    found = found_in(tmp_path)
    assert {row.key for row in found if isinstance(row, Record)} == {f"clips/{name}" for name in names}
    (said,) = notices(found)
    assert f"source={tmp_path / next(iter(tables))}" in said and all(table in said for table in tables)


CAPTIONS = [(f"{number}.wav", f"caption {take} of {number}") for take in range(3) for number in range(4)]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_a_sound_that_is_named_several_times_keeps_all_its_rows(tmp_path: Path, name: str) -> None:
    corpus(tmp_path, *(f"{number}.wav" for number in range(4)))
    frame = pd.DataFrame(CAPTIONS, columns=["file_name", "text"])
    if name.endswith("csv"):
        frame.to_csv(tmp_path / name, index=False)
    elif name.endswith("jsonl"):
        frame.to_json(tmp_path / name, orient="records", lines=True)
    else:
        frame.to_parquet(tmp_path / name)
    out = tmp_path.parent / f"{tmp_path.name}-out"
    prepare(Speech(), tmp_path, out, modality="speech", num_workers=1, valid_share=0.4)
    rows = Corpus(out)
    told = {str(key): str(label) for key, label in zip(rows.keys, rows.labels, strict=True)}
    assert told == {f"{file}/{n}" if n > 4 else file: said for n, (file, said) in enumerate(CAPTIONS, 1)}
    assert not (out / "rejected.jsonl").exists() or not (out / "rejected.jsonl").read_text()
    assert [*rows.groups] == [str(key).partition("/")[0] for key in rows.keys]
    split_of = {(str(group), rows.row(n)["split"]) for n, group in enumerate(rows.groups)}
    assert len(split_of) == 4 and len({split for _, split in split_of}) == 2, "no sound is on both sides"


def test_names_of_sounds_that_come_again_tell_groups_and_splits_as_ever(tmp_path: Path) -> None:
    names = [f"{split}/{who}_{n}" for split, who in (("train", "anna"), ("test", "ben")) for n in (1, 2)]
    corpus(tmp_path, *(f"{name}.wav" for name in names))
    rows = [(f"{name}{end}", f"{name} {end}") for end in (".wav", ".wav", "") for name in names]
    (tmp_path / "list.csv").write_text("file,text\n" + "".join(f"{file},{said}\n" for file, said in rows))
    for settings in ({}, {"group_pattern": "([a-z]+)_[^/]*$"}):
        found = [row for row in found_in(tmp_path / "list.csv", **settings) if isinstance(row, Record)]
        assert len({row.key for row in found}) == len(rows)
        assert [row.label for row in found] == [said.strip() for _, said in rows]
        assert [row.split for row in found] == ["train", "train", "test", "test"] * 3
        assert [row.group for row in found] == ["anna", "anna", "ben", "ben"] * 3


def test_a_line_of_a_manifest_that_comes_again_is_kept(tmp_path: Path) -> None:
    corpus(tmp_path, "a.wav")
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na.wav\t64000\na.wav\t64000\n")
    assert [*labels_of(tmp_path / "train.tsv")] == ["a.wav", "a.wav/2"]


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_blanks_around_cells_are_none_of_theirs(tmp_path: Path, name: str) -> None:
    corpus(tmp_path, "0.wav", "1.wav", " 2.wav")
    cells = [("0.wav ", "dog ", "anna"), (" 1.wav", "dog", "anna "), (" 2.wav", "\tdog", "anna")]
    frame = pd.DataFrame(cells, columns=["file_name", "label", "speaker"])
    if name.endswith("csv"):
        frame.to_csv(tmp_path / name, index=False)
        (tmp_path / " 2.wav").rename(tmp_path / "2.wav")  # the blank before a cell of CSV is none
    else:
        frame.to_json(tmp_path / name, orient="records", lines=True)
    found = [row for row in found_in(tmp_path / name) if isinstance(row, Record)]
    assert [(row.key, row.label, row.group) for row in found] == [
        (f"{number}.wav", "dog", "anna") for number in range(3)
    ]


@pytest.mark.parametrize("kind", ["whole", "floats", "categories", "jsonl"])
def test_whole_numbers_beside_an_empty_cell_stay_whole(tmp_path: Path, kind: str) -> None:
    corpus(tmp_path, "7.wav", "8.wav", "9.wav")
    large = 2**53 + 1 if kind == "whole" else 5  # a float cannot hold it
    columns = {"file_name": [7, 8, 9], "label": [0, None, 1], "speaker_id": [large, large - 1, None]}
    table, frame = pa.table(columns), pd.DataFrame(columns)
    if kind == "categories":
        table = table.set_column(1, "label", table["label"].dictionary_encode())
    elif kind == "floats":  # as pandas has such columns
        table = pa.Table.from_pandas(frame)
        assert pa.types.is_floating(table.schema.field("label").type)
    source = tmp_path / ("metadata.jsonl" if kind == "jsonl" else "metadata.parquet")
    if kind == "jsonl":
        source.write_text('{"file_name": "7", "label": 0.0, "speaker_id": 5.0}\n'
                          '{"file_name": "8", "label": null, "speaker_id": 4}\n'
                          '{"file_name": "9", "label": 1}\n')  # fmt: skip
    else:
        pq.write_table(table, source)
    found = [row for row in found_in(tmp_path) if isinstance(row, Record)]
    assert [row.label for row in found] == ["0", "", "1"]
    assert [row.group for row in found][:2] == [str(large), str(large - 1)]


def test_fractions_in_a_table_stay_as_they_are(tmp_path: Path) -> None:
    corpus(tmp_path, "a.wav", "b.wav", "c.wav")
    table = pa.table({"file_name": ["a.wav", "b.wav", "c.wav"], "label": [0.5, None, 2.25]})
    pq.write_table(table, tmp_path / "metadata.parquet")
    assert [*labels_of(tmp_path).values()] == ["0.5", "", "2.25"]
