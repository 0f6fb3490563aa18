"""F and J: one reader for tables as people write them, with settings where the text does not decide."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from field import Prepared, prepare
from hypothesis import given
from hypothesis import strategies as st

from modalities.reading.dialects import TableSettings
from modalities.reading.tables import Table

HOURS = pd.date_range("2020-01-13", periods=360, freq="h")
TEMPERATURE = (10 + 8 * np.sin(np.arange(360) / 24 * 2 * np.pi) + np.arange(360) % 7 / 10).round(2)
HUMIDITY = (60 + np.arange(360) % 24).astype(float)
FRAME = pd.DataFrame(
    {"time": HOURS.strftime("%Y-%m-%d %H:%M"), "temp_air": TEMPERATURE, "relative_humidity": HUMIDITY}
)
COLUMNS = "modality.columns=[temp_air,relative_humidity]"
PLAIN = FRAME.to_csv(index=False)
GERMAN = FRAME.to_csv(index=False, sep=";", decimal=",")
BODY = PLAIN.split("\n", 1)[1]

DIALECTS: dict[str, str | bytes] = {
    "semicolons": GERMAN,
    "tabs": FRAME.to_csv(index=False, sep="\t"),
    "pipes": FRAME.to_csv(index=False, sep="|"),
    "comments": "# station: X, height: 12 m\n# lat 1.0\n" + PLAIN,
    "header in a comment": "#time,temp_air,relative_humidity\n" + BODY,
    "percent signs": "% made by a logger\n%\n" + PLAIN,
    "sep line": "sep=;\n" + GERMAN,
    "quoted sep line": '"sep=;"\r\n' + GERMAN,
    "metadata table": "latitude,longitude,elevation,zone\n52.5,13.4,38.0,GMT\n\n" + PLAIN,
    "free text": "Weather station export\nSite: Somewhere, nowhere\nFrom: 2020\n\n" + PLAIN,
    "pairs before": "Station,Berlin\nLatitude,52.5\n" + PLAIN,
    "units": PLAIN.replace("\n", "\n-,degC,%\n", 1),
    "units in brackets": PLAIN.replace("\n", "\n[UTC],[degC],[%]\n", 1),
    "quotes": FRAME.to_csv(index=False, quoting=1),
    "quoted decimal commas": FRAME.assign(temp_air=[f"{x:.2f}".replace(".", ",") for x in TEMPERATURE], relative_humidity=HUMIDITY.astype(int)).to_csv(index=False, quoting=1),
    "trailing commas": "\n".join(f"{line}," if line else line for line in PLAIN.split("\n")),
    "trailing commas in rows": PLAIN.split("\n")[0] + "\n" + "\n".join(f"{line}," if line else line for line in BODY.split("\n")),
    "semicolon at line ends": PLAIN.split("\n")[0] + "\n" + "\n".join(f"{line};" if line else line for line in BODY.split("\n")),
    "row names": '"","time","temp_air","relative_humidity"\n' + "".join(f'"{n}",{line}\n' for n, line in enumerate(BODY.split("\n")[:-1], 1)),
    "row names without a name": '"time","temp_air","relative_humidity"\n' + "".join(f'"{n}",{line}\n' for n, line in enumerate(BODY.split("\n")[:-1], 1)),
    "windows lines": PLAIN.replace("\n", "\r\n"),
    "old mac lines": PLAIN.replace("\n", "\r"),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "blanks around": PLAIN.replace(",", " , "),
    "utf-8 mark": PLAIN.encode("utf-8-sig"),
    "utf-16": PLAIN.encode("utf-16"),
    "utf-16 without a mark": PLAIN.encode("utf-16-le"),
    "utf-16 big": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "latin-1": ("# 20 \xb0C, caf\xe9\n" + PLAIN).encode("latin-1"),
    "wide header": PLAIN.replace("temp_air", "temp_air").replace("\n", "\n", 1),
    "empty cells": PLAIN,
}  # fmt: skip


def right(found: Prepared) -> None:
    assert found.code == 0, found.message
    assert sum(row["length"] for row in found.rows) == 360, found.message
    rows = sorted(found.rows, key=lambda row: row["start_s"])
    np.testing.assert_allclose(np.concatenate([row["values"] for row in rows])[:, 0], TEMPERATURE, atol=1e-3)
    np.testing.assert_allclose(np.concatenate([row["values"] for row in rows])[:, 1], HUMIDITY, atol=1e-3)


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    content = DIALECTS[name]
    (tmp_path / "in" / "s.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    right(prepare("weather", tmp_path / "in", COLUMNS))


@pytest.mark.parametrize("name", ["S.CSV", "s.Csv.GZ", "s.TSV", "s.PARQUET"])
def test_names_in_any_case(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    if name.endswith("PARQUET"):
        pq.write_table(pa.Table.from_pandas(FRAME), path)
    else:
        data = FRAME.to_csv(index=False, sep="\t" if "TSV" in name else ",").encode()
        path.write_bytes(gzip.compress(data) if name.lower().endswith("gz") else data)
    right(prepare("weather", tmp_path / "in", COLUMNS))


SETTINGS = {
    "skip_lines": ("a,b,c\n1,2,3\n" + PLAIN, "modality.skip_lines=2"),
    "csv_columns": (BODY, "modality.csv_columns=[time,temp_air,relative_humidity]"),
    "separator": (GERMAN.replace(";", ":").replace(":00:", "h:"), 'modality.separator=":"'),
    "decimal": (GERMAN, 'modality.decimal=","'),
    "tab": (FRAME.to_csv(index=False, sep="\t"), "modality.separator=tab"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_decide(tmp_path: Path, name: str) -> None:
    content, setting = SETTINGS[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "s.csv").write_text(content)
    more = ['modality.time_format="%Y-%m-%d %Hh"'] if name == "separator" else []
    right(prepare("weather", tmp_path / "in", COLUMNS, setting, *more))


def test_a_line_that_is_too_long_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    lines = PLAIN.split("\n")
    lines[100] += ",5"
    (tmp_path / "in" / "s.csv").write_text("\n".join(lines))
    found = prepare("weather", tmp_path / "in", COLUMNS)
    assert found.code == 2 and "line 101" in found.message


CELL = (
    st.text("abcxyz é°-_()", min_size=1, max_size=8)
    .map(str.strip)
    .filter(lambda text: text and text[0].isalpha())
)


@given(
    st.lists(CELL, min_size=2, max_size=6, unique=True),
    st.lists(st.floats(-1e4, 1e4), min_size=5, max_size=30),
    st.sampled_from([(",", "."), (";", ","), (";", "."), ("\t", "."), ("|", ".")]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    st.integers(0, 3),
)
def test_what_pandas_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    values: list[float],
    marks: tuple[str, str],
    encoding: str,
    comments: int,
) -> None:
    frame = pd.DataFrame({name: np.round(values, 3) + place for place, name in enumerate(names)})
    frame.insert(0, "when", pd.date_range("2020-01-01", periods=len(frame)).strftime("%Y-%m-%d"))
    text = "# a remark\n" * comments + frame.to_csv(index=False, sep=marks[0], decimal=marks[1])
    path = tmp_path_factory.mktemp("t") / "x.csv"
    path.write_bytes(text.encode(encoding))
    table = Table.open(path)
    assert [*table.names] == [*frame.columns]
    found = table.read(table.names)
    np.testing.assert_allclose(found[names].to_numpy(float), frame[names].to_numpy(float), atol=1e-6)


def test_texts_keep_their_words(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,country,value\n007,NA,1.5\n010,NO,NA\n1e5,None,2\n")
    table = Table.open(path).read(["id", "country", "value"], texts=["id", "country"])
    assert table["id"].tolist() == ["007", "010", "1e5"] and table["country"].tolist() == ["NA", "NO", "None"]
    assert np.isnan(table["value"][1])


def test_what_is_said_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("# one\n# two\n" + GERMAN)
    said = Table.open(path).reading
    assert said == ("line 3 is the header", "cells are separated by semicolons", "decimal commas")
    with pytest.raises(ValueError, match=r"no header line: line 1 is .*modality.csv_columns=\[time,x,y,z\]"):
        path.write_text("2020-01-01 00:00,1,2,3\n2020-01-01 00:01,2,3,4\n2020-01-01 00:02,2,3,4\n")
        Table.open(path, TableSettings(), example=("x", "y", "z"))


def write_sound(path: Path, hz: int = 300, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * np.arange(int(16_000 * seconds)) / 16_000), 16_000)


SENTENCES = [
    '"Quoted" at the start',
    '"Fully quoted."',
    'Opened "and never closed',
    'a " b',
    "plain, with a comma",
    "it's",
    '""',
]


def speech_table(folder: Path, name: str, text: str) -> Prepared:
    for number in range(len(SENTENCES)):
        write_sound(folder / "clips" / f"{number}.wav", 200 + 40 * number)
    (folder / name).write_text(text, encoding="utf-8")
    return prepare("speech", folder / name)


def test_quotation_marks_in_a_tsv_are_text(tmp_path: Path) -> None:
    lines = ["client_id\tpath\tsentence", *(f"c{n}\t{n}.wav\t{text}" for n, text in enumerate(SENTENCES))]
    found = speech_table(tmp_path / "in", "validated.tsv", "\n".join(lines) + "\n")
    assert {row["key"]: row["label"] for row in found.rows} == {
        f"{n}.wav": text for n, text in enumerate(SENTENCES)
    }


def test_quotation_marks_that_pandas_wrote_are_none_of_the_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": [f"{n}.wav" for n in range(len(SENTENCES))], "sentence": SENTENCES})
    for name, separator in (("a.csv", ","), ("b.tsv", "\t")):
        found = speech_table(tmp_path / "in", name, frame.to_csv(index=False, sep=separator))
        assert {row["key"]: row["label"] for row in found.rows} == dict(
            zip(frame["path"], SENTENCES, strict=True)
        ), name


MANIFESTS = {
    "metadata.csv": "LJ1|Text, 0|Text, zero\nLJ2|Text, 1|Text, one\n",
    "train.tsv": "clips\nLJ1.wav\t8000\nLJ2.wav\t8000\n",
    "manifest.jsonl": '{"audio_filepath": "clips/LJ1.wav", "duration": 0.5, "text": "Text, zero"}\n'
    '{"audio_filepath": "clips/LJ2.wav", "duration": 0.5, "text": "Text, one"}\n',
    "list.csv": "file_name;text\nclips\\LJ1.wav;Text, zero\nclips\\LJ2.wav;Text, one\n",
    "other.csv": "utt,where,said\na,clips/LJ1.wav,Text\nb,clips/LJ2.wav,Text\n",
    "all.json": '[{"path": "clips/LJ1.wav", "sentence": "Text, zero"}, {"path": "clips/LJ2.wav", "sentence": "Text, one"}]',
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(tmp_path: Path, name: str) -> None:
    for number in (1, 2):
        write_sound(tmp_path / "in" / "clips" / f"LJ{number}.wav", 200 * number)
    (tmp_path / "in" / name).write_text(MANIFESTS[name])
    found = prepare("speech", tmp_path / "in" / name)
    assert len(found.rows) == 2, found.message
    labels = {row["label"] for row in found.rows}
    assert labels == ({""} if name in ("train.tsv", "other.csv") else {"Text, zero", "Text, one"})


@pytest.mark.parametrize("columns", ["start,end", "offset,duration", "begin,stop", "start_time,end_time"])
def test_segments_are_cut(tmp_path: Path, columns: str) -> None:
    sound = np.concatenate(
        [
            0.3 * np.sin(2 * np.pi * hz * np.arange(16_000 * s) / 16_000)
            for hz, s in ((200, 2), (400, 3), (800, 5))
        ]
    )
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "long.wav", sound, 16_000)
    pairs = [(0, 2), (2, 3), (5, 5)] if "duration" in columns else [(0, 2), (2, 5), (5, 10)]
    lines = [
        f"long.wav,{a}.0,{b}.0,{label}" for (a, b), label in zip(pairs, ("low", "mid", "high"), strict=True)
    ]
    (tmp_path / "in" / "metadata.csv").write_text("\n".join([f"file_name,{columns},text", *lines]) + "\n")
    found = prepare("speech", tmp_path / "in")
    assert {row["label"]: row["length"] / 16_000 for row in found.rows} == {"low": 2, "mid": 3, "high": 5}
    (tmp_path / "in" / "metadata.csv").write_text(
        f"file_name,{columns},text\nlong.wav,9.0,{'5.0' if 'dur' in columns else '14.0'},x\n"
    )
    assert "is not within its 10.00 s" in prepare("speech", tmp_path / "in").message


def test_a_table_without_files_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.csv").write_text("alpha,beta\n1,2\n3,4\n")
    found = prepare("speech", tmp_path / "in" / "list.csv")
    assert found.code == 2 and "alpha, beta" in found.message and "no column of file paths" in found.message


def test_splits_in_any_words(tmp_path: Path) -> None:
    words = ["Train", "TRAIN", "training", "Val", "dev", "Validation", "Test", "eval"]
    for number in range(len(words)):
        write_sound(tmp_path / "in" / f"{number}.wav", 200 + 30 * number)
    lines = [
        json.dumps({"path": f"{n}.wav", "split": word, "speaker": f"s{n}"}) for n, word in enumerate(words)
    ]
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(lines))
    found = prepare("speech", tmp_path / "in")
    assert {split: len(found.split(split)) for split in ("train", "valid", "test")} == {
        "train": 3,
        "valid": 3,
        "test": 2,
    }


def test_wisdm_names_the_columns_and_is_read_with_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [
        f"33,Jogging,{49_105_962_326_000 + 50_000_000 * n},{x:.4f},{y:.4f},{9 + z:.4f};"
        for n, (x, y, z) in enumerate(rng.normal(size=(1200, 3)))
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "raw.csv").write_text("\n".join(lines) + "\n")
    found = prepare("wearables", tmp_path / "in")
    assert found.code == 2 and "no header line" in found.message
    names = "modality.csv_columns=[subject,activity,time,x,y,z]"
    told = prepare("wearables", tmp_path / "in", names, "modality.calibrate=false")
    assert abs(sum(row["length"] for row in told.rows) - 1800) < 3 and {
        row["label"] for row in told.rows
    } == {"Jogging"}
    assert {row["group"] for row in told.rows} == {"33"}
